//! A tree under an own name beside its place: while it is copied, before it is there, and while it is removed, when it isn't
//! any more. A journal knows of it, so that a killed agent leaves no litter.

use std::{ffi::OsString, os::fd::AsFd as _};

use corehold_types::{Problem, WorkspacePath};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt as _;

use super::{
    Edits,
    commit::Directory,
    disk::Name,
    journal::{Intent, Journal, JournalPlace, own_names},
    location::Location,
    tree,
};
use crate::root::Root;

/// An own name beside a location, which is swept when this is dropped or the agent dies.
pub(crate) struct Aside<'a> {
    edits: &'a Edits,
    root: &'a Root,
    journal: Option<Journal<'a>>,
    directory: Directory,
    name: OsString,
}

impl<'a> Aside<'a> {
    /// An own name in a directory that exists, beside `location`.
    pub(crate) fn beside(
        edits: &'a Edits,
        root: &'a Root,
        location: &Location,
        directory: &Directory,
    ) -> Result<Self, Problem> {
        let errno = |errno| location.problem(errno, "prepare a place beside");
        let inode = rustix::fs::fstat(directory).map_err(errno)?.st_ino;
        let place = JournalPlace {
            directory: WorkspacePath::from_bytes(&location.directory_path(root)?),
            inode: Some(inode),
            name: WorkspacePath::from_bytes(location.name.as_bytes()),
        };
        let intent = Intent { places: vec![place], only_sweep: true, ..Intent::default() };
        let journal = edits.journals.begin(root, intent, false).map_err(errno)?;
        let (name, _) = own_names(&journal.id, 0);
        Ok(Self { edits, root, journal: Some(journal), directory: directory.clone(), name })
    }

    pub(crate) fn name(&self) -> Name<'_> {
        Name(self.directory.as_fd(), &self.name)
    }

    /// Removes what is under the own name. Returns how many names went.
    pub(crate) fn remove(&self) -> Result<u64, Errno> {
        tree::remove(self.directory.as_fd(), &self.name)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        if let Err(errno) = self.remove() {
            tracing::warn!(%errno, journal = journal.id, "what an operation left beside its place can't be removed yet");
            self.edits.leave(journal);
        } else if journal.finish(self.root).is_err() {
            self.edits.leave_unfinished();
        }
    }
}
