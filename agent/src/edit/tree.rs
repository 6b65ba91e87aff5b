//! Removes a whole directory, following no link, with few descriptors and no recursion however deep it is.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags},
    io::Errno,
};

use super::disk::{self, Name};

/// Levels that are held open. What is deeper is moved up first, which is allowed: the tree is being removed.
const LEVELS: usize = 64;

/// Removes what is under a name, whatever it is. Returns how many names went.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<u64, Errno> {
    match disk::remove(directory, name) {
        Ok(()) => return Ok(1),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let top = match Level::open(directory, name) {
        Ok(top) => top,
        // Not a directory, so the removal was refused for good.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
        Err(Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(errno),
    };
    let mut removed = 0;
    let mut levels = vec![top];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.next()? else {
            let Some(done) = levels.pop() else { break };
            let parent = levels.last().map_or(directory, |level| level.directory.as_fd());
            match rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {}
                // Somebody put something in meanwhile, or we lifted something into it: look again.
                Err(Errno::NOTEMPTY) => levels.push(Level::open(parent, &done.name)?),
                Err(errno) => return Err(errno),
            }
            continue;
        };
        match disk::remove(level.directory.as_fd(), &entry) {
            Ok(()) => {
                removed += 1;
                continue;
            }
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if levels.len() < LEVELS {
            let parent = levels[levels.len() - 1].directory.as_fd();
            match Level::open(parent, &entry) {
                Ok(level) => levels.push(level),
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
                Err(errno) => return Err(errno),
            }
        } else {
            let name = crate::root::Own::Edit.new_name()?;
            let (from, to) = (levels[levels.len() - 1].directory.as_fd(), levels[0].directory.as_fd());
            match disk::rename(Name(from, &entry), Name(to, &name)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(removed)
}

/// A directory whose entries go.
struct Level {
    directory: OwnedFd,
    entries: Dir,
    name: OsString,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            // A directory of ours that forbids us to look into it: `rm -r` of a package's cache needs this too.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, name, flags, Mode::empty())?
            }
            directory => directory?,
        };
        let entries = Dir::read_from(&directory)?;
        Ok(Self { directory, entries, name: name.to_owned() })
    }

    fn next(&mut self) -> Result<Option<OsString>, Errno> {
        for entry in &mut self.entries {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Ok(Some(OsStr::from_bytes(name).to_owned()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_goes_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep");
        std::fs::create_dir(&keep).unwrap();
        std::fs::write(keep.join("file"), "x").unwrap();
        let top = rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        // Deeper than a path can be long and than descriptors last.
        let mut directory = top.try_clone().unwrap();
        for level in 0..3_000 {
            let name = if level == 0 { "tree" } else { "d" };
            rustix::fs::mkdirat(&directory, name, Mode::RWXU).unwrap();
            directory = disk::open_directory(directory.as_fd(), OsStr::new(name)).unwrap();
            if level % 7 == 0 {
                rustix::fs::symlinkat(&keep, &directory, "link").unwrap();
                disk::create(directory.as_fd(), OsStr::new("file"), 0o600).unwrap();
            }
        }
        let removed = remove(top.as_fd(), OsStr::new("tree")).unwrap();
        assert_eq!(removed, 3_000 + 2 * 3_000_u64.div_ceil(7));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(keep.join("file").exists());
        assert_eq!(remove(top.as_fd(), OsStr::new("tree")), Ok(1), "that it is gone already is fine");
    }
}
