//! Previews: addresses of this machine under which the ports of workspaces are reached. One listener for each workspace and
//! port, shared by all who ask, and a tunnel through the agent for each connection; nothing is published for it.
//!
//! Bytes pass as they are, so pages, WebSockets and hot reload do, with the same `Host` on each. What a preview shows is no
//! business of this room, nor who may look: the listeners are on 127.0.0.1, and a gateway may stand before them.

mod line;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use corehold_types::tools::{Ports, PortsRequest};
use serde::Serialize;
use tokio::sync::oneshot;

use self::line::Line;
use super::{
    Workspace, WorkspaceId,
    forward::{listen, serve},
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::AGENT_PORT,
    runtime::ContainerStatus,
};

/// Connections of a preview that are carried at a time; more wait in the kernel's queue. An agent has 256 tunnels for all its
/// callers, unless its limit `tunnels` says otherwise.
const CONNECTIONS: usize = 128;

/// Where a port of a workspace is reached from this machine, and what is known of it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Preview {
    /// The port inside.
    pub port: u16,
    /// `http://127.0.0.1:<port of this machine>`: the same for all who ask, as long as the workspace and this host are there.
    pub url: String,
    /// Whether something listens inside.
    pub status: PreviewStatus,
    /// Why the last connection that could not be carried was reset; absent since one was carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Whether something listens on a preview's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum PreviewStatus {
    /// Something does.
    Listening,
    /// Nothing does yet, or any more.
    NotListening,
    /// The workspace doesn't run. It wasn't woken to look.
    NotRunning,
}

/// How a preview is used, for those who decide whether a workspace is idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PreviewUse {
    /// The port inside.
    pub port: u16,
    /// Connections that are open, or wait for their way inside.
    pub connections: usize,
    /// Time since a connection came or went or carried a byte, by a clock that stands while this machine is suspended. A
    /// WebSocket on which nobody says anything is open, and is quiet.
    #[serde(rename = "quietMs", serialize_with = "milliseconds")]
    pub quiet: Duration,
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Called before a connection is carried inside.
pub(crate) type BeforeConnect =
    Box<dyn Fn(WorkspaceId) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// The open previews of a host. They end with it.
pub(crate) struct Previews {
    open: Mutex<BTreeMap<(WorkspaceId, u16), Open>>,
    local_ports: RangeInclusive<u16>,
    before_connect: Option<BeforeConnect>,
}

struct Open {
    url: String,
    line: Arc<Line>,
    /// Dropped with this, it ends the listener and its connections.
    _ending: oneshot::Sender<()>,
}

impl Previews {
    /// Listens on these ports of this machine; 0 means whichever the system chooses.
    pub(crate) fn new(local_ports: RangeInclusive<u16>, before_connect: Option<BeforeConnect>) -> Self {
        Self { open: Mutex::default(), local_ports, before_connect }
    }

    /// The address of a workspace's port, which is listened on from now on.
    pub(super) fn address(&self, workspace: &Workspace, port: u16) -> Result<String> {
        Ok(self.line(workspace, port)?.0)
    }

    fn line(&self, workspace: &Workspace, port: u16) -> Result<(String, Arc<Line>)> {
        let mut open = self.lock();
        let key = (workspace.id().clone(), port);
        // One of a workspace that was removed by somebody else, and made again, leads nowhere.
        if let Some(known) = open.get(&key)
            && known.line.leads_to(workspace)
        {
            return Ok((known.url.clone(), known.line.clone()));
        }
        let listener = listen(self.local_ports.clone()).map_err(|error| match error.kind() {
            ErrorKind::Conflict => {
                error.hint("end other previews, or give more ports: COREHOLD_PORT_RANGE, HostBuilder::port_range")
            }
            _ => error,
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        let line = Arc::new(Line::new(workspace.downgrade(), port));
        let (ending, ended) = oneshot::channel();
        tokio::spawn(serve(listener, line.clone(), CONNECTIONS, ended));
        open.insert(key, Open { url: url.clone(), line: line.clone(), _ending: ending });
        Ok((url, line))
    }

    /// The address of a workspace's port, if somebody has asked for it.
    pub(crate) fn url(&self, workspace: &WorkspaceId, port: u16) -> Option<String> {
        self.lock().get(&(workspace.clone(), port)).map(|open| open.url.clone())
    }

    /// Ends those of a workspace that is gone.
    pub(crate) fn close(&self, workspace: &WorkspaceId) {
        self.lock().retain(|(of, _), _| of != workspace);
    }

    /// Ends one that leads nowhere any more, if it is still this one.
    fn close_line(&self, workspace: &WorkspaceId, line: &Line) {
        self.lock().retain(|(of, _), open| of != workspace || !std::ptr::eq(&*open.line, line));
    }

    /// How those of a workspace are used.
    pub(crate) fn used(&self, workspace: &WorkspaceId) -> Vec<PreviewUse> {
        let open = self.lock();
        open.iter().filter(|((of, _), _)| of == workspace).map(|((_, port), open)| open.line.used(*port)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(WorkspaceId, u16), Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workspace {
    /// Where a port inside is reached from this machine, listeners on the container's own loopback included, and whether
    /// something listens there. Nothing has to, yet. The address stays until the workspace is removed or the last handle of
    /// the host is dropped; what is connected through it keeps neither. Each connection waits for
    /// [`HostBuilder::before_connect`](crate::HostBuilder::before_connect), then wakes the workspace if it is paused or asleep, and
    /// waits for its dev server for half a minute from its start. Cancel-safe.
    ///
    /// Whoever is on this machine can connect, and nobody else. Up to 128 connections are carried at a time; more wait. One
    /// that can't be carried is reset, never closed as if it had ended, and [`Preview::failure`] says why.
    ///
    /// # Errors
    /// `Invalid` for port 0, and for the agent's own port, which is never a preview; `NotFound` when the workspace is gone;
    /// `Conflict` when every port of the host's [range](crate::HostBuilder::port_range) is in use; `AgentUnavailable` when the
    /// agent can't say what listens.
    pub async fn preview(&self, port: u16) -> Result<Preview> {
        match port {
            0 => return Err(Error::new(ErrorKind::Invalid, "port 0 has no preview: nothing can listen on it")),
            AGENT_PORT => {
                return Err(Error::new(ErrorKind::Invalid, format!("port {port} is the agent's, and never a preview"))
                    .hint("call the agent with `Workspace::call`, or at `Workspace::agent_endpoint`"));
            }
            _ => {}
        }
        let state = self.container_state().await?;
        let status = match state.map(|state| state.status) {
            Some(ContainerStatus::Running) => {
                // Answered at once, whether or not something listens.
                let request = PortsRequest { wait_for: Some(port), timeout_ms: Some(0), ..Default::default() };
                let listens = self.call::<Ports>(&request).await?.opened == Some(true);
                if listens { PreviewStatus::Listening } else { PreviewStatus::NotListening }
            }
            _ => PreviewStatus::NotRunning,
        };
        let (url, line) = self.host.previews.line(self, port)?;
        Ok(Preview { port, url, status, failure: line.failure() })
    }

    /// The previews that were asked for through this host, and how they are used.
    #[must_use]
    pub fn previews(&self) -> Vec<PreviewUse> {
        self.host.previews.used(self.id())
    }
}
