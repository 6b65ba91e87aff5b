//! `remove`: a directory vanishes by one rename, and what was in it is deleted after that.

use corehold_types::{
    Code, Problem,
    tools::{Remove, RemoveRequest, RemoveResponse},
};
use rustix::{
    fs::{AtFlags, FileType, Stat},
    io::Errno,
};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking,
    edit::{
        aside::Aside,
        disk::{self, Name},
        location::Location,
    },
    handler::{Call, Events, Handler},
    root::{Version, is_current},
};

impl Handler for Remove {
    async fn handle(call: Call, request: RemoveRequest, _: Events<Self::Event>) -> Result<RemoveResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |_| {
            let result = remove(&agent, &request, &notes);
            notes.of(result, |done, touched| touched.counted(done.removed, None))
        })
        .await
    }

    fn touches(request: &RemoveRequest, touched: &mut Touched) {
        touched.path(&request.path);
    }
}

fn remove(agent: &Agent, request: &RemoveRequest, notes: &Notes) -> Result<RemoveResponse, Problem> {
    let missing = |problem: Problem| match request.missing_ok.unwrap_or(false) && problem.code == Code::NotFound {
        true => Ok(RemoveResponse { removed: 0 }),
        false => Err(problem),
    };
    let location = match Location::resolve_entry(&agent.root, &request.path) {
        Ok(location) => location,
        Err(problem) => return missing(problem),
    };
    agent.edits.settle(&agent.root)?;
    let _held = agent.edits.hold_location(&location);
    let errno = |errno| location.problem(errno, "remove");
    let Some(stat) = location.stat()? else { return missing(errno(Errno::NOENT)) };
    if let Some(expected) = &request.expected {
        check(&location, &stat, expected)?;
    }
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let before = location.mark(&stat, &agent.config.limits);
    match rustix::fs::unlinkat(location.fd(), &location.name, flags) {
        Ok(()) => {
            notes.note(|touched| touched.changed(&request.path, before.as_deref(), None));
            return Ok(RemoveResponse { removed: 1 });
        }
        Err(Errno::NOTEMPTY | Errno::EXIST) if is_directory => {}
        Err(error) => return Err(errno(error)),
    }
    if !request.recursive.unwrap_or(false) {
        return Err(Problem::new(
            Code::DirectoryNotEmpty,
            format!("{} is a directory that is not empty", request.path),
        )
        .with("path", serde_json::to_value(&request.path).unwrap_or_default())
        .suggest("give `recursive: true` to remove what is in it too"));
    }
    let aside = Aside::beside(&agent.edits, &agent.root, &location, &location.directory)?;
    let place = Name(location.fd(), &location.name);
    disk::rename_new(place, aside.name()).map_err(errno)?;
    match aside.remove() {
        Ok(removed) => Ok(RemoveResponse { removed }),
        Err(error) => {
            // Something in it can't be removed. What is left comes back under its name, where it can be seen.
            let _ = disk::rename_new(aside.name(), place);
            Err(errno(error).suggest("what could be removed is gone; what is left is where it was"))
        }
    }
}

fn check(location: &Location, stat: &Stat, expected: &str) -> Result<(), Problem> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let what = format!("{} is not a regular file, so it has no version", location.path);
        return Err(Problem::new(Code::VersionMismatch, what));
    }
    let errno = |errno| location.problem(errno, "read");
    let failed = |error: std::io::Error| errno(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let file = disk::open(location.fd(), &location.name).map_err(errno)?;
    if is_current(&file, expected).map_err(failed)? {
        return Ok(());
    }
    let version = Version::of(&file).map_err(failed)?.into_string();
    Err(Problem::new(Code::VersionMismatch, format!("{} has changed since", location.path))
        .with("version", version)
        .suggest("read the file again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn request(path: &str, recursive: bool) -> RemoveRequest {
        RemoveRequest { path: path.into(), recursive: Some(recursive), missing_ok: None, expected: None }
    }

    fn run(agent: &Agent, request: &RemoveRequest) -> Result<u64, Code> {
        remove(agent, request, &Notes::default()).map(|response| response.removed).map_err(|problem| problem.code)
    }

    #[test]
    fn files_links_and_trees_go_and_what_links_lead_to_stays() {
        let agent = testing::agent();
        let at = |path: &str| agent.root.path().join(path);
        std::fs::create_dir_all(at("keep")).unwrap();
        std::fs::write(at("keep/file"), "x").unwrap();
        std::fs::create_dir_all(at("dir/sub")).unwrap();
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::write(at("dir/sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("../keep", at("dir/link")).unwrap();
        std::os::unix::fs::symlink("keep", at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(run(&agent, &request("dir", true)), Ok(4));
        for path in ["link", "pipe", "empty"] {
            assert_eq!(run(&agent, &request(path, false)), Ok(1), "{path}");
        }
        assert!(at("keep/file").exists());
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 1, "no litter");
    }

    #[test]
    fn refusals_leave_everything() {
        let agent = testing::agent();
        let at = |path: &str| agent.root.path().join(path);
        std::fs::create_dir_all(at("dir/sub")).unwrap();
        std::fs::write(at("file"), "x").unwrap();
        for (bad, code) in [
            (request("dir", false), Code::DirectoryNotEmpty),
            (request(".", true), Code::InvalidRequest),
            (request("", true), Code::InvalidRequest),
            (request("dir/..", true), Code::InvalidRequest),
            (request(agent.root.path().to_str().unwrap(), true), Code::InvalidRequest),
            (request("..", true), Code::InvalidRequest),
            (request("../x", true), Code::PathOutsideRoot),
            (request("/etc", true), Code::PathOutsideRoot),
            (request("gone", true), Code::NotFound),
            (request("gone/x", true), Code::NotFound),
            (request("file/x", true), Code::NotADirectory),
            (request("a\0", true), Code::InvalidRequest),
            (RemoveRequest { expected: Some("v".into()), ..request("file", false) }, Code::VersionMismatch),
            (RemoveRequest { expected: Some("v".into()), ..request("dir", true) }, Code::VersionMismatch),
        ] {
            assert_eq!(run(&agent, &bad), Err(code), "{bad:?}");
        }
        assert!(at("dir/sub").is_dir() && at("file").exists());
        for gone in ["gone", "gone/x"] {
            assert_eq!(run(&agent, &RemoveRequest { missing_ok: Some(true), ..request(gone, true) }), Ok(0));
        }
        let hash = blake3::hash(b"x").to_hex().to_string();
        assert_eq!(run(&agent, &RemoveRequest { expected: Some(hash), ..request("file", false) }), Ok(1));
    }
}
