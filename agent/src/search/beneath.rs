//! What the walk needs of the root: opening beneath it, and listing.

use std::{
    ffi::OsStr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use corehold_types::WorkspacePath;
use rustix::{fs::OFlags, io::Errno};

use super::listing::Listing;
use crate::root::Root;

/// A root beneath which the kernel opens paths and which nothing leaves.
pub trait Beneath: Sync {
    /// Opens a path relative to the root, following links that stay beneath it (except the last component, with
    /// `O_NOFOLLOW`). The empty path is the root.
    ///
    /// # Errors
    /// As `openat2` with `RESOLVE_BENEATH` has them; `EXDEV` means that the path leads outside.
    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno>;

    /// Lists an open directory.
    ///
    /// # Errors
    /// As `getdents64` has them.
    fn list(&self, directory: BorrowedFd<'_>, listing: &mut Listing) -> Result<(), Errno> {
        listing.read(directory)
    }
}

/// Opens a directory for listing.
pub(crate) fn open_directory(root: &dyn Beneath, path: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    root.open_beneath(as_path(path), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more)
}

/// Flags for a file's content: never waits for the other end of a pipe, never becomes a controlling terminal.
pub(crate) const CONTENT: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The bytes as a path.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl Beneath for Root {
    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = WorkspacePath::from_bytes(path.as_os_str().as_bytes());
        // What the walk puts together has no NUL; it may become too long.
        let path = self.relative(&path).map_err(|_| Errno::NAMETOOLONG)?;
        self.open_at(&path, flags)
    }
}
