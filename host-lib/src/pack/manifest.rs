//! The canonical manifest, of which an archive's key is the hash.

use std::{fmt, os::unix::ffi::OsStrExt as _};

use super::scan::{Entry, Kind};

/// What an entry holds: BLAKE3 of a file's content; zeros for what has none.
pub(super) type Content = [u8; 32];

/// Changes whenever the same folder would give other bytes: format, owner, time, compression.
const FORMAT: &[u8] = b"corehold archive 1\n";

/// Names an archive by what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

impl Key {
    pub(super) fn of(entries: &[Entry], contents: &[Content]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        let mut field = |bytes: &[u8]| {
            // Lengths keep two fields from being read as one.
            hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        for (entry, content) in entries.iter().zip(contents) {
            field(entry.path.as_os_str().as_bytes());
            match &entry.kind {
                Kind::Directory => field(b"d"),
                Kind::Symlink { target } => {
                    field(b"l");
                    field(target.as_os_str().as_bytes());
                }
                Kind::File { executable, .. } => {
                    field(if *executable { b"x" } else { b"f" });
                    field(content);
                }
            }
        }
        Self::from_hash(hasher.finalize())
    }

    /// The key that a hash of everything is that matters.
    pub(crate) fn from_hash(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
