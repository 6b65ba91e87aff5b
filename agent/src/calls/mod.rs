//! Calls: the one way from any surface (HTTP, WebSocket, MCP) to a tool's handler.
//!
//! A surface finds out who calls, reads the request and writes the answer; what holds for every call of every tool stands
//! here, once.

mod answers;
mod once;
mod table;

use std::sync::atomic::AtomicBool;

use corehold_types::{Code, Problem};

pub use answers::Answers;
pub(crate) use answers::{Begin, Outcome, Turn, mismatch};
pub(crate) use once::REPLAYED;
pub(crate) use once::key_in;
pub use table::{Entry, ErasedEvent, entries, entry};

use crate::{
    audit::Pending,
    handler::{Call, Events, Handler},
};

/// Calls a tool whose caller was found to have its scope.
///
/// # Errors
/// `SHUTTING_DOWN` when the agent ends, `IDEMPOTENCY_MISMATCH` when the call's key stands for another request, else the
/// tool's own problem.
pub(crate) async fn run<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
) -> Result<T::Response, Problem> {
    run_and_tell::<T>(call, request, events, &AtomicBool::new(false)).await
}

/// The same; sets `replayed` as soon as it is known that the answer is that of an earlier call with the same key.
pub(crate) async fn run_and_tell<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
    replayed: &AtomicBool,
) -> Result<T::Response, Problem> {
    if call.agent.is_shutting_down() {
        let problem = Problem::new(Code::ShuttingDown, "the agent is shutting down and begins nothing new");
        refused(&call, T::NAME, &problem);
        return Err(problem);
    }
    let held = T::keeps_awake(events.wanted()).map(|source| call.agent.activity.request(source, T::NAME));
    match call.idempotency_key.clone().filter(|_| T::CHANGES) {
        Some(key) => once::run::<T>(call, &key, request, events, held, replayed).await,
        None => perform::<T>(call, request, events).await,
    }
}

/// Does what is asked, once, and records it.
async fn perform<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
) -> Result<T::Response, Problem> {
    let mut pending = Pending::of(&call, T::NAME);
    if let Some(touched) = pending.touched() {
        T::touches(&request, touched);
    }
    let result = T::handle(call, request, events).await;
    if let (Ok(response), Some(touched)) = (&result, pending.touched()) {
        T::changed(response, touched);
    }
    pending.finish(result.as_ref().err().map(|problem| problem.code));
    result
}

/// Records that a call was turned away before it reached its tool.
pub(crate) fn refused(call: &Call, tool: &'static str, problem: &Problem) {
    Pending::of(call, tool).refuse(problem.code);
}
