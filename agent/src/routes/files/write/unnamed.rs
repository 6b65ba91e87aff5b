//! A file that has no name until it is complete (`O_TMPFILE`), or where the file system has none, a temporary one.

use std::{
    ffi::OsString,
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags},
    io::Errno,
};

use crate::root::{Own, Place};

/// The file, and the directory in which it gets its name.
pub(super) struct Unnamed {
    file: File,
    directory: OwnedFd,
    /// The temporary name, while it has one.
    temporary: Option<OsString>,
}

impl Unnamed {
    /// Creates one. Its mode is what the process's umask leaves of 0666.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn create(directory: &OwnedFd) -> Result<Self, Errno> {
        let held = directory.try_clone().map_err(|_| Errno::MFILE)?;
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o666));
        match rustix::fs::openat(directory, c".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => Ok(Self { file: file.into(), directory: held, temporary: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let name = Own::File.new_name()?;
                let file = rustix::fs::openat(directory, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
                Ok(Self { file: file.into(), directory: held, temporary: Some(name) })
            }
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it the name of the place.
    ///
    /// # Errors
    /// `EEXIST` when it must be new and something has the name already; else what the kernel says.
    pub(super) fn link(&mut self, place: &Place, must_be_new: bool) -> Result<(), Errno> {
        if must_be_new && self.temporary.is_none() {
            return self.link_as(&place.name);
        }
        let temporary = match self.temporary.take() {
            Some(name) => name,
            None => {
                let name = Own::File.new_name()?;
                self.link_as(&name)?;
                name
            }
        };
        // Until it is renamed, dropping this removes it.
        self.temporary = Some(temporary.clone());
        let flags = if must_be_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        rustix::fs::renameat_with(&self.directory, &temporary, &place.directory, &place.name, flags)?;
        self.temporary = None;
        Ok(())
    }

    fn link_as(&self, name: &OsString) -> Result<(), Errno> {
        // AT_EMPTY_PATH would need a capability; the way through /proc is open(2)'s own advice.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, path, &self.directory, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    /// What a file system without `O_TMPFILE` gives.
    fn named(directory: &OwnedFd) -> Unnamed {
        let name = Own::File.new_name().unwrap();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &name, flags, Mode::from_raw_mode(0o600)).unwrap();
        Unnamed { file: file.into(), directory: directory.try_clone().unwrap(), temporary: Some(name) }
    }

    #[test]
    fn either_kind_takes_its_name_in_one_step_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let directory: OwnedFd = File::open(folder.path()).unwrap().into();
        let place = Place { directory: directory.try_clone().unwrap(), name: "target".into() };
        for (content, make) in [("unnamed", Unnamed::create as fn(_) -> _), ("named", |directory| Ok(named(directory)))]
        {
            let mut file = make(&directory).unwrap();
            file.file().write_all(content.as_bytes()).unwrap();
            file.link(&place, true).unwrap();
            assert_eq!(make(&directory).unwrap().link(&place, true), Err(Errno::EXIST));
            let mut file = make(&directory).unwrap();
            file.file().write_all(b"replaced").unwrap();
            file.link(&place, false).unwrap();
            drop(file);
            drop(make(&directory).unwrap());
            assert_eq!(fs::read_to_string(folder.path().join("target")).unwrap(), "replaced");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{content}");
            fs::remove_file(folder.path().join("target")).unwrap();
        }
    }
}
