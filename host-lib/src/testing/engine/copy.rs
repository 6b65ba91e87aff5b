//! The fake engine as it stands at a moment, to go on from more than once.

use std::sync::{Arc, Mutex, atomic::Ordering};

use super::{AgentScript, Container, ContainerSpec, ContainerStatus, EngineScript, FakeAgent, FakeEngine, Files};
use crate::testing::AgentState;

/// What an engine held.
pub(crate) struct EngineCopy {
    script: AgentScript,
    next: usize,
    containers: Vec<ContainerCopy>,
}

#[derive(PartialEq)]
struct ContainerCopy {
    id: String,
    spec: ContainerSpec,
    status: ContainerStatus,
    restarted: bool,
    agent: Option<AgentState>,
    files: std::collections::BTreeMap<String, Vec<u8>>,
    tar: Option<Vec<u8>>,
}

impl PartialEq for EngineCopy {
    fn eq(&self, other: &Self) -> bool {
        self.containers == other.containers
    }
}

impl FakeEngine {
    pub(crate) fn copy(&self) -> EngineCopy {
        let containers = self.containers();
        let copy = containers.iter().map(|(id, container)| ContainerCopy {
            id: id.clone(),
            spec: container.spec.clone(),
            status: container.status,
            restarted: container.restarted,
            agent: container.agent.as_ref().map(FakeAgent::state),
            files: container.files.lock().unwrap().clone(),
            tar: container.tar.clone(),
        });
        EngineCopy { script: self.agent.clone(), next: self.next.load(Ordering::Relaxed), containers: copy.collect() }
    }

    /// The workspaces that the agents of waiting containers serve: none should.
    pub(crate) fn claimed_while_waiting(&self) -> Vec<String> {
        let containers = self.containers();
        let waiting = containers.values().filter(|container| container.spec.name.contains('.'));
        waiting
            .filter_map(|container| container.agent.as_ref()?.state().owner)
            .map(|(workspace, _)| workspace)
            .collect()
    }
}

impl EngineCopy {
    /// An engine that goes on from here, its agents at other addresses.
    pub(crate) async fn engine(&self) -> FakeEngine {
        let engine = FakeEngine::new(EngineScript::default(), self.script.clone());
        for copy in &self.containers {
            let files: Files = Arc::new(Mutex::new(copy.files.clone()));
            let agent = match &copy.agent {
                Some(state) => Some(FakeAgent::in_state(self.script.clone(), state, files.clone()).await),
                None => None,
            };
            if let Some(agent) = agent.as_ref().filter(|_| copy.status == ContainerStatus::Paused) {
                agent.freeze(true);
            }
            let container = Container {
                spec: copy.spec.clone(),
                status: copy.status,
                restarted: copy.restarted,
                agent,
                measured: 0,
                files,
                tar: copy.tar.clone(),
            };
            engine.containers().insert(copy.id.clone(), container);
        }
        engine.next.store(self.next, Ordering::Relaxed);
        engine
    }
}
