//! Saving: a tar becomes chunks, an index and, last, a manifest.
//!
//! In this order, so that a saver that is killed leaves nothing but objects that no manifest names, which pruning removes:
//!
//! 1. A marker (`saves/<id>.json`) names the archive that this one builds on. While it is there, pruning keeps that one's chunks.
//! 2. Chunks are written that the store hasn't. One that is there, but is neither of the archive built on nor young, may be
//!    about to be pruned: it is written again.
//! 3. The index is written, and the marker names it: from here on pruning keeps all of it.
//! 4. Prunings that began before that are waited for. Then all is read back, or at least looked for.
//! 5. The manifest is written, the marker removed.
//!
//! All times are the store's own.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    GRACE,
    chunk::{ChunkId, compress},
    content,
    id::ArchiveId,
    index::{ChunkRef, Index},
    manifest::{Archive, FORMAT, parse_hash},
    prune,
    scan::{self, Piece, Pipe, Summary},
    sleeper::Sleeper,
    store::{SAVES, Store, chunk_path, index_path, manifest_path, under_way_path},
    verify,
};
use crate::{
    blocking::{blocking, cut_off},
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
    workspace::WorkspaceId,
};

/// Chunks that are compressed and written at once. With the pieces that wait for them they take 60 MB at most, and about
/// a fifth of it usually.
const AT_ONCE: usize = 4;
/// Pieces of the tar, and chunks, between one step and the next.
const WAITING: usize = 2;

/// What is saved, but for the files.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) workspace: WorkspaceId,
    pub(super) template: Option<String>,
    pub(super) exclusions: Vec<String>,
    /// Set where it is saved to sleep.
    pub(super) sleeper: Option<Box<Sleeper>>,
}

/// A saving that is under way, as pruning sees it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Marker {
    /// Indexes whose chunks it needs: of the archive that it builds on, and its own once it is written.
    indexes: Vec<MarkedIndex>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkedIndex {
    id: String,
    bytes: u64,
}

impl Marker {
    /// The indexes that it names, with their lengths; what is damaged names none.
    pub(super) fn decode(bytes: &[u8]) -> Vec<(ChunkId, u64)> {
        let marker: Self = serde_json::from_slice(bytes).unwrap_or_default();
        marker.indexes.iter().filter_map(|index| Some((parse_hash(&index.id)?, index.bytes))).collect()
    }
}

/// A saving. Each step is cancel-safe: what was written by then is pruned one day.
pub(super) struct Saving<'a> {
    store: &'a Store,
    subject: Subject,
    id: ArchiveId,
    created: Timestamp,
    began: Instant,
    marker: Path,
    /// The store's time at the beginning.
    now: SystemTime,
    base: Option<Archive>,
    /// Whether chunks are written even where they are: after what was there turned out to be damaged.
    anew: bool,
    /// Chunks that are there and stay: those of the base, young ones, and those of this saving.
    known: Mutex<HashSet<ChunkId>>,
    /// Chunks that were there, old, and were written again.
    refreshed: Mutex<Vec<ChunkId>>,
    written: AtomicU64,
}

/// What a saving came to.
pub(super) struct Saved {
    pub(super) archive: Archive,
    /// Bytes that were written into the store.
    pub(super) written: u64,
    /// Whether it was made now; else it is an earlier one, since which nothing has changed.
    pub(super) new: bool,
}

impl<'a> Saving<'a> {
    /// Begins to save, on the base of an earlier archive of the same workspace; `anew`: as if the store had nothing.
    pub(super) async fn begin(store: &'a Store, subject: Subject, base: Option<Archive>, anew: bool) -> Result<Self> {
        let base = base.filter(|_| !anew);
        let created = Timestamp::now();
        let id = ArchiveId::generate(created)?;
        let marker = under_way_path(SAVES, &id);
        put_marker(store, &marker, base.iter()).await?;
        let now = store.written(&marker).await?.ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("the archive store lost {marker}, which was just written"))
                .hint("is something else removing objects from it?")
        })?;
        let mut saving = Self {
            store,
            subject,
            id,
            created,
            began: Instant::now(),
            marker,
            now,
            base: None,
            anew,
            known: Mutex::default(),
            refreshed: Mutex::default(),
            written: AtomicU64::new(0),
        };
        if let Some(base) = base
            // Only now is it sure to stay: had it been deleted before the marker was there, its chunks could be pruned.
            && store.written(&manifest_path(&base.reference())).await?.is_some()
            // A base that is damaged is no base; saving anew is what mends it.
            && let Ok(index) = content::index(store, &base).await
        {
            saving.known.get_mut().unwrap_or_else(PoisonError::into_inner).extend(index.chunks().map(|chunk| chunk.id));
            saving.base = Some(base);
        }
        Ok(saving)
    }

    /// Writes what a tar holds.
    pub(super) async fn content(&self, tar: BoxStream<Bytes>) -> Result<(Index, Summary)> {
        let (feed, pipe) = mpsc::channel(WAITING);
        let (emit, mut pieces) = mpsc::channel(WAITING);
        let scanning = tokio::task::spawn_blocking(move || scan::cut(Pipe::new(pipe), &emit));
        let mut index = Index::default();
        let storing = async {
            let mut chunks = stream::poll_fn(|context| pieces.poll_recv(context))
                .map(|piece| async {
                    Ok::<_, Error>(match piece {
                        Piece::Content(bytes) => (true, self.chunk(bytes).await?),
                        Piece::Entries(bytes) => (false, self.chunk(bytes).await?),
                    })
                })
                .buffered(AT_ONCE);
            while let Some((of_content, chunk)) = chunks.try_next().await? {
                if of_content { &mut index.content } else { &mut index.entries }.push(chunk);
            }
            Ok(())
        };
        tokio::try_join!(scan::forward(tar, feed), storing)?;
        let summary = scanning.await.map_err(|error| cut_off("reading a tar", error))??;
        Ok((index, summary))
    }

    /// Writes the rest, and makes an archive of it. `thorough`: only after all of it was read back.
    pub(super) async fn finish(&self, index: Index, summary: Summary, thorough: bool) -> Result<Saved> {
        let bytes = index.encode();
        let archive = Archive {
            format: FORMAT,
            id: self.id.clone(),
            workspace: self.subject.workspace.clone(),
            template: self.subject.template.clone(),
            created: self.created,
            hash: summary.hash,
            bytes: summary.bytes,
            files: summary.files,
            directories: summary.directories,
            symlinks: summary.symlinks,
            content_bytes: summary.content_bytes,
            exclusions: self.subject.exclusions.clone(),
            index: ChunkId::of(&bytes).to_string(),
            index_bytes: bytes.len() as u64,
            sleeper: self.subject.sleeper.clone(),
        };
        if let Some(base) = self.base.as_ref().filter(|base| same(base, &archive)) {
            // All of it is there, with a manifest that keeps it.
            if thorough {
                verify::read_back(self.store, base).await?;
            }
            return Ok(Saved { archive: base.clone(), written: 0, new: false });
        }
        let index_at = index_path(archive.index_id()?);
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.store.put(&index_at, bytes).await?;
        put_marker(self.store, &self.marker, self.base.iter().chain([&archive])).await?;
        prune::wait_for_those_under_way(self.store).await?;
        // After so long nothing of it is young any more.
        if thorough || self.began.elapsed() > GRACE / 4 {
            verify::read_back(self.store, &archive).await?;
        } else {
            let refreshed = std::mem::take(&mut *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner));
            for id in refreshed {
                if self.store.written(&chunk_path(id)).await?.is_none() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("chunk {id} was pruned while it was saved again"),
                    )
                    .hint("save once more"));
                }
            }
        }
        self.store.create(&manifest_path(&archive.reference()), archive.encode()?).await?;
        Ok(Saved { archive, written: self.written.load(Ordering::Relaxed), new: true })
    }

    /// Says that nothing is under way any more, whatever came of it.
    pub(super) async fn end(self) {
        if let Err(error) = self.store.delete(&self.marker).await {
            tracing::warn!(%error, marker = %self.marker, "the marker of a saving that is over stays until it is pruned");
        }
    }

    /// Sees to it that the store has a chunk.
    async fn chunk(&self, bytes: Vec<u8>) -> Result<ChunkRef> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (id, bytes) = blocking("hashing", move || (ChunkId::of(&bytes), bytes)).await?;
        let known =
            |known: &Mutex<HashSet<ChunkId>>| known.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
        if !known(&self.known) {
            let path = chunk_path(id);
            let written = if self.anew { None } else { self.store.written(&path).await? };
            let age = written.map(|written| self.now.duration_since(written).unwrap_or(Duration::ZERO));
            if age.is_none_or(|age| age > GRACE / 2) {
                let kept = blocking("compressing", move || compress(&bytes)).await??;
                self.written.fetch_add(kept.len() as u64, Ordering::Relaxed);
                self.store.put(&path, kept).await?;
                if age.is_some() {
                    self.refreshed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                }
            }
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Ok(ChunkRef { id, length })
    }
}

/// Whether an archive would be the same as another one but for its time.
fn same(one: &Archive, other: &Archive) -> bool {
    let what = |archive: &Archive| {
        (archive.index.clone(), archive.template.clone(), archive.exclusions.clone(), archive.sleeper.clone())
    };
    what(one) == what(other)
}

async fn put_marker(store: &Store, path: &Path, archives: impl Iterator<Item = &Archive>) -> Result<()> {
    let indexes =
        archives.map(|archive| MarkedIndex { id: archive.index.clone(), bytes: archive.index_bytes }).collect();
    let bytes = serde_json::to_vec(&Marker { indexes })
        .map_err(|error| Error::new(ErrorKind::Io, format!("a marker can't be written: {error}")))?;
    store.put(path, bytes).await
}
