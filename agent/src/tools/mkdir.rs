//! `mkdir`: makes a directory and those above it, or none of them.

use std::os::fd::AsFd as _;

use corehold_types::{
    Code, Problem,
    tools::{Mkdir, MkdirRequest, MkdirResponse},
};
use rustix::{
    fs::{AtFlags, FileType, Mode},
    io::Errno,
};

use crate::{
    agent::Agent,
    audit::Touched,
    blocking,
    edit::{disk, location::Location, parents::Parents},
    handler::{Call, Events, Handler},
    root::FinalLink,
};

impl Handler for Mkdir {
    async fn handle(call: Call, request: MkdirRequest, _: Events<Self::Event>) -> Result<MkdirResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |_| notes.of(mkdir(&agent, &request), |done, touched| touched.counted(done.created, None)))
            .await
    }

    fn touches(request: &MkdirRequest, touched: &mut Touched) {
        touched.path(&request.path);
    }
}

fn mkdir(agent: &Agent, request: &MkdirRequest) -> Result<MkdirResponse, Problem> {
    if request.mode.is_some_and(|mode| mode > 0o777) {
        return Err(Problem::new(Code::InvalidRequest, "mode: permission bits are possible, up to 0o777 (511)"));
    }
    let there = || match request.exist_ok.unwrap_or(true) {
        true => Ok(MkdirResponse { created: 0 }),
        false => Err(Problem::new(Code::AlreadyExists, format!("{} exists already", request.path))
            .with("path", serde_json::to_value(&request.path).unwrap_or_default())),
    };
    let location = match Location::resolve(&agent.root, &request.path, FinalLink::Keep) {
        Ok(location) => location,
        // The root, or a path that ends in `..` or a slash: it is there, or else it is an error to say why not.
        Err(problem) if problem.code == Code::NotAFile => {
            return match agent.root.open_directory(&request.path) {
                Ok(_) => there(),
                Err(_) => mkdir(agent, &MkdirRequest { path: without_slash(request)?, ..request.clone() }),
            };
        }
        Err(problem) => return Err(problem),
    };
    let _held = agent.edits.hold_location(&location);
    if let Some(stat) = location.stat()? {
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            || (is_link && agent.root.open_directory(&request.path).is_ok());
        return if is_directory { there() } else { Err(location.problem(Errno::EXIST, "make")) };
    }
    if !location.missing.is_empty() && !request.parents.unwrap_or(true) {
        return Err(location.problem(Errno::NOENT, "open the directory of").suggest("`parents: true` makes it too"));
    }
    let errno = |errno| location.problem(errno, "make");
    let parents = Parents::make(&location)?;
    let directory = parents.directory.as_fd();
    if !disk::make_directory(directory, &location.name, 0o777).map_err(errno)? {
        return Err(errno(Errno::EXIST));
    }
    if let Some(mode) = request.mode {
        let given = rustix::fs::chmodat(directory, &location.name, Mode::from_raw_mode(mode), AtFlags::empty());
        if let Err(error) = given {
            let _ = disk::remove_directory(directory, &location.name);
            return Err(errno(error));
        }
    }
    let created = parents.count() + 1;
    parents.keep();
    Ok(MkdirResponse { created })
}

/// The path without the slash at its end, by which `mkdir` may name what isn't there yet.
fn without_slash(request: &MkdirRequest) -> Result<corehold_types::WorkspacePath, Problem> {
    use std::os::unix::ffi::OsStrExt as _;
    let refused = || Problem::new(Code::NotFound, format!("{} does not exist", request.path));
    let path = request.path.to_path_buf().map_err(|_| refused())?;
    let bytes = path.as_os_str().as_bytes();
    let trimmed = bytes.strip_suffix(b"/.").unwrap_or(bytes);
    let trimmed = &trimmed[..trimmed.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1)];
    if trimmed.is_empty() || trimmed == bytes {
        Err(refused())
    } else {
        Ok(corehold_types::WorkspacePath::from_bytes(trimmed))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing;

    fn request(path: &str) -> MkdirRequest {
        MkdirRequest { path: path.into(), parents: None, exist_ok: None, mode: None }
    }

    #[test]
    fn directories_are_made_with_those_above_them() {
        let agent = testing::agent();
        assert_eq!(mkdir(&agent, &request("a/b/c")).unwrap().created, 3);
        assert_eq!(mkdir(&agent, &request("a/b/c")).unwrap().created, 0);
        assert_eq!(mkdir(&agent, &request("d/e/")).unwrap().created, 2);
        assert_eq!(mkdir(&agent, &MkdirRequest { mode: Some(0o750), ..request("a/mode") }).unwrap().created, 1);
        assert_eq!(agent.root.path().join("a/mode").metadata().unwrap().permissions().mode() & 0o777, 0o750);
        for there in [".", "", "a/..", "a/"] {
            assert_eq!(mkdir(&agent, &request(there)).unwrap().created, 0, "{there:?}");
        }
        std::os::unix::fs::symlink("a", agent.root.path().join("link")).unwrap();
        assert_eq!(mkdir(&agent, &request("link")).unwrap().created, 0);
        assert_eq!(mkdir(&agent, &request("link/x")).unwrap().created, 1);
        assert!(agent.root.path().join("a/x").is_dir());
    }

    #[test]
    fn what_is_in_the_way_or_outside_is_refused_and_nothing_is_left() {
        let agent = testing::agent();
        std::fs::write(agent.root.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/tmp", agent.root.path().join("out")).unwrap();
        std::os::unix::fs::symlink("nowhere", agent.root.path().join("dangling")).unwrap();
        let long = format!("new/{}", "n".repeat(256));
        for (bad, code) in [
            (request("file"), Code::AlreadyExists),
            (request("file/x"), Code::NotADirectory),
            (request("dangling"), Code::AlreadyExists),
            (request("dangling/x"), Code::NotFound),
            (request("out/x"), Code::PathOutsideRoot),
            (request("../x"), Code::PathOutsideRoot),
            (request("/etc/x"), Code::PathOutsideRoot),
            (request("new/../../x"), Code::InvalidRequest),
            (request("a\0b"), Code::InvalidRequest),
            (request(&long), Code::InvalidRequest),
            (request(".corehold-journal"), Code::InvalidRequest),
            (MkdirRequest { parents: Some(false), ..request("no/parent") }, Code::NotFound),
            (MkdirRequest { exist_ok: Some(false), ..request(".") }, Code::AlreadyExists),
            (MkdirRequest { mode: Some(0o2755), ..request("new") }, Code::InvalidRequest),
        ] {
            assert_eq!(mkdir(&agent, &bad).unwrap_err().code, code, "{bad:?}");
        }
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 3);
    }
}
