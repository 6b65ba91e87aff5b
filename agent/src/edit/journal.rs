//! What a transaction is about to do and how far it is, on the disk before it does it, so that whoever finds it can undo or
//! finish it.
//!
//! One file a transaction in [`JOURNALS`] beneath the root, so on the root's own file system; its name is the transaction's.
//! It is a log of lines, `<first 16 hex digits of the record's BLAKE3> <record as JSON>`. A line that is cut off or damaged
//! counts as not written, and every line is written before what it announces. A journal whose writer lives is locked,
//! by a lock of the process (`fcntl`): one of the file (`flock`) would live on in whatever the agent forks at that moment. The folder is there only while there are journals.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use corehold_types::WorkspacePath;
use rustix::{
    fs::{Dir, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::disk::{self, Identity};
use crate::root::{JOURNALS, Own, Root};

/// No transaction within the limits comes near it.
const MOST_BYTES: u64 = 64 << 20;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Record {
    /// What it will do. Until the next line nothing but files of its own has been made.
    Begin(Intent),
    /// The new files are complete; which they are, place by place. From now on names change.
    Staged(Vec<Option<Identity>>),
    /// Everything is in place. What is left are the transaction's own files.
    Committed,
}

/// What a transaction will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Intent {
    /// The names that change.
    pub(crate) places: Vec<JournalPlace>,
    /// Directories that are made on the way, the outermost first, relative to the root.
    pub(crate) directories: Vec<WorkspacePath>,
    /// Files that move as they are.
    pub(crate) moves: Vec<JournalMove>,
    /// Whether there is nothing to undo: only own files to remove, however far it came.
    pub(crate) only_sweep: bool,
}

/// A name that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalPlace {
    /// Its directory, relative to the root.
    pub(crate) directory: WorkspacePath,
    /// Inode of that directory; absent when it is still to be made.
    pub(crate) inode: Option<u64>,
    /// The name.
    pub(crate) name: WorkspacePath,
}

/// A file that moves from one place to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalMove {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The names, made from the transaction's, of its own files at its place number `index`: of the new file, and of the old one put aside.
pub(crate) fn own_names(id: &str, index: usize) -> (OsString, OsString) {
    let name = |which: &str| {
        let hash = blake3::hash(format!("{id} {index} {which}").as_bytes());
        Own::Edit.name_of(hash.as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
    };
    (name("new"), name("old"))
}

/// The journals that this agent writes now.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    /// Also guards the folder: whoever makes or removes it holds this.
    active: Mutex<HashSet<String>>,
}

impl Journals {
    fn active(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of names is whole after any panic.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a journal. If this fails nothing is left behind.
    pub(crate) fn begin(&self, root: &Root, intent: Intent, durable: bool) -> Result<Journal<'_>, Errno> {
        let id = crate::agent::random_id().map_err(|_| Errno::IO)?;
        let mut active = self.active();
        disk::make_directory(root.as_fd(), OsStr::new(JOURNALS), 0o700)?;
        let made = disk::open_directory(root.as_fd(), OsStr::new(JOURNALS)).and_then(|folder| {
            let file = disk::create(folder.as_fd(), OsStr::new(&id), 0o600)?;
            rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok((folder, file))
        });
        match made {
            Ok((folder, file)) => {
                active.insert(id.clone());
                drop(active);
                let mut journal = Journal { journals: self, id, folder, file, length: 0, durable };
                match journal.append(&Record::Begin(intent)).and_then(|()| journal.sync_folder(root)) {
                    Ok(()) => Ok(journal),
                    Err(errno) => {
                        // What can't be removed is found and removed by the next recovery: it announces nothing.
                        let _ = journal.finish(root);
                        Err(errno)
                    }
                }
            }
            Err(errno) => {
                let _ = remove_folder(root);
                Err(errno)
            }
        }
    }

    /// Calls `settle` for each journal whose writer is gone, and removes it if that succeeds. Returns the first error, after
    /// all were tried.
    pub(crate) fn settle(
        &self,
        root: &Root,
        mut settle: impl FnMut(&str, Vec<Record>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let active = self.active();
        let folder = match disk::open_directory(root.as_fd(), OsStr::new(JOURNALS)) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let mut first_error = None;
        for name in names(folder.as_fd())? {
            let Some(id) = name.to_str().filter(|id| is_id(id) && !active.contains(*id)) else { continue };
            let settled = open_for_lock(folder.as_fd(), &name).and_then(|file| {
                match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => settle(id, read(&file)?)?,
                    // Its writer lives.
                    Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
                disk::remove(folder.as_fd(), &name)
            });
            first_error = first_error.or(settled.err());
        }
        if active.is_empty() {
            let removed = remove_folder(root);
            first_error = first_error.or(removed.err());
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// The journal of a transaction that goes on.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    journals: &'a Journals,
    pub(crate) id: String,
    folder: OwnedFd,
    file: File,
    /// Bytes that are known to be whole lines.
    length: u64,
    durable: bool,
}

impl Journal<'_> {
    /// Writes a line; durable, it is on the disk when this returns. A line that fails is taken back.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), Errno> {
        let line = line(record);
        let written =
            disk::write(&self.file, &line).and_then(|()| if self.durable { disk::sync(&self.file) } else { Ok(()) });
        match written {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(errno) => {
                // Written whole and only not synced, it would say what isn't so.
                disk::truncate(&self.file, self.length)?;
                Err(errno)
            }
        }
    }

    fn sync_folder(&self, root: &Root) -> Result<(), Errno> {
        if self.durable {
            disk::sync_directory(self.folder.as_fd())?;
            disk::sync_directory(root.as_fd())?;
        }
        Ok(())
    }

    /// Removes the journal: there is nothing left to do.
    pub(crate) fn finish(self, root: &Root) -> Result<(), Errno> {
        let mut active = self.journals.active();
        active.remove(&self.id);
        disk::remove(self.folder.as_fd(), OsStr::new(&self.id))?;
        if active.is_empty() { remove_folder(root) } else { Ok(()) }
    }

    /// Leaves the journal for a recovery.
    pub(crate) fn abandon(self) {
        self.journals.active().remove(&self.id);
    }
}

/// An exclusive lock needs a file that is open for writing.
fn open_for_lock(folder: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let is_file = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile;
    if is_file { Ok(file.into()) } else { Err(Errno::NXIO) }
}

fn remove_folder(root: &Root) -> Result<(), Errno> {
    disk::remove_directory(root.as_fd(), OsStr::new(JOURNALS))
}

fn is_id(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|letter| letter.is_ascii_lowercase())
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    use std::os::unix::ffi::OsStrExt as _;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(folder, c".", flags, Mode::empty())?;
    let entries = Dir::read_from(&folder)?;
    entries.map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned())).collect()
}

fn line(record: &Record) -> Vec<u8> {
    // Strings, numbers and lists: there is nothing in a record that JSON can't say.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{} {json}\n", digest(json.as_bytes())).into_bytes()
}

fn digest(json: &[u8]) -> String {
    blake3::hash(json).to_hex()[..16].to_owned()
}

/// The whole lines of a journal, up to the first that isn't.
fn read(file: &File) -> Result<Vec<Record>, Errno> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Vec<Record> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let record = |line: &[u8]| {
        let line = line.strip_suffix(b"\n")?;
        let (hash, json) = (line.get(..16)?, line.get(17..)?);
        (digest(json).as_bytes() == hash).then(|| serde_json::from_slice(json).ok()).flatten()
    };
    lines.map_while(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_cut_or_damaged_counts_as_not_written() {
        let place =
            JournalPlace { directory: "a".into(), inode: Some(u64::MAX), name: WorkspacePath::from_bytes(b"\xff") };
        let records = vec![
            Record::Begin(Intent { places: vec![place], ..Intent::default() }),
            Record::Staged(vec![Some(Identity::of(&tempfile::tempfile().unwrap()).unwrap()), None]),
            Record::Committed,
        ];
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        assert_eq!(parse(&bytes), records);
        for length in 0..bytes.len() {
            let whole = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(parse(&bytes[..length]), records[..whole], "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let before = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            // The byte between hash and record is looked at by nobody.
            assert!(parse(&damaged).len() <= before || parse(&damaged) == records, "damaged at {at}");
        }
    }
}
