//! A change under an `Idempotency-Key`: done once, however often and on however many connections it is asked for.
//!
//! It runs in a task of the agent's, not of its caller's: a caller who goes away and comes again gets the answer. What
//! failed for the moment only (a time-out, a full disk, a limit) is not kept, and the next repeat tries it again.

use std::{io::BufWriter, panic::AssertUnwindSafe, sync::Arc};

use blake3::Hash;
use corehold_types::{Code, Problem, Tool};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName};
use tokio::sync::watch;

use super::{
    answers::{Begin, Outcome},
    perform,
};
use crate::{
    activity::Guard,
    audit::{Notes, Pending},
    handler::{Call, Events, Handler, Resumption},
    server::{body, panicked},
};

/// Longest key, in bytes.
const KEY_BYTES: usize = 255;

/// The header of HTTP that holds the key.
const HEADER: &str = "idempotency-key";

/// The header of an answer that an earlier request with the same key was given.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key among the headers; nothing when there is none.
///
/// # Errors
/// `INVALID_REQUEST` when there is more than one, or it isn't one.
pub(crate) fn key_in(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().map_err(|_| invalid())?;
    if values.next().is_some() {
        return Err(invalid());
    }
    check(key)?;
    Ok(Some(key.into()))
}

/// # Errors
/// `INVALID_REQUEST` when it is no key.
fn check(key: &str) -> Result<(), Problem> {
    let is_key = (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_key { Ok(()) } else { Err(invalid()) }
}

fn invalid() -> Problem {
    Problem::new(Code::InvalidRequest, "an Idempotency-Key is one value of 1 to 255 printable ASCII characters")
        .with("field", HEADER)
}

/// Does it if nobody has under this key; else says what they were answered, which is noted.
pub(super) async fn run<T: Handler>(
    call: Call,
    key: &str,
    mut request: T::Request,
    events: Events<T::Event>,
    held: Option<Guard>,
) -> Result<T::Response, Problem> {
    let refuse = |problem: &Problem| super::refused(&call, T::NAME, problem);
    check(key).inspect_err(refuse)?;
    let digest = digest_of::<T>(&request)?;
    let pending = Pending::of(&call, T::NAME);
    pending.note(|touched| T::touches(&request, touched));
    let resumption = T::resumption(&call.agent, &mut request);
    let answers = Arc::clone(&call.agent.answers);
    let mut events = Some(events);
    let mut held = held;
    let begun = match answers.begin(&call.caller, key, digest) {
        Ok(begun) => begun,
        Err(problem) => {
            pending.refuse(problem.code);
            return Err(problem);
        }
    };
    // The first one's record is made where it is done, whether or not its caller waits.
    let (mut told, repeat) = match begun {
        Begin::Repeat(told) => {
            pending.replayed();
            (told, Some(pending))
        }
        Begin::First(turn) => {
            pending.forget();
            let told = turn.subscribe();
            // Who resumes sends the events himself, the first time too.
            let (events, held) = match resumption {
                Some(_) => (Events::none(), None),
                None => (events.take().map_or_else(Events::none, Events::outliving_the_caller), held.take()),
            };
            let first = Call { idempotency_key: None, notes: Notes::default(), ..call.clone() };
            answers.tasks.spawn(async move {
                let result = AssertUnwindSafe(perform::<T>(first, request, events)).catch_unwind().await;
                let result = result.unwrap_or_else(|_| Err(panicked()));
                match outcome(result) {
                    (outcome, true) => turn.keep(outcome),
                    (outcome, false) => turn.forget(outcome),
                }
                drop(held);
            });
            (told, None)
        }
    };
    let result = answer::<T>(call, &mut told, resumption, events.take()).await;
    if let Some(repeat) = repeat {
        repeat.finish(result.as_ref().err().map(|problem| problem.code));
    }
    result
}

/// Waits for the answer and says it, resumed if it can be.
async fn answer<T: Handler>(
    call: Call,
    told: &mut watch::Receiver<Option<Arc<Outcome>>>,
    resumption: Option<Resumption<T>>,
    events: Option<Events<T::Event>>,
) -> Result<T::Response, Problem> {
    let outcome = match told.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.as_ref().map(Arc::clone),
        Err(_) => None,
    };
    let response = match outcome.as_deref() {
        Some(Outcome::Response(json)) => serde_json::from_slice(json).map_err(|error| unreadable(&error))?,
        Some(Outcome::Problem(json)) => return Err(serde_json::from_slice(json).map_err(|error| unreadable(&error))?),
        None => return Err(Problem::new(Code::ShuttingDown, "the agent ended before the change was answered")),
    };
    match resumption {
        Some(resume) => resume(call, response, events.unwrap_or_else(Events::none)).await,
        None => Ok(response),
    }
}

/// What the key is bound to: the tool, and the request as it was understood, so that its spelling in JSON doesn't matter.
fn digest_of<T: Tool>(request: &T::Request) -> Result<Hash, Problem> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(T::NAME.as_bytes()).update(&[0]);
    // Piece by piece: a large request isn't there a second time for it.
    serde_json::to_writer(BufWriter::new(&mut hasher), request)
        .map_err(|error| Problem::new(Code::Internal, format!("the request can't be written as JSON: {error}")))?;
    Ok(hasher.finalize())
}

/// The answer in JSON, and whether it is kept.
fn outcome<R: serde::Serialize>(result: Result<R, Problem>) -> (Outcome, bool) {
    match result.and_then(|response| body::to_json(&response)) {
        Ok(json) => (Outcome::Response(json.into()), true),
        Err(problem) => {
            let for_the_moment = problem.retryable || matches!(problem.code, Code::DiskFull | Code::LimitExceeded);
            (Outcome::Problem(serde_json::to_vec(&problem).unwrap_or_default().into()), !for_the_moment)
        }
    }
}

fn unreadable(error: &serde_json::Error) -> Problem {
    Problem::new(Code::Internal, format!("the kept answer can't be read: {error}"))
}
