//! The client of an agent: HTTP/1.1 over whatever [`Endpoint`](crate::runtime::Endpoint) the runtime names.
//!
//! Connections are reused. Nothing here has a wall-clock limit, since a command may run for hours; instead, whenever the
//! agent has been silent for a while it is asked for its health on another connection, so that a container that was
//! paused, cut off or killed is noticed while a long stream is left alone. A caller who wants a limit drops the future.

mod archive;
mod call;
mod connect;
mod files;
mod stream;
#[cfg(test)]
mod tests;
mod token;
mod tunnel;

use std::{
    error::Error as StdError,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use corehold_types::{Code, Problem, wire::Health};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

use self::connect::{Connection, Destination};
pub(crate) use self::{
    archive::{ArchiveFormat, ArchiveInto},
    token::TokenSource,
};
pub use self::{
    files::FileStream,
    stream::{Frame, ToolStream},
    tunnel::Tunnel,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{BoxConnection, ContainerId, ContainerStatus, Runtime},
};

type BoxError = Box<dyn StdError + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes that an answer in one piece may have; what is larger is streamed.
pub(crate) const ANSWER_BYTES: usize = 64 << 20;
/// Bytes of a problem's JSON that are read.
const PROBLEM_BYTES: usize = 1 << 20;

/// When a silent agent is taken for dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Silence after which it is asked whether it is well.
    pub(crate) silence: Duration,
    /// How long it may take to say so.
    pub(crate) answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Duration::from_secs(10), answer: Duration::from_secs(5) }
    }
}

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Twice is as good as once: it reads, or it replaces a whole file.
    Safe,
    /// It starts or changes something.
    Never,
}

/// Talks to one agent. Shared by all handles of a workspace; every method may be called concurrently and dropped.
pub(crate) struct AgentClient {
    runtime: Arc<dyn Runtime>,
    container: ContainerId,
    port: u16,
    patience: Patience,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl AgentClient {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, container: ContainerId, port: u16, patience: Patience) -> Self {
        Self { runtime, container, port, patience, connection: Mutex::new(None) }
    }

    /// The agent's container.
    pub(crate) fn container(&self) -> &ContainerId {
        &self.container
    }

    /// Asks for the agent's health: the only call without a token.
    pub(crate) async fn health(&self) -> Result<Health> {
        let request = Request::get("/health");
        let response = self.send(request, Bytes::new(), Repeat::Safe).await?;
        let body = collect(response.into_body(), PROBLEM_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| misunderstood("its health", &error))
    }

    /// Asks once, for somebody who will ask again: why it failed is not looked into.
    pub(crate) async fn attempt_health(&self) -> Result<Health> {
        let connection = self.connection().await?;
        let request = Request::get("/health").body(Empty::new().map_err(|never| match never {}).boxed_unsync());
        let request = request.map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        match connection.send(request).await {
            Ok(response) => {
                let body = collect(accept(response).await?.into_body(), PROBLEM_BYTES).await?;
                serde_json::from_slice(&body).map_err(|error| misunderstood("its health", &error))
            }
            Err(error) => Err(match of_runtime(&error) {
                // Asking again would tell no more.
                Some(error) if error.kind() == ErrorKind::Unsupported => copied(error, ErrorKind::Unsupported),
                Some(error) => copied(error, ErrorKind::AgentUnavailable),
                None => Error::new(ErrorKind::AgentUnavailable, root_cause(&error)),
            }),
        }
    }

    /// Sends a request whose body is at hand. Answers other than 2xx become errors.
    ///
    /// It is sent once more when that can help and can't harm: when the agent was not reached and has moved to another
    /// address, as it does when its container is restarted, or when a connection broke off under a request that may be
    /// repeated. One that starts something is never repeated, since nobody knows whether it was begun.
    async fn send(&self, request: http::request::Builder, body: Bytes, repeat: Repeat) -> Result<Response<Incoming>> {
        let (parts, ()) =
            request.body(()).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?.into_parts();
        let attempt = |connection: Arc<Connection>| {
            let full = Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync();
            let request = Request::from_parts(parts.clone(), full);
            async move { connection.send(request).await }
        };
        let known = self.connection().await?;
        let error = match attempt(known.clone()).await {
            Ok(response) => {
                return match accept(response).await {
                    Err(refusal) if is_stranger(&refusal) => match self.moved(&known).await? {
                        Some(fresh) => match attempt(fresh.clone()).await {
                            Ok(response) => accept(response).await,
                            Err(error) => Err(self.unreachable(&fresh, &error).await),
                        },
                        None => Err(refusal),
                    },
                    result => result,
                };
            }
            Err(error) => error,
        };
        self.forget(&known);
        if !error.is_connect() && repeat == Repeat::Never {
            return Err(self.unreachable(&known, &error).await);
        }
        let fresh = self.connection().await?;
        if error.is_connect() && fresh.endpoint() == known.endpoint() {
            return Err(self.unreachable(&fresh, &error).await);
        }
        match attempt(fresh.clone()).await {
            Ok(response) => accept(response).await,
            Err(error) => Err(self.unreachable(&fresh, &error).await),
        }
    }

    /// Sends a request whose body is a stream: it goes out once.
    async fn send_stream(&self, request: http::request::Builder, body: Body) -> Result<Response<Incoming>> {
        let request = request.body(body).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        let connection = self.connection().await?;
        match connection.send(request).await {
            Ok(response) => match accept(response).await {
                // A stream can't be sent again; whoever tries again reaches the right one.
                Err(refusal) if is_stranger(&refusal) => self.moved(&connection).await.and(Err(refusal)),
                result => result,
            },
            Err(error) => {
                self.forget(&connection);
                Err(self.unreachable(&connection, &error).await)
            }
        }
    }

    /// Waits for the agent as long as it is well, even if it says nothing for hours.
    async fn while_alive<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(self.patience.silence) => {}
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                alive = self.probe() => alive?,
            }
        }
    }

    async fn probe(&self) -> Result<()> {
        match tokio::time::timeout(self.patience.answer, self.health()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(self.explained(Error::new(ErrorKind::AgentUnavailable, "the agent has stopped answering")).await)
            }
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>> {
        if let Some(connection) = self.lock().clone() {
            return Ok(connection);
        }
        let destination = self.destination().await?;
        let mut slot = self.lock();
        // Two calls may have asked at once; they share the connection of whoever came first.
        Ok(slot.get_or_insert_with(|| Arc::new(Connection::new(destination))).clone())
    }

    async fn destination(&self) -> Result<Destination> {
        let endpoint = self.runtime.endpoint(&self.container, self.port).await?;
        Ok(Destination { runtime: self.runtime.clone(), container: self.container.clone(), port: self.port, endpoint })
    }

    /// A connection to the agent that nothing else uses. Cancel-safe.
    pub(crate) async fn connect(&self) -> Result<BoxConnection> {
        let destination = self.destination().await?;
        match destination.connect().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let message = format!("the agent at {destination} can't be reached: {error}");
                Err(self.explained(Error::new(ErrorKind::AgentUnavailable, message)).await)
            }
        }
    }

    /// Asks the engine again where the agent is; none when it is where it was. What has ended gives its address to the next
    /// container, whose agent doesn't take our tokens.
    async fn moved(&self, known: &Arc<Connection>) -> Result<Option<Arc<Connection>>> {
        self.forget(known);
        let fresh = self.connection().await?;
        Ok((fresh.endpoint() != known.endpoint()).then_some(fresh))
    }

    fn forget(&self, stale: &Arc<Connection>) {
        let mut slot = self.lock();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, stale)) {
            *slot = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn unreachable(&self, connection: &Connection, error: &hyper_util::client::legacy::Error) -> Error {
        let what = if error.is_connect() { "can't be reached" } else { "broke off the connection" };
        let why = of_runtime(error).map_or_else(|| root_cause(error), ToString::to_string);
        let reached = format!("the agent at {} {what}: {why}", connection.destination());
        self.explained(Error::new(ErrorKind::AgentUnavailable, reached)).await
    }

    /// Adds what the engine knows: a paused container accepts connections and stays silent, a dead one refuses them.
    async fn explained(&self, error: Error) -> Error {
        match self.runtime.inspect(&self.container).await {
            Ok(state) => match state.status {
                ContainerStatus::Paused => error.hint("its container is paused"),
                ContainerStatus::Created => error.hint("its container was never started"),
                ContainerStatus::Exited | ContainerStatus::Dead => {
                    let code = state.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                    let memory = if state.oom_killed { ", killed for want of memory" } else { "" };
                    error.hint(format!("its container has ended{code}{memory}"))
                }
                ContainerStatus::Running => error,
            },
            Err(inspecting) if inspecting.kind() == ErrorKind::NotFound => error.hint("its container is gone"),
            // The engine's silence must not hide the agent's.
            Err(_) => error,
        }
    }
}

/// Whether whoever answered may be another agent than ours.
fn is_stranger(error: &Error) -> bool {
    error.problem().is_some_and(|problem| problem.code == Code::Unauthorized)
}

/// A request to a route that needs a token.
fn authorized(method: Method, path: &str, tokens: &TokenSource) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {}", tokens.current()))
}

/// Turns an answer other than 2xx, or an upgrade, into the error it describes.
async fn accept(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    // A conditional or partial answer is the files route's business, an upgrade the tunnel's.
    if status.is_success() || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS) {
        return Ok(response);
    }
    let body = collect(response.into_body(), PROBLEM_BYTES).await?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(problem.into()),
        Err(_) => {
            let said = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
            Err(Error::new(ErrorKind::Agent, format!("the agent answered {status} and no problem: {said:?}")))
        }
    }
}

async fn collect(body: Incoming, limit: usize) -> Result<Bytes> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::new(ErrorKind::Agent, format!("the agent's answer is longer than {limit} bytes"))
                .hint("ask for less at once, or stream it"))
        }
        Err(error) => Err(Error::new(
            ErrorKind::AgentUnavailable,
            format!("the agent's answer was cut off: {}", root_cause(error.as_ref())),
        )),
    }
}

fn misunderstood(what: &str, error: &serde_json::Error) -> Error {
    Error::new(
        ErrorKind::Agent,
        format!("the agent said {what} in a way that this version doesn't understand: {error}"),
    )
    .hint("host and agent may be of different versions: build the image anew")
}

/// The runtime's own error, where it could open no connection.
fn of_runtime<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(of_runtime) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(of_runtime);
        }
        cause = error.source();
    }
    None
}

fn copied(error: &Error, kind: ErrorKind) -> Error {
    let copy = Error::new(kind, error.to_string());
    match error.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

/// The last cause: `Connection refused` instead of `client error`.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
