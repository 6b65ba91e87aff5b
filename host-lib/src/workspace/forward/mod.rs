//! A port of this machine that leads to a port inside a workspace: a listener on the loopback, and a tunnel through the
//! agent for each connection. Bytes pass as they are, so whatever speaks TCP passes: HTTP, WebSockets, databases.

mod carry;
mod lifeline;
mod listener;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, ops::RangeInclusive, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub(super) use self::{
    carry::{Destination, serve},
    lifeline::Lifeline,
    listener::listen,
};
use super::Workspace;
use crate::{
    client::Tunnel,
    error::{Error, ErrorKind, Result},
};

/// Failures that wait for whoever asks for them; more are dropped.
const FAILURES: usize = 64;

/// How a port is forwarded. The listener is always on 127.0.0.1: whoever is on this machine can reach it, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardOptions {
    /// Ports of this machine to listen on: the first of them that is free. 0 means one that the system chooses. Default: 0.
    pub local_ports: RangeInclusive<u16>,
    /// Connections open at a time; more wait until one of them ends. At least one. Default 100; the agent has 256 tunnels
    /// for all its callers, unless its limit `tunnels` says otherwise.
    pub connections: usize,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self { local_ports: 0..=0, connections: 100 }
    }
}

impl ForwardOptions {
    /// Listens on this port of this machine, or not at all. 0 means one that the system chooses.
    #[must_use]
    pub fn local_port(self, port: u16) -> Self {
        self.local_ports(port..=port)
    }

    /// Listens on the first port of a range that is free.
    #[must_use]
    pub fn local_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.local_ports = ports;
        self
    }

    /// Connections open at a time.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }
}

/// A port of this machine that leads into a workspace, as long as this handle lives: dropping it closes the listener and
/// every connection.
#[must_use = "dropping it ends the forwarding"]
pub struct Forward {
    address: SocketAddr,
    port: u16,
    failures: mpsc::Receiver<Error>,
    /// Dropped with this handle, it ends the task.
    ending: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Forward {
    /// The address to connect to.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The port inside.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address as browsers take it: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Why a connection could not be carried, as it happens: nothing listens inside (`Agent`, with the problem
    /// `NOT_LISTENING`), the workspace is gone (`NotFound`), … Whoever was connected sees a reset. The forwarding goes on: a
    /// server inside may be about to start. Of those that nobody asks for, 64 are kept. Cancel-safe.
    pub async fn next_failure(&mut self) -> Error {
        match self.failures.recv().await {
            Some(failure) => failure,
            // The task ends with this handle only; should it have panicked, nothing fails any more.
            None => std::future::pending().await,
        }
    }

    /// Closes the listener and every connection, and waits until that is done. Cancel-safe: it is done nevertheless.
    pub async fn close(self) {
        drop(self.ending);
        // Had it panicked, it would have ended too.
        let _ = self.task.await;
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Forward").field("address", &self.address).field("port", &self.port).finish()
    }
}

/// Begins to listen.
pub(super) fn start(workspace: Workspace, port: u16, options: ForwardOptions) -> Result<Forward> {
    if port == 0 {
        return Err(Error::new(ErrorKind::Invalid, "port 0 inside can't be forwarded: nothing can listen on it"));
    }
    if options.connections == 0 {
        return Err(Error::new(ErrorKind::Invalid, "a forwarding of no connections at a time forwards nothing"));
    }
    let listener = listen(options.local_ports)?;
    let address = listener.local_addr()?;
    let (sender, failures) = mpsc::channel(FAILURES);
    let line = Arc::new(Line { workspace, port, failures: sender });
    let (ending, ended) = oneshot::channel();
    let task = tokio::spawn(serve(listener, line, options.connections, ended));
    Ok(Forward { address, port, failures, ending, task })
}

/// A port of a workspace that is there for whoever holds a [`Forward`].
struct Line {
    workspace: Workspace,
    port: u16,
    failures: mpsc::Sender<Error>,
}

impl Destination for Line {
    type Held = ();

    async fn open(&self) -> Result<(Tunnel, Lifeline, ())> {
        let (tunnel, lifeline) = Lifeline::along(&self.workspace, self.workspace.tunnel(self.port)).await?;
        Ok((tunnel, lifeline, ()))
    }

    fn moved((): &()) {}

    fn failed(&self, error: Error) {
        tracing::debug!(workspace = %self.workspace.id(), port = self.port, %error, "a connection was not forwarded");
        // Nobody has to listen.
        let _ = self.failures.try_send(error);
    }
}
