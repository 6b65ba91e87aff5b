//! The runtime seam over an engine's containers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering,
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    models::{ContainerInspectResponse, SystemInfo},
    query_parameters::{
        ContainerArchiveInfoOptions, CreateContainerOptions, InspectContainerOptions, ListContainersOptions,
        RemoveContainerOptions, RenameContainerOptions, StartContainerOptions, StatsOptions, StopContainerOptions,
        UploadToContainerOptions, WaitContainerOptions,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::oneshot;

use super::{
    Docker, ca_bundle, disk,
    engine::Engine,
    inject, mounts, network, ports, relay,
    specification::{Place, checked_name, checked_reference, container, update},
    state, volumes,
};
use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    runtime::{
        BoxConnection, BoxStream, ContainerEvent, ContainerId, ContainerSpec, ContainerState, ContainerStatus,
        DiskSpace, DiskUse, Egress, Endpoint, ImageSummary, NetworkMade, NetworkSpec, PullProgress, Resources, Runtime,
        RuntimeInfo, Stats, VolumeSpec, VolumeState,
    },
};

/// How many containers a listing inspects at once: those that ended, whose exit code the engine's own listing lacks.
const INSPECTIONS_AT_ONCE: usize = 8;

#[async_trait]
impl Runtime for Docker {
    async fn describe(&self) -> Result<RuntimeInfo> {
        let version = self.connection.call("asking the engine's version", self.connection.client.version()).await?;
        let facts = self.connection.facts().await?;
        Ok(RuntimeInfo {
            name: self.connection.engine.name().to_owned(),
            version: version.version.unwrap_or_default(),
            api_version: self.connection.client.client_version().to_string(),
            address: self.connection.address.to_string(),
            data_root: facts.docker_root_dir.clone(),
            lacks: self.connection.engine.lacks().iter().map(ToString::to_string).collect(),
        })
    }

    async fn identity(&self) -> Result<String> {
        let facts = self.connection.facts().await?;
        let host = facts.name.as_deref().unwrap_or_default();
        let folder = facts.docker_root_dir.as_deref().unwrap_or_default();
        // Podman makes up another id for each answer.
        if self.connection.engine == Engine::Podman {
            return Ok(format!("podman {host}{folder}"));
        }
        let id = facts.id.as_deref().filter(|id| !id.is_empty());
        Ok(id.map_or_else(|| format!("docker {host}{folder}"), |id| format!("docker {id}")))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        // The engine finishes what it was asked even if the caller has gone meanwhile, and lists it only then. So the
        // work goes on in a task, which removes what nobody waits for any more; the call's time-out bounds it.
        let (answer, answered) = oneshot::channel();
        let (docker, spec) = (self.clone(), spec.clone());
        tokio::spawn(async move {
            let created = docker.create_container(&spec).await;
            if let Err(Ok(unwanted)) = answer.send(created)
                && let Err(error) = docker.remove(&unwanted).await
            {
                tracing::warn!(container = %spec.name, %error, "a cancelled creation could not be removed");
            }
        });
        answered.await.map_err(|_| Error::new(ErrorKind::Engine, "creating the container was broken off"))?
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        let name = checked_name(&id.0)?;
        let network = network::spec_of(&self.inspection(id).await?, &self.connection.options);
        if let Some(network) = &network {
            // It may have been made long ago, before a restart of the machine; the rules don't outlive that.
            let there = Box::pin(self.networks.there(&self.connection, network)).await;
            there.map_err(|error| error.context("starting the container"))?;
        }
        let mut started = self.start_once(name, network.as_ref()).await;
        let mut attempts = 1;
        while let Err(error) = &started
            && ports::is_taken(error)
        {
            let container = self.inspection(id).await?;
            if ports::has_no_network(&container)
                && let Some(network) = &network
            {
                Box::pin(self.networks.reconnect(&self.connection, name, network)).await?;
            }
            let wanted = ports::wanted(&container);
            let choices: usize = wanted.values().map(|range| ports::choices(range)).sum();
            if attempts >= choices.min(ports::ATTEMPTS) {
                return started.map_err(|error| ports::used_up(&wanted, error));
            }
            started = self.start_once(name, network.as_ref()).await;
            attempts += 1;
        }
        started?;
        let container = self.inspection(id).await?;
        let (wanted, published) = (ports::wanted(&container), ports::published(&container));
        let running = container.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        let missing: Vec<u16> =
            wanted.keys().copied().filter(|port| running && !published.contains_key(port)).collect();
        let error = if missing.is_empty() {
            match self.verify_folders(&container).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            }
        } else {
            let error = ports::unpublished(&missing);
            if attempts > 1 { ports::used_up(&wanted, error) } else { error }
        };
        // Nobody shall take it for what was asked for.
        self.stop(id, Duration::ZERO).await?;
        Err(error)
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        // A frozen process takes no signal, and an engine that waits for it kills it in the end.
        if self.inspect(id).await?.status == ContainerStatus::Paused {
            self.resume(id).await?;
        }
        // Whole seconds, upwards: half a second of grace must not become none.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptions { signal: None, t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)) };
        let call = self.connection.client.stop_container(checked_name(&id.0)?, Some(options));
        let bound = self.connection.options.call_timeout.saturating_add(Duration::from_secs(seconds));
        self.connection.call_within(bound, "stopping the container", call).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        let name = checked_name(&id.0)?;
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let call = self.connection.client.remove_container(name, Some(options));
        match self.connection.call("removing the container", call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // "removal of container … is already in progress": somebody else removes it; wait for their end of it.
            Err(error) if error.kind() == ErrorKind::Conflict && error.to_string().contains("already in progress") => {
                self.wait_until_removed(name).await
            }
            result => result,
        }
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerState>> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), label_filters(labels))])),
            ..ListContainersOptions::default()
        };
        let list = || self.connection.client.list_containers(Some(options.clone()));
        let listed = self.connection.settled("listing containers", list).await?;
        stream::iter(listed)
            .map(|summary| async move {
                match state::listed(&summary) {
                    Some(state) => Ok(Some(self.seen_from_here(state))),
                    None => match self.inspect(&ContainerId(summary.id.unwrap_or_default())).await {
                        Ok(state) => Ok(Some(state)),
                        // Removed between the two calls.
                        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                        Err(error) => Err(error),
                    },
                }
            })
            .buffered(INSPECTIONS_AT_ONCE)
            .try_filter_map(|state| async { Ok(state) })
            .try_collect()
            .await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState> {
        Ok(self.seen_from_here(state::inspected(self.inspection(id).await?)))
    }

    async fn endpoint(&self, id: &ContainerId, port: u16) -> Result<Endpoint> {
        let container = self.inspection(id).await?;
        let running = container.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        if !running {
            return Err(Error::new(ErrorKind::NotFound, "the container doesn't run, so it has no address")
                .hint("start it first; its logs say why it ended"));
        }
        self.way_to(container, port).await
    }

    async fn connect(&self, id: &ContainerId, port: u16) -> Result<BoxConnection> {
        match relay::connect(&self.connection, &self.beginnings, checked_name(&id.0)?, port).await {
            Ok(connection) => Ok(Box::new(connection)),
            // In words and with a status that depend on the engine.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Engine) => {
                Err(match self.inspect(id).await?.status {
                    ContainerStatus::Running => error,
                    ContainerStatus::Paused => Error::new(ErrorKind::Conflict, "the container is paused")
                        .hint("resume it first")
                        .caused_by(error),
                    _ => Error::new(ErrorKind::NotFound, "the container doesn't run")
                        .hint("start it first")
                        .caused_by(error),
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn publishes_here(&self) -> Result<bool> {
        self.publishes_ports_here().await
    }

    fn logs(&self, id: &ContainerId, follow: bool) -> BoxStream<Bytes> {
        self.log_stream(id, follow)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let options = StatsOptions { stream: false, one_shot: true };
        let mut answers = self.connection.client.stats(checked_name(&id.0)?, Some(options));
        let call = async { answers.next().await.transpose() };
        match self.connection.call("measuring the container", call).await? {
            Some(answer) => state::stats(&answer)
                .ok_or_else(|| Error::new(ErrorKind::NotFound, "the container doesn't run, so it uses nothing")),
            // Podman's answer for one that doesn't run.
            None if self.inspect(id).await?.status != ContainerStatus::Running => {
                Err(Error::new(ErrorKind::NotFound, "the container doesn't run, so it uses nothing"))
            }
            None => Err(Error::new(ErrorKind::Engine, "measuring the container: the engine answered with nothing")),
        }
    }

    fn events(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent> {
        self.event_stream(labels)
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<NetworkMade> {
        checked_name(&network.name)?;
        self.networks.ensure(&self.connection, network).await.map(NetworkMade::from)
    }

    async fn close_networks_again(&self, labels: &BTreeMap<String, String>) -> Result<Vec<String>> {
        self.networks.close_again(&self.connection, label_filters(labels)).await
    }

    async fn release_network(&self, name: &str) -> Result<bool> {
        self.networks.release(&self.connection, checked_name(name)?).await
    }

    async fn image_id(&self, reference: &str) -> Result<String> {
        Ok(self.existing_image(reference).await?.id)
    }

    async fn images(&self) -> Result<Vec<ImageSummary>> {
        Self::images(self).await
    }

    async fn pull_image(&self, reference: &str, progress: &(dyn Fn(PullProgress) + Send + Sync)) -> Result<()> {
        Self::pull_image(self, reference, progress).await.map(drop)
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        Self::remove_image(self, reference).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<()> {
        let options = RenameContainerOptions { name: checked_name(name)?.to_owned() };
        let call = self.connection.client.rename_container(checked_name(&id.0)?, options);
        match self.connection.call(&format!("naming the container {name:?}"), call).await {
            // "Renaming a container with the same name as its current name", with a status that depends on the engine.
            Err(error) if self.inspect(id).await.is_ok_and(|state| state.name == name) => {
                tracing::debug!(%error, "a container has its name already");
                Ok(())
            }
            result => result,
        }
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        let name = checked_name(&id.0)?;
        let pausing = self.connection.frozen("pausing the container", || self.connection.client.pause_container(name));
        let paused = self.beginnings.paused(&id.0, pausing).await;
        self.unless_already(ContainerStatus::Paused, id, paused).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        let call = self.connection.client.unpause_container(checked_name(&id.0)?);
        let resumed = self.connection.call("resuming the container", call).await;
        self.unless_already(ContainerStatus::Running, id, resumed).await
    }

    fn updates_limits(&self) -> bool {
        self.connection.engine != Engine::Podman
    }

    async fn limits_disk(&self) -> Result<bool> {
        Ok(self.has_quotas(self.connection.facts().await?))
    }

    async fn update_limits(&self, id: &ContainerId, limits: &Resources) -> Result<()> {
        let name = checked_name(&id.0)?;
        let body = update(limits, self.cpus().await?)?;
        if !self.updates_limits() {
            self.inspect(id).await?;
            let message = "Podman's compatible API changes no limits of a container";
            return Err(
                Error::new(ErrorKind::Unsupported, message).hint("make the workspace with the limits that it needs")
            );
        }
        self.connection
            .call("changing the container's limits", self.connection.client.update_container(name, body))
            .await
    }

    async fn create_volume(&self, volume: &VolumeSpec) -> Result<()> {
        volumes::create(&self.connection, volume).await
    }

    async fn volumes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<VolumeState>> {
        volumes::list(&self.connection, labels).await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        volumes::remove(&self.connection, name).await
    }

    async fn disk_use(&self, id: &ContainerId) -> Result<DiskUse> {
        disk::of_container(&self.connection, id).await
    }

    async fn volume_use(&self, name: &str) -> Result<DiskUse> {
        disk::of_volume(volumes::folder_of(&self.connection, name).await?).await
    }

    async fn disk_space(&self) -> Result<DiskSpace> {
        let data_root = self.connection.facts().await?.docker_root_dir.clone();
        blocking("looking at the disk", move || disk::space(data_root.as_deref())).await?
    }

    async fn put_archive(&self, id: &ContainerId, folder: &str, tar: BoxStream<Bytes>) -> Result<()> {
        let name = checked_name(&id.0)?;
        let options = UploadToContainerOptions { path: folder.to_owned(), ..UploadToContainerOptions::default() };
        let what = format!("laying an archive into {folder}");
        let client = &self.connection.client;
        if self.connection.engine == Engine::Podman {
            // It makes a folder that is missing, with root as its owner.
            let there = ContainerArchiveInfoOptions { path: folder.to_owned() };
            let call = client.get_container_archive_info(name, Some(there));
            self.connection.call(&what, call).await?;
        }
        self.connection.upload(&what, tar, |body| client.upload_to_container(name, Some(options), body)).await
    }
}

impl Docker {
    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        checked_name(&spec.name)?;
        checked_reference(&spec.image)?;
        let what = format!("creating the container {:?}", spec.name);
        if self.connection.engine == Engine::Podman && spec.publish_on.is_some() && !spec.publish.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{what}: Podman takes no range of ports to publish on"),
            )
            .hint("leave COREHOLD_PORT_RANGE and HostBuilder::port_range out, so that it takes any that is free"));
        }
        let ca_mount = async {
            match &spec.ca_bundle {
                Some(bundle) => ca_bundle::mount(&self.connection, &spec.image, bundle).await.map(Some),
                None => Ok(None),
            }
        };
        let injected = async {
            match &spec.agent {
                Some(injection) => inject::prepare(self, spec, injection).await,
                None => Ok(None),
            }
        };
        let wanted = spec.network.clone().unwrap_or_else(|| network::default_spec(&self.connection.options));
        // Each to its end, also where another one fails: a seeding that is dropped leaves its lock behind, and the next one waits for that.
        let (network, facts, ca_mount) =
            tokio::join!(Box::pin(self.networks.there(&self.connection, &wanted)), self.connection.facts(), ca_mount);
        let in_context = |error: Error| error.context(&what);
        let (network, facts) = (network.map_err(in_context)?, facts.map_err(in_context)?);
        let ca_mount = ca_mount.map_err(in_context)?;
        let here = self.connection.address.is_on_this_machine();
        let publishes_here = here && (network.direct || self.forwards_ports().await?);
        // Where neither its address nor such a port is reached, the agent is through the engine.
        let publish_agent = publishes_here && (self.connection.options.publish_agent || !network.direct);
        if !publishes_here && !spec.publish.is_empty() {
            let address = &self.connection.address;
            let message = format!("{what}: what the engine at {address} publishes isn't reached on this machine");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("publish none: `Workspace::preview` and `corehold forward` lead to any port inside"));
        }
        if let Some(why) = &network.publishes_nothing
            && (publish_agent || !spec.publish.is_empty())
        {
            let what = if publish_agent { "the agent could not be reached" } else { "ports can't be published" };
            return Err(Error::new(ErrorKind::Unsupported, format!("{what}: {why}"))
                .hint("publish none, since previews go through the agent; or configure another network"));
        }
        if let Some(sandbox) = &spec.hardening.sandbox {
            self.check_sandbox(sandbox).await.map_err(|error| error.context(&what))?;
        }
        let (mut mounts, memory) = mounts::of(&spec.mounts);
        mounts.extend(ca_mount);
        let place = Place {
            // By name: one that was removed before the start, and made anew, serves as well.
            closed: wanted.egress == Egress::None,
            network: wanted.name,
            publish_agent,
            cpus: cpus(facts),
            quota: self.has_quotas(facts),
            // Podman names no driver, and takes `json-file` for its own.
            bound_log: self.connection.engine == Engine::Podman || facts.logging_driver.as_deref() == Some("json-file"),
            mounts,
            memory,
        };
        let mut body = container(spec, place).map_err(|error| error.context(&what))?;
        // Last, since what it makes is to be released.
        let injected = injected.await.map_err(|error| error.context(&what))?;
        if let Some(injected) = &injected {
            injected.apply(spec, &mut body);
        }
        let options = CreateContainerOptions { name: Some(spec.name.clone()), platform: String::new() };
        let create =
            |body| self.connection.call(&what, self.connection.client.create_container(Some(options.clone()), body));
        let mut created = create(body.clone()).await;
        if created.as_ref().is_err_and(disk::is_no_quota) {
            // The host looks itself then.
            self.no_quotas.store(true, Ordering::Relaxed);
            body.host_config.iter_mut().for_each(|config| config.storage_opt = None);
            created = create(body).await;
        }
        let finished = match (&created, &injected) {
            (Ok(created), Some(injected)) => injected.finish(&self.connection, &created.id).await,
            _ => Ok(()),
        };
        if let Some(injected) = &injected {
            injected.release(&self.connection).await;
        }
        let created = created?;
        for warning in &created.warnings {
            tracing::warn!(container = %spec.name, warning, "the engine created the container with a warning");
        }
        let verified = async {
            finished?;
            if let Some(bundle) = &spec.ca_bundle {
                ca_bundle::verify(&self.connection, &spec.image, bundle).await?;
            }
            volumes::verify(&self.connection, &spec.mounts).await
        };
        if let Err(error) = verified.await {
            // Best effort: it is found by its labels anyhow.
            let _ = self.remove(&ContainerId(created.id)).await;
            volumes::remove_unasked(&self.connection, &spec.mounts).await;
            return Err(error.context(&what));
        }
        Ok(ContainerId(created.id))
    }

    /// Refuses a sandbox that the engine doesn't have: it would use none of another name instead, but say so in words of its own.
    async fn check_sandbox(&self, name: &str) -> Result<()> {
        checked_name(name)?;
        let has = |facts: &SystemInfo| facts.runtimes.as_ref().is_none_or(|runtimes| runtimes.contains_key(name));
        if has(self.connection.facts().await?) {
            return Ok(());
        }
        // It may have been restarted with one more since.
        let facts = self.connection.call("asking the engine about itself", self.connection.client.info()).await?;
        if has(&facts) {
            return Ok(());
        }
        let mut there: Vec<_> = facts.runtimes.unwrap_or_default().into_keys().collect();
        there.sort();
        Err(Error::new(ErrorKind::Unsupported, format!("the engine has no runtime named {name:?}")).hint(format!(
            "it has {}; install {name} and name it in the engine's configuration (`runtimes` in daemon.json), or ask for another sandbox",
            there.join(", ")
        )))
    }

    /// Makes sure that the folders of a container that was just started are those that were asked for.
    async fn verify_folders(&self, container: &ContainerInspectResponse) -> Result<()> {
        let folders = mounts::folders(container);
        let process = container.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0);
        // What has ended already has done nothing with them: that it ended is told otherwise.
        let (false, Some(process)) = (folders.is_empty(), process) else { return Ok(()) };
        match blocking("looking at what is mounted", move || mounts::verify(process, &folders)).await? {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                if self.connection.options.folders_unseen {
                    return Ok(());
                }
                let id = ContainerId(container.id.clone().unwrap_or_default());
                // It may have ended since.
                if self.inspect(&id).await?.status != ContainerStatus::Running { Ok(()) } else { Err(error) }
            }
            verified => verified,
        }
    }

    /// What another machine's engine publishes on its loopback is nobody's here.
    fn seen_from_here(&self, state: ContainerState) -> ContainerState {
        let here = self.connection.address.is_on_this_machine();
        ContainerState { published: if here { state.published } else { BTreeMap::new() }, ..state }
    }

    async fn cpus(&self) -> Result<Option<u64>> {
        Ok(cpus(self.connection.facts().await?))
    }

    /// An engine refuses to freeze what is frozen, and to thaw what isn't, in words and with a status that depend on the engine.
    /// What counts is how the container is.
    async fn unless_already(&self, wanted: ContainerStatus, id: &ContainerId, done: Result<()>) -> Result<()> {
        let Err(error) = done else { return Ok(()) };
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::EngineUnavailable | ErrorKind::Timeout) {
            return Err(error);
        }
        match self.inspect(id).await?.status {
            status if status == wanted => Ok(()),
            ContainerStatus::Running | ContainerStatus::Paused => Err(error),
            ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Dead => {
                Err(Error::new(ErrorKind::Conflict, "the container doesn't run")
                    .hint("start it first")
                    .caused_by(error))
            }
        }
    }

    /// Starts it once; one whose network is gone gets the one that is there now.
    async fn start_once(&self, name: &str, network: Option<&NetworkSpec>) -> Result<()> {
        let start = || {
            let call = self.connection.client.start_container(name, None::<StartContainerOptions>);
            self.connection.call("starting the container", call)
        };
        match (start().await, network) {
            (Err(error), Some(network)) if network::is_lost(&error) => {
                Box::pin(self.networks.reconnect(&self.connection, name, network)).await?;
                start().await
            }
            (result, _) => result,
        }
    }

    async fn inspection(&self, id: &ContainerId) -> Result<ContainerInspectResponse> {
        let name = checked_name(&id.0)?;
        let inspect = || self.connection.client.inspect_container(name, None::<InspectContainerOptions>);
        self.connection.settled("looking at the container", inspect).await
    }

    async fn wait_until_removed(&self, name: &str) -> Result<()> {
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let mut waiting = self.connection.client.wait_container(name, Some(options));
        let call = async {
            match waiting.next().await {
                // Its exit code, which bollard makes an error when it isn't zero.
                None | Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => Ok(()),
                Some(Err(error)) => Err(error),
            }
        };
        match self.connection.call("removing the container", call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// CPUs that the engine has, if it says so.
fn cpus(facts: &SystemInfo) -> Option<u64> {
    facts.ncpu.and_then(|cpus| u64::try_from(cpus).ok()).filter(|cpus| *cpus > 0)
}

/// Labels as the engine's filters want them.
pub(super) fn label_filters(labels: &BTreeMap<String, String>) -> Vec<String> {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect()
}
