//! Undoes or finishes transactions whose agent died.

use std::{
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::PathBuf,
    rc::Rc,
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::io::Errno;

use super::{
    Edits, disk,
    journal::{Intent, JournalPlace, Record, own_names},
    slots::{self, Slot},
};
use crate::root::{FinalLink, Place, Root};

/// What a recovery found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Transactions that were half done and are undone now.
    pub undone: u64,
    /// Transactions that were done but for their traces, which are gone now.
    pub finished: u64,
    /// Journals that nobody could read, after a loss of power without `durable`. They are gone; own files beside their
    /// places may be left.
    pub damaged: u64,
}

/// Undoes or finishes every transaction of a dead agent. Called before the agent listens, and before anything reads the
/// whole workspace after a transaction that could not be undone at once.
///
/// # Errors
/// The disk refused. What could not be done stays to be done: call it again.
pub fn recover(edits: &Edits, root: &Root) -> Result<Recovered, Problem> {
    let mut recovered = Recovered::default();
    edits.begin_recovery();
    let settled = edits.journals.settle(root, |id, records| {
        let mut records = records.into_iter();
        let Some(Record::Begin(intent)) = records.next() else {
            recovered.damaged += 1;
            tracing::warn!(journal = id, "a journal that begins with nothing readable announces nothing");
            return Ok(());
        };
        let mut slots = slots_of(root, id, &intent)?;
        let mut committed = intent.only_sweep;
        let mut parents = Vec::new();
        for record in records {
            match record {
                Record::Staged(inodes) => {
                    slots.iter_mut().zip(inodes).for_each(|(slot, inode)| slot.staged = inode);
                }
                Record::Committed => committed = true,
                Record::Begin(_) => return Err(Errno::INVAL),
            }
        }
        if committed {
            slots::sweep(&slots)?;
            recovered.finished += 1;
        } else {
            slots::undo(&slots, &intent.moves)?;
            for directory in intent.directories.iter().rev() {
                if let Some(place) = place(root, directory)? {
                    disk::remove_directory(place.directory.as_fd(), &place.name)?;
                    parents.push(Rc::new(place.directory));
                }
            }
            recovered.undone += 1;
        }
        // Before the journal goes: should the power go too, it would be needed again.
        disk::sync_directories(slots.iter().filter_map(|slot| slot.directory.as_ref()).chain(&parents))?;
        tracing::info!(journal = id, committed, places = slots.len(), "recovered a transaction");
        Ok(())
    });
    settled.map_err(|errno| {
        edits.leave_unfinished();
        crate::root::os_problem(errno, "recover a transaction in", &".".into())
    })?;
    Ok(recovered)
}

fn slots_of(root: &Root, id: &str, intent: &Intent) -> Result<Vec<Slot>, Errno> {
    let slot = |(index, JournalPlace { directory, inode, name }): (usize, &JournalPlace)| {
        let (new, old) = own_names(id, index);
        let name = name.to_path_buf().map_err(|_| Errno::INVAL)?.into_os_string();
        let path: PathBuf = [directory.to_path_buf().map_err(|_| Errno::INVAL)?, (&name).into()].iter().collect();
        let found = place(root, &WorkspacePath::from_bytes(path.as_os_str().as_bytes()))?;
        let directory = match found {
            Some(found) if found.name == name => Some(found.directory),
            // A journal doesn't name what isn't a single component; a forged one may.
            Some(_) => return Err(Errno::INVAL),
            None => None,
        };
        // Another directory under the same path is none of ours.
        let directory = directory.filter(|directory| {
            let there = rustix::fs::fstat(directory).map(|stat| stat.st_ino);
            inode.is_none_or(|inode| there == Ok(inode))
        });
        Ok(Slot { directory: directory.map(Rc::new), name, new, old, staged: None })
    };
    intent.places.iter().enumerate().map(slot).collect()
}

/// Where a path of a journal is; nothing if its directory is gone.
fn place(root: &Root, path: &WorkspacePath) -> Result<Option<Place>, Errno> {
    match root.place(path, FinalLink::Keep) {
        Ok(place) => Ok(Some(place)),
        Err(problem) if matches!(problem.code, Code::NotFound | Code::NotADirectory) => Ok(None),
        Err(problem) if problem.code == Code::DiskFull => Err(Errno::NOSPC),
        Err(_) => Err(Errno::INVAL),
    }
}
