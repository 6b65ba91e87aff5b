//! Small files that can be read at once, because name, inode and content are in the kernel's memory.
//!
//! A file is read on a thread that may block, since disks and networks may keep a reader waiting for as long as they
//! like. To hand over to such a thread and back takes several times longer than to read 4 KB that are cached, so the kernel
//! is asked first (`RESOLVE_CACHED` for the name, `RWF_NOWAIT` for the content). Where a file system can't answer the second
//! (overlayfs, tmpfs), a small file of a local disk is taken to be ready, as web servers do; others never are.

use std::{
    io::IoSliceMut,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use corehold_types::WorkspacePath;
use rustix::{
    fs::{FileType, OFlags, ResolveFlags, Stat},
    io::{Errno, ReadWriteFlags},
};

use super::{OpenFile, Root};

/// The largest file that is read by the thread that serves the connection.
const SMALL: u64 = 64 << 10;

/// Bytes that the kernel is asked for at a time.
const PROBE: usize = 16 << 10;

/// File systems on memory or on a disk of this machine (`statfs(2)`): ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs.
const LOCAL: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];

/// The device of a directory whose file system is a local one.
pub(super) fn local_device(directory: impl std::os::fd::AsFd) -> Option<u64> {
    let kind = rustix::fs::fstatfs(&directory).ok()?.f_type;
    let is_local = u64::try_from(kind).is_ok_and(|kind| LOCAL.contains(&kind));
    is_local.then(|| rustix::fs::fstat(&directory).ok().map(|stat| stat.st_dev))?
}

impl Root {
    /// Opens a small regular file, if neither that nor reading it can block. Nothing says only that the caller has to take
    /// the long way, not why.
    pub(crate) fn open_ready(&self, path: &WorkspacePath) -> Option<OpenFile> {
        let device = self.local_device.filter(|_| self.kernel_resolves)?;
        let relative = self.relative(path).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
        let mode = rustix::fs::Mode::empty();
        let opened = rustix::fs::openat2(self.directory.as_fd(), relative.as_path(), flags, mode, resolve).ok()?;
        let stat = rustix::fs::fstat(&opened).ok()?;
        let is_small = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size).is_ok_and(|size| size <= SMALL);
        (is_small && stat.st_dev == device && self.is_cached(&opened, &stat))
            .then(|| OpenFile { file: opened.into(), stat })
    }

    /// Whether the whole content is in memory, as far as can be known.
    fn is_cached(&self, file: &OwnedFd, stat: &Stat) -> bool {
        if self.tells_nothing_cached.load(Ordering::Relaxed) {
            return true;
        }
        let mut buffer = [0; PROBE];
        let mut offset = 0;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        while offset < size {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            match rustix::io::preadv2(file.as_fd(), &mut slices, offset, ReadWriteFlags::NOWAIT) {
                // It has become shorter.
                Ok(0) => return true,
                Ok(length) => offset += length as u64,
                Err(Errno::INTR) => {}
                // Local, small, and its inode is in memory. It is the same for each file of this device.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.tells_nothing_cached.store(true, Ordering::Relaxed);
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn is_ready(root: &Root, path: &str) -> bool {
        root.open_ready(&path.into()).is_some()
    }

    #[test]
    fn small_regular_files_that_are_cached_are_ready_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join("root").join(name);
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(at("small"), vec![1; SMALL as usize]).unwrap();
        fs::write(at("large"), vec![1; SMALL as usize + 1]).unwrap();
        fs::write(at("empty"), "").unwrap();
        symlink("small", at("link")).unwrap();
        symlink("../secret", at("out")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), 0o600.into()).unwrap();
        let root = Root::open(&at("")).unwrap();
        // The first look-up may be what brings a name into memory.
        for name in ["small", "empty", "link"] {
            let _ = fs::read(at(name));
            assert!(is_ready(&root, name), "{name}");
        }
        for name in ["large", "out", "../secret", "directory", "pipe", "missing", "small/x", ""] {
            assert!(!is_ready(&root, name), "{name}");
        }
    }

    #[test]
    fn file_systems_that_may_keep_a_reader_waiting_are_never_ready() {
        // proc is none of the local ones.
        let root = Root::open(std::path::Path::new("/proc")).unwrap();
        assert!(!is_ready(&root, "version"));
    }
}
