//! Connections that a listener of this machine takes, each carried inside through a tunnel of its own.

use std::{future::Future, io, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
};
use tokio_util::io::InspectReader;

use super::Lifeline;
use crate::{
    client::Tunnel,
    error::{Error, Result},
};

/// Bytes that each direction of a connection holds back at most; beyond them a slow reader slows its writer.
const BUFFER: usize = 64 << 10;
/// Where this process has no descriptor left for a connection, nothing tells when there is one again.
const BREATH: Duration = Duration::from_millis(100);

/// Where a listener leads, and who is told when it doesn't.
pub(in crate::workspace) trait Destination: Send + Sync + 'static {
    /// What lasts as long as a connection is carried.
    type Held: Send + Sync;

    /// Opens the way inside for one connection.
    fn open(&self) -> impl Future<Output = Result<(Tunnel, Lifeline, Self::Held)>> + Send;

    /// Bytes went through a connection.
    fn moved(held: &Self::Held);

    /// They came from who made the connection.
    fn asked(held: &Self::Held) {
        Self::moved(held);
    }

    /// A connection could not be accepted or not be carried; whoever made it sees a reset.
    fn failed(&self, error: Error);
}

/// Accepts and carries connections, this many at a time, until the other side of `ended` is dropped; then it closes them all.
pub(in crate::workspace) async fn serve<D: Destination>(
    listener: TcpListener,
    destination: Arc<D>,
    at_once: usize,
    ended: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        _ = ended => {}
        () = accept(&listener, &destination, at_once, &mut connections) => {}
    }
    drop(listener);
    connections.shutdown().await;
}

async fn accept<D: Destination>(
    listener: &TcpListener,
    destination: &Arc<D>,
    at_once: usize,
    connections: &mut JoinSet<()>,
) {
    let room = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    // First room, then a connection: those that wait do so in the kernel's queue, and cost nothing here.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let outer = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        destination.failed(Error::from(error).context("a connection can't be accepted"));
                        tokio::time::sleep(BREATH).await;
                    }
                },
                // Those that have ended are put away while others are waited for.
                Some(_) = connections.join_next() => {}
            }
        };
        connections.spawn(carry(outer, destination.clone(), permit));
    }
}

async fn carry<D: Destination>(mut outer: TcpStream, destination: Arc<D>, _permit: OwnedSemaphorePermit) {
    let (mut inner, mut lifeline, held) = match destination.open().await {
        Ok(opened) => opened,
        Err(error) => {
            reset(&outer);
            return destination.failed(error);
        }
    };
    tokio::select! {
        carried = pump(&mut outer, &mut inner, || D::asked(&held), || D::moved(&held)) => {
            let Err(error) = carried else { return };
            // One end broke off. To the other it must not look like an end in good order.
            tracing::debug!(%error, "a forwarded connection broke");
        }
        error = lifeline.ended() => destination.failed(error),
    }
    reset(&outer);
}

async fn pump(outer: &mut TcpStream, inner: &mut Tunnel, asked: impl Fn(), moved: impl Fn()) -> io::Result<()> {
    outer.set_nodelay(true)?;
    let mut outer = InspectReader::new(outer, |_: &[u8]| asked());
    let mut inner = InspectReader::new(inner, |_: &[u8]| moved());
    copy_bidirectional_with_sizes(&mut outer, &mut inner, BUFFER, BUFFER).await.map(|_| ())
}

/// Has the connection end with a reset when it is closed.
pub(in crate::workspace) fn reset(stream: &TcpStream) {
    if let Err(error) = sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection that failed will look as if it had ended");
    }
}
