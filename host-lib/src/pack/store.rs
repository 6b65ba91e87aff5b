//! The cache of archives: `<key>.json` says which file holds the archive of a key.
//!
//! Everything is written aside and renamed, the archive before its description, so that several processes can share the
//! cache and one that is killed leaves nothing but a draft, which is swept later. An archive is named after its bytes, so
//! two processes that pack the same folder never mix a description with the other's archive.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{PackedArchive, manifest::Key};
use crate::error::{Error, ErrorKind, Result};

/// What a draft is called; a draft older than [`STALE`] belongs to a process that was killed.
const DRAFT: &str = ".draft-";
const STALE: Duration = Duration::from_secs(3600);
/// An index that nobody asked for in this time is of a folder that nobody packs any more.
const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
}

/// What was written into an archive.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) hash: String,
    pub(super) size: u64,
    pub(super) files: u64,
    pub(super) content_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    hash: String,
    size: u64,
    files: u64,
    content_bytes: u64,
}

impl Store {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the index of a folder is kept.
    pub(super) fn index_path(&self, folder: &Path) -> Result<PathBuf> {
        let indexes = self.folder.join("index");
        make(&indexes)?;
        Ok(indexes.join(&blake3::hash(folder.as_os_str().as_bytes()).to_hex()[..32]))
    }

    /// A file to write an archive into, beside where it will be.
    pub(super) fn draft(&self) -> Result<NamedTempFile> {
        make(&self.folder)?;
        tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.folder).map_err(|error| self.broken(error))
    }

    /// The archive of a key, whole and as it was written; a damaged one is dropped.
    pub(super) fn get(&self, key: &Key) -> Option<PackedArchive> {
        let description = self.describe(key)?;
        match self.open(key, &description) {
            Some(archive) => Some(archive),
            None => {
                tracing::warn!(%key, "an archive in the cache was damaged; it is packed anew");
                self.remove(key.as_str());
                None
            }
        }
    }

    fn describe(&self, key: &Key) -> Option<Description> {
        let bytes = fs::read(self.description_path(key.as_str())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn open(&self, key: &Key, description: &Description) -> Option<PackedArchive> {
        let mut file = File::open(self.archive_path(key.as_str(), &description.hash)?).ok()?;
        if file.metadata().ok()?.len() != description.size {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).ok()?;
        if hasher.finalize().to_hex().as_str() != description.hash {
            return None;
        }
        file.rewind().ok()?;
        // The time of a description is when it was used last: eviction goes by it.
        if let Ok(touched) = File::options().append(true).open(self.description_path(key.as_str())) {
            let _ = touched.set_modified(SystemTime::now());
        }
        Some(PackedArchive {
            key: key.as_str().to_owned(),
            hash: description.hash.clone(),
            size: description.size,
            files: description.files,
            content_bytes: description.content_bytes,
            cached: true,
            file,
        })
    }

    /// Keeps a draft as the archive of a key.
    pub(super) fn put(&self, key: &Key, draft: NamedTempFile, summary: Summary) -> Result<PackedArchive> {
        let mut file = draft.reopen().map_err(|error| self.broken(error))?;
        file.rewind().map_err(|error| self.broken(error))?;
        let Summary { hash, size, files, content_bytes } = summary;
        if let Some(path) = self.archive_path(key.as_str(), &hash) {
            draft.persist(path).map_err(|error| self.broken(error.error))?;
        }
        let description = Description { hash: hash.clone(), size, files, content_bytes };
        let bytes = serde_json::to_vec(&description).map_err(|error| self.broken(error.into()))?;
        let mut aside = self.draft()?;
        aside.write_all(&bytes).map_err(|error| self.broken(error))?;
        aside.persist(self.description_path(key.as_str())).map_err(|error| self.broken(error.error))?;
        Ok(PackedArchive { key: key.as_str().to_owned(), hash, size, files, content_bytes, cached: false, file })
    }

    /// Removes what was used longest ago until the rest fits, and what killed processes left. `keep` is never removed.
    pub(super) fn sweep(&self, limit: u64, keep: &Key) {
        let now = SystemTime::now();
        let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let mut kept = Vec::new();
        for (path, name, metadata) in files(&self.folder) {
            let modified = metadata.modified().unwrap_or(now);
            if name.starts_with(DRAFT) {
                if age(modified) > STALE {
                    let _ = fs::remove_file(path);
                }
            } else if let Some(key) = name.strip_suffix(".json") {
                kept.push((modified, key.to_owned()));
            }
        }
        for (path, _, metadata) in files(&self.folder.join("index")) {
            if metadata.modified().is_ok_and(|modified| age(modified) > FORGOTTEN) {
                let _ = fs::remove_file(path);
            }
        }
        let archives: Vec<_> = files(&self.folder)
            .filter_map(|(path, name, metadata)| Some((name.strip_suffix(".tar.gz")?.to_owned(), path, metadata)))
            .collect();
        for (name, path, metadata) in &archives {
            // Described by nobody, and not about to be.
            let described = kept.iter().any(|(_, key)| name.starts_with(key.as_str()));
            if !described && metadata.modified().is_ok_and(|modified| age(modified) > STALE) {
                let _ = fs::remove_file(path);
            }
        }
        let size_of = |key: &str| -> u64 {
            archives.iter().filter(|(name, ..)| name.starts_with(key)).map(|(.., metadata)| metadata.len()).sum()
        };
        let mut total: u64 = kept.iter().map(|(_, key)| size_of(key)).sum();
        kept.sort();
        for (_, key) in kept {
            if total <= limit {
                break;
            }
            if key != keep.as_str() {
                total = total.saturating_sub(size_of(&key));
                self.remove(&key);
            }
        }
    }

    /// The description first: an archive without one is nothing, a description without its archive is a miss.
    fn remove(&self, key: &str) {
        let _ = fs::remove_file(self.description_path(key));
        for (path, name, _) in files(&self.folder) {
            if name.starts_with(key) && name.ends_with(".tar.gz") {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn description_path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    /// `None` when a description names something that is no hash, and so could be any path.
    fn archive_path(&self, key: &str, hash: &str) -> Option<PathBuf> {
        let sound = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        sound.then(|| self.folder.join(format!("{key}-{}.tar.gz", &hash[..16])))
    }

    fn broken(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("the cache {} can't be used: {error}", self.folder.display()))
            .hint("the state folder's disk may be full; COREHOLD_HOME sets another one")
            .caused_by(error)
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Error::new(ErrorKind::Io, format!("the cache {} can't be made: {error}", folder.display())).caused_by(error)
    })
}

/// The regular files of a folder whose names are text; none when it can't be read, as nothing depends on it then.
fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, String, fs::Metadata)> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        metadata.is_file().then_some((entry.path(), entry.file_name().into_string().ok()?, metadata))
    })
}
