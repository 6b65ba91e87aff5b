//! One directory's entries, read in one go into memory that is used again for the next.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, FileType, RawDir},
    io::Errno,
};

/// Bytes that one system call may return. `getdents64` needs at least one entry's size, about 280.
const BUFFER: usize = 32 << 10;

/// What a directory holds, without `.` and `..`.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names, each with a NUL at its end.
    names: Vec<u8>,
    entries: Vec<Entry>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// An entry of a [`Listing`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    start: usize,
    /// Behind the NUL.
    end: usize,
    /// As the directory says; it may have been replaced since.
    pub(crate) kind: FileType,
}

impl Listing {
    /// Reads a directory.
    pub(crate) fn read(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        self.names.clear();
        self.entries.clear();
        self.buffer.resize(BUFFER, MaybeUninit::uninit());
        let mut entries = RawDir::new(directory, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let start = self.names.len();
            self.names.extend_from_slice(name);
            self.entries.push(Entry { start, end: self.names.len(), kind: entry.file_type() });
        }
        // Some file systems don't say what an entry is.
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == FileType::Unknown) {
            let name = name(&self.names, *entry);
            if let Ok(stat) = rustix::fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                entry.kind = FileType::from_raw_mode(stat.st_mode);
            }
        }
        Ok(())
    }

    /// The same again, later: of each entry what it is, its name, and a NUL.
    pub(super) fn to_bytes(&self) -> Box<[u8]> {
        let mut bytes = Vec::with_capacity(self.names.len() + self.entries.len());
        for entry in &self.entries {
            // As in `d_type`: the mode's upper bits.
            bytes.push((entry.kind.as_raw_mode() >> 12) as u8);
            bytes.extend_from_slice(&self.names[entry.start..entry.end]);
        }
        bytes.into()
    }

    /// Takes what [`to_bytes`](Self::to_bytes) gave.
    pub(super) fn set_bytes(&mut self, mut bytes: &[u8]) {
        self.names.clear();
        self.entries.clear();
        while let [kind, rest @ ..] = bytes {
            let length = memchr::memchr(0, rest).map_or(rest.len(), |end| end + 1);
            let start = self.names.len();
            self.names.extend_from_slice(&rest[..length]);
            let kind = FileType::from_raw_mode(u32::from(*kind) << 12);
            self.entries.push(Entry { start, end: self.names.len(), kind });
            bytes = &rest[length..];
        }
    }

    /// Puts the entries in the byte order of their names.
    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        self.entries.sort_unstable_by(|left, right| name(names, *left).cmp(name(names, *right)));
    }

    /// The entries.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry's name.
    pub(crate) fn name(&self, entry: Entry) -> &CStr {
        name(&self.names, entry)
    }

    /// The entry of this name.
    pub(crate) fn find(&self, wanted: &[u8]) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| &self.names[entry.start..entry.end - 1] == wanted)
    }
}

fn name(names: &[u8], entry: Entry) -> &CStr {
    // Each name was copied with its one NUL, which is its last byte.
    CStr::from_bytes_with_nul(&names[entry.start..entry.end]).unwrap_or_default()
}
