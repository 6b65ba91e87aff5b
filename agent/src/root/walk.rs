//! Resolution one component at a time, each opened without following links beneath a directory that is held open.
//!
//! Used where the kernel has no `openat2`, and for what `RESOLVE_BENEATH` refuses though we don't: absolute symbolic
//! links that point into the root. `..` goes back to the directory by which the walk came, so it never rises above the
//! root, whatever is renamed meanwhile.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use super::{FinalLink, RelativePath, Root, openat, path::components};

/// Links followed before giving up, as the kernel does.
const LINKS: u32 = 40;

/// Where a walk ended.
pub(super) struct Found {
    /// The directory that holds the name, or the end itself.
    pub(super) directory: OwnedFd,
    /// The last component, which need not exist; nothing when the walk ended in `directory` itself.
    pub(super) name: Option<OsString>,
}

/// Walks a path from the root.
///
/// # Errors
/// `EXDEV` when it leads outside, else what the kernel says.
pub(super) fn walk(root: &Root, path: &RelativePath, last_link: FinalLink) -> Result<Found, Errno> {
    let mut pending = Pending::default();
    pending.push(path.as_bytes());
    let mut stack: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(component) = pending.pop() {
        if component == ".." {
            stack.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let directory: BorrowedFd<'_> = stack.last().map_or(root.as_fd(), |top| top.as_fd());
        let is_last = pending.is_empty();
        let entry = match openat(directory, &component, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(entry) => entry,
            Err(Errno::NOENT) if is_last && !pending.directory => return found(directory, Some(component)),
            Err(errno) => return Err(errno),
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Symlink if is_last && !pending.directory && last_link == FinalLink::Keep => {
                return found(directory, Some(component));
            }
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&entry, c"", Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    pending.push(root.beneath(&target).ok_or(Errno::XDEV)?);
                    stack.clear();
                } else {
                    pending.push(&target);
                }
            }
            FileType::Directory => stack.push(entry),
            _ if is_last && !pending.directory => return found(directory, Some(component)),
            _ => return Err(Errno::NOTDIR),
        }
    }
    found(stack.last().map_or(root.as_fd(), |top| top.as_fd()), None)
}

fn found(directory: BorrowedFd<'_>, name: Option<OsString>) -> Result<Found, Errno> {
    Ok(Found { directory: directory.try_clone_to_owned().map_err(|_| Errno::MFILE)?, name })
}

/// Components still to be walked, the next one last.
#[derive(Default)]
struct Pending {
    reversed: Vec<OsString>,
    /// Whether the end must be a directory, since the path or a link's target ends in a slash.
    directory: bool,
}

impl Pending {
    fn push(&mut self, path: &[u8]) {
        if self.reversed.is_empty() {
            self.directory |= path.ends_with(b"/") || path.ends_with(b"/.");
        }
        self.reversed.extend(components(path).rev().map(|component| OsStr::from_bytes(component).to_owned()));
    }

    fn pop(&mut self) -> Option<OsString> {
        self.reversed.pop()
    }

    fn is_empty(&self) -> bool {
        self.reversed.is_empty()
    }
}
