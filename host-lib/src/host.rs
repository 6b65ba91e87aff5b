//! The host: what a backend holds one of.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, fs,
    future::Future,
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    archive::{ArchiveStore, Archives, Place as ArchivePlace},
    audit::{AuditSeat, Auditor},
    config::{self, Config, DEFAULT_IMAGE},
    create::{
        CreateWorkspace, Creation,
        setup_cache::{SetupCache, SetupCacheEntry},
    },
    error::{Error, ErrorKind, Result},
    events::{EngineWatch, EventBus, Events, Removals},
    key::HostKey,
    labels,
    life::{self, Bed, Reconciled, Turns, WorkspaceState},
    logs::LogRooms,
    metrics::Metrics,
    pack::{Limits, Packer},
    pool::{self, Class, PoolOptions, PoolStatus, Pools, Records, Seat},
    runtime::{
        AuditorSlot, ContainerState, Observed, Resources, Runtime,
        docker::{Docker, DockerAddress},
    },
    state::{Entry, HostProcess, Store},
    stats::Monitor,
    template::Catalog,
    workspace::{
        BeforeConnect, Described, Directory, Labelled, Place, Previews, Workspace, WorkspaceId, WorkspaceInfo, describe,
    },
};

/// Port of the agent inside every core container.
pub(crate) const AGENT_PORT: u16 = 3001;
/// Memory of a workspace that nobody gave a limit: enough for `npm install` of a large front end.
const DEFAULT_MEMORY: u64 = 2 << 30;
/// Processes and threads of a workspace that nobody gave a limit.
const DEFAULT_PIDS: u64 = 2048;
/// Bytes of results of set-ups that are kept if nobody says otherwise: some hundred of them.
const SETUP_CACHE_BYTES: u64 = 4 << 30;
/// A CA bundle is some hundred kilobytes.
const CA_BYTES: u64 = 16 << 20;

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
    _supervisor: Option<Arc<AbortOnDropHandle<()>>>,
}

pub(crate) struct HostInner {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) home: PathBuf,
    pub(crate) key: Arc<HostKey>,
    pub(crate) fingerprint: String,
    pub(crate) image: String,
    pub(crate) catalog: Catalog,
    pub(crate) ca_bundle: Option<Bytes>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) subject: String,
    pub(crate) packer: Packer,
    pub(crate) setup_cache: SetupCache,
    pub(crate) records: Records,
    pub(crate) archives: ArchivePlace,
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
    /// That this host lives, as the store's other users see it.
    pub(crate) process: HostProcess,
    pub(crate) turns: Arc<Turns>,
    pub(crate) directory: Directory,
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

/// Configures a [`Host`]. What isn't said comes from the environment (see [`config`](crate::config)), else from the defaults.
#[derive(Default)]
#[must_use = "a host is made when `build` is awaited"]
pub struct HostBuilder {
    runtime: Option<Arc<dyn Runtime>>,
    home: Option<PathBuf>,
    image: Option<String>,
    templates: Vec<PathBuf>,
    ca_bundle: Option<PathBuf>,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    resources: Resources,
    subject: Option<String>,
    archive_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    setup_cache_bytes: Option<u64>,
    pools: Vec<(Class, PoolOptions)>,
    port_range: Option<RangeInclusive<u16>>,
    before_connect: Option<BeforeConnect>,
    measure: bool,
    archive_store: Option<ArchiveStore>,
    audit: bool,
    unsupervised: bool,
    bed: Option<Arc<dyn Bed>>,
}

impl HostBuilder {
    /// Where workspaces live. Default: the Docker engine that the `docker` command would use.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The state folder. Default: `$COREHOLD_HOME`, else `$XDG_DATA_HOME/corehold`, else `~/.local/share/corehold`.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Adds a folder of templates, before those of `$COREHOLD_TEMPLATES`.
    pub fn templates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.templates.push(folder.into());
        self
    }

    /// The core image. Default: `$COREHOLD_IMAGE`, else `workspace-core:latest`.
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        self.image = Some(reference.into());
        self
    }

    /// A PEM bundle of certificates that every workspace shall trust, the usual authorities included: it replaces what
    /// the tools inside would use otherwise. Default: `$COREHOLD_CA_FILE`, else none.
    pub fn ca_bundle(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_bundle = Some(file.into());
        self
    }

    /// Sets a variable in every workspace. Templates and requests may override it.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Puts a label on every container, for one's own book-keeping. It may not begin with `dev.corehold.`.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Limits of workspaces whose template and request name none. Default: 2 GiB of memory, 2,048 processes, all CPUs.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Bytes that a template's files may have together. Default: `$COREHOLD_ARCHIVE_BYTES`, else 1 GiB.
    pub fn archive_bytes(mut self, bytes: u64) -> Self {
        self.archive_bytes = Some(bytes);
        self
    }

    /// Bytes of packed templates that are kept, those used last. Default: `$COREHOLD_CACHE_BYTES`, else 2 GiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// Bytes of results of set-ups that are kept, those used last; 0 keeps none. Default: `$COREHOLD_SETUP_CACHE_BYTES`, else 4 GiB.
    pub fn setup_cache_bytes(mut self, bytes: u64) -> Self {
        self.setup_cache_bytes = Some(bytes);
        self
    }

    /// Where saved workspaces are kept. Default: `$COREHOLD_ARCHIVES`, else the folder `archives` in the state folder.
    pub fn archive_store(mut self, store: ArchiveStore) -> Self {
        self.archive_store = Some(store);
        self
    }

    /// In whose name this library calls agents, as their logs show it. Default: `host`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Keeps containers of a class ready, from which [`Host::create`] takes where they meet the request. May be called more
    /// than once, for more classes; of two that meet a request the first is taken from. Default: none.
    pub fn pool(mut self, class: Class, options: PoolOptions) -> Self {
        self.pools.push((class, options));
        self
    }

    /// Ports of this machine for previews and for [published](CreateWorkspace::publish) ports. Those that others have are
    /// passed over; several hosts may have the same range. Default: `$COREHOLD_PORT_RANGE`, else any that is free.
    pub fn port_range(mut self, ports: RangeInclusive<u16>) -> Self {
        self.port_range = Some(ports);
        self
    }

    /// Called before each connection to a [preview](Workspace::preview) is carried inside, which waits for it: to have the
    /// workspace running by then, or to refuse. With an error the connection is reset, and the preview says why.
    pub fn before_connect<F>(mut self, hook: impl Fn(WorkspaceId) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.before_connect = Some(Box::new(move |workspace| Box::pin(hook(workspace))));
        self
    }

    /// Measures from the beginning what all workspaces of the home use, every five seconds, and keeps it for 24 hours (see
    /// [`stats`](crate::stats)). Default: only from the first call of [`Workspace::follow_stats`] on.
    pub fn measure(mut self, measure: bool) -> Self {
        self.measure = measure;
        self
    }

    /// Keeps who does what in the workspaces of the home, from now on and as far back as their agents remember it: their records
    /// of calls and this host's own, in at most 128 MiB under `audit` in the home folder (see [`Host::audit`]). Default: false.
    pub fn audit(mut self, audit: bool) -> Self {
        self.audit = audit;
        self
    }

    /// Whether the host reconciles by itself, at its start and whenever the engine tells that something happened to a container. A
    /// program that does one thing and ends doesn't need it. Default: yes. See [`Host::reconcile`].
    pub fn reconciles(mut self, by_itself: bool) -> Self {
        self.unsupervised = !by_itself;
        self
    }

    #[cfg(test)]
    pub(crate) fn bed(mut self, bed: Arc<dyn Bed>) -> Self {
        self.bed = Some(bed);
        self
    }

    /// Makes the host: reads its key or makes one, opens its state store, and waits for nothing of the engine. In the background it
    /// begins to reconcile, to fill its pools, and to measure and audit, if it is to.
    ///
    /// # Errors
    /// `Invalid` for a damaged key, state store, CA bundle or setting, and for a store of a newer version; `Timeout` when that is locked;
    /// `Io` when the home folder can't be used; whatever the runtime says when none was given and the local Docker engine isn't found.
    pub async fn build(self) -> Result<Host> {
        let config = Config::from_env()?;
        self.build_with(config).await
    }

    async fn build_with(self, config: Config) -> Result<Host> {
        let home = self.home.or(config.home).ok_or_else(config::no_home)?;
        let ca_file = self.ca_bundle.or(config.ca_file);
        let mut env = config.pass_env;
        env.extend(self.env);
        check_env(&env)?;
        check_labels(&self.labels)?;
        for (_, options) in &self.pools {
            options.check()?;
        }
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => default_runtime().await?,
        };
        let (events, removals) = (EventBus::new(), Removals::default());
        let auditor_slot = AuditorSlot::default();
        let runtime: Arc<dyn Runtime> =
            Arc::new(Observed::new(runtime, removals.clone(), auditor_slot.clone(), events.metrics().clone()));
        let (home, key, ca_bundle, store, process) = tokio::task::spawn_blocking(move || {
            let home = prepare_home(&home)?;
            let key = HostKey::load_or_create(&home)?;
            let ca_bundle = ca_file.as_deref().map(read_ca_bundle).transpose()?;
            let store = Store::open(&home)?;
            let process = HostProcess::begin(&home)?;
            Ok::<_, Error>((home, key, ca_bundle, store, process))
        })
        .await
        .map_err(|error| Error::new(ErrorKind::Io, "preparing the state folder failed").caused_by(error))??;
        let defaults = Limits::default();
        let limits = Limits {
            bytes: self.archive_bytes.or(config.archive_bytes).unwrap_or(defaults.bytes),
            cache_bytes: self.cache_bytes.or(config.cache_bytes).unwrap_or(defaults.cache_bytes),
            ..defaults
        };
        let port_range = self.port_range.or(config.port_range).map(config::check_port_range).transpose()?;
        let cleanups = TaskTracker::new();
        // A tracker that was closed takes tasks as before, and can be waited for.
        cleanups.close();
        let mut templates = self.templates;
        templates.extend(config.templates);
        let (fingerprint, records) = (key.fingerprint(), Records::new(home.join("claims")));
        let engine = Arc::new(EngineWatch::new(runtime.clone(), &fingerprint, removals, events.clone()));
        let monitor = {
            let (engine, bus) = (engine.clone(), events.clone());
            let listen = move || (engine.subscribe(), bus.subscribe());
            let folder = home.join("stats");
            Monitor::new(runtime.clone(), records.clone(), &fingerprint, events.clone(), folder, listen)
        };
        if self.measure {
            monitor.start();
        }
        let subject = self.subject.unwrap_or_else(|| "host".to_owned());
        let key = Arc::new(key);
        let auditor = self.audit.then(|| {
            let seat = AuditSeat {
                runtime: runtime.clone(),
                records: records.clone(),
                key: key.clone(),
                fingerprint: fingerprint.clone(),
                subject: subject.clone(),
                events: events.downgrade(),
                home: home.clone(),
            };
            let auditor = Auditor::start(seat, engine.subscribe(), events.subscribe());
            auditor_slot.get_or_init(|| Arc::downgrade(&auditor));
            auditor
        });
        let inner = Arc::new(HostInner {
            engine,
            monitor,
            log_rooms: LogRooms::default(),
            runtime,
            fingerprint,
            setup_cache: SetupCache::new(
                home.join("cache/setup"),
                self.setup_cache_bytes.or(config.setup_cache_bytes).unwrap_or(SETUP_CACHE_BYTES),
                &key,
            ),
            key,
            image: self.image.or(config.image).unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            catalog: Catalog::new(templates),
            ca_bundle,
            env,
            labels: self.labels,
            resources: Resources {
                memory_bytes: self.resources.memory_bytes.or(Some(DEFAULT_MEMORY)),
                cpu_millis: self.resources.cpu_millis,
                pids: self.resources.pids.or(Some(DEFAULT_PIDS)),
            },
            subject,
            _auditor: auditor,
            events,
            cleanups,
            packer: Packer::new(home.join("cache/templates"), limits),
            previews: Previews::new(port_range.clone().unwrap_or(0..=0), self.before_connect),
            port_range,
            records,
            pools: OnceLock::new(),
            archives: ArchivePlace::new(
                self.archive_store.or(config.archives).unwrap_or_else(|| ArchiveStore::folder(home.join("archives"))),
            ),
            home,
            store,
            process,
            turns: Arc::default(),
            directory: Directory::default(),
            engine_identity: OnceCell::new(),
            bed: self.bed,
        });
        let pools = Arc::new(Pools::start(&inner, self.pools));
        let _ = inner.pools.set(Arc::downgrade(&pools));
        let supervisor = (!self.unsupervised)
            .then(|| Arc::new(AbortOnDropHandle::new(tokio::spawn(life::supervise(inner.clone())))));
        Ok(Host { inner, pools, _supervisor: supervisor })
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
    /// about to end calls this last.
    pub async fn settled(&self) {
        self.inner.cleanups.wait().await;
    }

    /// What happens from now on: creations and their steps, removals, and what the engine says of workspaces. Any number may read;
    /// nothing waits for them, and who falls more than 1,024 events behind is told how many it missed.
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
    ///
    /// # Errors
    /// `EngineUnavailable` or `Engine`.
    pub async fn list(&self) -> Result<Vec<WorkspaceInfo>> {
        let mut infos = self.list_all_homes().await?;
        infos.retain(|info| info.own);
        Ok(infos)
    }

    /// The workspaces of every home folder that uses this engine, newest first. Those of others can be removed, but
    /// their agents don't trust this host.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_all_homes(&self) -> Result<Vec<WorkspaceInfo>> {
        let of_kind = |kind: &str| BTreeMap::from([(labels::KIND.to_owned(), kind.to_owned())]);
        let (made, pooled) = (of_kind(labels::KIND_WORKSPACE), of_kind(labels::KIND_POOL));
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
    ///
    /// # Errors
    /// `NotFound`, with near names in the hint; `Invalid` when nothing can have that name.
    pub async fn workspace(&self, id: &str) -> Result<Workspace> {
        let id: WorkspaceId = id.parse()?;
        // What is in the middle of something has its container by its name.
        if let Some(entry) = self.inner.store.get(&id).await? {
            if entry.actor.is_some() && entry.container.is_none() && entry.state != WorkspaceState::Removed {
                return match self.labelled_workspace(&id).await? {
                    Some(workspace) => Ok(workspace),
                    None => Ok(self.known(&entry)),
                };
            }
            return match life::look(&self.inner, entry).await? {
                Some(entry) => Ok(self.known(&entry)),
                None => Err(self.unknown(&id).await),
            };
        }
        match self.labelled_workspace(&id).await? {
            Some(workspace) => Ok(workspace),
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
        let pooled = BTreeMap::from([(labels::KIND.to_owned(), labels::KIND_POOL.to_owned())]);
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

    /// The results of set-ups that are kept, those used last first.
    ///
    /// # Errors
    /// `Io`.
    pub async fn setup_cache(&self) -> Result<Vec<SetupCacheEntry>> {
        self.inner.setup_cache.entries().await
    }

    /// Removes all results of set-ups that are kept, so that each set-up runs again. Returns how many there were.
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
    /// Why the last start of a container failed; the pool goes on trying.
    pub async fn pools_filled(&self) -> Result<()> {
        self.pools.filled().await
    }

    /// Ends the pools of this host, and removes every container of this home folder that waits in one, also those that
    /// other hosts or earlier ones started. Workspaces are left alone. Returns how many were removed.
    ///
    /// Without it the containers stay when the last handle of the host is dropped, and the next one with the same pools takes them over.
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

fn prepare_home(home: &Path) -> Result<PathBuf> {
    let fail = |error: std::io::Error| {
        Error::new(ErrorKind::Io, format!("the state folder {} can't be used: {error}", home.display()))
            .hint("set COREHOLD_HOME to a folder that you may write to")
            .caused_by(error)
    };
    // It holds a secret: nobody else has any business in it.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(fail)?;
    fs::canonicalize(home).map_err(fail)
}

fn read_ca_bundle(file: &Path) -> Result<Bytes> {
    let shown = file.display();
    let fail = |error: std::io::Error| {
        Error::new(ErrorKind::Io, format!("the CA bundle {shown} can't be read: {error}")).caused_by(error)
    };
    let metadata = fs::metadata(file).map_err(fail)?;
    if !metadata.is_file() || metadata.len() > CA_BYTES {
        return Err(Error::new(ErrorKind::Invalid, format!("the CA bundle {shown} is not a file of at most 16 MiB")));
    }
    let pem = fs::read(file).map_err(fail)?;
    let marks = |mark: &str| pem.windows(mark.len()).filter(|window| *window == mark.as_bytes()).count();
    match (marks("-----BEGIN CERTIFICATE-----"), marks("-----END CERTIFICATE-----")) {
        (begins, ends) if begins > 0 && begins == ends => Ok(pem.into()),
        _ => Err(Error::new(ErrorKind::Invalid, format!("the CA bundle {shown} holds no whole PEM certificate"))
            .hint("give a file of -----BEGIN CERTIFICATE----- blocks, such as /etc/ssl/certs/ca-certificates.crt")),
    }
}

async fn default_runtime() -> Result<Arc<dyn Runtime>> {
    Ok(Arc::new(Docker::connect(DockerAddress::Auto).await?))
}
