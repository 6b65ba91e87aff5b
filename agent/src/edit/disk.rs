//! Every call by which the engine changes the disk. Names are single components beneath a directory that is held open, so
//! nothing here resolves a path.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Statx, StatxFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::faults::{Step, kernel_exchanges, step, synced};

/// Bytes between two looks at a full disk; also what a test sees of a file that is half written.
const PIECE: usize = 1 << 20;

/// What is under a name, itself and not what a link leads to; nothing if there is nothing.
pub(crate) fn stat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// How many names a file has.
#[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
pub(crate) fn links(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Which file is under a name, if any: its inode and when that was born, since inode numbers are used again. Renames change
/// neither. Where the file system doesn't know births, they are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    inode: u64,
    born: (i64, u32),
}

impl Identity {
    pub(crate) fn of(file: &File) -> Result<Self, Errno> {
        Self::from_statx(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, Self::ASKED))
    }

    pub(crate) fn at(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Self>, Errno> {
        match Self::from_statx(rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, Self::ASKED)) {
            Err(Errno::NOENT) => Ok(None),
            identity => identity.map(Some),
        }
    }

    const ASKED: StatxFlags = StatxFlags::INO.union(StatxFlags::BTIME);

    fn from_statx(statx: Result<Statx, Errno>) -> Result<Self, Errno> {
        statx.map(|statx| Self { inode: statx.stx_ino, born: (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec) })
    }
}

/// Opens a regular file for reading, and never waits for the other end of a pipe.
pub(crate) fn open(directory: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::NXIO),
    }
}

/// Opens a directory beneath another, not following a link.
pub(crate) fn open_directory(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Makes a file that must not be there yet.
pub(crate) fn create(directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<File, Errno> {
    step(Step::Takes)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Writes at the end of what was written.
pub(crate) fn write(mut file: &File, bytes: &[u8]) -> Result<(), Errno> {
    for piece in bytes.chunks(PIECE) {
        step(Step::Takes)?;
        file.write_all(piece).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(())
}

/// Any change of a file's attributes.
pub(crate) fn attribute(change: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    step(Step::Takes)?;
    change()
}

/// Shortens a file.
pub(crate) fn truncate(file: &File, length: u64) -> Result<(), Errno> {
    step(Step::Frees)?;
    rustix::fs::ftruncate(file, length)
}

/// Puts a file's content on the disk.
pub(crate) fn sync(file: &File) -> Result<(), Errno> {
    step(Step::Takes)?;
    rustix::fs::fsync(file)?;
    synced(file);
    Ok(())
}

/// Puts a directory's names on the disk.
pub(crate) fn sync_directory(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    step(Step::Frees)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::fsync(rustix::fs::openat(directory, c".", flags, Mode::empty())?)?;
    synced(directory);
    Ok(())
}

/// The same for several, each once however often it is named.
pub(crate) fn sync_directories<'a>(directories: impl IntoIterator<Item = &'a Rc<OwnedFd>>) -> Result<(), Errno> {
    let mut done = BTreeSet::new();
    for directory in directories {
        let stat = rustix::fs::fstat(directory)?;
        if done.insert((stat.st_dev, stat.st_ino)) {
            sync_directory(directory.as_fd())?;
        }
    }
    Ok(())
}

/// Makes a directory; `false` if it is there already.
pub(crate) fn make_directory(directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<bool, Errno> {
    step(Step::Takes)?;
    match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes a directory if it is empty; that it isn't, or isn't there, is fine.
pub(crate) fn remove_directory(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    step(Step::Frees)?;
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes a name that isn't a directory's; that it isn't there is fine.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    step(Step::Frees)?;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A name beneath a directory.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a>(pub(crate) BorrowedFd<'a>, pub(crate) &'a OsStr);

/// Renames, replacing what is there.
pub(crate) fn rename(from: Name<'_>, to: Name<'_>) -> Result<(), Errno> {
    step(Step::Frees)?;
    rustix::fs::renameat(from.0, from.1, to.0, to.1)
}

/// Renames to a name that must be free.
pub(crate) fn rename_new(from: Name<'_>, to: Name<'_>) -> Result<(), Errno> {
    step(Step::Frees)?;
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // A file system that doesn't know the flag (NFS): look first, and live with the moment in between.
        Err(Errno::INVAL | Errno::NOSYS) => match stat(to.0, to.1)? {
            Some(_) => Err(Errno::EXIST),
            None => rustix::fs::renameat(from.0, from.1, to.0, to.1),
        },
        result => result,
    }
}

/// Puts a new file in the place of an old one, and keeps the old one: under the new one's former name where the kernel can
/// exchange names, else under `aside`. Whoever looks finds one or the other, never nothing.
pub(crate) fn exchange(new: Name<'_>, old: Name<'_>, aside: &OsStr) -> Result<(), Errno> {
    if kernel_exchanges() {
        step(Step::Frees)?;
        match rustix::fs::renameat_with(new.0, new.1, old.0, old.1, RenameFlags::EXCHANGE) {
            // gVisor, NFS and others don't know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            result => return result,
        }
    }
    step(Step::Takes)?;
    match rustix::fs::linkat(old.0, old.1, old.0, aside, AtFlags::empty()) {
        Ok(()) => {}
        // No hard links here, or not of other people's files: then there is nothing for a moment.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => rename_new(old, Name(old.0, aside))?,
        Err(errno) => return Err(errno),
    }
    rename(new, old)
}
