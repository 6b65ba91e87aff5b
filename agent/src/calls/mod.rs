//! Calls: the one way from any surface (HTTP, WebSocket, MCP) to a tool's handler.
//!
//! A surface finds out who calls, reads the request and writes the answer; what holds for every call of every tool stands
//! here, once.

mod table;

use corehold_types::{Code, Problem, tools::ActivitySource};

pub use table::{Entry, ErasedEvent, entries, entry};

use crate::handler::{Call, Events, Handler};

/// Calls a tool whose caller was found to have its scope.
///
/// # Errors
/// `SHUTTING_DOWN` when the agent ends, else the tool's own problem.
pub(crate) async fn run<T: Handler>(
    call: Call,
    request: T::Request,
    events: Events<T::Event>,
) -> Result<T::Response, Problem> {
    if call.agent.is_shutting_down() {
        return Err(Problem::new(Code::ShuttingDown, "the agent is shutting down and begins nothing new"));
    }
    let _held = (!passive(T::NAME)).then(|| call.agent.activity.request(ActivitySource::Call, T::NAME));
    T::handle(call, request, events).await
}

/// Whether calls of the tool only ask how things are: they keep nobody awake.
fn passive(tool: &str) -> bool {
    matches!(tool, "info" | "activity" | "auditRead")
}
