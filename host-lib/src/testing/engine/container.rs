//! A container of the fake engine, and what is said of it.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{FakeAgent, Files};
use crate::{
    error::{Error, ErrorKind},
    runtime::{ContainerId, ContainerSpec, ContainerState, ContainerStatus},
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

pub(super) fn state(id: &str, container: &Container) -> ContainerState {
    let ended = container.status == ContainerStatus::Exited;
    ContainerState {
        id: ContainerId(id.to_owned()),
        name: container.spec.name.clone(),
        labels: container.spec.labels.clone(),
        status: container.status,
        created: "2026-01-01T00:00:00Z".to_owned(),
        exit_code: ended.then_some(7),
        oom_killed: false,
        restarted: container.restarted,
        published: published(container),
    }
}
