//! Directories that an operation makes on its way, and unmakes when it fails.

use std::{
    ffi::OsStr,
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use corehold_types::{Problem, WorkspacePath};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{RelativePath, Root, os_problem};

/// A directory that exists now, and which of its ancestors had to be made.
///
/// Dropped, it removes what it made as far as that is still empty; [`Made::keep`] keeps it.
#[derive(Debug)]
pub struct Made {
    created: Vec<(OwnedFd, OsString)>,
}

impl Made {
    /// The operation succeeded: what was made stays.
    pub fn keep(mut self) {
        self.created.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (parent, name) in self.created.drain(..).rev() {
            // Somebody else may have put something into it meanwhile: then it stays.
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}

impl Root {
    /// Makes a directory and its ancestors, as far as they are missing.
    ///
    /// # Errors
    /// A [`Problem`] that names the path.
    pub fn make_directory(&self, path: &WorkspacePath) -> Result<Made, Problem> {
        let mut made = Made { created: Vec::new() };
        self.make(&self.relative(path)?, &mut made).map_err(|errno| os_problem(errno, "make", path))?;
        Ok(made)
    }

    /// Makes the directory of a path, as far as it is missing.
    ///
    /// # Errors
    /// A [`Problem`] that names the path.
    pub fn make_parent(&self, path: &WorkspacePath) -> Result<Made, Problem> {
        let mut made = Made { created: Vec::new() };
        if let Some((parent, _)) = self.relative(path)?.split() {
            self.make(&parent, &mut made).map_err(|errno| os_problem(errno, "make the directory of", path))?;
        }
        Ok(made)
    }

    fn make(&self, path: &RelativePath, made: &mut Made) -> Result<(), Errno> {
        const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
        // Down to the deepest ancestor that exists, then up again; a loop, since a path may have 2,000 components.
        let mut missing = Vec::new();
        let mut current = path.clone();
        let mut directory = loop {
            match self.open_at(&current, DIRECTORY) {
                Ok(directory) => break directory,
                Err(Errno::NOENT) => {
                    let (parent, name) = current.parent().ok_or(Errno::NOENT)?;
                    missing.push((OsStr::from_bytes(name).to_owned(), current.clone()));
                    current = parent;
                }
                Err(errno) => return Err(errno),
            }
        };
        while let Some((name, whole)) = missing.pop() {
            if name != "." && name != ".." {
                match rustix::fs::mkdirat(&directory, &name, Mode::from_raw_mode(0o777)) {
                    Ok(()) => made.created.push((directory, name)),
                    // Somebody else was faster, or it is a link that points to nothing, which the next open tells.
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            directory = self.open_at(&whole, DIRECTORY)?;
        }
        Ok(())
    }
}
