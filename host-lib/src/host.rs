//! The host: what a backend holds one of.

mod builder;

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::sync::OnceCell;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    archive::{self, Archives, Place as ArchivePlace},
    audit::Auditor,
    create::{
        CreateWorkspace, Creation,
        setup_cache::{SetupCache, SetupCacheEntry},
    },
    disk::{self, DiskPolicy},
    error::{Error, ErrorKind, Result},
    events::{EngineWatch, EventBus, Events},
    idle::{self, Supervision},
    key::HostKey,
    labels,
    life::{self, Bed, Reconciled, Turns, WorkspaceState},
    logs::LogRooms,
    metrics::Metrics,
    network::{self, Subnets},
    pack::Packer,
    policy::Policy,
    pool::{self, PoolStatus, Pools, Records, Seat},
    runtime::{CaBundle, ContainerState, Network, Resources, Runtime},
    state::{Entry, HostProcess, Store},
    stats::Monitor,
    template::{Catalog, ProjectType},
    workspace::{Described, Directory, Labelled, Place, Previews, Workspace, WorkspaceId, WorkspaceInfo, describe},
};

pub use self::builder::HostBuilder;

/// Port of the agent inside every core container.
pub(crate) const AGENT_PORT: u16 = 3001;

/// Makes and finds workspaces. Clones are cheap and mean the same host; every method may be called concurrently.
///
/// ```no_run
/// # async fn example() -> corehold_host::Result<()> {
/// use corehold_host::{CreateWorkspace, Host};
///
/// let host = Host::builder().templates("templates").build().await?;
/// let template = host.catalog().find("vite-react")?;
/// let workspace = host.create(CreateWorkspace::from_template(&template)).await?;
/// println!("{}", workspace.preview_url().await?);
/// let outcome = workspace.command("ls src").run().await?;
/// print!("{}", outcome.stdout_text());
/// workspace.remove().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<HostInner>,
    /// Not in what workspaces hold too: pools end with the last handle of the host.
    pub(crate) pools: Arc<Pools>,
    /// Reconciles; ends with the last handle of the host, too.
    pub(crate) supervisor: Option<Arc<AbortOnDropHandle<()>>>,
}

pub(crate) struct HostInner {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) home: PathBuf,
    pub(crate) key: Arc<HostKey>,
    pub(crate) fingerprint: String,
    pub(crate) image: String,
    /// Those that are configured.
    pub(crate) project_images: BTreeMap<ProjectType, String>,
    /// Whether a creation pulls what is missing.
    pub(crate) pull_missing: bool,
    pub(crate) catalog: Catalog,
    pub(crate) ca_bundle: Option<CaBundle>,
    pub(crate) disk: DiskPolicy,
    /// What every workspace sees at [`CONFIG_PATH`](crate::policy::CONFIG_PATH).
    pub(crate) config_folder: Option<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    /// After which commands end that were given no time of their own, where that isn't the agent's to say.
    pub(crate) command_time: Option<Duration>,
    /// Of workspaces that ask for none.
    pub(crate) network: Network,
    pub(crate) subnets: Subnets,
    /// Where workspaces reach the backend's API.
    pub(crate) api_url: Option<String>,
    pub(crate) subject: String,
    pub(crate) packer: Packer,
    pub(crate) setup_cache: SetupCache,
    pub(crate) records: Records,
    pub(crate) archives: ArchivePlace,
    /// How often its archives are pruned by itself.
    pub(crate) prune_every: Option<Duration>,
    /// Those of the host, as long as it has a handle; see [`Host`].
    pools: OnceLock<Weak<Pools>>,
    pub(crate) events: EventBus,
    pub(crate) engine: Arc<EngineWatch>,
    pub(crate) monitor: Monitor,
    /// Collects as long as it is held.
    _auditor: Option<Arc<Auditor>>,
    pub(crate) log_rooms: LogRooms,
    pub(crate) previews: Previews,
    /// Ports of this machine for previews and published ports; absent means any.
    pub(crate) port_range: Option<RangeInclusive<u16>>,
    /// What must be done even when nobody waits for it: removing containers of abandoned creations, transitions.
    pub(crate) cleanups: TaskTracker,
    pub(crate) store: Store,
    pub(crate) policy: Arc<Policy>,
    /// That this host lives, as the store's other users see it.
    pub(crate) process: Arc<HostProcess>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) directory: Directory,
    pub(crate) supervision: Supervision,
    engine_identity: OnceCell<String>,
    /// Where the files of those who sleep are kept; absent: with the archives.
    bed: Option<Arc<dyn Bed>>,
}

impl HostInner {
    /// What tells the engine from others that may be used with the same home.
    pub(crate) async fn engine_identity(&self) -> Result<&str> {
        self.engine_identity.get_or_try_init(|| self.runtime.identity()).await.map(String::as_str)
    }

    /// The host's pools, for creations that don't come from its handle; none are left when that is gone.
    pub(crate) fn pools(&self) -> Arc<Pools> {
        let pools = self.pools.get().and_then(Weak::upgrade);
        pools.unwrap_or_else(|| Arc::new(Pools::start(self, Vec::new())))
    }

    /// Where the files of those who sleep are kept.
    pub(crate) fn bed(self: &Arc<Self>) -> Arc<dyn Bed> {
        self.bed.clone().unwrap_or_else(|| Arc::new(Archives::new(self.clone())))
    }
}

impl Host {
    /// Configures a host.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// Makes a workspace: hands over a container of a pool where one meets the request and is ready in time, else makes one.
    /// Nothing happens until the [`Creation`] is awaited or asked for its events.
    pub fn create(&self, request: CreateWorkspace) -> Creation {
        Creation::new(self.inner.clone(), self.pools.clone(), request)
    }

    pub(crate) async fn create_for(&self, owner: String, request: CreateWorkspace) -> Result<Workspace> {
        Creation::for_owner(self.inner.clone(), self.pools.clone(), request, Some(owner)).await
    }

    /// Finishes or undoes what was cut off when a host process ended, however it ended, and takes note of what happened to containers
    /// while no host looked. Nothing that a living host is at is touched. Hosts do this by themselves, at their start and whenever the
    /// engine tells of something, unless told otherwise ([`HostBuilder::reconciles`]); calling it waits until it is done.
    ///
    /// Cancel-safe: what was begun for a workspace is brought to its end.
    ///
    /// # Errors
    /// When the store or the engine can't be asked at all. What fails for one workspace is in the answer.
    pub async fn reconcile(&self) -> Result<Reconciled> {
        life::reconcile_all(&self.inner).await
    }

    /// Waits until the containers of dropped creations are removed, and transitions that nobody waits for are done. A program that is
    /// about to end calls this last. Cancel-safe.
    pub async fn settled(&self) {
        self.inner.cleanups.wait().await;
    }

    /// What happens from now on: creations and their steps, removals, and what the engine says of workspaces. Any number may read;
    /// nothing waits for them, and who falls more than 1,024 events behind is told how many it missed. What another host process
    /// does to a workspace is told by that one; here, only what the engine says of it.
    pub fn events(&self) -> Events {
        self.inner.engine.start();
        self.inner.events.subscribe()
    }

    pub(crate) fn counted(&self) -> &Metrics {
        self.inner.events.metrics()
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.inner.monitor
    }

    /// Saved workspaces, and how to save and load them.
    #[must_use]
    pub fn archives(&self) -> Archives {
        Archives::new(self.inner.clone())
    }

    /// The templates there are, looked at anew with each question.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Where workspaces live.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.inner.runtime
    }

    /// The state folder, absolute.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// The image of workspaces whose template names none.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.inner.image
    }

    /// The workspaces of this home folder, newest first; also those whose creation is under way or was cut off.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `EngineUnavailable` or `Engine`.
    pub async fn list(&self) -> Result<Vec<WorkspaceInfo>> {
        let mut infos = self.list_all_homes().await?;
        infos.retain(|info| info.own);
        Ok(infos)
    }

    /// The workspaces of every home folder that uses this engine, newest first. Those of others can be removed, but
    /// their agents don't trust this host. Cancel-safe.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_all_homes(&self) -> Result<Vec<WorkspaceInfo>> {
        let (made, pooled) = (labels::of_kind(labels::KIND_WORKSPACE), labels::of_kind(labels::KIND_POOL));
        let runtime = &self.inner.runtime;
        let (mut states, pooled, entries) =
            tokio::try_join!(runtime.list(&made), runtime.list(&pooled), self.inner.store.all())?;
        let records = if pooled.is_empty() { Vec::new() } else { self.inner.records.all().await };
        states.extend(pooled);
        let mut entries: BTreeMap<WorkspaceId, Entry> =
            entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let mut all: Vec<Described> = Vec::new();
        for state in states {
            // A container whose labels somebody damaged is not ours to judge, and must not hide the others.
            let Ok(Some(labelled)) = Labelled::of(&state, &records) else { continue };
            let ours = labelled.home == self.inner.fingerprint;
            let entry = if ours { entries.remove(&labelled.id) } else { None };
            all.push(Described { entry, state: Some(state), labelled });
        }
        // Those without a container here: asleep, on their way, or in another engine, of which nothing is known here.
        let engine = if entries.is_empty() { "" } else { self.inner.engine_identity().await? };
        let without = entries.into_values().filter(|entry| entry.container.is_none() || entry.engine == engine);
        all.extend(without.map(|entry| {
            let labelled = Labelled::of_entry(&self.inner, &entry);
            Described { entry: Some(entry), state: None, labelled }
        }));
        let mut infos: Vec<WorkspaceInfo> =
            all.into_iter().filter_map(|described| describe(&self.inner, described)).collect();
        infos.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
        Ok(infos)
    }

    /// The workspace of a name, whatever it is doing and whichever home folder it is of: names are unique in an engine.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `NotFound`, with near names in the hint; `Invalid` when nothing can have that name.
    pub async fn workspace(&self, id: &str) -> Result<Workspace> {
        let id: WorkspaceId = id.parse()?;
        // What is in the middle of something has its container by its name.
        if let Some(entry) = self.inner.store.get(&id).await? {
            if entry.actor.is_some() && entry.container.is_none() && entry.state != WorkspaceState::Removed {
                return match self.labelled_workspace(&id).await? {
                    Some(workspace) => Ok(workspace.waking()),
                    None => Ok(self.known(&entry).waking()),
                };
            }
            return match life::look(&self.inner, entry).await? {
                Some(entry) => Ok(self.known(&entry).waking()),
                None => Err(self.unknown(&id).await),
            };
        }
        match self.labelled_workspace(&id).await? {
            Some(workspace) => Ok(workspace.waking()),
            None => Err(self.unknown(&id).await),
        }
    }

    /// The workspace of a name by what the engine knows.
    async fn labelled_workspace(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        let wanted = BTreeMap::from([
            (labels::KIND.to_owned(), labels::KIND_WORKSPACE.to_owned()),
            (labels::WORKSPACE.to_owned(), id.to_string()),
        ]);
        let found = self.inner.runtime.list(&wanted).await?;
        if let Some(state) = found.first() {
            return Ok(Some(self.handle(state, Labelled::from_labels(&state.labels)?)));
        }
        // One from a pool has only its name.
        let pooled = labels::of_kind(labels::KIND_POOL);
        let name = format!("{}{id}", labels::NAME_PREFIX);
        let found = self.inner.runtime.list(&pooled).await?.into_iter().find(|state| state.name == name);
        if let Some(state) = found {
            let record = self.inner.records.get(&state.id, id).await;
            if let Some(labelled) = Labelled::of(&state, record.as_slice())? {
                return Ok(Some(self.handle(&state, labelled)));
            }
        }
        Ok(None)
    }

    /// The results of set-ups that are kept, those used last first. Cancel-safe.
    ///
    /// # Errors
    /// `Io`.
    pub async fn setup_cache(&self) -> Result<Vec<SetupCacheEntry>> {
        self.inner.setup_cache.entries().await
    }

    /// Removes all results of set-ups that are kept, so that each set-up runs again. Returns how many there were.
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Io`.
    pub async fn clear_setup_cache(&self) -> Result<usize> {
        self.inner.setup_cache.clear().await
    }

    /// How the pools are doing, in the order in which the builder was given them.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.pools.status()
    }

    /// Waits until every pool has as many containers ready as it is to have. Cancel-safe.
    ///
    /// # Errors
    /// Why the last start of a container failed, of that kind; the pool goes on trying.
    pub async fn pools_filled(&self) -> Result<()> {
        self.pools.filled().await
    }

    /// Ends the pools of this host, and removes every container of this home folder that waits in one, also those that
    /// other hosts or earlier ones started. Workspaces are left alone. Returns how many were removed.
    ///
    /// Without it the containers stay when the last handle of the host is dropped, and the next one with the same pools takes them over.
    /// Cancel-safe: what is left goes with the next call.
    ///
    /// # Errors
    /// `EngineUnavailable` or `Engine`; it may be tried again.
    pub async fn drain_pools(&self) -> Result<usize> {
        self.pools.close();
        pool::drain(&Seat::of(&self.inner), &self.inner.fingerprint).await
    }

    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    #[cfg(test)]
    pub(crate) fn watch(&self) -> &EngineWatch {
        &self.inner.engine
    }

    #[cfg(test)]
    pub(crate) fn seat(&self) -> Seat {
        Seat::of(&self.inner)
    }

    #[cfg(test)]
    pub(crate) fn pool(&self, number: usize) -> Arc<pool::Pool> {
        self.pools.nth(number)
    }

    fn handle(&self, state: &ContainerState, labelled: Labelled) -> Workspace {
        let place = Place::new(&self.inner, &labelled.id, state.id.clone(), labelled.instance.clone());
        Workspace::at(&self.inner, labelled, Some(place))
    }

    async fn unknown(&self, id: &WorkspaceId) -> Error {
        let error = Error::new(ErrorKind::NotFound, format!("there is no workspace {id}"));
        let Ok(infos) = self.list().await else { return error };
        let near = crate::template::nearest(id.as_str(), infos.iter().map(|info| info.id.as_str()));
        match near.as_slice() {
            [] => error,
            near => error.hint(format!("did you mean {}?", near.join(" or "))),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Host").field("home", &self.inner.home).field("image", &self.inner.image).finish()
    }
}

/// What a host does by itself, for as long as it is there.
async fn supervise(inner: Arc<HostInner>) {
    tokio::join!(
        life::supervise(inner.clone()),
        idle::supervise(inner.clone()),
        network::watch(inner.clone()),
        archive::keep_pruned(inner.clone()),
        disk::watch(inner)
    );
}

/// Variables of a host or a request.
pub(crate) fn check_env(env: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in env {
        crate::template::check_variable(name, value)
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("this variable can't be handed in: {why}")))?;
    }
    Ok(())
}

/// Labels of a host or a request.
pub(crate) fn check_labels(all: &BTreeMap<String, String>) -> Result<()> {
    match all.keys().find(|name| name.is_empty() || name.starts_with(labels::PREFIX)) {
        Some(name) => Err(Error::new(ErrorKind::Invalid, format!("{name:?} can't be a label of your own"))
            .hint(format!("labels that begin with {} are taken", labels::PREFIX))),
        None => Ok(()),
    }
}
