//! `Idempotency-Key` on the routes that take a body of any size: `PUT` and `DELETE` of files, `PUT` of archives.
//!
//! The key is bound to method, path, conditions and the hash of the body, which is made while the body passes. Only success is
//! kept: a request of these routes that fails has changed nothing and may be tried again.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};

use crate::{
    access::Caller,
    agent::Agent,
    calls::{self, Begin, Outcome, Turn},
    routes::audited::Asked,
    server::{body::Pace, problem::Failure},
};

/// What is part of the request besides its path and body.
const CONDITIONS: [header::HeaderName; 2] = [header::IF_MATCH, header::IF_NONE_MATCH];

/// A successful answer, and what it was the answer to.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    status: u16,
    etag: Option<String>,
    content_type: Option<String>,
    body: String,
    /// BLAKE3 of the request's body.
    request: String,
}

/// Around those methods alone: each layer costs every request that goes through it.
pub(crate) async fn once(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let caller = Asked::with(request.extensions(), Scope::Write).map(|asked| Arc::clone(&asked.caller));
    match (calls::key_in(request.headers()), caller) {
        (Ok(Some(key)), Ok(caller)) => {
            let result = answer(&agent, &caller, &key, request, next).await;
            result.unwrap_or_else(|problem| Failure(problem).into_response())
        }
        (Err(problem), _) => Failure(problem).into_response(),
        // Without a key, or refused by the route itself.
        _ => next.run(request).await,
    }
}

async fn answer(
    agent: &Arc<Agent>,
    caller: &Caller,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    match agent.answers.begin(caller, key, digest_of(&head))? {
        Begin::First(turn) => first(agent, turn, head, body, next).await,
        Begin::Repeat(mut told) => {
            let gone = || Problem::new(Code::ShuttingDown, "the agent ended before the request was answered");
            let outcome = told.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
            let unreadable = |error| Problem::new(Code::Internal, format!("the kept answer can't be read: {error}"));
            match outcome.as_deref() {
                Some(Outcome::Response(json)) => {
                    let kept: Kept = serde_json::from_slice(json).map_err(unreadable)?;
                    if kept.request != hash(body, agent).await? {
                        return Err(calls::mismatch(key));
                    }
                    Ok(replay(kept))
                }
                Some(Outcome::Problem(json)) => Err(serde_json::from_slice(json).map_err(unreadable)?),
                None => Err(gone()),
            }
        }
    }
}

/// Does it in a task of the agent's: a body that has come completely is not lost with its connection.
async fn first(agent: &Agent, turn: Turn, head: Parts, body: Body, next: Next) -> Result<Response, Problem> {
    let hasher = Arc::new(Mutex::new(blake3::Hasher::new()));
    let passing = Arc::clone(&hasher);
    let is_empty = body.is_end_stream();
    let body = body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            passing.lock().unwrap_or_else(PoisonError::into_inner).update(data);
        }
        frame
    });
    let body = if is_empty { Body::empty() } else { Body::new(body) };
    let task = agent.answers.tasks.spawn(async move {
        let (head, body) = next.run(Request::from_parts(head, body)).await.into_parts();
        // The routes' answers are some small JSON.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if head.status.is_success() {
            let request = hasher.lock().unwrap_or_else(PoisonError::into_inner).finalize().to_hex().to_string();
            let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let kept = Kept {
                status: head.status.as_u16(),
                etag: text(header::ETAG),
                content_type: text(header::CONTENT_TYPE),
                body: String::from_utf8_lossy(&body).into_owned(),
                request,
            };
            turn.keep(Outcome::Response(serde_json::to_vec(&kept).unwrap_or_default().into()));
        } else {
            let problem = head.extensions.get::<Problem>();
            turn.forget(Outcome::Problem(serde_json::to_vec(&problem).unwrap_or_default().into()));
        }
        Response::from_parts(head, Body::from(body))
    });
    task.await.map_err(|_| crate::server::panicked())
}

fn replay(kept: Kept) -> Response {
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or_default();
    let mut set = |name, value: Option<String>| {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ETAG, kept.etag);
    set(header::CONTENT_TYPE, kept.content_type);
    set(calls::REPLAYED, Some("true".to_owned()));
    response
}

fn digest_of(head: &Parts) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(head.method.as_str().as_bytes());
    part(head.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes());
    let values = |headers: &HeaderMap, name| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    for name in &CONDITIONS {
        let values = values(&head.headers, name);
        part(&[u8::try_from(values.len()).unwrap_or(u8::MAX)]);
        values.iter().for_each(|value| part(value.as_bytes()));
    }
    hasher.finalize()
}

/// The hash of a body that is only compared.
async fn hash(mut body: Body, agent: &Agent) -> Result<String, Problem> {
    let limits = &agent.config.limits;
    let most = limits.file_bytes.value.max(limits.archive_bytes.value);
    let (mut pace, mut hasher, mut size) = (Pace::default(), blake3::Hasher::new(), 0_u64);
    while let Some(piece) = pace.next_piece(&mut body, limits).await? {
        size += Bytes::len(&piece) as u64;
        if size > most {
            return Err(limits.file_bytes.exceeded("the request's body"));
        }
        hasher.update(&piece);
    }
    Ok(hasher.finalize().to_hex().to_string())
}
