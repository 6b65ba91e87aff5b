//! The list of an archive's entries: what is saved of each file, so that trees are compared without their content.
//!
//! A record, all numbers little-endian: kind (u8: 0 file, 1 directory, 2 symbolic link, 3 hard link), permissions (u16),
//! modification time (seconds i64, nanoseconds u32), size (u64), length of the path (u16), path; then of a file the BLAKE3 of
//! its content (32 bytes), of a link the length of its target (u16) and the target.

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the longest path and target, as in the kernel.
const LONGEST: usize = 4096;
const FIXED: usize = 25;

/// One entry of a saved tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the root, without `.` and `..`; any bytes but NUL.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permissions, nine bits.
    pub(super) mode: u16,
    /// Seconds since 1970 and nanoseconds.
    pub(super) modified: (i64, u32),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
        hash: [u8; 32],
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// One more name of a file that comes before it.
    HardLink {
        target: Vec<u8>,
    },
}

impl Entry {
    /// Why nothing of this path can be in a tree.
    pub(super) fn check_path(path: &[u8]) -> std::result::Result<(), &'static str> {
        if path.is_empty() || path.len() > LONGEST {
            return Err("has no name, or one of more than 4096 bytes");
        }
        if path.contains(&0) {
            return Err("has a NUL byte in its name");
        }
        if path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
            return Err("has a name that is absolute or leads elsewhere");
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, size) = match &self.kind {
            Kind::File { size, .. } => (0, *size),
            Kind::Directory => (1, 0),
            Kind::Symlink { .. } => (2, 0),
            Kind::HardLink { .. } => (3, 0),
        };
        out.push(kind);
        out.extend(self.mode.to_le_bytes());
        out.extend(self.modified.0.to_le_bytes());
        out.extend(self.modified.1.to_le_bytes());
        out.extend(size.to_le_bytes());
        put(out, &self.path);
        match &self.kind {
            Kind::File { hash, .. } => out.extend(hash),
            Kind::Directory => {}
            Kind::Symlink { target } | Kind::HardLink { target } => put(out, target),
        }
    }
}

/// Paths and targets have at most 4,096 bytes: whoever makes an entry has looked.
fn put(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(&text[..usize::from(length)]);
}

/// Reads records as their bytes come. Holds a piece that was pushed, and one record.
#[derive(Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes bytes, and gives the entries that they complete to `each`.
    ///
    /// # Errors
    /// `Damaged`; those of `each`.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let mut rest = &self.buffer[..];
        while let Some((entry, after)) = record(rest)? {
            each(entry)?;
            rest = after;
        }
        let done = self.buffer.len() - rest.len();
        self.buffer.drain(..done);
        Ok(())
    }

    /// # Errors
    /// `Damaged` when a record is cut off.
    pub(super) fn finish(self) -> Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { Err(damaged("is cut off")) }
    }
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("its list of entries {why}"))
}

/// The first record; none while it isn't complete.
fn record(bytes: &[u8]) -> Result<Option<(Entry, &[u8])>> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let number = |at: usize, length: usize| {
        fixed[at..at + length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (mode, nanoseconds, size) = (number(1, 2) as u16, number(11, 4) as u32, number(15, 8));
    if mode > 0o777 || nanoseconds >= 1_000_000_000 {
        return Err(damaged("has permissions or a time that can't be"));
    }
    let Some((path, rest)) = text(rest, number(23, 2) as usize)? else { return Ok(None) };
    Entry::check_path(path)
        .map_err(|why| damaged(&format!("has an entry {:?} that {why}", path.escape_ascii().to_string())))?;
    let (kind, rest) = match fixed[0] {
        0 => match rest.split_first_chunk::<32>() {
            Some((hash, rest)) => (Kind::File { size, hash: *hash }, rest),
            None => return Ok(None),
        },
        1 => (Kind::Directory, rest),
        link @ (2 | 3) => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let Some((target, rest)) = text(rest, u16::from_le_bytes(*length).into())? else { return Ok(None) };
            let target = target.to_vec();
            (if link == 2 { Kind::Symlink { target } } else { Kind::HardLink { target } }, rest)
        }
        other => return Err(damaged(&format!("has an entry of the unknown kind {other}"))),
    };
    if size > 0 && fixed[0] != 0 {
        return Err(damaged("has a size for what has none"));
    }
    let modified = (number(3, 8) as i64, nanoseconds);
    Ok(Some((Entry { path: path.to_vec(), kind, mode, modified }, rest)))
}

fn text(bytes: &[u8], length: usize) -> Result<Option<(&[u8], &[u8])>> {
    if length > LONGEST {
        return Err(damaged("has a name of more than 4096 bytes"));
    }
    Ok(bytes.split_at_checked(length))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1_u8.., 1..20).prop_map(|mut part| {
            part.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            if part == b"." || part == b".." { b"dots".to_vec() } else { part }
        })
    }

    pub(in crate::archive) fn entry() -> impl Strategy<Value = Entry> {
        let target = || proptest::collection::vec(1_u8.., 1..200);
        let kind = prop_oneof![
            (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, hash)| Kind::File { size, hash }),
            Just(Kind::Directory),
            target().prop_map(|target| Kind::Symlink { target }),
            target().prop_map(|target| Kind::HardLink { target }),
        ];
        let path = proptest::collection::vec(part(), 1..5).prop_map(|parts| parts.join(&b'/'));
        (path, kind, 0_u16..=0o777, any::<i64>(), 0_u32..1_000_000_000).prop_map(
            |(path, kind, mode, seconds, nanoseconds)| Entry { path, kind, mode, modified: (seconds, nanoseconds) },
        )
    }

    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Entry>> {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.push(piece, |entry| {
                all.push(entry);
                Ok(())
            })?;
        }
        decoder.finish()?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn entries_come_back_however_their_bytes_are_cut(entries in proptest::collection::vec(entry(), 0..20), piece in 1_usize..200) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            prop_assert_eq!(decode(&bytes, piece).unwrap(), entries.clone());
            if let Some(last) = entries.last() {
                let mut tail = Vec::new();
                last.encode(&mut tail);
                for cut in 1..tail.len() {
                    prop_assert!(decode(&bytes[..bytes.len() - cut], piece).is_err());
                }
            }
        }

        #[test]
        fn any_bytes_are_entries_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(entries) = decode(&bytes, 50) {
                let mut again = Vec::new();
                entries.iter().for_each(|entry| entry.encode(&mut again));
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\0"] {
            let entry = Entry { path: path.into(), kind: Kind::Directory, mode: 0o755, modified: (0, 0) };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(decode(&bytes, 100).unwrap_err().kind(), ErrorKind::Damaged, "{path:?}");
        }
    }
}
