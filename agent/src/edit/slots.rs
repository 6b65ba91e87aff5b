//! A transaction's names on the disk, and the two ways out of one that was begun: back (undo) or done (sweep).
//!
//! Both look at what is there and do what is missing, so they can be cut off and begun again any number of times.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::io::Errno;

use super::{
    disk::{self, Identity, Name},
    journal::JournalMove,
};

/// A name that a transaction changes.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its directory, unless that doesn't exist (yet).
    pub(crate) directory: Option<Rc<OwnedFd>>,
    pub(crate) name: OsString,
    /// The new file's own name. After an exchange the old file has it.
    pub(crate) new: OsString,
    /// The own name of the old file put aside.
    pub(crate) old: OsString,
    /// Which file the new one is, once it is complete.
    pub(crate) staged: Option<Identity>,
}

impl Slot {
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.directory.as_ref().map(|directory| directory.as_fd()).ok_or(Errno::NOENT)
    }

    pub(crate) fn name(&self) -> Result<Name<'_>, Errno> {
        Ok(Name(self.fd()?, &self.name))
    }

    pub(crate) fn new_name(&self) -> Result<Name<'_>, Errno> {
        Ok(Name(self.fd()?, &self.new))
    }

    pub(crate) fn old_name(&self) -> Result<Name<'_>, Errno> {
        Ok(Name(self.fd()?, &self.old))
    }

    fn at(&self, name: &OsStr) -> Result<Option<Identity>, Errno> {
        match &self.directory {
            Some(directory) => Identity::at(directory.as_fd(), name),
            None => Ok(None),
        }
    }

    /// Takes the new file out of its place and puts the old one back, if there was one.
    fn withdraw(&self) -> Result<(), Errno> {
        if self.staged.is_none() || self.at(&self.name)? != self.staged {
            return Ok(());
        }
        if self.at(&self.old)?.is_some() {
            self.restore(&self.old)
        } else if self.at(&self.new)?.is_some() {
            self.restore(&self.new)
        } else {
            disk::remove(self.fd()?, &self.name)
        }
    }

    fn restore(&self, from: &OsStr) -> Result<(), Errno> {
        disk::rename(Name(self.fd()?, from), self.name()?)?;
        // Of two names of one file, a rename leaves both.
        if self.at(from)?.is_some() { disk::remove(self.fd()?, from) } else { Ok(()) }
    }

    /// Removes the transaction's own files.
    fn sweep(&self) -> Result<(), Errno> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for name in [&self.new, &self.old] {
            // Looking first spares a removal, which on some file systems writes though there is nothing.
            if Identity::at(directory.as_fd(), name)?.is_some() {
                super::tree::remove(directory.as_fd(), name)?;
            }
        }
        Ok(())
    }
}

/// Everything as before: new files out, moved files back, old files back, own files gone.
pub(crate) fn undo(slots: &[Slot], moves: &[JournalMove]) -> Result<(), Errno> {
    for slot in slots {
        slot.withdraw()?;
    }
    for JournalMove { from, to } in moves {
        let (Some(from), Some(to)) = (slots.get(*from), slots.get(*to)) else { return Err(Errno::INVAL) };
        // Everything was put aside before anything moved. So a file that is neither aside nor under its old name moved.
        if from.at(&from.old)?.is_none() && from.at(&from.name)?.is_none() && to.at(&to.name)?.is_some() {
            disk::rename(to.name()?, from.old_name()?)?;
        }
    }
    for slot in slots {
        if slot.at(&slot.old)?.is_some() {
            slot.restore(&slot.old)?;
        }
    }
    sweep(slots)
}

/// Own files gone.
pub(crate) fn sweep(slots: &[Slot]) -> Result<(), Errno> {
    slots.iter().try_for_each(Slot::sweep)
}
