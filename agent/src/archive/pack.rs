//! A directory of the workspace becomes a tar: in byte order of names, without owners, so that the same files give the same
//! bytes. Sockets, pipes and devices are left out, as is what the agent is about to write.
//!
//! Files may change meanwhile. One that fits the buffer is read before its size is said, so that it can't be caught half-way;
//! a larger one that becomes shorter ends the archive, since its size was said already.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Write},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use ignore::gitignore::Gitignore;
use rustix::{
    fs::{FileType, OFlags, Stat},
    io::Errno,
};

use super::{
    descent::MAX_DEPTH,
    stage::names,
    tar::{END, Entry, Kind, padding, write_entry},
};
use crate::root::{Own, openat, stat_at};

/// Bytes read of a file at a time.
const BUFFER: usize = 256 << 10;

/// What is packed of a directory, and how.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    /// What is left out, by patterns as in .gitignore; what is in a directory that is left out is not asked for.
    pub(crate) exclude: Gitignore,
    /// Whether times are kept to the nanosecond; to the second otherwise, as old readers expect.
    pub(crate) exact_times: bool,
}

/// Writes a directory's tar.
///
/// # Errors
/// The writer's, and those of files that can't be read: an archive that lacks files in silence is worse than none.
pub(crate) fn pack(directory: OwnedFd, packing: &Packing, out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer { packing, out, path: Vec::new(), links: HashMap::new(), buffer: vec![0; BUFFER] };
    packer.directory(&directory, MAX_DEPTH)?;
    out.write_all(&END)
}

struct Packer<'a> {
    packing: &'a Packing,
    out: &'a mut dyn Write,
    /// Of the entry that is being written.
    path: Vec<u8>,
    /// The first name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Packer<'_> {
    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        let mut names = names(directory.as_fd())?;
        names.sort();
        for name in names {
            if Own::of(name.as_bytes()).is_some() {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            match self.entry(directory, &name, depth) {
                // Removed since the directory was read.
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                result => result.map_err(|error| self.at_path(error))?,
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
        let stat = stat_at(directory.as_fd(), name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = Path::new(OsStr::from_bytes(&self.path));
        if self.packing.exclude.matched(path, kind == FileType::Directory).is_ignore() {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(directory, name, &stat),
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(directory.as_fd(), name, flags)?;
                let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
                self.header(&stat, Kind::Directory, Vec::new(), 0)?;
                self.directory(&below, depth)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
                self.header(&stat, Kind::Symlink, target, 0)
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, directory: &OwnedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                return self.header(stat, Kind::HardLink, first, 0);
            }
            self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file: File = openat(directory.as_fd(), name, flags)?.into();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size < BUFFER as u64 {
            return self.small_file(&mut file, stat);
        }
        self.header(stat, Kind::File, Vec::new(), size)?;
        let mut left = size;
        // What a file grows by meanwhile is left out; the size was written already.
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            let length = file.read(&mut self.buffer[..most])?;
            if length == 0 {
                return Err(io::Error::other("it became shorter while it was read"));
            }
            self.out.write_all(&self.buffer[..length])?;
            left -= length as u64;
        }
        self.out.write_all(padding(size))
    }

    /// A file that fits the buffer, or did a moment ago: its size is what could be read. What it grew by beyond the buffer is
    /// left out.
    fn small_file(&mut self, file: &mut File, stat: &Stat) -> io::Result<()> {
        let mut length = 0;
        while length < BUFFER {
            match file.read(&mut self.buffer[length..])? {
                0 => break,
                more => length += more,
            }
        }
        let size = length as u64;
        self.header(stat, Kind::File, Vec::new(), size)?;
        self.out.write_all(&self.buffer[..length])?;
        self.out.write_all(padding(size))
    }

    fn header(&mut self, stat: &Stat, kind: Kind, link: Vec<u8>, size: u64) -> io::Result<()> {
        let nanoseconds = if self.packing.exact_times { stat.st_mtime_nsec } else { 0 };
        let modified = (stat.st_mtime, u32::try_from(nanoseconds).unwrap_or(0));
        let mode = stat.st_mode & 0o777;
        write_entry(self.out, &Entry { name: self.path.clone(), kind, link, size, mode, modified })
    }

    /// Says at which entry it happened, once.
    fn at_path(&self, error: io::Error) -> io::Error {
        if error.get_ref().is_some_and(|inner| inner.is::<AtPath>()) {
            return error;
        }
        io::Error::new(error.kind(), AtPath { path: self.path.escape_ascii().to_string(), error })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
struct AtPath {
    path: String,
    error: io::Error,
}
