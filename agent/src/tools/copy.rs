//! `copy`: made beside its place, then put there by one rename.

use std::os::fd::AsFd as _;

use corehold_types::{
    Code, Problem,
    tools::{Copy, CopyRequest, CopyResponse},
};
use rustix::{fs::FileType, io::Errno};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking::{self, Cancelled},
    edit::{
        aside::Aside,
        copy::{Copying, is_within},
        disk::{self, Name},
        location::Location,
        parents::Parents,
    },
    handler::{Call, Events, Handler},
};

impl Handler for Copy {
    async fn handle(call: Call, request: CopyRequest, _: Events<Self::Event>) -> Result<CopyResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |cancelled| {
            let result = copy(&agent, &request, cancelled, &notes);
            notes.of(result, |done, touched| {
                touched.counted(done.files + done.directories + done.symlinks, Some(done.bytes));
            })
        })
        .await
    }

    fn touches(request: &CopyRequest, touched: &mut Touched) {
        touched.paths([&request.from, &request.to]);
    }
}

fn copy(agent: &Agent, request: &CopyRequest, cancelled: &Cancelled, notes: &Notes) -> Result<CopyResponse, Problem> {
    let from = Location::resolve_entry(&agent.root, &request.from)?;
    let to = Location::resolve_entry(&agent.root, &request.to)?;
    agent.edits.settle(&agent.root)?;
    let source = from.stat()?.ok_or_else(|| from.problem(Errno::NOENT, "copy"))?;
    let is_directory = FileType::from_raw_mode(source.st_mode) == FileType::Directory;
    let is_special = !matches!(
        FileType::from_raw_mode(source.st_mode),
        FileType::RegularFile | FileType::Directory | FileType::Symlink
    );
    if is_special {
        return Err(from.problem(Errno::NXIO, "copy"));
    }
    if is_directory && !request.recursive.unwrap_or(false) {
        return Err(from.problem(Errno::ISDIR, "copy").suggest("give `recursive: true` to copy a directory"));
    }
    if is_directory && is_within(to.fd(), &source, agent.root.as_fd()).map_err(|errno| to.problem(errno, "look at"))? {
        return Err(Problem::new(Code::InvalidRequest, format!("{} lies in {}", request.to, request.from)));
    }
    // Only the place of the copy: the original may be read, and changed, by anybody meanwhile.
    let _held = agent.edits.hold_location(&to);
    let target = to.stat()?;
    if let Some(target) = &target {
        let in_the_way = FileType::from_raw_mode(target.st_mode) == FileType::Directory;
        if in_the_way || is_directory || !request.overwrite.unwrap_or(false) {
            let problem = to.problem(Errno::EXIST, "copy to");
            return Err(match in_the_way || is_directory {
                true => problem.suggest("directories are neither replaced nor merged; remove it first"),
                false => problem.suggest("give `overwrite: true` to replace it"),
            });
        }
    }
    if from.key == to.key {
        return Err(Problem::new(Code::InvalidRequest, format!("{} and {} are the same", request.from, request.to)));
    }
    let limits = &agent.config.limits;
    let replaced = target.as_ref().and_then(|target| to.mark(target, limits));
    let parents = Parents::make(&to)?;
    let copied;
    let done = {
        let aside = Aside::beside(&agent.edits, &agent.root, &to, &parents.directory)?;
        let mut copying = Copying { limits, cancelled, path: &request.from, done: CopyResponse::default() };
        copying.copy(Name(from.fd(), &from.name), aside.name())?;
        copied = Location::mark_of_own(aside.name(), limits);
        let place = Name(parents.directory.as_fd(), &to.name);
        let placed =
            if target.is_some() { disk::rename(aside.name(), place) } else { disk::rename_new(aside.name(), place) };
        placed.map_err(|errno| to.problem(errno, "copy to"))?;
        copying.done
    };
    parents.keep();
    notes.note(|touched| touched.changed(&request.to, replaced.as_deref(), copied.as_deref()));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::{self, TestAgent};

    fn request(from: &str, to: &str) -> CopyRequest {
        CopyRequest { from: from.into(), to: to.into(), recursive: Some(true), overwrite: Some(true) }
    }

    fn run(agent: &Agent, request: &CopyRequest) -> Result<CopyResponse, Code> {
        copy(agent, request, &Cancelled::default(), &Notes::default()).map_err(|problem| problem.code)
    }

    fn tree(variables: &[(&str, &str)]) -> TestAgent {
        let agent = testing::agent_with(variables);
        let at = |path: &str| agent.root.path().join(path);
        std::fs::create_dir_all(at("dir/sub/deep")).unwrap();
        std::fs::write(at("dir/file"), vec![7; 300_000]).unwrap();
        std::fs::write(at("dir/sub/empty"), "").unwrap();
        std::fs::set_permissions(at("dir/file"), PermissionsExt::from_mode(0o4751)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("dir/sub/link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("dir/pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::set_permissions(at("dir/sub/deep"), PermissionsExt::from_mode(0o555)).unwrap();
        agent
    }

    #[test]
    fn a_tree_is_copied_links_as_links_and_pipes_left_out() {
        let agent = tree(&[]);
        let at = |path: &str| agent.root.path().join(path);
        let done = run(&agent, &request("dir", "new/copy")).unwrap();
        assert_eq!(done, CopyResponse { files: 2, directories: 3, symlinks: 1, skipped: 1, bytes: 300_000 });
        assert_eq!(std::fs::read(at("new/copy/file")).unwrap(), vec![7; 300_000]);
        assert_eq!(
            at("new/copy/file").metadata().unwrap().permissions().mode() & 0o7777,
            0o751,
            "not the set-user-id bit"
        );
        assert_eq!(at("new/copy/sub/deep").metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(std::fs::read_link(at("new/copy/sub/link")).unwrap().to_str(), Some("/etc/passwd"));
        std::fs::write(at("over"), "old").unwrap();
        assert_eq!(run(&agent, &request("dir/file", "over")).unwrap().files, 1);
        assert_eq!(std::fs::read(at("over")).unwrap().len(), 300_000);
        assert_eq!(run(&agent, &request("dir/sub/link", "link2")).unwrap().symlinks, 1);
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 4, "no litter");
    }

    #[test]
    fn what_can_not_be_is_refused_and_leaves_nothing() {
        let agent = tree(&[("COREHOLD_LIMIT_COPY_BYTES", "299999")]);
        std::fs::write(agent.root.path().join("small"), "x").unwrap();
        for (bad, code) in [
            (request("gone", "x/y"), Code::NotFound),
            (CopyRequest { recursive: None, ..request("dir", "x") }, Code::NotAFile),
            (CopyRequest { overwrite: None, ..request("dir/sub/empty", "small") }, Code::AlreadyExists),
            (request("small", "dir"), Code::AlreadyExists),
            (request("dir", "small"), Code::AlreadyExists),
            (request("small", "./small"), Code::InvalidRequest),
            (request("dir", "dir/x"), Code::InvalidRequest),
            (request("dir", "dir/sub/x/y"), Code::InvalidRequest),
            (request("dir", "x/y"), Code::LimitExceeded),
            (request("dir/pipe", "x"), Code::NotAFile),
            (request(".", "x"), Code::InvalidRequest),
            (request("small", ".."), Code::InvalidRequest),
            (request("small", "../x"), Code::PathOutsideRoot),
            (request("/etc/passwd", "x"), Code::PathOutsideRoot),
            (request("dir/sub/link/x", "x"), Code::PathOutsideRoot),
            (request("small", "a\0"), Code::InvalidRequest),
        ] {
            assert_eq!(run(&agent, &bad), Err(code), "{bad:?}");
        }
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 2, "no litter");
        let few = tree(&[("COREHOLD_LIMIT_COPY_ENTRIES", "3")]);
        assert_eq!(run(&few, &request("dir", "x")), Err(Code::LimitExceeded));
    }
}
