//! A runtime as its host uses it: every call is noted on its way, and nothing about it is changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    BoxConnection, BoxStream, ContainerEvent, ContainerId, ContainerSpec, ContainerState, DiskSpace, DiskUse, Endpoint,
    ImageSummary, NetworkMade, NetworkSpec, PullProgress, Resources, Runtime, RuntimeInfo, Stats, VolumeSpec,
    VolumeState,
};
use crate::{
    audit::Auditor,
    error::{Error, Result},
    events::Removals,
    metrics::Metrics,
};

/// Counts and times all calls, notes what is removed, and has the auditor ask an agent for its last records before its container
/// ends. Every method of the seam stands here, the optional ones too: one that lacked would be `Unsupported`.
pub(crate) struct Observed {
    inner: Arc<dyn Runtime>,
    removals: Removals,
    auditor: AuditorSlot,
    metrics: Arc<Metrics>,
}

/// Whom to tell before a container ends: who collects needs the runtime, so it comes later. It doesn't live through this.
pub(crate) type AuditorSlot = Arc<OnceLock<Weak<Auditor>>>;

impl Observed {
    pub(crate) fn new(
        inner: Arc<dyn Runtime>,
        removals: Removals,
        auditor: AuditorSlot,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { inner, removals, auditor, metrics }
    }

    async fn count<T>(&self, name: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let result = call.await;
        self.metrics.call(name, began.elapsed(), result.as_ref().err().map(Error::kind));
        result
    }

    async fn before_end(&self, id: &ContainerId) {
        if let Some(auditor) = self.auditor.get().and_then(Weak::upgrade) {
            auditor.before_end(id).await;
        }
    }
}

#[async_trait]
impl Runtime for Observed {
    async fn describe(&self) -> Result<RuntimeInfo> {
        self.count("describe", self.inner.describe()).await
    }

    async fn identity(&self) -> Result<String> {
        self.count("identity", self.inner.identity()).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.count("create", self.inner.create(spec)).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<NetworkMade> {
        self.count("ensureNetwork", self.inner.ensure_network(network)).await
    }

    async fn close_networks_again(&self, labels: &BTreeMap<String, String>) -> Result<Vec<String>> {
        self.count("closeNetworksAgain", self.inner.close_networks_again(labels)).await
    }

    async fn release_network(&self, name: &str) -> Result<bool> {
        self.count("releaseNetwork", self.inner.release_network(name)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.count("start", self.inner.start(id)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.before_end(id).await;
        self.count("stop", self.inner.stop(id, grace)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        self.before_end(id).await;
        // Before the call: the engine tells of it before it answers.
        self.removals.expect(id);
        let result = self.count("remove", self.inner.remove(id)).await;
        if result.is_err() {
            self.removals.failed(id);
        }
        result
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerState>> {
        self.count("list", self.inner.list(labels)).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState> {
        self.count("inspect", self.inner.inspect(id)).await
    }

    async fn endpoint(&self, id: &ContainerId, port: u16) -> Result<Endpoint> {
        self.count("endpoint", self.inner.endpoint(id, port)).await
    }

    async fn connect(&self, id: &ContainerId, port: u16) -> Result<BoxConnection> {
        self.count("connect", self.inner.connect(id, port)).await
    }

    async fn publishes_here(&self) -> Result<bool> {
        self.count("publishesHere", self.inner.publishes_here()).await
    }

    fn logs(&self, id: &ContainerId, follow: bool) -> BoxStream<Bytes> {
        self.inner.logs(id, follow)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.count("stats", self.inner.stats(id)).await
    }

    fn events(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent> {
        self.inner.events(labels)
    }

    async fn image_id(&self, reference: &str) -> Result<String> {
        self.count("imageId", self.inner.image_id(reference)).await
    }

    async fn images(&self) -> Result<Vec<ImageSummary>> {
        self.count("images", self.inner.images()).await
    }

    async fn pull_image(&self, reference: &str, progress: &(dyn Fn(PullProgress) + Send + Sync)) -> Result<()> {
        self.count("pullImage", self.inner.pull_image(reference, progress)).await
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        self.count("removeImage", self.inner.remove_image(reference)).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<()> {
        self.count("rename", self.inner.rename(id, name)).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.count("pause", self.inner.pause(id)).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.count("resume", self.inner.resume(id)).await
    }

    fn updates_limits(&self) -> bool {
        self.inner.updates_limits()
    }

    async fn limits_disk(&self) -> Result<bool> {
        // What is known of the engine already.
        self.inner.limits_disk().await
    }

    async fn update_limits(&self, id: &ContainerId, limits: &Resources) -> Result<()> {
        self.count("updateLimits", self.inner.update_limits(id, limits)).await
    }

    async fn create_volume(&self, volume: &VolumeSpec) -> Result<()> {
        self.count("createVolume", self.inner.create_volume(volume)).await
    }

    async fn volumes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<VolumeState>> {
        self.count("volumes", self.inner.volumes(labels)).await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.count("removeVolume", self.inner.remove_volume(name)).await
    }

    async fn disk_use(&self, id: &ContainerId) -> Result<DiskUse> {
        self.count("diskUse", self.inner.disk_use(id)).await
    }

    async fn volume_use(&self, name: &str) -> Result<DiskUse> {
        self.count("volumeUse", self.inner.volume_use(name)).await
    }

    async fn disk_space(&self) -> Result<DiskSpace> {
        // No call of the engine's where it is seen from here, and made for each creation.
        self.inner.disk_space().await
    }

    async fn put_archive(&self, id: &ContainerId, folder: &str, tar: BoxStream<Bytes>) -> Result<()> {
        self.count("putArchive", self.inner.put_archive(id, folder, tar)).await
    }
}
