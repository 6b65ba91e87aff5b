//! Changing files: the transaction engine behind `edit` and `write`. It knows nothing of HTTP.
//!
//! - [`lines`], [`replace`], [`line_range`], [`diff`], [`nearest`]: operations on bytes, without a disk.
//! - [`plan`]: what a request means for which files; the answer.
//! - [`location`], [`attributes`], [`locks`]: files on the disk, and who changes them now; [`memory`]: how many at a time.
//! - [`commit`], [`journal`], [`slots`], [`recover`]: all or nothing, whatever happens.
//! - [`parents`], [`aside`], [`copy`], [`tree`]: for the tools that make, copy, move and remove whole trees.
//! - [`disk`]: every call that changes something, with the seam ([`faults`]) by which tests make it fail.
//!
//! Hard links: an edited file is a new file under the old name, so other names of the old one keep the old content. (An
//! edit in place would reach into package stores that link files into many projects, and could not be undone by a rename.)
//! The answer says how many other names there are.

pub(crate) mod aside;
mod attributes;
mod commit;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod disk;
pub(crate) mod faults;
mod journal;
mod line_range;
mod lines;
pub(crate) mod location;
mod locks;
mod memory;
mod nearest;
mod operations;
pub(crate) mod parents;
mod plan;
mod recover;
mod replace;
mod slots;
#[cfg(test)]
mod tests;
pub(crate) mod tree;

use std::{
    os::unix::ffi::OsStrExt as _,
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) use operations::brings;
pub use plan::transact;
pub use recover::{Recovered, recover};

/// What the agent's transactions share: who changes which file now, and which journals are being written.
#[derive(Debug, Default)]
pub struct Edits {
    locks: locks::Locks,
    journals: journal::Journals,
    memory: memory::Memory,
    /// Whether a journal was left that the next transaction has to deal with first.
    unfinished: AtomicBool,
}

impl Edits {
    /// Waits until nobody of ours changes what is at a place, and keeps it so until the result is dropped.
    ///
    /// # Errors
    /// The directory can't be looked at.
    pub(crate) fn hold(&self, place: &crate::root::Place) -> Result<locks::Held<'_>, rustix::io::Errno> {
        let stat = rustix::fs::fstat(&place.directory)?;
        let name = [b"/", place.name.as_bytes()].concat();
        Ok(self.locks.hold([locks::Key { device: stat.st_dev, directory: stat.st_ino, name }]))
    }

    /// The same for places that are known already.
    pub(crate) fn hold_locations<'a>(
        &self,
        locations: impl IntoIterator<Item = &'a location::Location>,
    ) -> locks::Held<'_> {
        self.locks.hold(locations.into_iter().map(|location| location.key.clone()))
    }

    /// The same for one.
    pub(crate) fn hold_location(&self, location: &location::Location) -> locks::Held<'_> {
        self.hold_locations([location])
    }

    fn leave(&self, journal: journal::Journal<'_>) {
        journal.abandon();
        self.leave_unfinished();
    }

    fn leave_unfinished(&self) {
        self.unfinished.store(true, Ordering::Release);
    }

    fn begin_recovery(&self) {
        self.unfinished.store(false, Ordering::Release);
    }

    /// Deals with what a transaction before could not finish or undo.
    ///
    /// # Errors
    /// It still can't be done.
    pub fn settle(&self, root: &crate::root::Root) -> Result<(), corehold_types::Problem> {
        if self.unfinished.load(Ordering::Acquire) { recover(self, root).map(|_| ()) } else { Ok(()) }
    }
}
