//! A port of this machine that leads to a port inside a workspace: a listener on the loopback, and a tunnel through the
//! agent for each connection. Bytes pass as they are, so whatever speaks TCP passes: HTTP, WebSockets, databases.

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::Workspace;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that each direction of a connection holds back at most; beyond them a slow reader slows its writer.
const BUFFER: usize = 64 << 10;
/// Failures that wait for whoever asks for them; more are dropped.
const FAILURES: usize = 64;
/// Where this process has no descriptor left for a connection, nothing tells when there is one again.
const BREATH: Duration = Duration::from_millis(100);

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

    /// Closes the listener and every connection, and waits until that is done. Dropped meanwhile, it is done nevertheless.
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
pub(super) async fn start(workspace: Workspace, port: u16, options: ForwardOptions) -> Result<Forward> {
    if port == 0 {
        return Err(Error::new(ErrorKind::Invalid, "port 0 inside can't be forwarded: nothing can listen on it"));
    }
    if options.connections == 0 {
        return Err(Error::new(ErrorKind::Invalid, "a forwarding of no connections at a time forwards nothing"));
    }
    let listener = listen(options.local_ports).await?;
    let address = listener.local_addr()?;
    let (sender, failures) = mpsc::channel(FAILURES);
    let room = Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS)));
    let line = Line { workspace, port, failures: sender };
    let (ending, ended) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        tokio::select! {
            biased;
            _ = ended => {}
            () = line.accept(&listener, room, &mut connections) => {}
        }
        drop(listener);
        connections.shutdown().await;
    });
    Ok(Forward { address, port, failures, ending, task })
}

async fn listen(ports: RangeInclusive<u16>) -> Result<TcpListener> {
    if ports.is_empty() {
        let (first, last) = (ports.start(), ports.end());
        return Err(Error::new(ErrorKind::Invalid, format!("{first} to {last} is no range of ports")));
    }
    let mut refusal = None;
    for port in ports.clone() {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => refusal = Some(error),
        }
    }
    let (first, last) = (ports.start(), ports.end());
    let what = if first == last { format!("port {first}") } else { format!("each of the ports {first} to {last}") };
    let error = refusal.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable));
    Err(match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(ErrorKind::Conflict, format!("{what} of this machine is in use"))
            .hint("choose another one, or 0 for one that is free"),
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::Io, format!("this user may not listen on {what} of this machine"))
                .hint("choose one above 1023, or 0 for one that is free")
        }
        _ => Error::new(ErrorKind::Io, format!("can't listen on {what} of this machine: {error}")),
    }
    .caused_by(error))
}

/// What every connection needs.
#[derive(Clone)]
struct Line {
    workspace: Workspace,
    port: u16,
    failures: mpsc::Sender<Error>,
}

impl Line {
    async fn accept(&self, listener: &TcpListener, room: Arc<Semaphore>, connections: &mut JoinSet<()>) {
        // First room, then a connection: those that wait do so in the kernel's queue, and cost nothing here.
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let outer = loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => break stream,
                        Err(error) => {
                            self.report(Error::from(error).context("a connection can't be accepted"));
                            tokio::time::sleep(BREATH).await;
                        }
                    },
                    // Those that have ended are put away while others are waited for.
                    Some(_) = connections.join_next() => {}
                }
            };
            let line = self.clone();
            connections.spawn(async move {
                line.carry(outer).await;
                drop(permit);
            });
        }
    }

    async fn carry(&self, mut outer: TcpStream) {
        let mut inner = match self.workspace.tunnel(self.port).await {
            Ok(inner) => inner,
            Err(error) => {
                reset(&outer);
                return self.report(error);
            }
        };
        if let Err(error) = outer.set_nodelay(true) {
            tracing::debug!(%error, "a forwarded connection may be slow");
        }
        if let Err(error) = copy_bidirectional_with_sizes(&mut outer, &mut inner, BUFFER, BUFFER).await {
            // One end broke off. To the other it must not look like an end in good order.
            tracing::debug!(port = self.port, %error, "a forwarded connection broke");
            reset(&outer);
        }
    }

    fn report(&self, error: Error) {
        tracing::debug!(workspace = %self.workspace.id(), port = self.port, %error, "a connection was not forwarded");
        // Nobody has to listen.
        let _ = self.failures.try_send(error);
    }
}

/// Has the connection end with a reset when it is closed.
fn reset(stream: &TcpStream) {
    if let Err(error) = sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection that failed will look as if it had ended");
    }
}
