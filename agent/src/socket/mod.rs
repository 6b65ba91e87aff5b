//! `GET /v1/ws`: every tool over one WebSocket (RFC 6455), as JSON-RPC. `corehold_types::rpc` has the messages,
//! `docs/protocol.md` the rules for clients.
//!
//! [`connection`] owns a socket from its upgrade to its end, [`dispatch`] reads what the client says, [`stream`] sends
//! events as far as the client has granted credit, [`input`] takes what the client types.

mod connection;
mod dispatch;
mod input;
mod stream;

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{
    Code, Problem,
    rpc::{BEARER_PREFIX, SUBPROTOCOL},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use crate::{
    access::{self, Caller},
    agent::Agent,
    config::Limits,
    server::{RequestId, problem::Failure},
};

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
        let most = limits.sockets.as_usize().min(Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(most)), tasks: TaskTracker::new() }
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
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| refused("the connection can't be upgraded: HTTP/1.1 is needed"))?;
    let slot = Arc::clone(&agent.sockets.slots).try_acquire_owned();
    let slot = slot.map_err(|_| agent.config.limits.sockets.exceeded("the number of open WebSockets"))?;
    let serving = connection::serve(Arc::clone(agent), caller, request_id, upgrade);
    agent.sockets.tasks.spawn(async move {
        serving.await;
        drop(slot);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

/// Who opens it: by the header, or by a subprotocol, since a browser's script can set no header.
fn authenticate(agent: &Agent, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let in_protocol = protocols(headers).find_map(|protocol| protocol.strip_prefix(BEARER_PREFIX));
    match in_protocol {
        Some(token) if !headers.contains_key(header::AUTHORIZATION) => agent.access.authenticate(token),
        _ => agent.access.authenticate(access::bearer(headers)?),
    }
}

/// Checks the handshake (RFC 6455, section 4.2.1). Returns its key.
fn handshake(headers: &HeaderMap) -> Result<&str, Problem> {
    let names = |name, wanted: &str| words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted));
    if !names(header::CONNECTION, "upgrade") || !names(header::UPGRADE, "websocket") {
        return Err(refused("the request doesn't ask for a WebSocket"));
    }
    if !names(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(refused("the Sec-WebSocket-Version is not 13"));
    }
    if !protocols(headers).any(|protocol| protocol == SUBPROTOCOL) {
        return Err(refused("the subprotocol is missing"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    key.ok_or_else(|| refused("the Sec-WebSocket-Key is missing"))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

fn words(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
        .suggest(format!("open a WebSocket (RFC 6455, version 13) with the subprotocol {SUBPROTOCOL}"))
}
