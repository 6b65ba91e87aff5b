//! What a fake agent holds beside its container's files.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use super::{AgentScript, FakeAgent};

/// The files of a container: they outlive its agent.
pub(crate) type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

#[derive(Clone, PartialEq)]
pub(crate) struct AgentState {
    /// Whose it is, and by which claim.
    pub(crate) owner: Option<(String, String)>,
    env: BTreeMap<String, String>,
    tar: Vec<u8>,
    dev_servers: usize,
}

impl FakeAgent {
    pub(crate) fn state(&self) -> AgentState {
        let inner = &self.inner;
        AgentState {
            owner: inner.owner.lock().unwrap().clone(),
            env: inner.env.lock().unwrap().clone(),
            tar: inner.tar.lock().unwrap().clone(),
            dev_servers: inner.dev_servers.load(Ordering::Relaxed),
        }
    }

    /// One that goes on from a state.
    pub(crate) async fn in_state(script: AgentScript, state: &AgentState, files: Files) -> Self {
        let agent = Self::start_over(script, None, files).await;
        let (inner, state) = (&agent.inner, state.clone());
        *inner.owner.lock().unwrap() = state.owner;
        *inner.env.lock().unwrap() = state.env;
        *inner.tar.lock().unwrap() = state.tar;
        inner.dev_servers.store(state.dev_servers, Ordering::Relaxed);
        agent
    }
}
