//! How a host is configured and made.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    archive::{ArchiveStore, Place as ArchivePlace, Pruner},
    audit::{AuditSeat, Auditor},
    config::{self, Config, DEFAULT_IMAGE},
    create::{plan::CA_PATH, setup_cache::SetupCache},
    disk::DiskPolicy,
    error::{Error, ErrorKind, Result},
    events::{EngineWatch, EventBus, Removals},
    health::HealthPolicy,
    idle::{IdlePolicy, Supervision},
    key::HostKey,
    life::Bed,
    logs::LogRooms,
    network::Subnets,
    pack::{Limits, Packer},
    policy::{self, Policy},
    pool::{Class, PoolOptions, Pools, Records},
    runtime::{
        AuditorSlot, CaBundle, Egress, Network, Observed, Resources, Runtime,
        docker::{Docker, DockerAddress},
    },
    state::{HostProcess, Store},
    stats::Monitor,
    template::{Catalog, ProjectType},
    trust_store::java_trust_store,
    workspace::{BeforeConnect, Directory, Previews, WorkspaceId},
};

use super::{Host, HostInner, check_env, check_labels, supervise};

/// Memory of a workspace that nobody gave a limit: enough for `npm install` of a large front end.
const DEFAULT_MEMORY: u64 = 2 << 30;
/// Processes and threads of a workspace that nobody gave a limit.
const DEFAULT_PIDS: u64 = 2048;
/// What commands may be given: the agent counts in milliseconds.
const COMMAND_TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(365 * 86_400);
/// Bytes of results of set-ups that are kept if nobody says otherwise: some hundred of them.
const SETUP_CACHE_BYTES: u64 = 4 << 30;
/// A CA bundle is some hundred kilobytes.
const CA_BYTES: u64 = 16 << 20;

/// Between two prunings of the archives: a day.
struct PruneEvery(Option<Duration>);

impl Default for PruneEvery {
    fn default() -> Self {
        Self(Some(Duration::from_secs(24 * 3600)))
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
    config_folder: Option<PathBuf>,
    disk: DiskPolicy,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    resources: Resources,
    command_time: Option<Duration>,
    network: Network,
    subnets: Subnets,
    api_url: Option<String>,
    policy: Policy,
    subject: Option<String>,
    archive_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    setup_cache_bytes: Option<u64>,
    pools: Vec<(Class, PoolOptions)>,
    port_range: Option<RangeInclusive<u16>>,
    before_connect: Option<BeforeConnect>,
    measure: bool,
    archive_store: Option<ArchiveStore>,
    prune_every: PruneEvery,
    audit: bool,
    unsupervised: bool,
    never_pull: bool,
    project_images: BTreeMap<ProjectType, String>,
    idle: IdlePolicy,
    health: Option<HealthPolicy>,
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

    /// A folder of this machine that every workspace sees, read-only, at `/etc/corehold`: what is changed in it is changed inside at once.
    /// The engine must run on this machine. Default: none.
    pub fn config_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config_folder = Some(folder.into());
        self
    }

    /// How the engine's disk is looked after: see [`DiskPolicy`]. It is looked at by hosts that [reconcile](Self::reconciles) by themselves.
    pub fn disk(mut self, policy: DiskPolicy) -> Self {
        self.disk = policy;
        self
    }

    /// Where workspaces reach the API of your backend: commands see it as `COREHOLD_API_URL`. Default: none.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = Some(url.into());
        self
    }

    /// What owners, teams and the host may have, and of which images. Default: no limit but each workspace's own.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
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

    /// Limits of workspaces whose template and request name none. Default: 2 GiB of memory, 2,048 processes, all CPUs; of disk what
    /// [`DiskPolicy::bytes`] says, where it is seen. [`for_strangers`](Self::for_strangers) has tighter ones.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Time after which a command is ended that was given none of its own. Default: the agent's, 10 minutes.
    pub fn command_time(mut self, time: Duration) -> Self {
        self.command_time = Some(time);
        self
    }

    /// What is enough for the work of strangers, in place of the defaults, which are made for a front end's `npm install`: 512 MiB of
    /// memory, half a CPU, 100 processes, 1 GiB of disk; paused when idle for an hour, put to sleep at an age of a day; health checked as
    /// [`HealthPolicy`]'s default says; commands end after 300 seconds; and of what is outside the internet only ([`Egress::Internet`]). Each
    /// of these may be said otherwise afterwards.
    ///
    /// A request or its template may name other figures: what they may have at most, [plans](crate::policy::Plan) say. No port need be
    /// named: previews carry any.
    ///
    /// ```
    /// let builder = corehold_host::Host::builder().for_strangers();
    /// ```
    pub fn for_strangers(mut self) -> Self {
        self.resources = Resources {
            memory_bytes: Some(512 << 20),
            cpu_millis: Some(500),
            pids: Some(100),
            disk_bytes: Some(1 << 30),
        };
        self.idle =
            IdlePolicy::default().pause_after(Duration::from_secs(3_600)).max_lifetime(Duration::from_secs(86_400));
        self.health = Some(HealthPolicy::default());
        self.command_time = Some(Duration::from_secs(300));
        self.network = Network::shared().egress(Egress::Internet);
        self
    }

    /// The network of workspaces whose request names none. Default: [`Network::shared`].
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// From which addresses the networks of owners and teams are cut, and those of all with an egress of their own. Default: 10.213.0.0/16,
    /// 61 workspaces each.
    pub fn subnets(mut self, subnets: Subnets) -> Self {
        self.subnets = subnets;
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

    /// How often what no archive needs any more is removed from their store, however many hosts of the home there are; `None`: only by
    /// [`Archives::prune`](crate::Archives::prune). Each sleep gives up what the one before has saved, so a store that is never pruned grows.
    /// Hosts that [reconcile](Self::reconciles) by themselves do it. Default: once a day, which is also how long such things are kept.
    pub fn prune_every(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.prune_every = PruneEvery(every.into());
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

    /// When workspaces that have no policy of their own are paused, archived or removed by themselves, and what keeps them from
    /// that. Default: nothing happens by itself.
    pub fn idle(mut self, policy: IdlePolicy) -> Self {
        self.idle = policy;
        self
    }

    /// How workspaces that have no policy of their own are watched, and whether those that aren't well are restarted. Default: they
    /// aren't watched.
    pub fn health(mut self, policy: HealthPolicy) -> Self {
        self.health = Some(policy);
        self
    }

    /// The image of a type of project, for templates of it that name none. Default: what `$COREHOLD_PROJECT_IMAGES` says
    /// (`python=python:3.13-slim,go=golang:1.25`), else the [image](ProjectType::default_image) that `corehold image build --project` makes.
    pub fn project_image(mut self, project: ProjectType, reference: impl Into<String>) -> Self {
        self.project_images.insert(project, reference.into());
        self
    }

    /// Whether a creation gets an image that is missing from its registry, if the policy allows the image. Names of Corehold's own
    /// (`workspace-…`) are asked of no registry. Default: yes.
    pub fn pull_missing(mut self, pull: bool) -> Self {
        self.never_pull = !pull;
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
    /// Cancel-safe: nothing runs before it is done.
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
        self.resources.check()?;
        if self.command_time.is_some_and(|time| !COMMAND_TIMES.contains(&time)) {
            let message = "the time after which commands end is a millisecond to a year";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(url) = &self.api_url {
            check_env(&BTreeMap::from([("API_URL".to_owned(), url.clone())]))?;
        }
        self.idle.check()?;
        self.health.as_ref().map_or(Ok(()), HealthPolicy::check)?;
        self.network.check()?;
        self.subnets.check()?;
        for (class, options) in &self.pools {
            class.check()?;
            options.check()?;
        }
        if self.prune_every.0.is_some_and(|every| every < Duration::from_secs(60)) {
            let why = "archives can't be pruned more often than each minute";
            return Err(Error::new(ErrorKind::Invalid, why).hint("`HostBuilder::prune_every`: a day is often enough"));
        }
        self.policy.check()?;
        self.policy.check_default(&self.network)?;
        self.disk.check()?;
        let port_range = self.port_range.or(config.port_range).map(config::check_port_range).transpose()?;
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => default_runtime().await?,
        };
        let (events, removals) = (EventBus::new(), Removals::default());
        let auditor_slot = AuditorSlot::default();
        let runtime: Arc<dyn Runtime> =
            Arc::new(Observed::new(runtime, removals.clone(), auditor_slot.clone(), events.metrics().clone()));
        let policy = Arc::new(self.policy);
        let rules = policy.clone();
        let config_folder = self.config_folder;
        let mut pools = self.pools;
        let (home, pools, key, ca_bundle, config_folder, store, process) = tokio::task::spawn_blocking(move || {
            let home = prepare_home(&home)?;
            let key = HostKey::load_or_create(&home)?;
            let ca_bundle = ca_file.as_deref().map(read_ca_bundle).transpose()?;
            let config_folder = config_folder
                .map(|folder| policy::configured("the configuration folder", &folder, &home))
                .transpose()?;
            for (class, _) in &mut pools {
                policy::settle(&mut class.mounts, &home).map_err(|error| error.context("the class of a pool"))?;
            }
            let store = Store::open(&home)?.ruled_by(rules);
            let process = HostProcess::begin(&home)?;
            Ok::<_, Error>((home, pools, key, ca_bundle, config_folder, store, process))
        })
        .await
        .map_err(|error| Error::new(ErrorKind::Io, "preparing the state folder failed").caused_by(error))??;
        let defaults = Limits::default();
        let limits = Limits {
            bytes: self.archive_bytes.or(config.archive_bytes).unwrap_or(defaults.bytes),
            cache_bytes: self.cache_bytes.or(config.cache_bytes).unwrap_or(defaults.cache_bytes),
            ..defaults
        };
        let cleanups = TaskTracker::new();
        // A tracker that was closed takes tasks as before, and can be waited for.
        cleanups.close();
        let mut templates = self.templates;
        templates.extend(config.templates);
        let mut project_images = config.project_images;
        project_images.extend(self.project_images);
        let (fingerprint, records) = (key.fingerprint(), Records::new(home.join("claims")));
        let engine = Arc::new(EngineWatch::new(runtime.clone(), &fingerprint, removals, store.clone(), events.clone()));
        let monitor = {
            let (engine, bus) = (engine.clone(), events.clone());
            let listen = move || (engine.subscribe(), bus.subscribe());
            let folder = home.join("stats");
            let seat = (store.clone(), events.clone());
            Monitor::new(runtime.clone(), records.clone(), &fingerprint, seat, folder, listen)
        };
        if self.measure {
            monitor.start();
        }
        let subject = self.subject.unwrap_or_else(|| "host".to_owned());
        let (key, process) = (Arc::new(key), Arc::new(process));
        let pruner = Pruner { home: fingerprint.clone(), process: process.clone() };
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
            catalog: Catalog::new(templates).archive_bytes(limits.bytes),
            ca_bundle,
            config_folder,
            disk: self.disk,
            env,
            labels: self.labels,
            resources: Resources {
                memory_bytes: self.resources.memory_bytes.or(Some(DEFAULT_MEMORY)),
                cpu_millis: self.resources.cpu_millis,
                pids: self.resources.pids.or(Some(DEFAULT_PIDS)),
                disk_bytes: self.resources.disk_bytes,
            },
            command_time: self.command_time,
            pull_missing: !self.never_pull,
            network: self.network,
            subnets: self.subnets,
            project_images,
            api_url: self.api_url,
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
            )
            .of(pruner),
            prune_every: self.prune_every.0,
            home,
            store,
            policy,
            process,
            turns: Arc::default(),
            directory: Directory::default(),
            supervision: Supervision::new(self.idle, self.health),
            engine_identity: OnceCell::new(),
            bed: self.bed,
        });
        let pools = Arc::new(Pools::start(&inner, pools));
        let _ = inner.pools.set(Arc::downgrade(&pools));
        let supervisor =
            (!self.unsupervised).then(|| Arc::new(AbortOnDropHandle::new(tokio::spawn(supervise(inner.clone())))));
        Ok(Host { inner, pools, supervisor })
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

fn read_ca_bundle(file: &Path) -> Result<CaBundle> {
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
        (begins, ends) if begins > 0 && begins == ends => {
            let java = java_trust_store(&pem).map(Bytes::from);
            Ok(CaBundle { pem: pem.into(), path: CA_PATH.to_owned(), java })
        }
        _ => Err(Error::new(ErrorKind::Invalid, format!("the CA bundle {shown} holds no whole PEM certificate"))
            .hint("give a file of -----BEGIN CERTIFICATE----- blocks, such as /etc/ssl/certs/ca-certificates.crt")),
    }
}

async fn default_runtime() -> Result<Arc<dyn Runtime>> {
    Ok(Arc::new(Docker::connect(DockerAddress::Auto).await?))
}
