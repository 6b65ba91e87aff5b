//! Archives: workspaces as they were saved, kept apart from any container, on disk or in a bucket.
//!
//! An archive is the tar that the agent makes of the workspace's root. It is cut into [chunks](chunk) by content, each stored
//! once however many archives need it; an [index] names the chunks of an archive, and its [manifest], written last, makes
//! it exist. `docs/archive-format.md` has the format, [`save`] the order of writing, [`prune`] what goes.
//!
//! What is saved: files, folders, symbolic and hard links, their permissions and times, any name. What isn't: owners (all
//! belongs to the workspace's user), extended attributes, holes in sparse files (they come back filled with zeros), sockets,
//! pipes and devices.
//!
//! Saving a workspace whose files change meanwhile: each file is as it was at some moment of the saving, a small one
//! (256 KiB) whole, a larger one perhaps as two writes of somebody else left it. There is no moment at which all of them were
//! so together. A large file that becomes shorter while it is read breaks the saving off, which then begins again. Whoever
//! needs one moment for all stops what writes.
//!
//! Saving and loading stream: whatever a workspace's size, they hold 100 MB at most, and usually some 20, and an index of
//! 36 bytes for about a megabyte.

mod chunk;
mod content;
mod diff;
mod entry;
mod fork;
#[cfg(any(feature = "fuzzing", test))]
pub(crate) mod fuzz;
mod id;
mod index;
mod manifest;
mod place;
mod prune;
#[cfg(feature = "s3")]
mod s3;
mod save;
mod scan;
mod sleeper;
mod store;
mod upkeep;
mod verify;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use corehold_types::tools::{ExtractResponse, Info, InfoRequest};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use tracing::Instrument as _;

pub use self::{
    diff::{Change, Difference, EntryKind, Side, Tree},
    id::{ArchiveId, ArchiveRef},
    manifest::Archive,
    place::ArchiveStore,
    prune::Pruned,
    sleeper::Sleeper,
};
use self::{
    manifest::MOST_MANIFEST,
    save::{Saved, Saving, Subject},
    scan::Summary,
    store::{ARCHIVES, Store, manifest_path, reference_of, workspace_path},
};
pub(crate) use self::{place::Place, prune::Pruner, upkeep::keep_pruned};
use crate::{
    client::ArchiveFormat,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    host::HostInner,
    life,
    runtime::BoxStream,
    workspace::{Workspace, WorkspaceId},
};

/// Time that objects are kept which no archive needs: they may be of a saving that is under way.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Manifests that are read at once for a listing.
const LOOK_UPS: usize = 16;
/// Times that a workspace is read, if a large file becomes shorter each time or its agent goes away.
const READS: usize = 3;

/// What is saved of a workspace, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Patterns, as in .gitignore, of what is left out. Default: nothing, `node_modules` and `.git` included.
    pub exclude: Vec<String>,
    /// Whether all of it is read back before it counts as saved. Default true.
    pub verify: bool,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { exclude: Vec::new(), verify: true }
    }
}

impl SaveOptions {
    /// Leaves out what a pattern matches, as in .gitignore. May be called more than once.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Whether all of it is read back before it counts as saved.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }
}

/// The archives of a host. Clones are cheap; every method may be called concurrently, by other processes that share the
/// store too.
#[derive(Clone)]
pub struct Archives {
    host: Arc<HostInner>,
}

impl Archives {
    pub(crate) fn new(host: Arc<HostInner>) -> Self {
        Self { host }
    }

    async fn store(&self) -> Result<&Store> {
        self.host.archives.store().await
    }

    /// Saves a workspace. What earlier archives hold already isn't written again, and when nothing has changed since the last
    /// one that was saved so, that one is returned. One that is paused or asleep is woken for it. Cancel-safe: an archive exists
    /// whole or not at all.
    ///
    /// The module says what is saved, and what is guaranteed while files change.
    ///
    /// # Errors
    /// `Io` when the store can't be used; `Invalid` for a pattern that is none, and for a workspace that an agent would not
    /// take back: larger than its limits for an archive; `Agent` when a file can't be read; `AgentUnavailable`.
    pub async fn save(&self, workspace: &Workspace, options: SaveOptions) -> Result<Archive> {
        self.save_for(workspace, options, None).await
    }

    async fn save_for(
        &self,
        workspace: &Workspace,
        options: SaveOptions,
        sleeper: Option<Box<Sleeper>>,
    ) -> Result<Archive> {
        let began = Instant::now();
        // In a box, here and below: what it holds while it waits would make every caller's future large.
        let span = tracing::info_span!("save", workspace = %workspace.id(), to_sleep = sleeper.is_some());
        let saved = Box::pin(self.save_parts(workspace, options, sleeper)).instrument(span).await;
        let saved =
            saved.map_err(|error| error.context(format_args!("workspace {} can't be saved", workspace.id())))?;
        let archive = saved.archive.reference();
        let kind = EventKind::Saved { archive, written_bytes: saved.written, duration: began.elapsed() };
        self.host.events.emit(Some(workspace.id()), kind);
        Ok(saved.archive)
    }

    async fn save_parts(
        &self,
        workspace: &Workspace,
        options: SaveOptions,
        sleeper: Option<Box<Sleeper>>,
    ) -> Result<Saved> {
        let store = self.store().await?;
        let subject = Subject {
            workspace: workspace.id().clone(),
            template: workspace.template().map(str::to_owned),
            exclusions: options.exclude,
            sleeper,
        };
        let mut anew = false;
        for attempt in 1.. {
            let base = self.newest(store, workspace.id(), subject.sleeper.is_some()).await?;
            let saving = Saving::begin(store, subject.clone(), base, anew).await?;
            let result = self.attempt(workspace, &saving, &subject.exclusions, options.verify).await;
            saving.end().await;
            match result {
                // Cut off: a file became shorter, or the agent is gone, which the next attempt then says.
                Err(error) if attempt < READS && error.kind() == ErrorKind::AgentUnavailable => {
                    tracing::info!(%error, workspace = %workspace.id(), "a saving was cut off and begins again");
                }
                // What was in the store already is not what its name says, or was pruned at the same time.
                Err(error) if attempt < READS && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Conflict) => {
                    tracing::warn!(%error, workspace = %workspace.id(), "all of a workspace is written anew");
                    anew = true;
                }
                result => return result,
            }
        }
        Err(Error::new(ErrorKind::AgentUnavailable, "it was cut off"))
    }

    async fn attempt(
        &self,
        workspace: &Workspace,
        saving: &Saving<'_>,
        exclude: &[String],
        verify: bool,
    ) -> Result<Saved> {
        let tar = workspace.archive(ArchiveFormat::Tar, exclude).await?;
        let (index, summary) = saving.content(tar).await?;
        check_limits(workspace, &summary).await?;
        saving.finish(index, summary, verify).await
    }

    /// The newest archive of a workspace that can be read, of those that were saved to sleep or of the others. The chunks of any will
    /// do, where there is none of these.
    async fn newest(&self, store: &Store, workspace: &WorkspaceId, to_sleep: bool) -> Result<Option<Archive>> {
        let mut paths: Vec<Path> = manifests(store, Some(workspace)).map_ok(|(_, path)| path).try_collect().await?;
        paths.sort();
        let mut other = None;
        for path in paths.iter().rev() {
            let Some(reference) = reference_of(path) else { continue };
            match read(store, &reference).await {
                Ok(Some(archive)) if archive.sleeper.is_some() == to_sleep => return Ok(Some(archive)),
                Ok(archive) => other = other.or(archive),
                // It was saved by a later version, or is damaged: nothing to build on.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(other)
    }

    /// The archives of a workspace or of all, newest first. Those that can't be read are left out and logged; they don't hide
    /// others. Cancel-safe.
    ///
    /// # Errors
    /// `Io` when the store can't be used.
    pub async fn list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<Archive>> {
        let store = self.store().await?;
        let mut archives: Vec<Archive> = manifests(store, workspace)
            .map_ok(|(reference, _)| async move {
                match read(store, &reference).await {
                    Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                        tracing::warn!(%error, archive = %reference, "an archive can't be read");
                        Ok(None)
                    }
                    result => result,
                }
            })
            .try_buffer_unordered(LOOK_UPS)
            .try_filter_map(async |archive| Ok(archive))
            .try_collect()
            .await?;
        archives.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
        Ok(archives)
    }

    /// An archive by its name. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` or `Unsupported` when its manifest can't be read; `Io`.
    pub async fn get(&self, reference: &ArchiveRef) -> Result<Archive> {
        let archive = read(self.store().await?, reference).await.map_err(|error| of_archive(reference, error))?;
        archive.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no archive {reference}"))
                .hint("`corehold archives ls` lists those that there are")
        })
    }

    /// Reads all of an archive and compares every hash, as if it were loaded. Cancel-safe.
    ///
    /// # Errors
    /// `Damaged` with what is wrong first; `Io` when the store can't be used.
    pub async fn verify(&self, archive: &Archive) -> Result<()> {
        let store = self.store().await?;
        Box::pin(verify::read_back(store, archive)).await.map_err(|error| of_archive(&archive.reference(), error))
    }

    /// Makes the files of a workspace those of an archive: what is not in it goes. All or nothing: when the archive is damaged,
    /// or the connection breaks, the workspace stays as it was. One that is paused or asleep is woken for it. Cancel-safe in the same sense.
    ///
    /// # Errors
    /// `Damaged` when the archive is; `Agent` when the agent refuses it, as for want of room on the disk; `AgentUnavailable`;
    /// `Io` when the store can't be used.
    pub async fn load(&self, archive: &Archive, workspace: &Workspace) -> Result<ExtractResponse> {
        let (began, reference) = (Instant::now(), archive.reference());
        let span = tracing::info_span!("load", workspace = %workspace.id(), archive = %reference);
        let done = Box::pin(self.load_parts(archive, workspace)).instrument(span).await.map_err(|error| {
            of_archive(&reference, error)
                .also_hint(&format!("the files of workspace {} are as they were", workspace.id()))
        })?;
        let kind = EventKind::Loaded { archive: reference, duration: began.elapsed() };
        self.host.events.emit(Some(workspace.id()), kind);
        Ok(done)
    }

    async fn load_parts(&self, archive: &Archive, workspace: &Workspace) -> Result<ExtractResponse> {
        let store = self.store().await?;
        let index = content::index(store, archive).await?;
        let failure = Arc::new(Mutex::new(None));
        let tar = kept_error(content::bytes(store, index.content), failure.clone());
        let result = workspace.replace_files(&archive.hash, archive.bytes, tar).await;
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The agent only knows that the body broke off.
            Some(error) => Err(error),
            None => result,
        }
    }

    /// Gives an archive up. What only it needed goes with the next [`prune`](Self::prune).
    /// Dropping the future abandons the wait: it may be gone.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a workspace of this home sleeps in it; `Io`.
    pub async fn delete(&self, reference: &ArchiveRef) -> Result<()> {
        let store = self.store().await?;
        let path = manifest_path(reference);
        // Whether it can be read doesn't matter: this is how one that can't is given up.
        if store.written(&path).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no archive {reference}"))
                .hint("`corehold archives ls` lists those that there are"));
        }
        // One that was saved for somebody is never slept in.
        match read(store, reference).await {
            Ok(Some(archive)) if archive.sleeper.is_none() => store.delete(&path).await,
            _ => life::give_up(&self.host, reference, store.delete(&path)).await,
        }
    }

    /// Removes what no archive needs and is older than a day. Safe beside savings and prunings of any process. Hosts do it by themselves
    /// ([`HostBuilder::prune_every`](crate::HostBuilder::prune_every)).
    /// Cancel-safe: what is left goes with the next one.
    ///
    /// # Errors
    /// `Damaged` when an archive can't be read, since nobody can tell what it needs; `Io`; `Timeout`. It may be tried again.
    pub async fn prune(&self) -> Result<Pruned> {
        Box::pin(prune::prune(self.store().await?, self.host.archives.folder())).await
    }

    /// Saves a workspace whose container is about to go: all of it, read back.
    pub(crate) async fn save_verified(&self, workspace: &Workspace, sleeper: Sleeper) -> Result<ArchiveRef> {
        Ok(self.save_for(workspace, SaveOptions::default(), Some(Box::new(sleeper))).await?.reference())
    }

    /// What workspaces of this home sleep in, or slept in last: of each the newest.
    pub(crate) async fn sleepers(&self) -> Result<Vec<Archive>> {
        let mut all = self.list(None).await?;
        let mut seen = HashSet::new();
        all.retain(|archive| self.is_own_sleeper(archive) && seen.insert(archive.workspace.clone()));
        Ok(all)
    }

    /// Gives up what a workspace of this home was saved in to sleep, but for what it needs.
    pub(crate) async fn sweep(&self, workspace: &WorkspaceId, needed: Option<&str>) -> Result<()> {
        let store = self.store().await?;
        for archive in self.list(Some(workspace)).await? {
            let reference = archive.reference();
            if self.is_own_sleeper(&archive) && needed.is_none_or(|needed| needed != reference.to_string()) {
                store.delete(&manifest_path(&reference)).await?;
            }
        }
        Ok(())
    }

    /// Gives up all that somebody saved of a workspace that is being removed, and what can't be read.
    pub(crate) async fn forget(&self, workspace: &WorkspaceId) -> Result<()> {
        let store = self.store().await?;
        let found: Vec<_> = manifests(store, Some(workspace)).try_collect().await?;
        for (reference, path) in found {
            match read(store, &reference).await {
                // What it sleeps in itself goes last, after its container.
                Ok(Some(archive)) if archive.sleeper.is_some() => {}
                Err(error) if !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    return Err(error);
                }
                _ => store.delete(&path).await?,
            }
        }
        Ok(())
    }

    fn is_own_sleeper(&self, archive: &Archive) -> bool {
        archive.sleeper.as_ref().is_some_and(|sleeper| sleeper.home == self.host.fingerprint)
    }

    /// Fills a container with what was saved.
    pub(crate) async fn restore(&self, reference: &ArchiveRef, workspace: &Workspace) -> Result<ExtractResponse> {
        let archive = self.get(reference).await?;
        self.load(&archive, workspace).await
    }
}

/// Whether an agent like this one would take it back: what can't be loaded is not saved.
async fn check_limits(workspace: &Workspace, summary: &Summary) -> Result<()> {
    let limits = workspace.call::<Info>(&InfoRequest::default()).await?.limits;
    for (name, value) in [("archiveBytes", summary.content_bytes), ("archiveEntries", summary.weight)] {
        if let Some(limit) = limits.iter().find(|limit| limit.name == name && limit.value < value) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("it has {value} {}, and an agent takes {} in an archive", limit.unit, limit.value),
            )
            .hint(format!("leave out what can be made again, such as node_modules, or raise {}", limit.variable)));
        }
    }
    Ok(())
}

/// The names of manifests, of a workspace or all.
fn manifests(store: &Store, workspace: Option<&WorkspaceId>) -> BoxStream<(ArchiveRef, Path)> {
    let room = workspace.map_or_else(|| Path::from(ARCHIVES), workspace_path);
    Box::pin(store.list(&room).try_filter_map(async |object| {
        Ok(reference_of(&object.location).map(|reference| (reference, object.location)))
    }))
}

/// A manifest; nothing when there is none.
async fn read(store: &Store, reference: &ArchiveRef) -> Result<Option<Archive>> {
    let bytes = store.read(&manifest_path(reference), MOST_MANIFEST).await?;
    bytes.map(|bytes| Archive::decode(reference, &bytes)).transpose()
}

/// Names the archive, and what to do about it.
fn of_archive(reference: &ArchiveRef, error: Error) -> Error {
    let damaged = error.kind() == ErrorKind::Damaged;
    let error = error.context(format_args!("archive {reference}"));
    if damaged {
        let workspace = &reference.workspace;
        error.also_hint(&format!("it can't be loaded any more; `corehold archives {workspace}` lists earlier ones"))
    } else {
        error
    }
}

/// The same stream, whose first error is kept for whoever asks; the stream gives another one in its place.
fn kept_error(stream: BoxStream<Bytes>, failure: Arc<Mutex<Option<Error>>>) -> BoxStream<Bytes> {
    Box::pin(stream.map(move |item| {
        item.map_err(|error| {
            let stands_in = Error::new(error.kind(), error.to_string());
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            stands_in
        })
    }))
}

#[cfg(test)]
mod tests;
