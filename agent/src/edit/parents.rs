//! Directories above a name, made on the way and unmade unless what they were made for succeeds.

use std::{ffi::OsString, os::fd::AsFd as _, rc::Rc};

use corehold_types::Problem;

use super::{commit::Directory, disk, location::Location};

/// The directory of a location, which exists now.
#[derive(Debug)]
pub(crate) struct Parents {
    pub(crate) directory: Directory,
    made: Vec<(Directory, OsString)>,
}

impl Parents {
    /// Makes what is missing.
    ///
    /// # Errors
    /// The operating system refused; what was made is unmade.
    pub(crate) fn make(location: &Location) -> Result<Self, Problem> {
        let errno = |errno| location.problem(errno, "make the directory of");
        let mut parents = Self { directory: Rc::clone(&location.directory), made: Vec::new() };
        for name in &location.missing {
            if disk::make_directory(parents.directory.as_fd(), name, 0o777).map_err(errno)? {
                parents.made.push((Rc::clone(&parents.directory), name.clone()));
            }
            parents.directory = Rc::new(disk::open_directory(parents.directory.as_fd(), name).map_err(errno)?);
        }
        Ok(parents)
    }

    /// How many were made.
    pub(crate) fn count(&self) -> u64 {
        self.made.len() as u64
    }

    /// What they were made for succeeded.
    pub(crate) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for (parent, name) in self.made.drain(..).rev() {
            // Only as far as they are empty: somebody else may use them already.
            let _ = disk::remove_directory(parent.as_fd(), &name);
        }
    }
}
