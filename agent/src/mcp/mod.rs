//! `POST /mcp`: every tool for models, by the Model Context Protocol over its Streamable HTTP transport.
//!
//! [`message`] is the protocol, [`list`] what a model is told about the tools, [`call`] one call of them, [`shape`] its answer
//! as text that fits into a model's context. There are no sessions but a name, so that a notification can say which
//! call it cancels: what an agent is asked it answers in the same request.

mod call;
mod list;
mod message;
mod shape;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Standing, rpc::RpcId};
use futures_util::{future::BoxFuture, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::{Instant, Interval, interval_at};
use tokio_util::sync::CancellationToken;

use self::message::{Answer, Incoming, SUPPORTED, WITH_BATCHES};
use crate::{
    access::Caller,
    agent::{self, Agent},
    server::{RequestId, body, problem::Failure},
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Between two words of progress, for who asked for them: clients give up on calls that say nothing.
const PROGRESS: Duration = Duration::from_secs(5);

/// Messages of a batch, which one old version of the protocol has.
const BATCH: usize = 64;

/// Calls under way that a notification can cancel.
#[derive(Debug, Default)]
pub struct Running(Mutex<Vec<(u64, Name, CancellationToken)>>, AtomicU64);

/// A call that can be cancelled while this lives.
struct UnderWay<'a> {
    running: &'a Running,
    number: u64,
    cancel: CancellationToken,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.running.calls().retain(|(number, ..)| *number != self.number);
    }
}

/// Whose call it is: the token's subject, the session and the request's id.
type Name = (String, String, RpcId);

impl Running {
    fn calls(&self) -> MutexGuard<'_, Vec<(u64, Name, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call. A client may use a name again, which is its own business: then both have it.
    fn begin(&self, name: Name) -> UnderWay<'_> {
        let cancel = CancellationToken::new();
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        self.calls().push((number, name, cancel.clone()));
        UnderWay { running: self, number, cancel }
    }

    /// Cancels the calls of a name. Without a session a name is anybody's.
    fn cancel(&self, name: &Name) {
        if !name.1.is_empty() {
            let calls = self.calls();
            calls.iter().filter(|(_, other, _)| other == name).for_each(|(_, _, cancel)| cancel.cancel());
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls().len()
    }
}

/// Who talks.
#[derive(Clone)]
struct Client {
    agent: Arc<Agent>,
    caller: Arc<Caller>,
    request_id: Arc<str>,
    /// Empty for a client that doesn't name it.
    session: String,
}

/// Answers a message.
pub(crate) async fn post(
    State(agent): State<Arc<Agent>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let client = match agent.access.identify(&head.headers, Standing::Served) {
        Ok(caller) => Client { agent, caller, request_id: request_id.0, session: session(&head.headers) },
        Err(problem) => return Failure(problem).into_response(),
    };
    match answer(client, &head.headers, body).await {
        Ok(response) => response,
        Err(problem) => Failure(problem).into_response(),
    }
}

async fn answer(client: Client, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    check_version(headers)?;
    let body = body::raw(headers, body, &client.agent.config.limits).await?;
    let messages = match message::parse(&body) {
        Ok(messages) => messages,
        Err(answer) => return Ok(json(StatusCode::BAD_REQUEST, &answer.to_json())),
    };
    match messages {
        message::Messages::One(incoming) => one(client, headers, incoming).await,
        message::Messages::Batch(_) if headers.get(&VERSION).is_some_and(|version| version != WITH_BATCHES) => {
            let detail = format!("only version {WITH_BATCHES} of the protocol has batches; send one message at a time");
            Ok(json(StatusCode::BAD_REQUEST, &Answer::invalid_request(None, &detail).to_json()))
        }
        message::Messages::Batch(batch) if batch.len() > BATCH => {
            let answer = Answer::invalid_request(None, &format!("a batch has at most {BATCH} messages"));
            Ok(json(StatusCode::BAD_REQUEST, &answer.to_json()))
        }
        message::Messages::Batch(batch) => {
            let answers = futures_util::future::join_all(batch.into_iter().map(|incoming| handle(&client, incoming)));
            let answers: Vec<String> = answers.await.into_iter().flatten().map(|answer| answer.to_json()).collect();
            Ok(if answers.is_empty() { accepted() } else { json(StatusCode::OK, &format!("[{}]", answers.join(","))) })
        }
    }
}

/// A newer client says which version it speaks; who says nothing speaks one that we know.
fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(version) = headers.get(&VERSION) else { return Ok(()) };
    if version.to_str().is_ok_and(|version| SUPPORTED.contains(&version)) {
        return Ok(());
    }
    let detail = format!("the MCP-Protocol-Version {version:?} is not spoken here");
    Err(Problem::new(Code::InvalidRequest, detail).suggest(format!("this agent speaks {}", SUPPORTED.join(", "))))
}

fn session(headers: &HeaderMap) -> String {
    let value = headers.get(&SESSION).and_then(|value| value.to_str().ok());
    value.filter(|value| value.len() <= 64).unwrap_or_default().to_owned()
}

async fn one(client: Client, headers: &HeaderMap, incoming: Incoming) -> Result<Response, Problem> {
    let opens = incoming.method.as_deref() == Some("initialize");
    let progress = incoming.progress_token().filter(|_| takes_events(headers));
    let session = if opens { Some(agent::random_id().map_err(no_random)?) } else { None };
    let mut response = match progress {
        Some(token) => {
            let work = Box::pin(async move { handle(&client, incoming).await });
            events(token, work)
        }
        None => match handle(&client, incoming).await {
            Some(answer) => json(StatusCode::OK, &answer.to_json()),
            None => accepted(),
        },
    };
    if let Some(session) = session.and_then(|session| HeaderValue::from_str(&session).ok()) {
        response.headers_mut().insert(SESSION, session);
    }
    Ok(response)
}

fn no_random(error: getrandom::Error) -> Problem {
    Problem::new(Code::Internal, format!("the kernel gave no random bytes: {error}"))
}

/// Does what a message says. Notifications and the client's own answers get none.
async fn handle(client: &Client, incoming: Incoming) -> Option<Answer> {
    let method = incoming.method.as_deref()?;
    let Some(id) = incoming.id.clone() else {
        if method == "notifications/cancelled"
            && let Some(cancelled) = incoming.cancelled()
        {
            client.agent.mcp.cancel(&(client.caller.subject.clone(), client.session.clone(), cancelled));
        }
        return None;
    };
    Some(match method {
        "initialize" => Answer::result(id, message::initialized(incoming.protocol_version().as_deref())),
        "ping" => Answer::result(id, "{}".to_owned()),
        "tools/list" => Answer::result(id, list::for_scopes(&client.caller.scopes)),
        "tools/call" => call::call(client, id, &incoming).await,
        other => Answer::method_not_found(id, other),
    })
}

fn takes_events(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/event-stream"))
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

fn json(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text.to_owned()).into_response()
}

/// Words of progress until the answer is there, then that. Dropping the response ends the work.
fn events(token: RpcId, work: BoxFuture<'static, Option<Answer>>) -> Response {
    struct Waiting {
        token: RpcId,
        work: BoxFuture<'static, Option<Answer>>,
        ticks: Interval,
        started: Instant,
    }
    let started = Instant::now();
    let waiting = Waiting { token, work, ticks: interval_at(started + PROGRESS, PROGRESS), started };
    let stream = stream::unfold(Some(waiting), |waiting| async move {
        let mut waiting = waiting?;
        let (event, next) = tokio::select! {
            answer = &mut waiting.work => (answer.map(|answer| answer.to_json()).unwrap_or_default(), None),
            _ = waiting.ticks.tick() => {
                (message::progress(&waiting.token, waiting.started.elapsed().as_secs()), Some(waiting))
            }
        };
        Some((Ok::<_, Infallible>(Bytes::from(format!("event: message\ndata: {event}\n\n"))), next))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(stream)).into_response()
}
