//! The server: connections, and what is the same for every request. What a route does is in [`crate::routes`].

mod again;
pub(crate) mod body;
mod boundary;
mod origin;
mod places;
pub(crate) mod problem;
mod router;
pub(crate) mod upgrade;
pub(crate) mod upload;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use corehold_types::Standing;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

pub use boundary::RequestId;
pub(crate) use boundary::{log_in_stream, panicked};
pub use router::router;

use self::{
    again::Bell,
    places::{Place, Places},
};
use crate::{agent::Agent, config::Limit};

/// Pause after the operating system refused a connection, since it will refuse the next one too (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to end: then takes no more connections, lets requests and commands finish for the configured grace,
/// and ends what is left.
///
/// # Errors
/// There is no descriptor left for what it needs itself.
pub async fn run(
    listener: TcpListener,
    agent: Arc<Agent>,
    told_to_end: impl Future<Output = ()>,
) -> std::io::Result<()> {
    if let Ok(address) = listener.local_addr() {
        agent.listens_on(address.port());
    }
    let server = Server {
        router: router(Arc::clone(&agent)),
        idle: agent.config.limits.idle_ms.as_duration(),
        unread: agent.config.limits.send_ms,
        places: Places::new(agent.config.limits.connections.permits()),
        bell: Arc::new(Bell::new()?),
        agent: Arc::clone(&agent),
        connections: TaskTracker::new(),
        ending: CancellationToken::new(),
    };
    tokio::select! {
        () = told_to_end => {}
        () = server.accept(&listener) => {}
    }
    drop(listener);
    tracing::info!("the agent was told to end");
    agent.begin_shutdown();
    server.ending.cancel();
    server.connections.close();
    let grace = agent.config.shutdown_grace;
    agent.answers.tasks.close();
    let requests =
        async { tokio::join!(server.connections.wait(), agent.answers.tasks.wait(), agent.sockets.finished()) };
    let (finished, ()) = tokio::join!(tokio::time::timeout(grace, requests), agent.processes.shutdown(grace));
    if finished.is_err() {
        tracing::warn!(connections = server.connections.len(), "requests were cut off, the grace is over");
    }
    Ok(())
}

struct Server {
    router: Router,
    idle: Duration,
    /// See [`end_unread`].
    unread: Limit,
    places: Places,
    bell: Arc<Bell>,
    agent: Arc<Agent>,
    connections: TaskTracker,
    ending: CancellationToken,
}

impl Server {
    /// Accepts for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Meanwhile others wait in the kernel's queue.
                    let Some(place) = self.places.take().await else { return };
                    let connection = self.connection(stream, place);
                    self.connections.spawn(again::at_once(connection, Arc::clone(&self.bell)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, place: Place) -> impl Future<Output = ()> + Send + use<> {
        let (router, ending, idle) = (self.router.clone(), self.ending.clone(), self.idle);
        let agent = Arc::clone(&self.agent);
        end_unread(&stream, self.unread);
        async move {
            // Small answers must not wait for the acknowledgement of the ones before.
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request: Request<Incoming>| {
                place.keep_if(|| agent.access.identify(request.headers(), Standing::Any).is_ok());
                router.clone().call(request.map(Body::new))
            });
            let mut connection = std::pin::pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(idle)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
            );
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = place.wanted() => return,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                // The other side went away or spoke no HTTP; hyper has answered what can be answered.
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}

/// Lets the kernel end a connection whose other end has taken nothing for so long though there was something to take
/// (`TCP_USER_TIMEOUT`, tcp(7)): it alone knows whether anything moves, however slowly. For what is written into its buffer looks
/// sent to us, and the next piece may find room there only after minutes.
fn end_unread(stream: &TcpStream, limit: Limit) {
    let milliseconds = u32::try_from(limit.value).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds) {
        tracing::debug!(%error, "a connection can't be given a time in which it must be read");
    }
}
