//! The transaction: all changes of names happen or none do.
//!
//! ```text
//!            journal: Begin      Staged        Committed      (removed)
//!  nothing ──────────┬─────────────┬───────────────┬───────────────┬── done
//!                    │ directories │ 1 vacate      │ own files     │
//!                    │ made, new   │ 2 move        │ removed       │
//!                    │ files made  │ 3 put in new  │               │
//!  found so by       │             │               │               │
//!  a recovery:      undo          undo           sweep
//! ```
//!
//! 1. New content is written beside its place under an own name, with the old file's attributes.
//! 2. Each file to be replaced is compared with what the transaction was computed from.
//! 3. Names change by renames, each of which keeps the old file: what goes or moves away is put aside under an own name
//!    (vacate), what moves gets its new name (move), and new files come in, exchanged with the old one where there is one
//!    (put in). What came out is compared once more, so that somebody else's write in between isn't lost: it is put back.
//! 4. Writing `Committed` decides. Then the old files are removed.
//!
//! An error at any point, a full disk among them, undoes everything; undoing needs no space. If even that fails, or the
//! agent is killed, the journal tells the next recovery. `durable` syncs new files and directories before `Staged`, directories
//! with changed names before `Committed`, and the journal after each line, so the order holds after a loss of power too.
//!
//! What is left: somebody who holds the old file open and writes to it after step 3 writes to a file that goes; readers may
//! see some names changed and others not yet; and where the file system can't exchange names (NFS, gVisor), a file that
//! somebody else renames to the place between two system calls of step 3 is lost.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    rc::Rc,
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::io::Errno;

use super::{
    Edits,
    disk::{self, Identity},
    journal::{Intent, Journal, JournalMove, JournalPlace, Record, own_names},
    location::{Location, Snapshot},
    slots::{self, Slot},
};
use crate::root::Root;

/// A name and what shall be there.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) location: Location,
    /// What is there.
    pub(crate) initial: Option<Snapshot>,
    pub(crate) last: Last,
}

/// What shall be under a name.
#[derive(Debug)]
pub(crate) enum Last {
    /// A new file.
    Content {
        bytes: Vec<u8>,
        /// The change whose old file's attributes it gets.
        like: Option<usize>,
        /// Permission bits, if not those of the old file.
        mode: Option<u32>,
    },
    /// The file that is at the place of another change now.
    Moved { from: usize },
    /// Nothing.
    Nothing,
    /// What is there now; only checked to be so.
    Kept,
}

/// Why a transaction did not happen. Everything is as before.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file of this change is no longer what the transaction was computed from.
    Raced(usize),
    Problem(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Makes all changes or none.
///
/// Returns the directory of each change, which may not have existed before.
pub(crate) fn commit(edits: &Edits, root: &Root, changes: &[Change], durable: bool) -> Result<Vec<Directory>, Failed> {
    let work = Work::new(root, changes)?;
    let begun = edits.journals.begin(root, work.intent.clone(), durable);
    let mut journal = begun.map_err(|errno| {
        // Its folder may have been made and be there still.
        edits.leave_unfinished();
        work.problem(0, errno, "begin the journal of a transaction for")
    })?;
    let mut slots = work.slots(&journal);
    let mut made = Vec::new();
    match work.forward(&mut journal, &mut slots, &mut made, durable) {
        Ok(()) => {
            if let Err(errno) = slots::sweep(&slots) {
                tracing::warn!(%errno, journal = journal.id, "old files of a finished transaction can't be removed yet");
                edits.leave(journal);
            } else if let Err(errno) = journal.finish(root) {
                tracing::warn!(%errno, "the journal of a finished transaction can't be removed yet");
                edits.leave_unfinished();
            }
            Ok(slots.into_iter().filter_map(|slot| slot.directory).collect())
        }
        Err(failed) => {
            let undone = slots::undo(&slots, &work.intent.moves).and_then(|()| {
                made.iter().rev().try_for_each(|(parent, name): &Made| disk::remove_directory(parent.as_fd(), name))?;
                // Before the journal goes, which would be needed to undo it again.
                if durable { disk::sync_directories(directories(&slots, &made)) } else { Ok(()) }
            });
            match undone {
                Ok(()) => {
                    if journal.finish(root).is_err() {
                        edits.leave_unfinished();
                    }
                    Err(failed)
                }
                Err(errno) => {
                    tracing::error!(%errno, journal = journal.id, "a failed transaction can't be undone yet");
                    edits.leave(journal);
                    let what = match failed {
                        Failed::Problem(problem) => problem,
                        Failed::Raced(change) => work.problem(change, Errno::BUSY, "change"),
                    };
                    Err(Failed::Problem(what.suggest(
                        "the transaction failed half-way and could not be undone yet; that is tried again before the next one",
                    )))
                }
            }
        }
    }
}

/// A directory that is held open.
pub(crate) type Directory = Rc<OwnedFd>;

/// A directory that was made: where, and its name.
type Made = (Directory, OsString);

/// Every directory in which names have changed.
fn directories<'a>(slots: &'a [Slot], made: &'a [Made]) -> impl Iterator<Item = &'a Directory> {
    slots.iter().filter_map(|slot| slot.directory.as_ref()).chain(made.iter().map(|(parent, _)| parent))
}

struct Work<'a> {
    changes: &'a [Change],
    intent: Intent,
}

impl<'a> Work<'a> {
    fn new(root: &Root, changes: &'a [Change]) -> Result<Self, Problem> {
        let mut intent = Intent::default();
        let mut directories = BTreeSet::new();
        for (index, change) in changes.iter().enumerate() {
            let location = &change.location;
            let directory = location.directory_path(root)?;
            let mut made: &[u8] = &directory;
            for _ in &location.missing {
                directories.insert(made.to_vec());
                made = made.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &made[..slash]);
            }
            intent.places.push(JournalPlace {
                directory: WorkspacePath::from_bytes(&directory),
                inode: location.missing.is_empty().then_some(location.key.directory),
                name: WorkspacePath::from_bytes(location.name.as_bytes()),
            });
            if let Last::Moved { from } = change.last {
                intent.moves.push(JournalMove { from, to: index });
            }
        }
        // In byte order a directory comes before what is in it.
        intent.directories = directories.iter().map(|path| WorkspacePath::from_bytes(path)).collect();
        Ok(Self { changes, intent })
    }

    fn slots(&self, journal: &Journal<'_>) -> Vec<Slot> {
        let slot = |(index, change): (usize, &Change)| {
            let (new, old) = own_names(&journal.id, index);
            let directory = change.location.missing.is_empty().then(|| Rc::clone(&change.location.directory));
            Slot { directory, name: change.location.name.clone(), new, old, staged: None }
        };
        self.changes.iter().enumerate().map(slot).collect()
    }

    fn problem(&self, change: usize, errno: Errno, verb: &str) -> Problem {
        match self.changes.get(change) {
            Some(change) => change.location.problem(errno, verb),
            None => Problem::new(Code::Internal, format!("can't {verb} nothing: {errno}")),
        }
    }

    /// The old file leaves its place: it moves elsewhere, or nothing or another moved file shall be there.
    fn is_vacated(&self, index: usize) -> bool {
        let change = &self.changes[index];
        let leaves = match change.last {
            Last::Kept => false,
            Last::Content { .. } => self.intent.moves.iter().any(|moved| moved.from == index),
            Last::Moved { .. } | Last::Nothing => true,
        };
        change.initial.is_some() && leaves
    }

    fn forward(
        &self,
        journal: &mut Journal<'_>,
        slots: &mut [Slot],
        made: &mut Vec<Made>,
        durable: bool,
    ) -> Result<(), Failed> {
        for (index, change) in self.changes.iter().enumerate() {
            self.make_directories(index, &mut slots[index], made)?;
            if let Last::Content { bytes, like, mode } = &change.last {
                self.stage(index, &mut slots[index], bytes, *like, *mode, durable)?;
            }
        }
        if durable {
            // Before a file moves into one of them: it would be lost with a directory that is.
            let synced = disk::sync_directories(made.iter().map(|(parent, _)| parent));
            synced.map_err(|errno| self.problem(0, errno, "sync the directory of"))?;
        }
        let inodes = slots.iter().map(|slot| slot.staged).collect();
        journal.append(&Record::Staged(inodes)).map_err(|errno| self.problem(0, errno, "write the journal for"))?;
        for (index, slot) in slots.iter().enumerate() {
            self.check(index, slot)?;
        }
        self.vacate(slots)?;
        self.move_in(slots)?;
        self.put_in(slots)?;
        if durable {
            self.sync_directories(slots, made)?;
        }
        Ok(journal.append(&Record::Committed).map_err(|errno| self.problem(0, errno, "write the journal for"))?)
    }

    fn make_directories(&self, index: usize, slot: &mut Slot, made: &mut Vec<Made>) -> Result<(), Problem> {
        let location = &self.changes[index].location;
        let mut directory = Rc::clone(&location.directory);
        for name in &location.missing {
            let errno = |errno| location.problem(errno, "make the directory of");
            if disk::make_directory(directory.as_fd(), name, 0o777).map_err(errno)? {
                made.push((Rc::clone(&directory), name.clone()));
            }
            directory = Rc::new(disk::open_directory(directory.as_fd(), name).map_err(errno)?);
        }
        slot.directory = Some(directory);
        Ok(())
    }

    /// Writes the new file under its own name.
    fn stage(
        &self,
        index: usize,
        slot: &mut Slot,
        bytes: &[u8],
        like: Option<usize>,
        mode: Option<u32>,
        durable: bool,
    ) -> Result<(), Problem> {
        let location = &self.changes[index].location;
        let errno = |errno| location.problem(errno, "write");
        let like = like.and_then(|index| self.changes[index].initial.as_ref());
        // Nobody else may read what the old file's mode hides, not even for a moment.
        let first_mode = if like.is_some() || mode.is_some() { 0o600 } else { 0o666 };
        let file = disk::create(slot.fd().map_err(errno)?, &slot.new, first_mode).map_err(errno)?;
        disk::write(&file, bytes).map_err(errno)?;
        match (like, mode) {
            (Some(like), mode) => like.attributes.give(&file, mode, &location.path)?,
            (None, Some(mode)) => {
                disk::attribute(|| rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))).map_err(errno)?;
            }
            (None, None) => {}
        }
        if durable {
            disk::sync(&file).map_err(errno)?;
        }
        slot.staged = Some(Identity::of(&file).map_err(errno)?);
        Ok(())
    }

    /// Whether what is there is still what was seen.
    fn check(&self, index: usize, slot: &Slot) -> Result<(), Failed> {
        let change = &self.changes[index];
        let errno = |errno| change.location.problem(errno, "look at");
        let fd = slot.fd().map_err(errno)?;
        let same = match &change.initial {
            Some(initial) => initial.is_at(fd, &slot.name, false),
            None => disk::stat(fd, &slot.name).map(|stat| stat.is_none()),
        };
        if same.map_err(errno)? { Ok(()) } else { Err(Failed::Raced(index)) }
    }

    fn vacate(&self, slots: &[Slot]) -> Result<(), Failed> {
        for (index, slot) in slots.iter().enumerate().filter(|(index, _)| self.is_vacated(*index)) {
            let renamed = slot.name().and_then(|name| disk::rename_new(name, slot.old_name()?));
            self.raced(index, renamed, "put aside")?;
            self.check_out(index, slot, &slot.old)?;
        }
        Ok(())
    }

    fn move_in(&self, slots: &[Slot]) -> Result<(), Failed> {
        for JournalMove { from, to } in &self.intent.moves {
            let renamed = slots[*from].old_name().and_then(|name| disk::rename_new(name, slots[*to].name()?));
            self.raced(*to, renamed, "rename to")?;
        }
        Ok(())
    }

    fn put_in(&self, slots: &[Slot]) -> Result<(), Failed> {
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.staged.is_some()) {
            let free = self.changes[index].initial.is_none() || self.is_vacated(index);
            let put = slot.new_name().and_then(|new| {
                let name = slot.name()?;
                if free { disk::rename_new(new, name) } else { disk::exchange(new, name, &slot.old) }
            });
            self.raced(index, put, "replace")?;
            if !free {
                let aside = slot.fd().and_then(|fd| Identity::at(fd, &slot.old));
                let aside = aside.map_err(|errno| self.problem(index, errno, "look at"))?.is_some();
                self.check_out(index, slot, if aside { &slot.old } else { &slot.new })?;
            }
        }
        Ok(())
    }

    /// Compares an old file that left its place with what was seen of it.
    fn check_out(&self, index: usize, slot: &Slot, name: &OsStr) -> Result<(), Failed> {
        let Some(initial) = &self.changes[index].initial else { return Ok(()) };
        let same = slot.fd().and_then(|fd| initial.is_at(fd, name, true));
        if same.map_err(|errno| self.problem(index, errno, "look at"))? { Ok(()) } else { Err(Failed::Raced(index)) }
    }

    /// A name that came or went since it was looked at is somebody else's doing.
    fn raced(&self, index: usize, result: Result<(), Errno>, verb: &str) -> Result<(), Failed> {
        match result {
            Ok(()) => Ok(()),
            Err(Errno::EXIST | Errno::NOENT) => Err(Failed::Raced(index)),
            Err(errno) => Err(Failed::Problem(self.problem(index, errno, verb))),
        }
    }

    fn sync_directories(&self, slots: &[Slot], made: &[Made]) -> Result<(), Problem> {
        // Those first that files have moved to: where a file system doesn't keep both ends of a move together, it is in both then.
        let moved = self.intent.moves.iter().filter_map(|moved| slots[moved.to].directory.as_ref());
        let synced = disk::sync_directories(moved.chain(directories(slots, made)));
        synced.map_err(|errno| self.problem(0, errno, "sync the directory of"))
    }
}
