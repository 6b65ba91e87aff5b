//! The fake engine: containers are entries of a map, and starting one starts a fake agent on loopback.

mod container;
mod copy;
mod fault;
mod images;
mod script;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::{StreamExt as _, stream};
use tokio::{
    net::TcpStream,
    sync::{broadcast, watch},
};

use self::container::{Container, failure, gone, measure, state, workspace_of};
pub(crate) use self::{copy::EngineCopy, fault::EngineFault, script::EngineScript};
use super::{AgentScript, FakeAgent, Files};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{
        BoxConnection, BoxStream, ContainerEvent, ContainerId, ContainerSpec, ContainerState, ContainerStatus,
        DiskSpace, DiskUse, Endpoint, MountSource, NetworkMade, NetworkSpec, PullProgress, Resources, Runtime,
        RuntimeInfo, Stats, Subnet, VolumeSpec, VolumeState,
    },
};

pub(crate) struct FakeEngine {
    script: EngineScript,
    agent: AgentScript,
    containers: Mutex<BTreeMap<String, Container>>,
    events: Mutex<broadcast::Sender<(ContainerEvent, BTreeMap<String, String>)>>,
    /// It can't be reached.
    away: AtomicBool,
    /// Measuring fails.
    pub(crate) measure_fails: AtomicBool,
    began: Timestamp,
    next: AtomicUsize,
    removals: AtomicUsize,
    /// How many starts fail from now on.
    failing_starts: AtomicUsize,
    /// The container that can't be stopped.
    stuck: Mutex<Option<String>>,
    identity: Mutex<String>,
    pub(crate) images: images::Images,
    /// Resuming fails as many times.
    pub(crate) resume_fails: AtomicUsize,
    calls: fault::Calls,
    volumes: volumes::Volumes,
    networks: Mutex<BTreeMap<String, NetworkSpec>>,
    /// Addresses that are somebody else's.
    pub(crate) taken_subnets: Mutex<BTreeSet<Subnet>>,
    /// How often it was asked whether networks are still closed, and for the containers of which labels the last time.
    pub(crate) looks: watch::Sender<(usize, BTreeMap<String, String>)>,
    pub(crate) disk: volumes::Disk,
}

impl FakeEngine {
    pub(crate) fn new(script: EngineScript, agent: AgentScript) -> Self {
        Self {
            script,
            agent,
            containers: Mutex::default(),
            events: Mutex::new(broadcast::channel(64).0),
            away: AtomicBool::new(false),
            measure_fails: AtomicBool::new(false),
            // So long ago that what is measured later is over.
            began: Timestamp::from_unix(Timestamp::now().as_unix_seconds() - 3600, 0),
            next: AtomicUsize::new(0),
            failing_starts: AtomicUsize::new(0),
            stuck: Mutex::default(),
            identity: Mutex::new("fake".to_owned()),
            removals: AtomicUsize::new(0),
            images: images::Images::default(),
            resume_fails: AtomicUsize::new(0),
            calls: fault::Calls::default(),
            volumes: volumes::Volumes::default(),
            networks: Mutex::default(),
            taken_subnets: Mutex::default(),
            looks: watch::Sender::default(),
            disk: volumes::Disk::default(),
        }
    }

    /// The networks there are.
    pub(crate) fn networks(&self) -> MutexGuard<'_, BTreeMap<String, NetworkSpec>> {
        self.networks.lock().unwrap()
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap()
    }

    /// Names of the containers there are.
    pub(crate) fn names(&self) -> Vec<String> {
        self.containers().values().map(|container| container.spec.name.clone()).collect()
    }

    pub(crate) fn spec(&self, name: &str) -> ContainerSpec {
        self.containers().values().find(|container| container.spec.name == name).unwrap().spec.clone()
    }

    pub(crate) fn set_status(&self, name: &str, status: ContainerStatus) {
        self.containers().values_mut().find(|container| container.spec.name == name).unwrap().status = status;
    }

    /// Gives a label of all containers another value, as if it had been so from the beginning.
    pub(crate) fn backdate(&self, label: &str, value: &str) {
        for container in self.containers().values_mut() {
            container.spec.labels.insert(label.to_owned(), value.to_owned());
        }
    }

    /// The archives that the agent of a container was sent.
    pub(crate) fn extracted(&self, name: &str) -> Vec<Bytes> {
        let containers = self.containers();
        let container = containers.values().find(|container| container.spec.name == name).unwrap();
        container.agent.as_ref().unwrap().extracted()
    }

    /// The ids of the containers there are.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.containers().keys().cloned().collect()
    }

    /// The names of those that wait in a pool.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.contains('.')).collect()
    }

    /// Forgets a container whose agent goes on answering at its address.
    pub(crate) fn forget(&self, name: &str) -> Option<FakeAgent> {
        let mut containers = self.containers();
        let id = containers.iter().find(|(_, container)| container.spec.name == name)?.0.clone();
        containers.remove(&id)?.agent
    }

    /// Takes the agent from a container that goes on running, as when it hangs.
    pub(crate) fn silence(&self, name: &str) {
        self.containers().values_mut().find(|container| container.spec.name == name).unwrap().agent = None;
    }

    /// The workspace's files, as the tar that its agent sends.
    pub(crate) fn tar(&self, name: &str) -> Vec<u8> {
        let containers = self.containers();
        containers.values().find(|container| container.spec.name == name).unwrap().agent.as_ref().unwrap().tar()
    }

    pub(crate) fn set_tar(&self, name: &str, tar: Vec<u8>) {
        let containers = self.containers();
        containers.values().find(|container| container.spec.name == name).unwrap().agent.as_ref().unwrap().set_tar(tar);
    }

    /// Starts a new agent for a container, as a restart does: at another address.
    pub(crate) async fn restart_agent(&self, name: &str) {
        let workspace = workspace_of(&self.spec(name));
        let agent = FakeAgent::start(self.agent.clone(), workspace).await;
        self.containers().values_mut().find(|container| container.spec.name == name).unwrap().agent = Some(agent);
    }

    /// The variables that a claim brought into a container.
    pub(crate) fn claimed_env(&self, name: &str) -> BTreeMap<String, String> {
        let containers = self.containers();
        containers.values().find(|container| container.spec.name == name).unwrap().agent.as_ref().unwrap().env()
    }

    /// Lets the next starts fail.
    pub(crate) fn fail_starts(&self, count: usize) {
        self.failing_starts.store(count, Ordering::Relaxed);
    }

    /// Lets a container not be stopped.
    pub(crate) fn stuck(&self, name: &str) {
        *self.stuck.lock().unwrap() = Some(name.to_owned());
    }

    /// Makes it another engine than others.
    pub(crate) fn is_called(&self, identity: &str) {
        identity.clone_into(&mut self.identity.lock().unwrap());
    }

    /// How often a container's agent was asked to start the dev server since the container started.
    pub(crate) fn dev_servers(&self, name: &str) -> usize {
        let containers = self.containers();
        containers.values().find(|container| container.spec.name == name).unwrap().agent.as_ref().unwrap().dev_servers()
    }

    /// Connections that a container's agent has accepted.
    pub(crate) fn connections(&self, name: &str) -> usize {
        let containers = self.containers();
        containers.values().find(|container| container.spec.name == name).unwrap().agent.as_ref().unwrap().connections()
    }

    fn freeze(&self, id: &ContainerId, from: ContainerStatus, to: ContainerStatus) -> Result<()> {
        let mut containers = self.containers();
        let container = containers.get_mut(&id.0).ok_or_else(gone)?;
        if container.status != from && container.status != to {
            return Err(Error::new(ErrorKind::Conflict, "it doesn't run"));
        }
        container.status = to;
        // A frozen agent takes connections and says nothing; see `FakeAgent::freeze`.
        if let Some(agent) = &container.agent {
            agent.freeze(to == ContainerStatus::Paused);
        }
        Ok(())
    }

    /// Breaks off all events, and can't be reached until it is back.
    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::Relaxed);
        *self.events.lock().unwrap() = broadcast::channel(64).0;
    }

    pub(crate) fn come_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// Says that something happened to a container.
    pub(crate) fn say_of(&self, name: &str, action: &str) {
        let id = {
            let containers = self.containers();
            containers.iter().find(|(_, container)| container.spec.name == name).unwrap().0.clone()
        };
        self.say(&ContainerId(id), action);
    }

    fn say(&self, id: &ContainerId, action: &str) {
        let (name, labels) = match self.containers().get(&id.0) {
            Some(container) => (container.spec.name.clone(), container.spec.labels.clone()),
            None => Default::default(),
        };
        let exit_code = (action == "die").then_some(7);
        let event = ContainerEvent { id: id.clone(), action: action.to_owned(), name, exit_code };
        // Nobody may be listening.
        let _ = self.events.lock().unwrap().send((event, labels));
    }
}

#[async_trait]
impl Runtime for FakeEngine {
    async fn describe(&self) -> Result<RuntimeInfo> {
        Ok(RuntimeInfo {
            name: "fake".to_owned(),
            version: "1".to_owned(),
            api_version: "1".to_owned(),
            address: "unix:///run/fake.sock".to_owned(),
            data_root: None,
            lacks: Vec::new(),
        })
    }

    async fn identity(&self) -> Result<String> {
        self.calls.through("identity", async { Ok(self.identity.lock().unwrap().clone()) }).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.calls
            .through("create", async {
                if let Some(gate) = &self.script.create_gate {
                    gate.notified().await;
                }
                self.script.create()?;
                if spec.network.as_ref().is_some_and(|network| !self.networks().contains_key(&network.name)) {
                    return Err(Error::new(ErrorKind::Conflict, "its network isn't there"));
                }
                let mut containers = self.containers();
                if containers.values().any(|container| container.spec.name == spec.name) {
                    return Err(Error::new(ErrorKind::AlreadyExists, "the name is taken"));
                }
                let id = format!("c{}", self.next.fetch_add(1, Ordering::Relaxed));
                let container = Container {
                    spec: spec.clone(),
                    status: ContainerStatus::Created,
                    restarted: false,
                    agent: None,
                    measured: 0,
                    files: Arc::default(),
                    tar: None,
                };
                containers.insert(id.clone(), container);
                drop(containers);
                self.say(&ContainerId(id.clone()), "create");
                if self.script.create_then_fail { Err(failure("create")) } else { Ok(ContainerId(id)) }
            })
            .await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<NetworkMade> {
        self.calls
            .through("ensure_network", async {
                let subnet = network.subnet.expect("it has addresses");
                if self.taken_subnets.lock().unwrap().contains(&subnet) {
                    return Ok(NetworkMade::SubnetTaken("a test's".to_owned()));
                }
                self.networks().insert(network.name.clone(), network.clone());
                Ok(NetworkMade::There)
            })
            .await
    }

    /// The first time something is open that can't be closed.
    async fn close_networks_again(&self, labels: &BTreeMap<String, String>) -> Result<Vec<String>> {
        self.looks.send_modify(|looks| *looks = (looks.0 + 1, labels.clone()));
        match self.looks.borrow().0 {
            1 => Err(Error::new(ErrorKind::Unsupported, "it is open")),
            _ => Ok(vec!["network".to_owned()]),
        }
    }

    async fn release_network(&self, name: &str) -> Result<bool> {
        let in_it = |spec: &ContainerSpec| spec.network.as_ref().is_some_and(|network| network.name == name);
        let used = self.containers().values().any(|container| in_it(&container.spec));
        Ok(!used && self.networks().remove(name).is_some())
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.calls
            .through("start", async {
                if self.script.start {
                    return Err(failure("start"));
                }
                if fault::fails(&self.failing_starts) {
                    return Err(failure("start"));
                }
                if self.inspect(id).await?.status == ContainerStatus::Running {
                    return Ok(());
                }
                let (workspace, files) = {
                    let containers = self.containers();
                    let container = containers.get(&id.0).ok_or_else(gone)?;
                    (workspace_of(&container.spec), container.files.clone())
                };
                let agent = FakeAgent::start_over(self.agent.clone(), workspace, files).await;
                let ending = {
                    let mut containers = self.containers();
                    let container = containers.get_mut(&id.0).ok_or_else(gone)?;
                    container.restarted = container.status == ContainerStatus::Exited;
                    container.status =
                        if self.script.dies { ContainerStatus::Exited } else { ContainerStatus::Running };
                    if let Some(tar) = container.tar.take() {
                        agent.set_tar(tar);
                    }
                    container.agent = (!self.script.dies).then_some(agent);
                    self.script.dies
                };
                self.say(id, "start");
                if ending {
                    self.say(id, "die");
                }
                Ok(())
            })
            .await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.calls.graced(grace);
        self.calls
            .through("stop", async {
                let was_running = {
                    let mut containers = self.containers();
                    let container = containers.get_mut(&id.0).ok_or_else(gone)?;
                    if self.stuck.lock().unwrap().as_ref() == Some(&container.spec.name) {
                        return Err(failure("stop"));
                    }
                    container.tar = container.agent.take().map(|agent| agent.tar()).or(container.tar.take());
                    std::mem::replace(&mut container.status, ContainerStatus::Exited) != ContainerStatus::Exited
                };
                if was_running {
                    self.say(id, "die");
                }
                Ok(())
            })
            .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        self.calls
            .through("remove", async {
                if self.removals.fetch_add(1, Ordering::Relaxed) < self.script.remove_failures {
                    return Err(failure("remove"));
                }
                self.say(id, "destroy");
                self.containers().remove(&id.0);
                Ok(())
            })
            .await
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerState>> {
        self.calls
            .through("list", async {
                if self.away.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::EngineUnavailable, "the fake engine is away"));
                }
                let containers = self.containers();
                let wanted = |container: &Container| {
                    labels.iter().all(|(name, value)| container.spec.labels.get(name) == Some(value))
                };
                Ok(containers
                    .iter()
                    .filter(|(_, container)| wanted(container))
                    .map(|(id, container)| state(id, container))
                    .collect())
            })
            .await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState> {
        self.calls
            .through("inspect", async {
                match self.containers().get(&id.0) {
                    Some(container) => Ok(state(&id.0, container)),
                    None => Err(gone()),
                }
            })
            .await
    }

    async fn endpoint(&self, id: &ContainerId, port: u16) -> Result<Endpoint> {
        let containers = self.containers();
        let agent = containers.get(&id.0).and_then(|container| container.agent.as_ref());
        match agent {
            Some(_) if self.script.through_runtime => Ok(Endpoint::ThroughRuntime),
            Some(agent) if port == 3001 => Ok(Endpoint::Tcp(agent.address())),
            Some(agent) => Ok(Endpoint::Tcp(agent.preview_address())),
            None => Err(Error::new(ErrorKind::NotFound, "it does not run")),
        }
    }

    async fn connect(&self, id: &ContainerId, port: u16) -> Result<BoxConnection> {
        if let Some(kind) = self.script.connect {
            return Err(Error::new(kind, "no way in").hint("make one"));
        }
        let address = match self.containers().get(&id.0).and_then(|container| container.agent.as_ref()) {
            Some(agent) if port == 3001 => agent.address(),
            _ => return Err(Error::new(ErrorKind::NotFound, "it does not run")),
        };
        Ok(Box::new(TcpStream::connect(address).await?))
    }

    fn logs(&self, _id: &ContainerId, _follow: bool) -> BoxStream<Bytes> {
        Box::pin(stream::iter([Ok(Bytes::from_static(b"the agent's last words\n"))]))
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        if self.measure_fails.load(Ordering::Relaxed) {
            return Err(failure("stats"));
        }
        let mut containers = self.containers();
        measure(containers.get_mut(&id.0).ok_or_else(gone)?, self.began)
    }

    fn events(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent> {
        if self.script.no_events {
            return Box::pin(stream::pending());
        }
        if self.away.load(Ordering::Relaxed) {
            return Box::pin(stream::iter([Err(Error::new(ErrorKind::EngineUnavailable, "the fake engine is away"))]));
        }
        let (receiver, labels) = (self.events.lock().unwrap().subscribe(), labels.clone());
        let all = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await.ok()?, receiver)) });
        Box::pin(all.filter_map(move |(event, of)| {
            let wanted = labels.iter().all(|(name, value)| of.get(name) == Some(value));
            async move { wanted.then_some(Ok(event)) }
        }))
    }

    async fn image_id(&self, reference: &str) -> Result<String> {
        self.calls.through("image_id", async { self.images.id(reference) }).await
    }

    async fn pull_image(&self, reference: &str, _progress: &(dyn Fn(PullProgress) + Send + Sync)) -> Result<()> {
        self.calls.through("pull_image", async { self.images.pull(reference) }).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<()> {
        self.calls
            .through("rename", async {
                if self.script.rename {
                    return Err(failure("rename"));
                }
                let mut containers = self.containers();
                if containers.iter().any(|(other, container)| *other != id.0 && container.spec.name == name) {
                    return Err(Error::new(ErrorKind::AlreadyExists, "the name is taken"));
                }
                let container = containers.get_mut(&id.0).ok_or_else(gone)?;
                container.spec.name = name.to_owned();
                drop(containers);
                self.say(id, "rename");
                Ok(())
            })
            .await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.calls
            .through("pause", async {
                self.freeze(id, ContainerStatus::Running, ContainerStatus::Paused)?;
                self.say(id, "pause");
                Ok(())
            })
            .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.calls
            .through("resume", async {
                if fault::fails(&self.resume_fails) {
                    return Err(failure("resume"));
                }
                self.freeze(id, ContainerStatus::Paused, ContainerStatus::Running)?;
                self.say(id, "unpause");
                Ok(())
            })
            .await
    }

    async fn disk_use(&self, id: &ContainerId) -> Result<DiskUse> {
        let name = self.containers().get(&id.0).ok_or_else(gone)?.spec.name.clone();
        Ok(self.disk.uses.lock().unwrap().get(&name).copied().unwrap_or_default())
    }

    async fn volume_use(&self, name: &str) -> Result<DiskUse> {
        Ok(self.disk.uses.lock().unwrap().get(name).copied().unwrap_or_default())
    }

    async fn disk_space(&self) -> Result<DiskSpace> {
        self.disk.space()
    }

    async fn create_volume(&self, volume: &VolumeSpec) -> Result<()> {
        self.volumes.create(volume)
    }

    async fn volumes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<VolumeState>> {
        Ok(self.volumes.list(labels))
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let source = MountSource::Volume(name.to_owned());
        let has_it = |container: &Container| container.spec.mounts.iter().any(|mount| mount.source == source);
        self.volumes.remove(name, self.containers().values().any(has_it))
    }

    fn updates_limits(&self) -> bool {
        !self.script.limits_are_fixed
    }

    async fn limits_disk(&self) -> Result<bool> {
        Ok(self.script.quotas)
    }

    async fn update_limits(&self, id: &ContainerId, limits: &Resources) -> Result<()> {
        self.calls
            .through("update_limits", async {
                if self.script.update_limits {
                    return Err(failure("updateLimits"));
                }
                self.containers().get_mut(&id.0).ok_or_else(gone)?.limit(limits);
                Ok(())
            })
            .await
    }
}
