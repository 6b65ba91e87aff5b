//! A runtime as its host uses it: every call is noted on its way, and nothing about it is changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    BoxStream, ContainerEvent, ContainerId, ContainerSpec, ContainerState, Endpoint, Resources, Runtime, RuntimeInfo,
    Stats,
};
use crate::{audit::Auditor, error::Result, events::Removals};

/// Notes what is removed, and has the auditor ask an agent for its last records before its container ends. Every method of the seam stands here, the optional ones too: one that lacked would be `Unsupported`.
pub(crate) struct Observed {
    inner: Arc<dyn Runtime>,
    removals: Removals,
    auditor: AuditorSlot,
}

/// Whom to tell before a container ends: who collects needs the runtime, so it comes later. It doesn't live through this.
pub(crate) type AuditorSlot = Arc<OnceLock<Weak<Auditor>>>;

impl Observed {
    pub(crate) fn new(inner: Arc<dyn Runtime>, removals: Removals, auditor: AuditorSlot) -> Self {
        Self { inner, removals, auditor }
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
        self.inner.describe().await
    }

    async fn identity(&self) -> Result<String> {
        self.inner.identity().await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.inner.create(spec).await
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.inner.start(id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.before_end(id).await;
        self.inner.stop(id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<()> {
        self.before_end(id).await;
        // Before the call: the engine tells of it before it answers.
        self.removals.expect(id);
        let result = self.inner.remove(id).await;
        if result.is_err() {
            self.removals.failed(id);
        }
        result
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerState>> {
        self.inner.list(labels).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState> {
        self.inner.inspect(id).await
    }

    async fn endpoint(&self, id: &ContainerId, port: u16) -> Result<Endpoint> {
        self.inner.endpoint(id, port).await
    }

    fn logs(&self, id: &ContainerId, follow: bool) -> BoxStream<Bytes> {
        self.inner.logs(id, follow)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        self.inner.stats(id).await
    }

    fn events(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent> {
        self.inner.events(labels)
    }

    async fn image_id(&self, reference: &str) -> Result<String> {
        self.inner.image_id(reference).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<()> {
        self.inner.rename(id, name).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.inner.pause(id).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.inner.resume(id).await
    }

    async fn update_limits(&self, id: &ContainerId, limits: &Resources) -> Result<()> {
        self.inner.update_limits(id, limits).await
    }

    async fn put_archive(&self, id: &ContainerId, folder: &str, tar: BoxStream<Bytes>) -> Result<()> {
        self.inner.put_archive(id, folder, tar).await
    }
}
