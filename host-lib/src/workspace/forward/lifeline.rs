//! Whether the container that a connection leads into still runs. A container that is killed while much is under way takes its
//! network with it before it has said goodbye: its connections would stay open until the kernel's probes find out, minutes later.

use std::sync::Arc;

use crate::{
    client::Tunnel,
    error::{Error, ErrorKind, Result},
    events::{ChangeKind, Signal, Signals},
    runtime::{ContainerId, ContainerStatus, Runtime},
    workspace::Workspace,
};

/// Follows one container.
pub(in crate::workspace) struct Lifeline {
    runtime: Arc<dyn Runtime>,
    container: ContainerId,
    signals: Signals,
}

impl Lifeline {
    /// Has a connection made, which may wake the workspace, and follows the container into which it leads from before that on.
    pub(in crate::workspace) async fn along(
        workspace: &Workspace,
        connect: impl Future<Output = Result<Tunnel>>,
    ) -> Result<(Tunnel, Self)> {
        let signals = workspace.host.engine.subscribe();
        let tunnel = connect.await?;
        let container = workspace.place().await?.container.clone();
        Ok((tunnel, Self { runtime: workspace.host.runtime.clone(), container, signals }))
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
