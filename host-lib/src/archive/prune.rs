//! Removing what no archive needs any more: mark, then sweep.
//!
//! Safe beside savers of other processes, by what [`save`](super::save) does, and by two rules here: nothing goes that was
//! written within [`GRACE`], and what a saving's marker names is kept as if it were an archive. A pruning has a marker of its own,
//! written before it looks at anything; a saver that sees one waits for it before it makes an archive.

use std::{
    collections::HashSet,
    fs,
    path::Path as FilePath,
    sync::Arc,
    time::{Duration, SystemTime},
};

use corehold_types::Timestamp;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    GRACE,
    chunk::ChunkId,
    content,
    id::ArchiveId,
    index::Index,
    manifest::{Archive, MOST_MANIFEST},
    save::Marker as SavingMarker,
    store::{ARCHIVES, CHUNKS, INDEXES, PRUNES, SAVES, Store, index_path, reference_of, under_way_path},
};
use crate::{
    blocking::cut_off,
    error::{Error, ErrorKind, Result},
    state::HostProcess,
};

/// Time that a pruning takes at most; then it ends with what it has done. A marker that is older is of one that was killed.
const LONGEST: Duration = Duration::from_secs(3600);
/// Between two looks at the marker of another process: a store tells nobody when an object goes.
const LOOK: Duration = Duration::from_millis(500);
/// Objects removed at once.
const BATCH: usize = 500;
/// Indexes that are read at once.
const AT_ONCE: usize = 4;

/// What a pruning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pruned {
    /// Objects that were removed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that archives need.
    pub kept: u64,
    /// Objects that no archive needs, and that are too young to go.
    pub young: u64,
}

/// Who prunes. Its marker says so: whoever has the same home can tell whether it still lives.
#[derive(Debug, Clone)]
pub(crate) struct Pruner {
    /// Fingerprint of the home's key.
    pub(crate) home: String,
    pub(crate) process: Arc<HostProcess>,
}

/// What the marker of a pruning says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    home: String,
    process: String,
}

impl Pruner {
    fn marker(&self) -> Vec<u8> {
        let marker = Marker { home: self.home.clone(), process: self.process.name().to_owned() };
        serde_json::to_vec(&marker).unwrap_or_default()
    }

    /// Whether a marker is of one that is known to be dead. Of those of other homes nobody knows.
    fn knows_dead(&self, marker: &[u8]) -> bool {
        let marker = serde_json::from_slice::<Marker>(marker);
        marker.is_ok_and(|marker| marker.home == self.home && !self.process.lives(&marker.process))
    }
}

/// A marker that is removed also when its pruning is given up: savers would wait for it.
struct UnderWay {
    store: Store,
    marker: Option<Path>,
    /// Written in a task of its own: it would be written nevertheless, and perhaps after it was removed.
    writing: Option<JoinHandle<Result<()>>>,
}

impl UnderWay {
    async fn begin(store: &Store, marker: &Path) -> Result<Self> {
        let bytes = store.pruner().map_or_else(|| b"{}".to_vec(), Pruner::marker);
        let (at, path) = (store.clone(), marker.clone());
        let writing = tokio::spawn(async move { at.put(&path, bytes).await });
        let mut begun = Self { store: store.clone(), marker: Some(marker.clone()), writing: Some(writing) };
        if let Some(writing) = begun.writing.as_mut() {
            writing.await.map_err(|error| cut_off("writing a marker", error))??;
        }
        begun.writing = None;
        Ok(begun)
    }

    async fn end(mut self) -> Result<()> {
        if let Some(marker) = &self.marker {
            self.store.delete(marker).await?;
        }
        self.marker = None;
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let (Some(marker), Ok(runtime)) = (self.marker.take(), Handle::try_current()) else { return };
        let (store, writing) = (self.store.clone(), self.writing.take());
        runtime.spawn(async move {
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            if let Err(error) = store.delete(&marker).await {
                tracing::warn!(%error, %marker, "the marker of a pruning that was given up stays until it is pruned");
            }
        });
    }
}

/// Prunes a store.
pub(super) async fn prune(store: &Store, folder: Option<&FilePath>) -> Result<Pruned> {
    let marker = under_way_path(PRUNES, &ArchiveId::generate(Timestamp::now())?);
    let under_way = UnderWay::begin(store, &marker).await?;
    let result = match tokio::time::timeout(LONGEST / 2, mark_and_sweep(store, &marker, folder)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the archive store has more to prune than half an hour allows")
            .hint("prune again: what was removed is removed")),
    };
    under_way.end().await?;
    result
}

/// Waits until no pruning is under way that was when this was asked.
pub(super) async fn wait_for_those_under_way(store: &Store) -> Result<()> {
    let under_way: Vec<_> = store.list(&Path::from(PRUNES)).try_collect().await?;
    for pruning in under_way {
        let began = tokio::time::Instant::now();
        // By our own clock too: of a process that was killed on another machine nobody knows, but it can't have lived longer.
        while began.elapsed() < LONGEST
            && let Some(marker) = store.read(&pruning.location, MOST_MANIFEST).await?
        {
            if store.pruner().is_some_and(|pruner| pruner.knows_dead(&marker)) {
                store.delete(&pruning.location).await?;
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn mark_and_sweep(store: &Store, marker: &Path, folder: Option<&FilePath>) -> Result<Pruned> {
    let now = store
        .written(marker)
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("the archive store lost {marker}, which was just written")))?;
    let mut marked = Marked::default();
    marked.savings(store, now).await?;
    marked.archives(store).await?;
    let mut pruned = Pruned::default();
    for room in [CHUNKS, INDEXES] {
        marked.sweep(store, room, now, &mut pruned).await?;
    }
    // Of prunings that were killed.
    let stale: Vec<Path> = store
        .list(&Path::from(PRUNES))
        .try_filter(|object| {
            std::future::ready(&object.location != marker && age(now, object.last_modified.into()) > LONGEST)
        })
        .map_ok(|object| object.location)
        .try_collect()
        .await?;
    store.delete_all(stale).await?;
    if let Some(folder) = folder.map(FilePath::to_owned) {
        let sweeping = tokio::task::spawn_blocking(move || sweep_drafts(&folder));
        let _ = sweeping.await;
    }
    Ok(pruned)
}

fn age(now: SystemTime, written: SystemTime) -> Duration {
    now.duration_since(written).unwrap_or_default()
}

/// Names of chunks and indexes that are needed. 32 bytes each: 40 MB for a terabyte.
#[derive(Default)]
struct Marked {
    chunks: HashSet<ChunkId>,
    indexes: HashSet<ChunkId>,
}

impl Marked {
    fn index(&mut self, id: ChunkId, index: &Index) {
        self.indexes.insert(id);
        self.chunks.extend(index.chunks().map(|chunk| chunk.id));
    }

    /// What savings that are under way need. Those that were killed are forgotten.
    async fn savings(&mut self, store: &Store, now: SystemTime) -> Result<()> {
        let markers: Vec<_> = store.list(&Path::from(SAVES)).try_collect().await?;
        for marker in markers {
            if age(now, marker.last_modified.into()) > GRACE {
                store.delete(&marker.location).await?;
                continue;
            }
            // Gone since: it is over, and if it made an archive, that is found next.
            let Some(bytes) = store.read(&marker.location, MOST_MANIFEST).await? else { continue };
            for (id, most) in SavingMarker::decode(&bytes) {
                if let Some(bytes) = store.read(&index_path(id), most).await?
                    && let Ok(index) = Index::decode(&bytes)
                {
                    self.index(id, &index);
                }
            }
        }
        Ok(())
    }

    /// What archives need. One that can't be read stops the pruning: nobody can tell what it needs.
    async fn archives(&mut self, store: &Store) -> Result<()> {
        let manifests = store.list(&Path::from(ARCHIVES)).try_filter_map(async |object| {
            // What isn't ours is left alone.
            Ok(reference_of(&object.location).map(|reference| (reference, object.location)))
        });
        let mut needed = manifests
            .map_ok(async |(reference, path)| {
                let stopped = |error: Error| {
                    error
                        .context(format_args!("nothing is pruned while archive {reference} can't be read"))
                        .also_hint(&format!("if it is lost for good, `corehold archives rm {reference}` gives it up"))
                };
                let Some(bytes) = store.read(&path, MOST_MANIFEST).await.map_err(stopped)? else { return Ok(None) };
                let archive = Archive::decode(&reference, &bytes).map_err(stopped)?;
                let index = content::index(store, &archive).await.map_err(stopped)?;
                Ok::<_, Error>(Some((archive.index_id()?, index)))
            })
            .try_buffer_unordered(AT_ONCE)
            .boxed();
        while let Some(found) = needed.try_next().await? {
            if let Some((id, index)) = found {
                self.index(id, &index);
            }
        }
        Ok(())
    }

    async fn sweep(&self, store: &Store, room: &str, now: SystemTime, pruned: &mut Pruned) -> Result<()> {
        let needed = if room == CHUNKS { &self.chunks } else { &self.indexes };
        let mut objects = store.list(&Path::from(room));
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(object) = objects.try_next().await? {
            // What isn't named by a hash is not ours.
            let Some(id) = object.location.filename().and_then(super::manifest::parse_hash) else { continue };
            if needed.contains(&id) {
                pruned.kept += 1;
            } else if age(now, object.last_modified.into()) <= GRACE {
                pruned.young += 1;
            } else {
                batch.push(object.location);
                bytes += object.size;
            }
            if batch.len() == BATCH {
                remove(store, &mut batch, &mut bytes, pruned).await?;
            }
        }
        remove(store, &mut batch, &mut bytes, pruned).await
    }
}

async fn remove(store: &Store, batch: &mut Vec<Path>, bytes: &mut u64, pruned: &mut Pruned) -> Result<()> {
    let count = batch.len() as u64;
    store.delete_all(std::mem::take(batch)).await?;
    pruned.objects += count;
    pruned.bytes += std::mem::take(bytes);
    Ok(())
}

/// Removes drafts that killed savers left in a folder: object_store writes `<name>#<number>` and renames, and lists none of them.
fn sweep_drafts(folder: &FilePath) {
    let mut left = vec![folder.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                left.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let draft = name.to_str().and_then(|name| name.rsplit_once('#'));
            let is_draft =
                draft.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            // Of a folder the store's clock is this machine's.
            if is_draft && modified.is_ok_and(|modified| age(SystemTime::now(), modified) > GRACE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
