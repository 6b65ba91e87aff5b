//! What the client says: requests become calls, each in a task of its own; what is about the connection is done at once.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use corehold_types::{
    Code, Problem, Tool as _,
    rpc::{Cancel, Credit, Frame, FrameKind, Refresh, RpcError, RpcId, codes, methods},
    tools::{ActivitySource, CommandInput},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    Outgoing,
    input::{self, Input, InputLine, Misfit},
    stream::{CreditLine, Stream},
};
use crate::{
    access::Caller,
    activity::Guard,
    agent::Agent,
    audit::{self, Notes},
    calls::{self, Allowance, Entry, Json, Share, Taken},
    handler::{Call, Progress, Surface},
    server::{RequestId, panicked},
};

/// Bytes of an id that is a word.
const ID_BYTES: usize = 64;

/// Characters of what a client sent, in what it is told about that.
const SHOWN: usize = 400;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Incoming<'a> {
    jsonrpc: String,
    #[serde(default)]
    id: Option<RpcId>,
    method: String,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A call that isn't answered yet.
struct Running {
    cancel: CancellationToken,
    stream: Option<(u32, Line)>,
}

/// The client's end of a stream.
enum Line {
    /// It grants credit for events.
    Events(Arc<CreditLine>),
    /// It sends what a command reads.
    Input(InputLine),
}

/// What a streamed call is made with.
enum Streamed {
    Events(Stream),
    Input { input: Input, number: u32 },
}

/// The calls under way on one socket.
#[derive(Default)]
struct Calls {
    running: Mutex<HashMap<RpcId, Running>>,
    ended: Notify,
}

impl Calls {
    fn running(&self) -> MutexGuard<'_, HashMap<RpcId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one client says. Its calls are cancelled with it.
pub(super) struct Dispatch {
    agent: Arc<Agent>,
    caller: Arc<Caller>,
    /// The name of the request that opened the socket: its calls' names begin with it.
    request_id: Arc<str>,
    out: mpsc::Sender<Outgoing>,
    calls: Arc<Calls>,
    asked: u64,
    streams: u32,
    allowance: Allowance,
    /// Held once something was asked.
    active: Option<Guard>,
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.calls.running().values().for_each(|running| running.cancel.cancel());
    }
}

impl Dispatch {
    pub(super) fn new(
        agent: Arc<Agent>,
        caller: Arc<Caller>,
        request_id: &RequestId,
        out: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            agent,
            caller,
            request_id: Arc::clone(&request_id.0),
            out,
            calls: Arc::default(),
            asked: 0,
            streams: 0,
            allowance: Allowance::new(),
            active: None,
        }
    }

    /// Who the client is now.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Waits until no call is under way.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.calls.ended.notified();
            if self.calls.running().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Does what a text says, and what comes with it of the room.
    pub(super) async fn hear(&mut self, text: Utf8Bytes, taken: Option<Taken>) {
        if let Err((id, error)) = self.understand(text, taken).await {
            self.say(failure(id.as_ref(), &error, false)).await;
        }
    }

    /// Takes in a binary frame: what a command is to read.
    ///
    /// # Errors
    /// What is wrong with it. A client that has lost count can't be helped, so the socket is closed.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let frame = Frame::decode(bytes).map_err(|_| "the binary frame is none")?;
        if frame.kind != FrameKind::Stdin {
            return Err("only commands write to these streams");
        }
        let mut running = self.calls.running();
        let mut lines = running.values_mut().filter_map(|running| running.stream.as_mut());
        // Of a call that has been answered: the client didn't know yet.
        let Some((_, Line::Input(line))) = lines.find(|(number, _)| *number == frame.stream) else { return Ok(()) };
        line.take(frame.offset, frame.payload).map_err(|misfit| match misfit {
            Misfit::OutOfOrder => "the binary frame is out of order",
            Misfit::BeyondCredit => "the binary frame goes beyond the stream's credit",
        })
    }

    async fn understand(&mut self, text: Utf8Bytes, taken: Option<Taken>) -> Result<(), (Option<RpcId>, RpcError)> {
        let incoming: Incoming<'_> = parse(&text).map_err(|error| (None, error))?;
        let id = incoming.id.clone();
        let malformed = |detail: &str| (id.clone(), invalid(codes::INVALID_REQUEST, detail));
        if incoming.jsonrpc != "2.0" {
            return Err(malformed("jsonrpc: \"2.0\" was expected"));
        }
        if matches!(&incoming.id, Some(RpcId::Text(id)) if id.len() > ID_BYTES) {
            return Err(malformed("id: at most 64 bytes were expected"));
        }
        if incoming.method.starts_with("$/") {
            return self.about_the_connection(&incoming).await.map_err(|error| (id, error));
        }
        // A tool's answer is what it is called for; without an id there would be none.
        let Some(id) = id.clone() else { return Err(malformed("id: a call of a tool needs one")) };
        if self.calls.running().contains_key(&id) {
            return Err(malformed("id: it names a call that is under way"));
        }
        let params = match incoming.params {
            // Not copied: a long text is there once.
            Some(params) => Bytes::from(text.clone()).slice_ref(params.get().as_bytes()),
            None => Bytes::from_static(b"{}"),
        };
        self.begin(id.clone(), incoming, params, taken).await.map_err(|error| (Some(id), error))
    }

    async fn begin(
        &mut self,
        id: RpcId,
        incoming: Incoming<'_>,
        params: Bytes,
        taken: Option<Taken>,
    ) -> Result<(), RpcError> {
        let limit = &self.agent.config.limits.socket_calls;
        if self.calls.running().len() >= limit.as_usize() {
            return Err(failed(limit.exceeded("the number of calls under way on a socket")));
        }
        let Some(entry) = calls::entry(&incoming.method) else {
            audit::unknown_tool(&self.agent, &self.caller, Surface::WebSocket, &self.request_id, &incoming.method);
            let names: Vec<_> = calls::entries().iter().map(|entry| entry.name).collect();
            let problem = Problem::new(Code::UnknownRoute, format!("there is no tool {:?}", cut(&incoming.method)))
                .suggest(format!("this agent has the tools {}", names.join(", ")));
            return Err(error(codes::METHOD_NOT_FOUND, problem));
        };
        self.asked += 1;
        let call = Call {
            agent: Arc::clone(&self.agent),
            caller: Arc::clone(&self.caller),
            surface: Surface::WebSocket,
            idempotency_key: incoming.idempotency_key.map(Arc::from),
            request_id: format!("{}-{}", self.request_id, self.asked),
            notes: Notes::default(),
            progress: Progress::default(),
            share: Share::of(&self.agent.room),
        };
        entry.allow(&call).map_err(failed)?;
        self.admit(&call, entry, &params, taken).await.map_err(failed)?;
        if self.active.is_none() {
            let label = self.caller.subject.clone();
            self.active = Some(self.agent.activity.hold(ActivitySource::Socket, label));
        }
        let (line, streamed) = incoming.stream.then(|| self.open(&id, entry, &call.share)).unzip();
        let cancel = CancellationToken::new();
        self.calls.running().insert(id.clone(), Running { cancel: cancel.clone(), stream: line });
        let (out, calls) = (self.out.clone(), Arc::clone(&self.calls));
        tokio::spawn(async move {
            let (request_id, notes, share) = (call.request_id.clone(), call.notes.clone(), call.share.clone());
            let work: BoxFuture<'static, _> = match streamed {
                Some(Streamed::Input { input, number }) => {
                    let (id, out) = (id.clone(), out.clone());
                    Box::pin(async move { input.run(call, params, id, number, out).await })
                }
                Some(Streamed::Events(stream)) => Box::pin(perform(entry, call, params, Some(stream))),
                None => Box::pin(perform(entry, call, params, None)),
            };
            let answer = run(entry.name, request_id, work, &cancel).await;
            let mut answer = match answer {
                Ok(result) => success(&id, result, notes.is_replayed()),
                Err(error) => failure(Some(&id), &error, notes.is_replayed()),
            };
            if out.capacity() < out.max_capacity() {
                answer = waiting(answer, &id, &share, &out).await;
            }
            // Nobody hears it when the socket is gone.
            let place = out.reserve().await;
            // Both at once: who has the answer may use the id again, and who sees no call under way may close after the answer.
            let mut running = calls.running();
            running.remove(&id);
            if let Ok(place) = place {
                place.send(answer);
            }
            drop(running);
            calls.ended.notify_waiters();
        });
        Ok(())
    }

    /// Sees to it that what a request takes is the call's: of what the socket may have besides, or of the room.
    async fn admit(&self, call: &Call, entry: &Entry, params: &[u8], mut taken: Option<Taken>) -> Result<(), Problem> {
        let room = &self.agent.room;
        let settled = match &taken {
            Some(_) => room.settle_request(&mut taken, params),
            None => {
                let needed = calls::memory_of(params);
                if let Some(allowed) = self.allowance.take(needed) {
                    call.share.keep_allowed(allowed);
                    return Ok(());
                }
                room.take_for_request(needed).await.map(|room| taken = Some(room))
            }
        };
        settled.inspect_err(|problem| calls::refused(call, entry.name, problem))?;
        call.share.keep_request(taken);
        Ok(())
    }

    /// A new stream: the client's end of it, and the call's.
    fn open(&mut self, id: &RpcId, entry: &Entry, share: &Share) -> ((u32, Line), Streamed) {
        self.streams = self.streams.wrapping_add(1);
        let number = self.streams;
        if entry.name == CommandInput::NAME {
            let (line, input) = input::line();
            return ((number, Line::Input(line)), Streamed::Input { input, number });
        }
        let credit = CreditLine::new();
        let stream = Stream {
            number,
            id: id.clone(),
            credit: Arc::clone(&credit),
            out: self.out.clone(),
            share: share.clone(),
            turns: Arc::new(Semaphore::new(1)),
        };
        ((number, Line::Events(credit)), Streamed::Events(stream))
    }

    async fn about_the_connection(&mut self, incoming: &Incoming<'_>) -> Result<(), RpcError> {
        let params = incoming.params.map_or("{}", RawValue::get);
        match incoming.method.as_str() {
            methods::CANCEL => {
                let Cancel { id } = params_of(params)?;
                // A call that is answered already can't be cancelled; the client learns so by its answer.
                if let Some(running) = self.calls.running().get(&id) {
                    running.cancel.cancel();
                }
            }
            methods::CREDIT => {
                let Credit { stream, bytes } = params_of(params)?;
                let running = self.calls.running();
                let mut lines = running.values().filter_map(|running| running.stream.as_ref());
                if let Some((_, Line::Events(line))) = lines.find(|(number, _)| *number == stream) {
                    line.grant(bytes);
                }
            }
            methods::REFRESH => {
                let Refresh { token } = params_of(params)?;
                let caller = self.agent.access.authenticate(&token).and_then(|caller| {
                    if caller.subject == self.caller.subject {
                        return Ok(caller);
                    }
                    Err(Problem::new(Code::Forbidden, "the new token is somebody else's")
                        .suggest("open a socket of its own for another subject"))
                });
                let caller = caller.map_err(|problem| {
                    audit::refused_refresh(&self.agent, &self.caller, &self.request_id, problem.code);
                    failed(problem)
                })?;
                self.caller = caller;
            }
            other => {
                let known = [methods::CANCEL, methods::CREDIT, methods::REFRESH].join(", ");
                let problem = Problem::new(Code::UnknownRoute, format!("there is no method {:?}", cut(other)));
                let suggestion = format!("about the connection there are {known}");
                return Err(error(codes::METHOD_NOT_FOUND, problem.suggest(suggestion)));
            }
        }
        // Some want no answer; who gives an id waits for one all the same.
        if let Some(id) = &incoming.id {
            self.say(answer(Some(id), "result", "{}", false)).await;
        }
        Ok(())
    }

    async fn say(&self, text: Outgoing) {
        // Nobody hears it when the socket is gone.
        let _ = self.out.send(text).await;
    }
}

/// Calls the tool.
async fn perform(entry: &'static Entry, call: Call, params: Bytes, stream: Option<Stream>) -> Result<Json, Problem> {
    let Some(stream) = stream else { return entry.call(call, params, None).await };
    let (sender, receiver) = mpsc::channel(entry.events);
    let (result, ()) = tokio::join!(entry.call(call, params, Some(sender)), stream.forward(receiver));
    result
}

/// Waits for the end of a call, or until it is cancelled.
async fn run(
    tool: &'static str,
    request_id: String,
    work: BoxFuture<'static, Result<Json, Problem>>,
    cancel: &CancellationToken,
) -> Result<Json, RpcError> {
    let result = tokio::select! {
        result = AssertUnwindSafe(work).catch_unwind() => result.unwrap_or_else(|_| Err(panicked())),
        () = cancel.cancelled() => {
            return Err(error(codes::CANCELLED, Problem::new(Code::Cancelled, "the call was cancelled")));
        }
    };
    result.map_err(|mut problem| {
        problem.request_id = Some(request_id);
        let code = if problem.code == Code::InvalidRequest { codes::INVALID_PARAMS } else { codes::FAILED };
        crate::server::log_in_stream(&problem, tool);
        error(code, problem)
    })
}

fn parse(text: &str) -> Result<Incoming<'_>, RpcError> {
    if text.trim_start().starts_with('[') {
        return Err(invalid(codes::INVALID_REQUEST, "batches are not taken: send each request by itself"));
    }
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() { codes::INVALID_REQUEST } else { codes::PARSE_ERROR };
        invalid(code, &error.to_string())
    })
}

fn params_of<'a, T: Deserialize<'a>>(params: &'a str) -> Result<T, RpcError> {
    serde_json::from_str(params).map_err(|error| invalid(codes::INVALID_PARAMS, &format!("params: {error}")))
}

fn invalid(code: i32, detail: &str) -> RpcError {
    error(code, Problem::new(Code::InvalidRequest, cut(detail)))
}

/// What the client sent may be in it, of any length.
fn cut(text: &str) -> &str {
    text.char_indices().nth(SHOWN).map_or(text, |(end, _)| &text[..end])
}

fn failed(problem: Problem) -> RpcError {
    error(codes::FAILED, problem)
}

fn error(code: i32, problem: Problem) -> RpcError {
    RpcError { code, message: problem.detail.clone(), data: problem }
}

#[derive(Serialize)]
struct Notification<'a, P> {
    jsonrpc: &'static str,
    method: &'a str,
    params: &'a P,
}

/// A message that wants no answer.
pub(super) fn notification<P: Serialize>(method: &str, params: &P) -> String {
    // Types of ours have nothing that JSON can't say.
    serde_json::to_string(&Notification { jsonrpc: "2.0", method, params }).unwrap_or_default()
}

/// The answer of a call: its response is JSON already.
fn success(id: &RpcId, result: Json, replayed: bool) -> Outgoing {
    let (head, tail) = around(Some(id), "result", replayed);
    let length = result.length();
    let mut pieces = result.into_pieces();
    if pieces.len() > 1 {
        let head = std::iter::once(Bytes::from(head));
        return Outgoing::Text(head.chain(pieces).chain([Bytes::from(tail)]).collect());
    }
    let mut text = Vec::with_capacity(head.len() + length + tail.len());
    text.extend_from_slice(head.as_bytes());
    pieces.next().into_iter().for_each(|result| text.extend_from_slice(&result));
    text.extend_from_slice(tail.as_bytes());
    Outgoing::text(text)
}

fn failure(id: Option<&RpcId>, error: &RpcError, replayed: bool) -> Outgoing {
    answer(id, "error", &serde_json::to_string(error).unwrap_or_default(), replayed)
}

fn answer(id: Option<&RpcId>, kind: &str, json: &str, replayed: bool) -> Outgoing {
    let (head, tail) = around(id, kind, replayed);
    Outgoing::text(head + json + &tail)
}

/// What stands before the JSON of an answer, and what behind.
fn around(id: Option<&RpcId>, kind: &str, replayed: bool) -> (String, String) {
    // `null` where there is none.
    let id = serde_json::to_string(&id).unwrap_or_default();
    let replayed = if replayed { r#","idempotencyReplayed":true"# } else { "" };
    (format!(r#"{{"jsonrpc":"2.0","id":{id},"{kind}":"#), format!("{replayed}}}"))
}

/// An answer that waits behind others takes room though it is small: there may be many on many sockets. Where there is
/// none, it waits until they have gone out.
async fn waiting(answer: Outgoing, id: &RpcId, share: &Share, out: &mpsc::Sender<Outgoing>) -> Outgoing {
    let piece = match answer {
        Outgoing::Text(mut pieces) if pieces.len() == 1 => pieces.remove(0),
        // It is large and has its part.
        answer => return answer,
    };
    let held = tokio::select! {
        biased;
        held = share.hold_waiting(piece.len()) => held,
        // Nor is it waited for when nobody will hear it.
        _ = out.reserve_many(out.max_capacity()) => return Outgoing::text(piece),
    };
    match held {
        Ok(()) => Outgoing::text(share.bind_waiting(piece)),
        Err(problem) => failure(Some(id), &failed(problem), false),
    }
}
