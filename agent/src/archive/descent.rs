//! Going down beneath a directory without ever following a link, with the way from the last time kept open.
//!
//! Neighbours in an archive mostly lie in one directory, so that most steps cost nothing.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::root::openat;

/// Directories beneath one another, each held open. More than this are refused: a process has only so many descriptors.
pub(super) const MAX_DEPTH: usize = 256;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a descent is.
pub(super) struct Descent<'a> {
    top: BorrowedFd<'a>,
    stack: Vec<(Vec<u8>, OwnedFd)>,
    /// Directories that were missing.
    made: u64,
}

impl<'a> Descent<'a> {
    pub(super) fn new(top: BorrowedFd<'a>) -> Self {
        Self { top, stack: Vec::new(), made: 0 }
    }

    /// How many directories were made on the way.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The directory that these components name.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTDIR` also for a link.
    pub(super) fn enter<C: AsRef<[u8]>>(&mut self, components: &[C]) -> Result<BorrowedFd<'_>, Errno> {
        self.go(components, None)
    }

    /// The same, making what is missing with this mode.
    ///
    /// # Errors
    /// `ENOTDIR` when something else has the name of a directory, a link too.
    pub(super) fn make<C: AsRef<[u8]>>(&mut self, components: &[C], mode: Mode) -> Result<BorrowedFd<'_>, Errno> {
        self.go(components, Some(mode))
    }

    fn go<C: AsRef<[u8]>>(&mut self, components: &[C], make: Option<Mode>) -> Result<BorrowedFd<'_>, Errno> {
        let common =
            self.stack.iter().zip(components).take_while(|((name, _), wanted)| name == wanted.as_ref()).count();
        self.stack.truncate(common);
        for component in &components[common..] {
            if self.stack.len() == MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            let name = OsStr::from_bytes(component.as_ref());
            let above = self.here();
            let next = match (openat(above, name, DIRECTORY), make) {
                (Err(Errno::NOENT), Some(mode)) => {
                    rustix::fs::mkdirat(above, name, mode)?;
                    let made = openat(above, name, DIRECTORY)?;
                    self.made += 1;
                    made
                }
                (result, _) => result?,
            };
            self.stack.push((component.as_ref().to_vec(), next));
        }
        Ok(self.here())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.top, |(_, directory)| directory.as_fd())
    }
}
