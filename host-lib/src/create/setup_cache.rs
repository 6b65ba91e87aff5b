//! The set-up cache: what a template's set-up left in a workspace, kept for the next workspace of the template.
//!
//! What is kept is the workspace's whole tree right after the set-up, ignored folders such as `node_modules` included, as the agent
//! gives it. The dev server is started when the last byte of it was read, so nothing that it changes gets in; that takes a
//! fraction of what the set-up took. A set-up that leaves something that such an archive can't hold, a process that runs
//! or files in the home folder, is not kept: the next workspace would lack it. Package managers' own caches there don't count.
//!
//! The key is a hash of all that set-up is taken to depend on: the template's files (lock files among them), the set-up lines, the
//! image's id (which names its architecture too), the variables that commands see but for the agent's own. It is keyed with a
//! secret of the home folder, so that nobody guesses a token from a file's name. What set-up gets from elsewhere (a registry that
//! gives newer versions, the time of day) is not in it: the first result holds until it is evicted or cleared, or the template
//! opts out. Each entry is sealed with another secret: what somebody else put there, or moved from one key to another, is dropped. Entries may hold what set-up wrote down, tokens too: they have mode 0600 in a folder of mode 0700.
//!
//! Of two creations that miss at once both run the set-up, and one of them keeps its result.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use corehold_types::{Code, Timestamp};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::plan::Plan;
use crate::{
    blocking::blocking,
    client::ArchiveFormat,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    key::HostKey,
    pack::{Found, Key, Store, Stored, Written},
    workspace::{Workspace, random_word},
};

/// Changes whenever what is kept, or what it is taken to depend on, does.
const FORMAT: &[u8] = b"corehold set-up 1\n";
const SECRET: &str = "corehold 2026-11-21 keys of the set-up cache";
const SEAL: &str = "corehold 2026-11-22 seals of the set-up cache";
/// Longer than a tree of some gigabytes takes. The dev server waits for it, so a workspace that is larger still is not kept.
const READING: Duration = Duration::from_secs(60);
const LOOKING: Duration = Duration::from_secs(20);
const WORK: &str = "work on the set-up cache";

/// Variables of the agent's own, which commands don't see or which are another in each workspace.
const AGENTS_OWN: &str = "COREHOLD_";

/// Says the first thing that set-up left outside of the workspace, and nothing when there is none. Its argument is a file that was
/// made before set-up.
const LEFT_BEHIND: &str = include_str!("left-behind.sh");

/// An entry of the set-up cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SetupCacheEntry {
    /// Names it: a hash of what the set-up depends on.
    pub key: String,
    /// The template's name.
    pub template: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the set-up was done.
    pub created: Timestamp,
    /// When a workspace was made with it last, or it was made.
    pub used: Timestamp,
}

/// What is remembered of an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetUp {
    template: String,
    created: Timestamp,
}

/// All entries of a home folder. Clones are cheap and mean the same.
#[derive(Clone)]
pub(crate) struct SetupCache {
    store: Store<SetUp>,
    limit: u64,
    secret: [u8; 32],
    /// Keys for which a creation of this process is about to keep its result.
    keeping: Arc<Mutex<HashSet<Key>>>,
}

/// A set-up whose result wasn't there.
pub(super) struct Miss {
    key: Key,
    /// Why an entry that was there is no more.
    pub(super) dropped: Option<String>,
    /// A file inside, from before the set-up; absent when it could not be made.
    began: Option<String>,
}

impl SetupCache {
    pub(crate) fn new(folder: PathBuf, limit: u64, key: &HostKey) -> Self {
        let store = Store::new(folder, ".tar.zst").sealed(key.derive(SEAL));
        Self { store, limit, secret: key.derive(SECRET), keeping: Arc::default() }
    }

    /// Whether a plan's set-up may be kept, and taken from here.
    pub(super) fn serves(&self, plan: &Plan) -> bool {
        // What is mounted isn't in the key, and set-up lines may read it, or write to it.
        let alone = plan.recipe.mounts.is_empty();
        self.limit > 0
            && alone
            && plan.template.as_ref().is_some_and(|template| template.setup_cache && !template.setup.is_empty())
    }

    /// The key of a plan's set-up, with these files in this image.
    pub(super) fn key(&self, plan: &Plan, files: &Key, image: &str) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(FORMAT);
        // Lengths and counts keep two lists of fields from being read as one.
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        let setup = plan.template.as_ref().map(|template| template.setup.as_slice()).unwrap_or_default();
        let env: Vec<_> = plan.spec.env.iter().filter(|(name, _)| !name.starts_with(AGENTS_OWN)).collect();
        field(files.as_str().as_bytes());
        field(image.as_bytes());
        field(&(setup.len() as u64).to_le_bytes());
        setup.iter().for_each(|line| field(line.as_bytes()));
        field(&(env.len() as u64).to_le_bytes());
        env.iter().for_each(|(name, value)| {
            field(name.as_bytes());
            field(value.as_bytes());
        });
        Key::from_hash(hasher.finalize())
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Found<SetUp>> {
        let (store, key) = (self.store.clone(), key.clone());
        blocking(WORK, move || store.get(&key)).await
    }

    /// An entry turned out to be of no use. Returns what to say of it.
    pub(super) async fn refused(&self, entry: &Key, error: &Error) -> String {
        tracing::warn!(key = %entry, %error, "an entry of the set-up cache was refused by the agent; it is dropped");
        let (store, key) = (self.store.clone(), entry.clone());
        // What could not be removed is refused again.
        let _ = blocking(WORK, move || store.remove(key.as_str())).await;
        format!("the kept set-up was refused and dropped ({error})")
    }

    /// Notes down what there is before a set-up whose result is to be kept.
    pub(super) async fn miss(&self, workspace: &Workspace, key: Key, dropped: Option<String>) -> Miss {
        let began = async {
            let file = format!("/tmp/.corehold-setup-{}", random_word(8)?);
            let made =
                workspace.command_argv(["/bin/sh", "-c", ": >\"$1\"", "sh", &file]).timeout(LOOKING).run().await?;
            Ok::<_, Error>(made.success().then_some(file))
        };
        // Told when it is needed.
        let began = began.await.unwrap_or_default();
        Miss { key, dropped, began }
    }

    /// Keeps the result of a set-up. Returns how large it is.
    ///
    /// # Errors
    /// Why it wasn't kept, which is no reason to give up on the workspace.
    pub(super) async fn keep(&self, workspace: &Workspace, template: &str, miss: &Miss) -> Result<u64> {
        if !self.keeping().insert(miss.key.clone()) {
            return Err(Error::new(ErrorKind::Conflict, "another creation keeps it"));
        }
        let _done = Done { cache: self, key: &miss.key };
        self.refuse_what_is_left_behind(workspace, miss).await?;
        let reading = self.read(workspace);
        let (draft, written) = tokio::time::timeout(READING, reading).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, format!("the workspace can't be read within {} s", READING.as_secs()))
        })??;
        let size = written.size;
        let about = SetUp { template: template.to_owned(), created: Timestamp::now() };
        let (store, key, limit) = (self.store.clone(), miss.key.clone(), self.limit);
        let put = blocking(WORK, move || {
            // Another process may have been faster; its result is as good, and in use.
            if store.get(&key).archive().is_none() {
                store.put(&key, draft, written, about)?;
                store.sweep(limit, &key);
            }
            Ok(size)
        });
        put.await?
    }

    async fn refuse_what_is_left_behind(&self, workspace: &Workspace, miss: &Miss) -> Result<()> {
        let unknown = || Error::new(ErrorKind::Agent, "what set-up left outside of the workspace can't be looked at");
        let began = miss.began.as_deref().ok_or_else(unknown)?;
        let look = workspace.command_argv(["/bin/sh", "-c", LEFT_BEHIND, "sh", began]).timeout(LOOKING).run().await?;
        match look.stdout_text().lines().next() {
            None if look.success() => Ok(()),
            None => Err(unknown()),
            Some(left) => Err(Error::new(ErrorKind::Unsupported, left.to_owned())),
        }
    }

    /// Reads the whole workspace into a draft.
    async fn read(&self, workspace: &Workspace) -> Result<(tempfile::NamedTempFile, Written)> {
        let store = self.store.clone();
        let draft = blocking(WORK, move || store.draft()).await??;
        let mut file = tokio::fs::File::from_std(draft.reopen()?);
        let mut archive = workspace.archive(ArchiveFormat::TarZst, &[]).await?;
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        while let Some(bytes) = archive.next().await {
            let bytes = bytes?;
            hasher.update(&bytes);
            size += bytes.len() as u64;
            if size > self.limit {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("it has more than the {} bytes of the whole cache", self.limit),
                )
                .hint("COREHOLD_SETUP_CACHE_BYTES allows more"));
            }
            file.write_all(&bytes).await?;
        }
        file.flush().await?;
        Ok((draft, Written { hash: hasher.finalize().to_hex().to_string(), size }))
    }

    /// What there is, used last first.
    pub(crate) async fn entries(&self) -> Result<Vec<SetupCacheEntry>> {
        let store = self.store.clone();
        let mut entries = blocking(WORK, move || store.list()).await?;
        entries.sort_by(|one, other| other.used.cmp(&one.used).then_with(|| one.key.cmp(&other.key)));
        let told = entries.into_iter().map(|entry| SetupCacheEntry {
            key: entry.key,
            template: entry.about.template,
            bytes: entry.size,
            created: entry.about.created,
            used: timestamp(entry.used),
        });
        Ok(told.collect())
    }

    /// Removes all entries. Returns how many there were.
    pub(crate) async fn clear(&self) -> Result<usize> {
        let store = self.store.clone();
        blocking(WORK, move || store.clear()).await
    }

    fn keeping(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that was taken, for people.
pub(super) fn describe(entry: &Stored<SetUp>) -> String {
    format!("{} bytes of the set-up that was done at {}", entry.size, entry.about.created)
}

pub(super) fn event(key: &Key, hit: bool, dropped: Option<String>) -> EventKind {
    EventKind::SetupCache { hit, key: key.to_string(), dropped }
}

/// Whether it is the archive's own fault that an agent didn't take it.
pub(super) fn is_refused(error: &Error) -> bool {
    let codes = [Code::ArchiveInvalid, Code::ArchiveEntryRefused, Code::LimitExceeded];
    error.problem().is_some_and(|problem| codes.contains(&problem.code))
}

/// Lets others keep a key's result again, however keeping it ended.
struct Done<'a> {
    cache: &'a SetupCache,
    key: &'a Key,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.cache.keeping().remove(self.key);
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), 0)
}
