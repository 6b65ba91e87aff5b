//! `stat`: what paths are. Nothing is opened but regular files, and those never for longer than it takes to hash them.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
};

use corehold_types::{
    Code, Problem, Timestamp, WorkspacePath,
    tools::{EntryKind, Stat, StatEntry, StatRequest, StatResponse, StatResult},
};
use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use crate::{
    agent::Agent,
    audit::Touched,
    blocking::{self, Cancelled},
    edit::disk,
    handler::{Call, Events, Handler},
    root::{self, FinalLink, Version, os_problem},
};

/// Bytes of the agent's memory that what is said about a path takes, with the longest that a link can lead to.
const ENTRY_MEMORY: usize = 512 + 4096;

impl Handler for Stat {
    async fn handle(call: Call, request: StatRequest, _: Events<Self::Event>) -> Result<StatResponse, Problem> {
        let agent = call.agent;
        let most = request.paths.len().min(agent.config.limits.stat_paths.as_usize());
        call.share.gather(most.saturating_mul(ENTRY_MEMORY)).await?;
        blocking::run(move |cancelled| stat(&agent, &request, cancelled)).await
    }

    fn touches(request: &StatRequest, touched: &mut Touched) {
        touched.paths(&request.paths);
    }
}

fn stat(agent: &Agent, request: &StatRequest, cancelled: &Cancelled) -> Result<StatResponse, Problem> {
    if request.paths.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "paths: at least one path is needed").with("field", "paths"));
    }
    let most = agent.config.limits.stat_paths;
    if request.paths.len() as u64 > most.value {
        return Err(most.exceeded("the number of paths"));
    }
    let mut entries = Vec::with_capacity(request.paths.len());
    for path in &request.paths {
        if cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        entries.push(match describe(agent, path, request, cancelled) {
            Ok(entry) => StatResult::Ok(entry),
            Err(problem) => StatResult::Error { path: path.clone(), problem },
        });
    }
    Ok(StatResponse { entries })
}

fn describe(
    agent: &Agent,
    path: &WorkspacePath,
    request: &StatRequest,
    cancelled: &Cancelled,
) -> Result<StatEntry, Problem> {
    let errno = |errno| os_problem(errno, "look at", path);
    let link = if request.follow.unwrap_or(false) { FinalLink::Follow } else { FinalLink::Keep };
    // An entry without a name of its own (the root, a path that ends in `..`) is a directory, opened as such.
    let (stat, file, target) = match agent.root.place(path, link) {
        Ok(place) => {
            let directory = place.directory.as_fd();
            let stat = root::stat_at(directory, &place.name).map_err(errno)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
                    match root::openat(directory, &place.name, flags) {
                        // What was opened counts, should it be another file than the one before.
                        Ok(opened) => (rustix::fs::fstat(&opened).map_err(errno)?, Some(opened), None),
                        Err(Errno::ACCESS) if !request.hash.unwrap_or(false) => (stat, None, None),
                        Err(error) => return Err(errno(error)),
                    }
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(directory, &place.name, Vec::new()).map_err(errno)?;
                    (stat, None, Some(WorkspacePath::from_bytes(target.as_bytes())))
                }
                _ => (stat, None, None),
            }
        }
        Err(problem) if problem.code == Code::NotAFile => {
            let opened = agent.root.open_directory(path)?;
            (rustix::fs::fstat(&opened).map_err(errno)?, None, None)
        }
        Err(problem) => return Err(problem),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Special,
    };
    let file: Option<File> = file.filter(|_| kind == EntryKind::File).map(|file: OwnedFd| file.into());
    let failed = |error: std::io::Error| errno(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let version = file.as_ref().map(Version::of).transpose().map_err(failed)?;
    let hash = match &file {
        Some(file) if request.hash.unwrap_or(false) => Some(hash(file, cancelled).map_err(failed)?),
        _ => None,
    };
    Ok(StatEntry {
        path: path.clone(),
        kind,
        size: if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: disk::links(&stat),
        modified: Timestamp::from_unix(stat.st_mtime, stat.st_mtime_nsec as u32),
        changed: Timestamp::from_unix(stat.st_ctime, stat.st_ctime_nsec as u32),
        version: version.map(Version::into_string),
        hash,
        target,
    })
}

fn hash(file: &File, cancelled: &Cancelled) -> std::io::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(_) if cancelled.is_set() => return Err(std::io::ErrorKind::TimedOut.into()),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                offset += length as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn one(agent: &Agent, path: &str, follow: bool) -> Result<StatEntry, Code> {
        let request = StatRequest { paths: vec![path.into()], follow: Some(follow), hash: Some(true) };
        match stat(agent, &request, &Cancelled::default()).unwrap().entries.remove(0) {
            StatResult::Ok(entry) => Ok(entry),
            StatResult::Error { problem, .. } => Err(problem.code),
        }
    }

    #[test]
    fn every_kind_is_told_and_pipes_are_not_opened() {
        let agent = testing::agent();
        let at = |name: &str| agent.root.path().join(name);
        std::fs::write(at("file"), "abc").unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        for (target, name) in [("file", "link"), (".", "here"), ("/etc/passwd", "outside"), ("gone", "dangling")] {
            std::os::unix::fs::symlink(target, at(name)).unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let file = one(&agent, "file", false).unwrap();
        assert_eq!((file.kind, file.size, file.links), (EntryKind::File, 3, 1));
        assert_eq!(file.hash, Some(blake3::hash(b"abc").to_hex().to_string()));
        assert_eq!(file.version.as_deref(), one(&agent, "link", true).unwrap().version.as_deref());
        let link = one(&agent, "link", false).unwrap();
        assert_eq!((link.kind, link.target, link.version), (EntryKind::Symlink, Some("file".into()), None));
        for path in ["dir", "dir/", ".", "", "dir/..", "here/."] {
            assert_eq!(one(&agent, path, false).unwrap().kind, EntryKind::Directory, "{path:?}");
        }
        assert_eq!(one(&agent, "here", true).unwrap().kind, EntryKind::Directory);
        assert_eq!(one(&agent, "pipe", false).unwrap().kind, EntryKind::Special);
        assert_eq!(one(&agent, "dangling", true), Err(Code::NotFound));
        assert_eq!(one(&agent, "outside", true), Err(Code::PathOutsideRoot));
        assert!(one(&agent, "outside", false).is_ok(), "the link itself is inside");
    }

    #[test]
    fn bad_paths_fail_alone_and_bad_requests_as_a_whole() {
        let agent = testing::agent_with(&[("COREHOLD_LIMIT_STAT_PATHS", "8")]);
        for (path, code) in [
            ("gone", Code::NotFound),
            ("a\0b", Code::InvalidRequest),
            ("..", Code::PathOutsideRoot),
            ("/etc", Code::PathOutsideRoot),
        ] {
            assert_eq!(one(&agent, path, false), Err(code), "{path:?}");
        }
        let refused = |count| {
            let request = StatRequest { paths: vec!["a".into(); count], ..StatRequest::default() };
            stat(&agent, &request, &Cancelled::default()).unwrap_err().code
        };
        assert_eq!((refused(0), refused(9)), (Code::InvalidRequest, Code::LimitExceeded));
    }
}
