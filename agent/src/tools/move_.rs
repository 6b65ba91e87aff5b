//! `move`: one rename, or where two file systems meet, a copy that takes its place at once and then a removal.

use std::os::fd::AsFd as _;

use corehold_types::{
    Code, Problem,
    tools::{CopyResponse, Move, MoveRequest, MoveResponse},
};
use rustix::{fs::FileType, io::Errno};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking::{self, Cancelled},
    edit::{
        aside::Aside,
        copy::Copying,
        disk::{self, Name},
        location::Location,
        parents::Parents,
        tree,
    },
    handler::{Call, Events, Handler},
    root::is_hash,
};

impl Handler for Move {
    async fn handle(call: Call, request: MoveRequest, _: Events<Self::Event>) -> Result<MoveResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |cancelled| move_(&agent, &request, cancelled, &notes)).await
    }

    fn touches(request: &MoveRequest, touched: &mut Touched) {
        touched.paths([&request.from, &request.to]);
    }
}

fn move_(agent: &Agent, request: &MoveRequest, cancelled: &Cancelled, notes: &Notes) -> Result<MoveResponse, Problem> {
    let from = Location::resolve_entry(&agent.root, &request.from)?;
    let to = Location::resolve_entry(&agent.root, &request.to)?;
    agent.edits.settle(&agent.root)?;
    let _held = agent.edits.hold_locations([&from, &to]);
    let source = from.stat()?.ok_or_else(|| from.problem(Errno::NOENT, "move"))?;
    if from.key == to.key {
        return Ok(MoveResponse { replaced: false });
    }
    let target = to.stat()?;
    let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
    if let Some(target) = &target {
        if !request.overwrite.unwrap_or(false) {
            return Err(to.problem(Errno::EXIST, "move to").suggest("give `overwrite: true` to replace it"));
        }
        match (is_directory(source.st_mode), is_directory(target.st_mode)) {
            (true, false) => return Err(to.problem(Errno::NOTDIR, "move to")),
            (false, true) => return Err(to.problem(Errno::ISDIR, "move to")),
            _ => {}
        }
    }
    let limits = &agent.config.limits;
    let moved = from.mark(&source, limits);
    let replaced = target.as_ref().and_then(|target| to.mark(target, limits));
    let parents = Parents::make(&to)?;
    let (old, new) = (Name(from.fd(), &from.name), Name(parents.directory.as_fd(), &to.name));
    let renamed = if target.is_some() { disk::rename(old, new) } else { disk::rename_new(old, new) };
    match renamed {
        Ok(()) => {}
        Err(Errno::INVAL) => {
            return Err(Problem::new(Code::InvalidRequest, format!("{} lies in {}", request.to, request.from)));
        }
        Err(Errno::NOTEMPTY) => {
            return Err(Problem::new(Code::DirectoryNotEmpty, format!("{} is not empty", request.to))
                .suggest("only an empty directory is replaced; remove it first"));
        }
        // Of the same directory, a file system that can't rename without replacing: looked at above.
        Err(Errno::XDEV) => {
            let aside = Aside::beside(&agent.edits, &agent.root, &to, &parents.directory)?;
            let mut copying = Copying { limits, cancelled, path: &request.from, done: CopyResponse::default() };
            copying.copy(old, aside.name())?;
            if copying.done.skipped > 0 {
                let what =
                    format!("{} has sockets, pipes or devices, which can't go to another file system", request.from);
                return Err(Problem::new(Code::NotAFile, what));
            }
            let placed =
                if target.is_some() { disk::rename(aside.name(), new) } else { disk::rename_new(aside.name(), new) };
            placed.map_err(|errno| to.problem(errno, "move to"))?;
            tree::remove(from.fd(), &from.name).map_err(|errno| {
                from.problem(errno, "remove")
                    .suggest("everything is copied to the new path; the old one is left in part")
            })?;
        }
        Err(errno) => return Err(to.problem(errno, "move to")),
    }
    parents.keep();
    notes.note(|touched| {
        touched.changed(&request.from, moved.as_deref(), None);
        // A version doesn't outlast a rename.
        touched.changed(&request.to, replaced.as_deref(), moved.as_deref().filter(|mark| is_hash(mark)));
    });
    Ok(MoveResponse { replaced: target.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn request(from: &str, to: &str, overwrite: bool) -> MoveRequest {
        MoveRequest { from: from.into(), to: to.into(), overwrite: Some(overwrite) }
    }

    fn run(agent: &Agent, request: &MoveRequest) -> Result<bool, Code> {
        let moved = move_(agent, request, &Cancelled::default(), &Notes::default());
        moved.map(|response| response.replaced).map_err(|problem| problem.code)
    }

    #[test]
    fn files_links_and_directories_move() {
        let agent = testing::agent();
        let at = |path: &str| agent.root.path().join(path);
        std::fs::create_dir_all(at("dir/sub")).unwrap();
        std::fs::write(at("dir/sub/file"), "x").unwrap();
        std::fs::write(at("other"), "y").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        assert_eq!(run(&agent, &request("dir", "new/place", false)), Ok(false));
        assert_eq!(std::fs::read(at("new/place/sub/file")).unwrap(), b"x");
        assert_eq!(run(&agent, &request("link", "moved", false)), Ok(false));
        assert!(at("moved").symlink_metadata().unwrap().is_symlink());
        assert_eq!(run(&agent, &request("new/place/sub/file", "other", true)), Ok(true));
        assert_eq!(std::fs::read(at("other")).unwrap(), b"x");
        assert_eq!(run(&agent, &request("other", "./other", false)), Ok(false));
        std::fs::create_dir(at("empty")).unwrap();
        assert_eq!(run(&agent, &request("new/place", "empty", true)), Ok(true));
        assert!(at("empty/sub").is_dir());
    }

    /// `/dev/shm` is another file system than the temporary directory's, and mounts need rights; so the copying half is
    /// tried where it begins, in `copy`, and what is refused here.
    #[test]
    fn what_can_not_be_is_refused_and_leaves_nothing() {
        let agent = testing::agent();
        let at = |path: &str| agent.root.path().join(path);
        std::fs::create_dir_all(at("dir/sub")).unwrap();
        std::fs::write(at("file"), "x").unwrap();
        std::fs::create_dir_all(at("full/x")).unwrap();
        for (bad, code) in [
            (request("gone", "x/y", false), Code::NotFound),
            (request("file", "dir", false), Code::AlreadyExists),
            (request("file", "dir", true), Code::NotAFile),
            (request("dir", "file", true), Code::NotADirectory),
            (request("dir", "full", true), Code::DirectoryNotEmpty),
            (request("dir", "dir/sub/x/y", false), Code::InvalidRequest),
            (request(".", "x", false), Code::InvalidRequest),
            (request("file", ".", true), Code::InvalidRequest),
            (request("dir/..", "x", false), Code::InvalidRequest),
            (request("file", "../x", false), Code::PathOutsideRoot),
            (request("/etc/passwd", "x", false), Code::PathOutsideRoot),
            (request("file", "file/x", false), Code::NotADirectory),
            (request("file", "a\0", false), Code::InvalidRequest),
            (request("file", ".corehold-journal", false), Code::InvalidRequest),
        ] {
            assert_eq!(run(&agent, &bad), Err(code), "{bad:?}");
        }
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 3);
        assert_eq!(std::fs::read_dir(at("dir/sub")).unwrap().count(), 0);
    }
}
