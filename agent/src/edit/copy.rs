//! Copies a file, a link or a tree to a name that nobody has yet. Links are copied as links; nothing is followed.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use corehold_types::{Code, Problem, WorkspacePath, tools::CopyResponse};
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::disk::{self, Name};
use crate::{
    blocking::Cancelled,
    config::Limits,
    root::{Own, os_problem},
};

/// Levels of directories: each holds descriptors.
const LEVELS: usize = 128;

/// Bytes copied between two looks at whether anybody still wants them.
const PIECE: usize = 8 << 20;

/// A copy that goes on.
pub(crate) struct Copying<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) cancelled: &'a Cancelled,
    /// What the caller copies, for messages.
    pub(crate) path: &'a WorkspacePath,
    /// What was copied so far.
    pub(crate) done: CopyResponse,
}

struct Level {
    from: OwnedFd,
    entries: Dir,
    to: OwnedFd,
    /// The mode of the copy, given when everything is in it: it may forbid to write.
    mode: Mode,
}

impl Copying<'_> {
    /// Copies whatever `from` is to `to`, which must not be there.
    pub(crate) fn copy(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Problem> {
        let mut levels = Vec::new();
        levels.extend(self.entry(from, to)?);
        while let Some(level) = levels.last_mut() {
            let next = next(&mut level.entries).map_err(|errno| self.problem(errno))?;
            let Some(name) = next else {
                if let Some(done) = levels.pop() {
                    disk::attribute(|| rustix::fs::fchmod(&done.to, done.mode)).map_err(|errno| self.problem(errno))?;
                }
                continue;
            };
            if let Some(deeper) = self.entry(Name(level.from.as_fd(), &name), Name(level.to.as_fd(), &name))? {
                if levels.len() == LEVELS {
                    let what = format!("{} has more than {LEVELS} levels of directories", self.path);
                    return Err(Problem::new(Code::LimitExceeded, what).with("limit", LEVELS as u64));
                }
                levels.push(deeper);
            }
        }
        Ok(())
    }

    /// Copies one entry; of a directory only itself, and returns it for its content.
    fn entry(&mut self, from: Name<'_>, to: Name<'_>) -> Result<Option<Level>, Problem> {
        if self.cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        let errno = |errno| os_problem(errno, "copy", self.path);
        // Gone since its directory was read: then there is nothing to copy.
        let Some(stat) = disk::stat(from.0, from.1).map_err(errno)? else { return Ok(None) };
        let entries = self.done.files + self.done.directories + self.done.symlinks + self.done.skipped;
        if entries >= self.limits.copy_entries.value {
            return Err(self.limits.copy_entries.exceeded("what is copied"));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.file(from, to)?;
                self.done.files += 1;
            }
            FileType::Directory => {
                let level = open_level(from, to, &stat).map_err(errno)?;
                self.done.directories += 1;
                return Ok(Some(level));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from.0, from.1, Vec::new()).map_err(errno)?;
                disk::attribute(|| rustix::fs::symlinkat(&target, to.0, to.1)).map_err(errno)?;
                self.done.symlinks += 1;
            }
            _ => self.done.skipped += 1,
        }
        Ok(None)
    }

    fn file(&mut self, from: Name<'_>, to: Name<'_>) -> Result<(), Problem> {
        let errno = |errno| os_problem(errno, "copy", self.path);
        let source = disk::open(from.0, from.1).map_err(errno)?;
        let stat = rustix::fs::fstat(&source).map_err(errno)?;
        let target = disk::create(to.0, to.1, 0o600).map_err(errno)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.check_bytes(self.done.bytes.saturating_add(size))?;
        // A copy that shares its blocks with the original costs nothing, where the file system can.
        if disk::attribute(|| rustix::fs::ioctl_ficlone(&target, &source)).is_ok() {
            self.done.bytes += size;
        } else {
            self.content(&source, &target)?;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        disk::attribute(|| rustix::fs::fchmod(&target, mode)).map_err(errno)
    }

    fn content(&mut self, source: &File, target: &File) -> Result<(), Problem> {
        let mut in_kernel = true;
        loop {
            if self.cancelled.is_set() {
                return Err(Cancelled::problem());
            }
            let copied = if in_kernel { copy_in_kernel(source, target) } else { copy_here(source, target) };
            match copied {
                Ok(0) if in_kernel => in_kernel = false,
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.done.bytes += length as u64;
                    self.check_bytes(self.done.bytes)?;
                }
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) if in_kernel => {
                    in_kernel = false;
                }
                Err(errno) => return Err(self.problem(errno)),
            }
        }
    }

    fn check_bytes(&self, bytes: u64) -> Result<(), Problem> {
        let most = self.limits.copy_bytes;
        if bytes > most.value { Err(most.exceeded("what is copied")) } else { Ok(()) }
    }

    fn problem(&self, errno: Errno) -> Problem {
        os_problem(errno, "copy", self.path)
    }
}

fn copy_in_kernel(source: &File, target: &File) -> Result<usize, Errno> {
    let mut copied = 0;
    disk::attribute(|| {
        copied = rustix::fs::copy_file_range(source, None, target, None, PIECE)?;
        Ok(())
    })?;
    Ok(copied)
}

/// Goes on where both files are, which the kernel's copy moved as well. (Some file systems in the kernel have sizes of 0
/// and content all the same, so this has the last word on where the end is.)
fn copy_here(mut source: &File, target: &File) -> Result<usize, Errno> {
    use std::io::Read as _;
    let mut buffer = vec![0; 256 << 10];
    let length = source.read(&mut buffer).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    disk::write(target, &buffer[..length])?;
    Ok(length)
}

fn open_level(from: Name<'_>, to: Name<'_>, stat: &Stat) -> Result<Level, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from.0, from.1, flags, Mode::empty())?;
    let entries = Dir::read_from(&source)?;
    if !disk::make_directory(to.0, to.1, 0o700)? {
        return Err(Errno::EXIST);
    }
    let target = rustix::fs::openat(to.0, to.1, flags, Mode::empty())?;
    Ok(Level { from: source, entries, to: target, mode: Mode::from_raw_mode(stat.st_mode & 0o777) })
}

fn next(entries: &mut Dir) -> Result<Option<OsString>, Errno> {
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && Own::of(name).is_none() {
            return Ok(Some(OsStr::from_bytes(name).to_owned()));
        }
    }
    Ok(None)
}

/// Whether a directory is another or lies somewhere in it.
pub(crate) fn is_within(directory: BorrowedFd<'_>, other: &Stat, root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let top = rustix::fs::fstat(root)?;
    let mut current = rustix::io::dup(directory)?;
    loop {
        let stat = rustix::fs::fstat(&current)?;
        if (stat.st_dev, stat.st_ino) == (other.st_dev, other.st_ino) {
            return Ok(true);
        }
        if (stat.st_dev, stat.st_ino) == (top.st_dev, top.st_ino) {
            return Ok(false);
        }
        let above =
            rustix::fs::openat(&current, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let above_stat = rustix::fs::fstat(&above)?;
        if (above_stat.st_dev, above_stat.st_ino) == (stat.st_dev, stat.st_ino) {
            // The top of everything: the directory was moved out of the root meanwhile.
            return Ok(false);
        }
        current = above;
    }
}
