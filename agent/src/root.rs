//! Confinement: the only way from a path that a caller names to a file.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use corehold_types::{Problem, WorkspacePath};

/// The workspace root, opened once.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the root.
    ///
    /// # Errors
    /// It doesn't exist, or isn't a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let directory = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// The root's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory of the workspace; good for `fchdir` and for opening beneath it.
    ///
    /// # Errors
    /// A [`Problem`] that names the path and what is wrong with it.
    pub fn open_directory(&self, path: &WorkspacePath) -> Result<OwnedFd, Problem> {
        use rustix::fs::{Mode, OFlags, ResolveFlags};
        let relative = path.to_path_buf().unwrap_or_default();
        rustix::fs::openat2(
            &self.directory,
            relative,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH,
        )
        .map_err(|errno| Problem::new(corehold_types::Code::NotFound, errno.to_string()))
    }
}
