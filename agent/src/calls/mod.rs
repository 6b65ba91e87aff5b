//! Calls: the one way from any surface (HTTP, WebSocket, MCP) to a tool's handler.
//!
//! A surface finds out who calls, reads the request and writes the answer; what holds for every call of every tool stands
//! here, once.

mod answers;
mod json;
mod once;
mod room;
mod table;

use corehold_types::{Code, Problem};

pub use answers::Answers;
pub(crate) use answers::{Begin, Outcome, Turn, mismatch};
pub use json::Json;
pub(crate) use once::REPLAYED;
pub(crate) use once::key_in;
pub(crate) use room::{Allowance, FREE, SMALL, Taken, memory_of};
pub use room::{Loan, Room, Share};
pub use table::{Entry, ErasedEvent, entries, entry};

use crate::{
    activity::Guard,
    audit::Pending,
    handler::{Call, Events, Handler},
};

/// Calls a tool whose caller was found to have its scope. The call's notes say as soon as it is known whether the answer is
/// that of an earlier call with the same key.
///
/// # Errors
/// `SHUTTING_DOWN` when the agent ends, `IDEMPOTENCY_MISMATCH` when the call's key stands for another request, else the
/// tool's own problem.
pub(crate) async fn run<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
) -> Result<T::Response, Problem> {
    let held = enter::<T>(&call, &request, events.wanted())?;
    if events.wanted() {
        begin_stream::<T>(&call).await?;
    }
    match call.idempotency_key.clone().filter(|_| T::CHANGES) {
        Some(key) => once::run::<T>(call, &key, request, events, held).await,
        None => perform::<T>(call, request, events).await,
    }
}

/// A call that its surface carries out by itself, since its bytes come as the surface's own frames: what holds for every
/// call holds for it too. It can't be repeated, so it takes no `Idempotency-Key`.
pub(crate) async fn run_framed<T, F>(
    call: Call,
    request: T::Request,
    work: impl FnOnce(Call, T::Request) -> F,
) -> Result<T::Response, Problem>
where
    T: Handler,
    F: Future<Output = Result<T::Response, Problem>>,
{
    let _held = enter::<T>(&call, &request, true)?;
    if call.idempotency_key.is_some() {
        let problem =
            Problem::new(Code::InvalidRequest, "bytes that come in frames are not kept, so they can't be repeated")
                .with("field", "idempotencyKey")
                .suggest("leave the key out, or send the bytes in the request, without `stream`");
        refused(&call, T::NAME, &problem);
        return Err(problem);
    }
    begin_stream::<T>(&call).await?;
    record::<T, F>(call, request, work).await
}

/// Whether a call may begin; what it gives back keeps the workspace awake.
fn enter<T: Handler>(call: &Call, request: &T::Request, streamed: bool) -> Result<Option<Guard>, Problem> {
    if call.agent.is_shutting_down() {
        let problem = Problem::new(Code::ShuttingDown, "the agent is shutting down and begins nothing new");
        refused(call, T::NAME, &problem);
        return Err(problem);
    }
    Ok(T::keeps_awake(request, streamed).map(|source| call.agent.activity.request(source, T::NAME)))
}

/// Waits for the room that the call's stream takes.
async fn begin_stream<T: Handler>(call: &Call) -> Result<(), Problem> {
    call.share.begin_stream().await.inspect_err(|problem| refused(call, T::NAME, problem))
}

/// Does what is asked, once, and records it.
async fn perform<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
) -> Result<T::Response, Problem> {
    record::<T, _>(call, request, |call, request| T::handle(call, request, events)).await
}

async fn record<T, F>(
    call: Call,
    request: T::Request,
    work: impl FnOnce(Call, T::Request) -> F,
) -> Result<T::Response, Problem>
where
    T: Handler,
    F: Future<Output = Result<T::Response, Problem>>,
{
    let pending = Pending::of(&call, T::NAME);
    pending.note(|touched| T::touches(&request, touched));
    let result = work(call, request).await;
    pending.finish(result.as_ref().err().map(|problem| problem.code));
    result
}

/// Records that a call was turned away before it reached its tool.
pub(crate) fn refused(call: &Call, tool: &'static str, problem: &Problem) {
    Pending::of(call, tool).refuse(problem.code);
}
