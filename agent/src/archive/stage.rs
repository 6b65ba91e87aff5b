//! The staging directory, inside the destination so that moving out of it is a rename.

use std::{
    ffi::{OsStr, OsString},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use corehold_types::{Problem, WorkspacePath};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir},
    io::Errno,
};

use crate::root::{Own, Root, openat, os_problem, stat_at};

const READABLE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A staging directory. It goes, with what is left in it, when this is dropped.
pub(super) struct Stage<'a> {
    root: &'a Root,
    destination: OwnedFd,
    directory: OwnedFd,
    name: OsString,
    /// A link in the root that says where the stage is, if that isn't the root: for the sweep of the next agent.
    pointer: Option<OsString>,
}

impl<'a> Stage<'a> {
    /// Makes one in a directory that exists.
    pub(super) fn create(root: &'a Root, path: &WorkspacePath) -> Result<Self, Problem> {
        let failed = |errno: Errno| os_problem(errno, "extract into", path);
        let destination = root.open_directory(path)?;
        let pointer = pointer(root, path)?;
        let name = Own::Stage.new_name().map_err(failed)?;
        rustix::fs::mkdirat(&destination, &name, Mode::RWXU).map_err(failed)?;
        let directory = openat(destination.as_fd(), &name, READABLE).map_err(failed)?;
        Ok(Self { root, destination, directory, name, pointer })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn destination(&self) -> BorrowedFd<'_> {
        self.destination.as_fd()
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.destination.as_fd(), &self.name) {
            tracing::error!(%error, name = %self.name.display(), "a staging directory can't be removed");
        }
        if let Some(pointer) = &self.pointer {
            let _ = rustix::fs::unlinkat(self.root.as_fd(), pointer, AtFlags::empty());
        }
    }
}

fn pointer(root: &Root, path: &WorkspacePath) -> Result<Option<OsString>, Problem> {
    let relative = root.relative(path)?;
    if relative.as_prefix().is_empty() {
        return Ok(None);
    }
    let failed = |errno: Errno| os_problem(errno, "extract into", path);
    let name = Own::Pointer.new_name().map_err(failed)?;
    match rustix::fs::symlinkat(relative.as_path(), root.as_fd(), &name) {
        Ok(()) => Ok(Some(name)),
        // A root that only its subdirectories are writable of: a killed agent's stage would stay. Not worth failing for.
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// Removes what an agent that was killed has left in the root, and where its pointers say. What transactions have left only if they were
/// `recovered`: until then it is all that there is of files, old and new.
pub(crate) fn sweep(root: &Root, recovered: bool) {
    let Ok(top) = root.open_directory(&".".into()) else { return };
    let own_names = |directory: BorrowedFd<'_>| {
        let mut names = own_names(directory);
        names.retain(|name| recovered || Own::of(name.as_bytes()) != Some(Own::Edit));
        names
    };
    for name in own_names(top.as_fd()) {
        if Own::of(name.as_bytes()) == Some(Own::Pointer)
            && let Ok(target) = rustix::fs::readlinkat(&top, &name, Vec::new())
            && let Ok(directory) = root.open_directory(&WorkspacePath::from_bytes(target.as_bytes()))
        {
            for left in own_names(directory.as_fd()) {
                swept(directory.as_fd(), &left);
            }
        }
        swept(top.as_fd(), &name);
    }
}

fn swept(directory: BorrowedFd<'_>, name: &OsStr) {
    match remove(directory, name) {
        Ok(()) => tracing::info!(name = %name.display(), "removed what a killed agent had left"),
        Err(error) => tracing::warn!(%error, name = %name.display(), "what a killed agent had left can't be removed"),
    }
}

fn own_names(directory: BorrowedFd<'_>) -> Vec<OsString> {
    let names = names(directory).unwrap_or_default();
    names.into_iter().filter(|name| Own::of(name.as_bytes()).is_some()).collect()
}

/// All names in a directory that was opened for reading, and not read yet.
pub(super) fn names(directory: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a name and, if it is a directory, all beneath it. Follows no link, and takes no stack for depth.
fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    struct Level {
        name: OsString,
        directory: OwnedFd,
        names: Vec<OsString>,
    }
    let open = |above: BorrowedFd<'_>, name: &OsStr| -> Result<Level, Errno> {
        let opened = match openat(above, name, READABLE) {
            // A directory that its mode keeps us out of, though it is ours.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(above, name, Mode::RWXU, AtFlags::empty())?;
                openat(above, name, READABLE)?
            }
            result => result?,
        };
        // Names can only be removed from a directory that may be written and searched.
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
        Ok(Level { name: name.to_owned(), names: names(opened.as_fd())?, directory: opened })
    };
    let is_directory = |above: BorrowedFd<'_>, name: &OsStr| -> Result<bool, Errno> {
        Ok(FileType::from_raw_mode(stat_at(above, name)?.st_mode) == FileType::Directory)
    };
    if !is_directory(directory, name)? {
        return rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
    let mut levels = vec![open(directory, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop() {
            match rustix::fs::unlinkat(&level.directory, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) if is_directory(level.directory.as_fd(), &name)? => {
                    let next = open(level.directory.as_fd(), &name)?;
                    levels.push(next);
                }
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        } else if let Some(done) = levels.pop() {
            let above = levels.last().map_or(directory, |level| level.directory.as_fd());
            rustix::fs::unlinkat(above, &done.name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}
