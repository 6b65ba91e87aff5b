//! What was staged moves to its places: a plan first, then renames, undone again if one of them fails.
//!
//! What doesn't exist in the destination is moved whole, so a fresh destination costs one rename a top-level name.
//! Directories that exist on both sides are merged; anything else that exists is exchanged with the new, and goes with
//! the stage once all is done.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::{
    fs::{Access, AtFlags, FileType, OFlags, RenameFlags},
    io::Errno,
};

use super::{
    descent::Descent,
    stage::{Stage, names},
};
use crate::root::{openat, os_problem, stat_at};

/// The directories that were there before and were merged into, by their paths in the destination.
#[derive(Debug, Default)]
pub(super) struct Merged(HashSet<Vec<u8>>);

impl Merged {
    /// Whether a directory was there before.
    pub(super) fn existed(&self, path: &[u8]) -> bool {
        self.0.contains(path)
    }
}

/// Moves everything from the stage into the destination, or nothing.
pub(super) fn merge(stage: &Stage<'_>, destination: &WorkspacePath) -> Result<Merged, Problem> {
    let failed = |path: &[u8], errno: Errno| {
        let whole = [destination.to_string().as_bytes(), path].join(&b'/');
        match errno {
            Errno::ISDIR => Problem::new(
                Code::AlreadyExists,
                format!("{} is a directory, and the archive has something else of that name", whole.escape_ascii()),
            ),
            Errno::XDEV => Problem::new(
                Code::PermissionDenied,
                format!("{} is on another file system than the directory to extract into", whole.escape_ascii()),
            )
            .suggest("extract into the mounted directory itself"),
            errno => os_problem(errno, "extract", &WorkspacePath::from_bytes(&whole)),
        }
    };
    let mut plan = Plan::default();
    let again = |directory: BorrowedFd<'_>| openat(directory, OsStr::new("."), READABLE);
    let (from, to) = (again(stage.directory()), again(stage.destination()));
    let (from, to) = (from.map_err(|errno| failed(b"", errno))?, to.map_err(|errno| failed(b"", errno))?);
    plan.directory(from, to).map_err(|errno| failed(&plan.path.join(&b'/'), errno))?;
    let mut moves = Moves { from: Descent::new(stage.directory()), to: Descent::new(stage.destination()) };
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(errno) = moves.make(step) {
            for done in plan.steps[..index].iter().rev() {
                moves.undo(done);
            }
            return Err(failed(step, errno));
        }
    }
    Ok(plan.merged)
}

const READABLE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Default)]
struct Plan {
    /// Paths that are moved or exchanged. There may be a million, so each is one piece of memory.
    steps: Vec<Vec<u8>>,
    merged: Merged,
    /// Where the plan is at; after a failure, what failed.
    path: Vec<Vec<u8>>,
}

impl Plan {
    /// Plans for one pair of directories. The depth is that of the stage, which is bounded.
    fn directory(&mut self, from: OwnedFd, to: OwnedFd) -> Result<(), Errno> {
        let mut changes = false;
        for name in names(from.as_fd())? {
            // The stage is in the destination; an archive that names it would merge it into itself.
            self.path.push(name.as_bytes().to_vec());
            let staged = kind(from.as_fd(), &name)?.ok_or(Errno::NOENT)?;
            match (staged, kind(to.as_fd(), &name)?) {
                (FileType::Directory, Some(FileType::Directory)) => {
                    let below = (openat(from.as_fd(), &name, READABLE)?, openat(to.as_fd(), &name, READABLE)?);
                    self.directory(below.0, below.1)?;
                    self.merged.0.insert(self.path.join(&b'/'));
                }
                (_, Some(FileType::Directory)) => return Err(Errno::ISDIR),
                _ => {
                    changes = true;
                    self.steps.push(self.path.join(&b'/'));
                }
            }
            self.path.pop();
        }
        if changes {
            // Better known before the first rename than after.
            rustix::fs::accessat(&to, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
        }
        Ok(())
    }
}

struct Moves<'a> {
    from: Descent<'a>,
    to: Descent<'a>,
}

impl Moves<'_> {
    fn make(&mut self, step: &[u8]) -> Result<(), Errno> {
        let (name, from, to) = self.sides(step)?;
        // What is there may have come or gone since the plan was made; each way is tried until one fits.
        for _ in 0..8 {
            match rename(from, to, name, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
            match rename(from, to, name, RenameFlags::EXCHANGE) {
                Err(Errno::NOENT) => {}
                result => return result,
            }
        }
        Err(Errno::BUSY)
    }

    /// Puts a name back: an old file is then in the stage to be exchanged back, or there is none.
    fn undo(&mut self, step: &[u8]) {
        let Ok((name, from, to)) = self.sides(step) else { return };
        let result = match rename(to, from, name, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => rename(to, from, name, RenameFlags::NOREPLACE),
            result => result,
        };
        if let Err(error) = result {
            tracing::error!(%error, name = %name.display(), "a file that was extracted can't be taken back");
        }
    }

    fn sides<'s>(&'s mut self, step: &'s [u8]) -> Result<(&'s OsStr, BorrowedFd<'s>, BorrowedFd<'s>), Errno> {
        let components: Vec<&[u8]> = step.split(|byte| *byte == b'/').collect();
        let (name, above) = components.split_last().ok_or(Errno::INVAL)?;
        Ok((OsStr::from_bytes(name), self.from.enter(above)?, self.to.enter(above)?))
    }
}

/// Renames by `renameat2`. A file system without the flag (`EINVAL`) gets the plain rename, which can't be undone where
/// it replaces something.
fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, flags: RenameFlags) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, name, flags) {
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(from, name, to, name),
        result => result,
    }
}

fn kind(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match stat_at(directory, name) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
