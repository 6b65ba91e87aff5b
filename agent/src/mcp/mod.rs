//! `POST /mcp`: every tool for models, by the Model Context Protocol over its Streamable HTTP transport.
//!
//! [`message`] is the protocol, [`era`] which revision of it a request speaks, [`list`] what a model is told about the tools,
//! [`call`] one call of them, [`shape`] its answer as text that fits into a model's context. There are no sessions but a
//! name, so that a notification can say which call it cancels: what an agent is asked it answers in the same request.

mod call;
mod era;
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
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    era::{Era, WITH_BATCHES},
    message::{Answer, Incoming},
};
use crate::{
    access::Caller,
    agent::{self, Agent},
    calls::Share,
    handler::Progress,
    server::{RequestId, body, problem::Failure},
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Silence after which who asked for progress is told that the call goes on: clients give up on calls that say nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// Silence after which a comment keeps those in between from cutting a stream that has nothing to tell.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// From one word of progress to the next, at least.
const BETWEEN: Duration = Duration::from_millis(250);

/// Messages of a batch, which one old version of the protocol has.
const BATCH: usize = 64;

/// Calls under way that a notification can cancel.
#[derive(Debug, Default)]
pub struct Running {
    calls: Mutex<Vec<(u64, Name, CancellationToken)>>,
    begun: AtomicU64,
    /// Held while a large answer is made fit for a model.
    shaping: tokio::sync::Mutex<()>,
}

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
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call. A client may use a name again, which is its own business: then both have it.
    fn begin(&self, name: Name) -> UnderWay<'_> {
        let cancel = CancellationToken::new();
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
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
    /// What the call holds of the room, and its request.
    share: Share,
}

/// Answers a message.
pub(crate) async fn post(
    State(agent): State<Arc<Agent>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let client = match agent.access.identify(&head.headers, Standing::Served) {
        Ok(caller) => {
            let (session, share) = (session(&head.headers), Share::of(&agent.room));
            Client { agent, caller, request_id: request_id.0, session, share }
        }
        Err(problem) => return Failure(problem).into_response(),
    };
    match answer(client, &head.headers, body).await {
        Ok(response) => response,
        Err(problem) => Failure(problem).into_response(),
    }
}

async fn answer(client: Client, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let (body, taken) = body::raw(headers, body, &client.agent.config.limits, &client.agent.room).await?;
    client.share.keep_request(taken);
    let messages = match message::parse(&body) {
        Ok(messages) => messages,
        Err(answer) => return Ok(json(StatusCode::BAD_REQUEST, &answer.to_json())),
    };
    // There are copies of what is needed.
    drop(body);
    match messages {
        message::Messages::One(incoming) => one(client, headers, incoming).await,
        message::Messages::Batch(_) if era::version(headers).is_some_and(|version| version != WITH_BATCHES) => {
            let detail = format!("only version {WITH_BATCHES} of the protocol has batches; send one message at a time");
            Ok(json(StatusCode::BAD_REQUEST, &Answer::invalid_request(None, &detail).to_json()))
        }
        message::Messages::Batch(batch) if batch.len() > BATCH => {
            let answer = Answer::invalid_request(None, &format!("a batch has at most {BATCH} messages"));
            Ok(json(StatusCode::BAD_REQUEST, &answer.to_json()))
        }
        message::Messages::Batch(batch) => {
            let answers = batch.into_iter().map(|incoming| {
                // What came is held until all are answered, what each answers by itself.
                let client = Client { share: Share::of(&client.agent.room), ..client.clone() };
                async move { handle(&client, Era::Handshake, incoming, Progress::default()).await }
            });
            let answers = futures_util::future::join_all(answers);
            let answers: Vec<String> = answers.await.into_iter().flatten().map(|answer| answer.to_json()).collect();
            Ok(if answers.is_empty() { accepted() } else { json(StatusCode::OK, &format!("[{}]", answers.join(","))) })
        }
    }
}

fn session(headers: &HeaderMap) -> String {
    let value = headers.get(&SESSION).and_then(|value| value.to_str().ok());
    value.filter(|value| value.len() <= 64).unwrap_or_default().to_owned()
}

async fn one(client: Client, headers: &HeaderMap, incoming: Incoming) -> Result<Response, Problem> {
    let era = match era::of(headers, &incoming) {
        Ok(era) => era,
        Err(refusal) => return Ok(json(StatusCode::BAD_REQUEST, &refusal.to_json())),
    };
    if let (Era::Stateless, Some("subscriptions/listen"), Some(id)) = (era, incoming.method.as_deref(), &incoming.id) {
        return Ok(listening(client.agent, id));
    }
    let opens = era == Era::Handshake && incoming.method.as_deref() == Some("initialize");
    let token = incoming.progress_token().filter(|_| takes_events(headers));
    let session = if opens { Some(agent::random_id().map_err(no_random)?) } else { None };
    let mut response = match token {
        Some(token) => {
            let (progress, words) = Progress::heard();
            let work = Box::pin(async move { handle(&client, era, incoming, progress).await });
            events(token, words, work)
        }
        None => match handle(&client, era, incoming, Progress::default()).await {
            Some(answer) => json(status(era, &answer), &answer.to_json()),
            None => accepted(),
        },
    };
    if let Some(session) = session.and_then(|session| HeaderValue::from_str(&session).ok()) {
        response.headers_mut().insert(SESSION, session);
    }
    Ok(response)
}

/// Errors are answers too, but for one that those in between are to see.
fn status(era: Era, answer: &Answer) -> StatusCode {
    if era == Era::Stateless && answer.is_unknown_method() { StatusCode::NOT_FOUND } else { StatusCode::OK }
}

fn no_random(error: getrandom::Error) -> Problem {
    Problem::new(Code::Internal, format!("the kernel gave no random bytes: {error}"))
}

/// Does what a message says. Notifications and the client's own answers get none.
async fn handle(client: &Client, era: Era, incoming: Incoming, progress: Progress) -> Option<Answer> {
    let method = incoming.method.as_deref()?;
    let Some(id) = incoming.id.clone() else {
        if method == "notifications/cancelled"
            && let Some(cancelled) = incoming.cancelled()
        {
            client.agent.mcp.cancel(&(client.caller.subject.clone(), client.session.clone(), cancelled));
        }
        return None;
    };
    let answer = match (era, method) {
        (Era::Handshake, "initialize") => {
            Answer::result(id, message::initialized(incoming.protocol_version().as_deref()))
        }
        (Era::Handshake, "ping") => Answer::result(id, "{}".to_owned()),
        (Era::Stateless, "server/discover") => Answer::result(id, message::discovered()),
        (_, "tools/list") => Answer::result(id, list::for_scopes(&client.caller.scopes, era)),
        (_, "tools/call") => call::call(client, id, incoming.params, progress).await,
        (_, other) => Answer::method_not_found(id, other),
    };
    Some(if era == Era::Stateless { answer.alone() } else { answer })
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

/// A stream of what changes on the agent's side: nothing does, so none of the kinds that are asked for is promised. It lasts
/// until either side ends.
fn listening(agent: Arc<Agent>, id: &RpcId) -> Response {
    let first = event(&message::acknowledged(id));
    let rest = stream::unfold(agent, |agent| async move {
        tokio::select! {
            () = agent.shutting_down() => None,
            () = sleep(KEEP_ALIVE) => Some((Ok(Bytes::from_static(b": keep-alive\n\n")), agent)),
        }
    });
    streamed(stream::once(std::future::ready(first)).chain(rest))
}

/// What the call says about how far it is, as it says it, until the answer is there, then that. Dropping the response ends
/// the work.
fn events(token: RpcId, words: watch::Receiver<String>, work: BoxFuture<'static, Option<Answer>>) -> Response {
    struct Waiting {
        token: RpcId,
        words: watch::Receiver<String>,
        work: BoxFuture<'static, Option<Answer>>,
        started: Instant,
        told: Instant,
        /// Of the words that were told, the last one's place in time: each has another.
        last: f64,
    }
    let started = Instant::now();
    let waiting = Waiting { token, words, work, started, told: started, last: 0.0 };
    let stream = stream::unfold(Some(waiting), |waiting| async move {
        let mut waiting = waiting?;
        let Waiting { words, told, work, .. } = &mut waiting;
        let told = *told;
        let said = async {
            sleep_until(told + BETWEEN).await;
            match words.changed().await {
                Ok(()) => words.borrow_and_update().clone(),
                // There will be no more.
                Err(_) => std::future::pending().await,
            }
        };
        let word = tokio::select! {
            answer = work => {
                // Who cancelled the call is answered nothing.
                let answer = answer.filter(|answer| !answer.is_cancelled())?;
                return Some((event(&answer.to_json()), None));
            }
            word = said => Some(word),
            () = sleep_until(told + SILENCE) => None,
        };
        waiting.told = Instant::now();
        let seconds = waiting.started.elapsed().as_secs_f64();
        waiting.last = (seconds * 1000.0).round().max(waiting.last * 1000.0 + 1.0) / 1000.0;
        let word = word.unwrap_or_else(|| format!("running for {seconds:.0} s"));
        Some((event(&message::progress(&waiting.token, waiting.last, &word)), Some(waiting)))
    });
    streamed(stream)
}

/// Server-sent events that nobody in between is to hold back.
fn streamed(events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

fn event(json: &str) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(format!("event: message\ndata: {json}\n\n")))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::testing;

    /// The clock stands still but while everybody waits for it.
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_has_nothing_to_tell_says_so_in_comments() {
        let agent = testing::agent();
        let mut body = listening(Arc::clone(&agent), &RpcId::Number(1)).into_body();
        let begun = tokio::time::Instant::now();
        let mut said = Vec::new();
        for _ in 0..3 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            said.push((String::from_utf8(frame.to_vec()).unwrap(), begun.elapsed().as_secs()));
        }
        assert!(said[0].0.starts_with("event: message\n") && said[0].1 == 0, "{said:?}");
        assert_eq!(said[1..], [(": keep-alive\n\n".to_owned(), 15), (": keep-alive\n\n".to_owned(), 30)]);
        agent.begin_shutdown();
        assert!(body.frame().await.is_none(), "it ends with the agent");
    }
}
