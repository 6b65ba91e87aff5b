//! Packing a folder into a tar.zst: the same folder gives the same bytes, and an unchanged one is packed once.
//!
//! An archive is keyed by the BLAKE3 of its canonical manifest (paths, kinds, modes, content), not of its compressed bytes, and
//! cached under that key. What a folder's files hashed to is remembered by their inode and times, so that an unchanged
//! folder costs one `lstat` a file; whatever could have changed within the clock's grain is read again.
//!
//! In an archive everything belongs to user and group 1000, files have mode 644 or 755, and the time is always the same:
//! 2000-01-01, since an archive must not depend on when it was made, and ZIP tools refuse times before 1980. Nothing but
//! folders, regular files and relative symbolic links within the folder is packed; anything else is an error that names it.

mod exclude;
mod index;
mod manifest;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use self::exclude::check_pattern;
use self::{exclude::Excludes, index::Index, scan::Scan};
pub(crate) use self::{
    manifest::Key,
    store::{Found, Store, Stored, Written},
};
use crate::error::{Error, ErrorKind, Result};

/// Uid and gid of everything in an archive: the user `workspace` of core containers.
pub(crate) const OWNER: u64 = 1000;
/// 2000-01-01T00:00:00Z.
pub(crate) const MODIFIED: u64 = 946_684_800;

/// What may be packed, and how much of it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all files together, before compression.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) entries: usize,
    /// Bytes of archives that the cache holds.
    pub(crate) cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, entries: 200_000, cache_bytes: 2 << 30 }
    }
}

/// Packs folders, with a cache. All of it is blocking.
#[derive(Debug, Clone)]
pub(crate) struct Packer {
    store: Store<Contents>,
    limits: Limits,
}

/// What is remembered of a packed folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Contents {
    /// Regular files in it.
    pub(crate) files: u64,
    /// Bytes of their content.
    pub(crate) content_bytes: u64,
}

/// A packed folder, whose key is the BLAKE3 of its manifest.
pub(crate) type PackedArchive = Stored<Contents>;

impl Packer {
    /// A packer that keeps its archives in `folder`, which is made when it is first needed.
    pub(crate) fn new(folder: PathBuf, limits: Limits) -> Self {
        Self { store: Store::new(folder, ".tar.zst"), limits }
    }

    /// Packs a folder, leaving out what the defaults and `exclude` say.
    pub(crate) fn pack(&self, folder: &Path, exclude: &[String]) -> Result<PackedArchive> {
        let began = index::now();
        let scan = Scan::of(folder, &Excludes::new(exclude)?, &self.limits)?;
        scan.refuse(folder)?;
        let index_path = self.store.index_path(folder)?;
        let known = Index::read(&index_path);
        let hashes: Option<Vec<_>> = scan.entries.iter().map(|entry| known.content(entry)).collect();
        if let Some(hashes) = hashes
            && let Some(archive) = self.store.get(&Key::of(&scan.entries, &hashes)).archive()
        {
            return Ok(archive);
        }
        let draft = self.store.draft()?;
        let written = write::write(folder, &scan.entries, draft)?;
        let key = Key::of(&scan.entries, &written.contents);
        let archive = match self.store.get(&key).archive() {
            // The folder was touched, and is as it was.
            Some(archive) => archive,
            None => self.store.put(&key, written.draft, written.archive, written.about)?,
        };
        // Only a saving of work: an index that can't be written costs time and nothing else.
        if let Err(error) = Index::write(&index_path, &scan.entries, &written.contents, began) {
            tracing::debug!(path = %index_path.display(), %error, "the index of a packed folder can't be written");
        }
        self.store.sweep(self.limits.cache_bytes, &key);
        Ok(archive)
    }
}

/// Whether a folder could be packed: everything that stands in the way, or the reason why that can't be said.
pub(crate) fn obstacles(folder: &Path, exclude: &[String], limits: &Limits) -> Result<Vec<scan::Obstacle>> {
    let scan = Scan::of(folder, &Excludes::new(exclude)?, limits)?;
    match scan.empty(folder) {
        Some(error) => Err(error),
        None => Ok(scan.obstacles),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{} can't be read: {error}", path.display())).caused_by(error)
}
