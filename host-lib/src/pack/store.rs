//! A cache of archives: `<key>.json` says which file holds the archive of a key, and what its owner wants to remember of it.
//!
//! Everything is written aside and renamed, the archive before its description, so that several processes can share the
//! cache and one that is killed leaves nothing but a draft, which is swept later. An archive is named after its bytes, so
//! two processes that write for the same key never mix a description with the other's archive. Files have mode 0600.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    marker::PhantomData,
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;

use super::manifest::Key;
use crate::error::{Error, ErrorKind, Result};

/// What a draft is called; a draft older than [`STALE`] belongs to a process that was killed.
const DRAFT: &str = ".draft-";
const STALE: Duration = Duration::from_secs(3600);
/// An index that nobody asked for in this time is of a folder that nobody packs any more.
const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

/// Archives by key; `A` is what is remembered of each.
#[derive(Debug)]
pub(crate) struct Store<A> {
    folder: PathBuf,
    /// What the names of archives end with.
    extension: &'static str,
    /// Under which descriptions are sealed, where their archives must come from this home.
    secret: Option<[u8; 32]>,
    about: PhantomData<fn() -> A>,
}

impl<A> Clone for Store<A> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), extension: self.extension, secret: self.secret, about: PhantomData }
    }
}

/// An archive, open for reading: it stays readable when the cache evicts it.
#[derive(Debug)]
pub(crate) struct Stored<A> {
    /// By which it was asked for.
    pub(crate) key: Key,
    /// BLAKE3 of the archive's bytes, in hex.
    pub(crate) hash: String,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// What is remembered of it.
    pub(crate) about: A,
    /// Whether it was there already.
    pub(crate) cached: bool,
    /// Its bytes, from the beginning.
    pub(crate) file: File,
}

/// What there is of a key.
#[derive(Debug)]
pub(crate) enum Found<A> {
    /// Its archive, whole and as it was written.
    Archive(Stored<A>),
    /// An archive that isn't what was written. It was dropped.
    Damaged,
    /// Nothing.
    Nothing,
}

impl<A> Found<A> {
    pub(crate) fn archive(self) -> Option<Stored<A>> {
        match self {
            Self::Archive(archive) => Some(archive),
            Self::Damaged | Self::Nothing => None,
        }
    }
}

/// An entry of the cache, for a listing.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) about: A,
    pub(crate) used: SystemTime,
}

/// The bytes of an archive that was written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// BLAKE3, in hex.
    pub(crate) hash: String,
    pub(crate) size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description<A> {
    hash: String,
    size: u64,
    /// See [`Store::sealed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
    #[serde(flatten)]
    about: A,
}

impl<A: Serialize + DeserializeOwned> Store<A> {
    /// A store in a folder, which is made when it is first needed. `extension` begins with a dot.
    pub(crate) fn new(folder: PathBuf, extension: &'static str) -> Self {
        Self { folder, extension, secret: None, about: PhantomData }
    }

    /// The same, whose descriptions carry a keyed hash of key and archive: who can write into the folder, and doesn't know the secret, can't
    /// have another archive taken for a key, nor that of another key.
    pub(crate) fn sealed(self, secret: [u8; 32]) -> Self {
        Self { secret: Some(secret), ..self }
    }

    fn seal(&self, key: &Key, hash: &str, size: u64) -> Option<blake3::Hash> {
        // Both texts are of one length, whatever they say.
        let sealed = format!("{key} {hash} {size}");
        self.secret.map(|secret| blake3::keyed_hash(&secret, sealed.as_bytes()))
    }

    /// Where the index of a folder is kept.
    pub(super) fn index_path(&self, folder: &Path) -> Result<PathBuf> {
        let indexes = self.folder.join("index");
        make(&indexes)?;
        Ok(indexes.join(&blake3::hash(folder.as_os_str().as_bytes()).to_hex()[..32]))
    }

    /// A file to write an archive into, beside where it will be.
    pub(crate) fn draft(&self) -> Result<NamedTempFile> {
        make(&self.folder)?;
        tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.folder).map_err(|error| self.broken(error))
    }

    /// The archive of a key; a damaged one is dropped.
    pub(crate) fn get(&self, key: &Key) -> Found<A> {
        let Some(description) = self.describe(key.as_str()) else { return Found::Nothing };
        match self.open(key, description) {
            Some(archive) => Found::Archive(archive),
            None => {
                tracing::warn!(%key, folder = %self.folder.display(), "an archive in a cache was damaged; it is made anew");
                self.remove(key.as_str());
                Found::Damaged
            }
        }
    }

    /// What there is, in no order.
    pub(crate) fn list(&self) -> Vec<Entry<A>> {
        let entries = files(&self.folder).filter_map(|(_, name, metadata)| {
            let key = name.strip_suffix(".json")?.to_owned();
            let Description { size, about, .. } = self.describe(&key)?;
            Some(Entry { key, size, about, used: metadata.modified().ok()? })
        });
        entries.collect()
    }

    /// Removes all entries, and what killed processes left. Returns how many there were.
    pub(crate) fn clear(&self) -> usize {
        let keys: Vec<String> = self.list().into_iter().map(|entry| entry.key).collect();
        keys.iter().for_each(|key| self.remove(key));
        keys.len()
    }

    fn describe(&self, key: &str) -> Option<Description<A>> {
        let bytes = fs::read(self.description_path(key)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn open(&self, key: &Key, description: Description<A>) -> Option<Stored<A>> {
        if let Some(seal) = self.seal(key, &description.hash, description.size) {
            // Compared in constant time.
            let claimed = blake3::Hash::from_hex(description.seal.as_deref()?).ok()?;
            if claimed != seal {
                return None;
            }
        }
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
        let Description { hash, size, about, .. } = description;
        Some(Stored { key: key.clone(), hash, size, about, cached: true, file })
    }

    /// Keeps a draft as the archive of a key.
    pub(crate) fn put(&self, key: &Key, draft: NamedTempFile, written: Written, about: A) -> Result<Stored<A>> {
        let mut file = draft.reopen().map_err(|error| self.broken(error))?;
        file.rewind().map_err(|error| self.broken(error))?;
        let Written { hash, size } = written;
        if let Some(path) = self.archive_path(key.as_str(), &hash) {
            draft.persist(path).map_err(|error| self.broken(error.error))?;
        }
        let seal = self.seal(key, &hash, size).map(|seal| seal.to_hex().to_string());
        let description = Description { hash, size, seal, about };
        let bytes = serde_json::to_vec(&description).map_err(|error| self.broken(error.into()))?;
        let mut aside = self.draft()?;
        aside.write_all(&bytes).map_err(|error| self.broken(error))?;
        aside.persist(self.description_path(key.as_str())).map_err(|error| self.broken(error.error))?;
        let Description { hash, size, about, .. } = description;
        Ok(Stored { key: key.clone(), hash, size, about, cached: false, file })
    }

    /// Removes what was used longest ago until the rest fits, and what killed processes left. `keep` is never removed.
    pub(crate) fn sweep(&self, limit: u64, keep: &Key) {
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
            .filter_map(|(path, name, metadata)| Some((name.strip_suffix(self.extension)?.to_owned(), path, metadata)))
            .collect();
        let described: HashSet<PathBuf> =
            kept.iter().filter_map(|(_, key)| self.archive_path(key, &self.describe(key)?.hash)).collect();
        for (_, path, metadata) in &archives {
            // Described by nobody, as one of two that were written for a key at once, and not about to be.
            if !described.contains(path) && metadata.modified().is_ok_and(|modified| age(modified) > STALE) {
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

    /// Drops the archive of a key. The description goes first: an archive without one is nothing, a description without its
    /// archive is a miss.
    pub(crate) fn remove(&self, key: &str) {
        let _ = fs::remove_file(self.description_path(key));
        for (path, name, _) in files(&self.folder) {
            if name.starts_with(key) && name.ends_with(self.extension) {
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
        sound.then(|| self.folder.join(format!("{key}-{}{}", &hash[..16], self.extension)))
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
