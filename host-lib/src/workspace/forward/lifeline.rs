//! Whether the container that a connection leads into still runs. A container that is killed while much is under way takes its
//! network with it before it has said goodbye: its connections would stay open until the kernel's probes find out, minutes later.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind, Result},
    events::{ChangeKind, Signal, Signals},
    runtime::{ContainerId, ContainerStatus, Runtime},
    workspace::Workspace,
};

/// Follows one container from the moment it is made.
pub(in crate::workspace) struct Lifeline {
    runtime: Arc<dyn Runtime>,
    container: ContainerId,
    signals: Signals,
}

impl Lifeline {
    pub(in crate::workspace) async fn of(workspace: &Workspace) -> Result<Self> {
        let signals = workspace.host.engine.subscribe();
        let container = workspace.place().await?.container.clone();
        Ok(Self { runtime: workspace.host.runtime.clone(), container, signals })
    }

    /// The connection is made. If the workspace was found in another container for that, it leads into that one.
    pub(in crate::workspace) fn connected(&mut self, workspace: &Workspace) {
        if let Some(place) = workspace.about.place() {
            self.container = place.container.clone();
        }
    }

    /// Waits until the container has ended.
    pub(in crate::workspace) async fn ended(&mut self) -> Error {
        loop {
            match self.signals.next().await {
                Some(Signal::Change(change)) if change.container == self.container => match change.kind {
                    ChangeKind::Ended { .. } | ChangeKind::Removed { .. } => break,
                    _ => {}
                },
                Some(Signal::Change(_)) => {}
                Some(Signal::LookAgain) => match self.runtime.inspect(&self.container).await {
                    Ok(state) if matches!(state.status, ContainerStatus::Running | ContainerStatus::Paused) => {}
                    Err(error) if error.kind() != ErrorKind::NotFound => {}
                    _ => break,
                },
                // The host has ended, and ends what it has open itself.
                None => std::future::pending().await,
            }
        }
        Error::new(ErrorKind::AgentUnavailable, "the container ended while a connection was open")
    }
}
