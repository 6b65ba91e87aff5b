//! What was staged takes the place of what is in the destination: what is there moves aside, the staged moves in, and what
//! is aside goes. If a rename fails, all are undone, so the destination is either as it was or as the archive is.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

use super::stage::{Stage, names};
use crate::root::{Own, openat, os_problem, stat_at};

const READABLE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Replaces all that is in the destination, but for what the agent keeps there, with what is staged. `aside` is an empty stage
/// in the same destination, whose content goes with it.
pub(super) fn replace(stage: &Stage<'_>, aside: &Stage<'_>, destination: &WorkspacePath) -> Result<(), Problem> {
    let failed = |name: &OsStr, errno: Errno| {
        let whole = [destination.to_string().as_bytes(), name.as_bytes()].join(&b'/');
        match errno {
            Errno::XDEV | Errno::BUSY => Problem::new(
                Code::PermissionDenied,
                format!("{} is of another file system or in use as one, and can't be replaced", whole.escape_ascii()),
            )
            .suggest("extract without `replace`, or into the mounted directory itself"),
            errno => os_problem(errno, "replace", &WorkspacePath::from_bytes(&whole)),
        }
    };
    let mut moves = Moves { from: Vec::new() };
    let result = moves.all(stage, aside);
    result.map_err(|(name, errno)| {
        moves.undo();
        failed(&name, errno)
    })
}

/// A rename that was made.
struct Move<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: OsString,
    /// The mode of a directory that had to become writable to be moved.
    mode: Option<Mode>,
}

struct Moves<'a> {
    from: Vec<Move<'a>>,
}

impl<'a> Moves<'a> {
    fn all(&mut self, stage: &'a Stage<'_>, aside: &'a Stage<'_>) -> Result<(), (OsString, Errno)> {
        let at_all = |errno| (OsString::from("."), errno);
        for (from, to) in [(stage.destination(), aside.directory()), (stage.directory(), stage.destination())] {
            let listed = openat(from, OsStr::new("."), READABLE).map_err(at_all)?;
            for name in names(listed.as_fd()).map_err(at_all)? {
                // Stages and journals lie in the destination too.
                if Own::of(name.as_bytes()).is_none() {
                    self.one(from, to, &name).map_err(|errno| (name, errno))?;
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, from: BorrowedFd<'a>, to: BorrowedFd<'a>, name: &OsStr) -> Result<(), Errno> {
        let mut mode = None;
        let mut moved = rename(from, to, name);
        if moved == Err(Errno::ACCESS) {
            // A directory can only be moved while its owner may write to it.
            mode = make_writable(from, name)?;
            moved = rename(from, to, name);
        }
        match moved {
            Ok(()) => {}
            // Gone since the directory was read: nothing to move.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                restore(from, name, mode);
                return Err(errno);
            }
        }
        self.from.push(Move { from, to, name: name.to_owned(), mode });
        Ok(())
    }

    fn undo(&mut self) {
        while let Some(Move { from, to, name, mode }) = self.from.pop() {
            match rename(to, from, &name) {
                Ok(()) => restore(from, &name, mode),
                Err(error) => {
                    tracing::error!(%error, name = %name.display(), "what was to be replaced can't be put back");
                }
            }
        }
    }
}

/// Never over something that came meanwhile.
fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(from, name, to, name),
        result => result,
    }
}

/// Gives a directory's owner all rights, and says which mode it had; nothing for what is no directory.
fn make_writable(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Mode>, Errno> {
    let stat = stat_at(directory, name)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::ACCESS);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    rustix::fs::chmodat(directory, name, mode | Mode::RWXU, AtFlags::empty())?;
    Ok(Some(mode))
}

fn restore(directory: BorrowedFd<'_>, name: &OsStr, mode: Option<Mode>) {
    if let Some(mode) = mode {
        let _ = rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
    }
}
