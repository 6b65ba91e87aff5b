//! `GET /v1/ws`: every tool over one WebSocket (RFC 6455), as JSON-RPC. `corehold_types::rpc` has the messages,
//! `docs/protocol.md` the rules for clients.
//!
//! [`connection`] owns a socket from its upgrade to its end, [`dispatch`] reads what the client says, [`stream`] sends
//! events as far as the client has granted credit, [`input`] takes what the client types, [`meter`] follows
//! the message that is coming, by its [`frames`].

mod connection;
mod dispatch;
mod frames;
mod input;
mod meter;
mod stream;

#[cfg(any(feature = "fuzzing", test))]
pub(crate) use frames::fuzz;

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{
    Code, Problem, Standing,
    rpc::{BEARER_PREFIX, SUBPROTOCOL},
};
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::{Message, handshake::derive_accept_key};
use tokio_util::task::TaskTracker;

use crate::{
    access::Caller,
    agent::Agent,
    config::Limits,
    server::{RequestId, problem::Failure, upgrade},
};

/// What goes out on a socket, in its turn.
#[derive(Debug)]
enum Outgoing {
    /// A text, in fragments where it is long.
    Text(Vec<Bytes>),
    Message(Message),
}

impl Outgoing {
    fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(vec![text.into()])
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

/// The open sockets.
#[derive(Debug)]
pub struct Sockets {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Sockets {
    /// None is open yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { slots: limits.sockets.permits(), tasks: TaskTracker::new() }
    }

    /// Waits until those that are open have said goodbye, once the agent is shutting down.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tasks.len()
    }
}

/// Opens a socket.
pub(crate) async fn get(
    State(agent): State<Arc<Agent>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    open(&agent, request_id, request).unwrap_or_else(|problem| Failure(problem).into_response())
}

fn open(agent: &Arc<Agent>, request_id: RequestId, mut request: Request) -> Result<Response, Problem> {
    let caller = authenticate(agent, request.headers())?;
    if agent.is_shutting_down() {
        return Err(Problem::new(Code::ShuttingDown, "the agent is shutting down and opens no socket"));
    }
    let key = handshake(request.headers())?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| refused("the Sec-WebSocket-Key is malformed"))?;
    let upgraded =
        upgrade::take(&mut request).ok_or_else(|| refused("the connection can't be upgraded: HTTP/1.1 is needed"))?;
    let slot = Arc::clone(&agent.sockets.slots).try_acquire_owned();
    let slot = slot.map_err(|_| agent.config.limits.sockets.exceeded("the number of open WebSockets"))?;
    let serving = connection::serve(Arc::clone(agent), caller, request_id, upgraded);
    agent.sockets.tasks.spawn(async move {
        serving.await;
        drop(slot);
    });
    let mut response = upgrade::granted("websocket");
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

/// Who opens it: by the header, or by a subprotocol, since a browser's script can set no header.
fn authenticate(agent: &Agent, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let in_protocol = protocols(headers).find_map(|protocol| protocol.strip_prefix(BEARER_PREFIX));
    match in_protocol {
        Some(token) if !headers.contains_key(header::AUTHORIZATION) => agent.access.authenticate(token),
        _ => agent.access.identify(headers, Standing::Served),
    }
}

/// Checks the handshake (RFC 6455, section 4.2.1). Returns its key.
fn handshake(headers: &HeaderMap) -> Result<&str, Problem> {
    if !upgrade::asks_for(headers, "websocket") {
        return Err(refused("the request doesn't ask for a WebSocket"));
    }
    if !upgrade::words(headers, header::SEC_WEBSOCKET_VERSION).any(|version| version == "13") {
        return Err(refused("the Sec-WebSocket-Version is not 13"));
    }
    if !protocols(headers).any(|protocol| protocol == SUBPROTOCOL) {
        return Err(refused("the subprotocol is missing"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    key.ok_or_else(|| refused("the Sec-WebSocket-Key is missing"))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    upgrade::words(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
        .suggest(format!("open a WebSocket (RFC 6455, version 13) with the subprotocol {SUBPROTOCOL}"))
}
