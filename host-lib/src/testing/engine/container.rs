//! A container of the fake engine, and what is said of it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use corehold_types::Timestamp;

use super::{FakeAgent, Files};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{ContainerId, ContainerSpec, ContainerState, ContainerStatus, Resources, Stats},
};

/// One of its containers.
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) status: ContainerStatus,
    pub(super) restarted: bool,
    pub(super) agent: Option<FakeAgent>,
    /// How often it was measured.
    pub(super) measured: u32,
    pub(super) files: Files,
    /// The workspace's files as the tar that an agent sends, while there is none.
    pub(super) tar: Option<Vec<u8>>,
}

impl Container {
    /// Gives it other limits. That of disk is for good.
    pub(super) fn limit(&mut self, limits: &Resources) {
        let old = self.spec.resources;
        self.spec.resources = Resources {
            memory_bytes: limits.memory_bytes.or(old.memory_bytes),
            cpu_millis: limits.cpu_millis.or(old.cpu_millis),
            pids: limits.pids.or(old.pids),
            ..old
        };
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "no such container")
}

pub(super) fn workspace_of(spec: &ContainerSpec) -> Option<String> {
    spec.env.get(corehold_types::env_vars::WORKSPACE_ID).cloned()
}

pub(super) fn failure(what: &str) -> Error {
    Error::new(ErrorKind::Engine, format!("the fake engine fails at {what}"))
}

/// Where the ports are published: all at the fake agent's preview, while it runs.
fn published(container: &Container) -> BTreeMap<u16, SocketAddr> {
    let agent = container.agent.iter();
    agent.flat_map(|agent| container.spec.publish.iter().map(|port| (*port, agent.preview_address()))).collect()
}

/// A quarter of its memory and half a CPU, 5 seconds after the sample before.
pub(super) fn measure(container: &mut Container, began: Timestamp) -> Result<Stats> {
    if !matches!(container.status, ContainerStatus::Running | ContainerStatus::Paused) {
        return Err(gone());
    }
    container.measured += 1;
    let number = container.measured;
    Ok(Stats {
        at: Some(began.after(Duration::from_secs(5) * number)),
        memory_bytes: 1 << 20,
        memory_limit_bytes: Some(4 << 20),
        cpu_ns: u64::from(number) * 2_500_000_000,
        network_sent_bytes: u64::from(number) * 1000,
        pids: 3,
        ..Stats::default()
    })
}

pub(super) fn state(id: &str, container: &Container) -> ContainerState {
    let ended = container.status == ContainerStatus::Exited;
    ContainerState {
        id: ContainerId(id.to_owned()),
        name: container.spec.name.clone(),
        labels: container.spec.labels.clone(),
        status: container.status,
        created: "2026-01-01T00:00:00Z".to_owned(),
        started: (container.status != ContainerStatus::Created).then(|| Timestamp::from_unix(1_800_000_000, 0)),
        finished: ended.then(|| Timestamp::from_unix(1_800_000_060, 0)),
        address: container.agent.as_ref().map(|_| [127, 0, 0, 1].into()),
        image: Some(container.spec.image.clone()),
        exit_code: ended.then_some(7),
        oom_killed: false,
        restarted: container.restarted,
        published: published(container),
    }
}
