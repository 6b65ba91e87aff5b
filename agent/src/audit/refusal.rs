//! Refusals of what reaches no tool and no route that records by itself: unknown routes and tools, wrong origins, sockets that
//! aren't opened.

use std::sync::Arc;

use corehold_types::{Code, Problem, Standing};
use http::{HeaderMap, Method};

use super::Pending;
use crate::{access::Caller, agent::Agent, calls, handler::Surface, routes::audited};

/// Marks the answer to a request that has its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded;

/// What the log has instead of names that callers make up.
const OTHER: &str = "other";

const SOCKET: &str = "GET /v1/ws";

/// Records a request that nothing was done for. Of its headers only the token's is needed.
pub(crate) fn refused_request(
    agent: &Agent,
    request_id: &str,
    (method, path, headers): (&Method, &str, &HeaderMap),
    problem: &Problem,
) {
    // A mistake of the agent's own is no refusal; the agent's log has it.
    if problem.code == Code::Internal {
        return;
    }
    let (surface, tool) = name_of(method, path);
    let caller = agent.access.identify(headers, Standing::Served);
    let is_anothers = matches!(&caller, Err(problem) if problem.code == Code::NotClaimed);
    let request_id = if is_anothers { "" } else { request_id };
    let pending = Pending::new(&agent.audit, caller.ok(), surface, request_id, tool);
    match problem.code {
        _ if is_anothers => {}
        Code::UnknownRoute | Code::MethodNotAllowed => {
            pending.note(|touched| touched.detail(&format!("{method} {path}")));
        }
        // Of an origin it says which.
        Code::Forbidden => pending.note(|touched| touched.detail(&problem.detail)),
        _ => {}
    }
    pending.refuse(problem.code);
}

/// Records a call of a tool that there isn't.
pub(crate) fn unknown_tool(agent: &Agent, caller: &Arc<Caller>, surface: Surface, request_id: &str, name: &str) {
    let pending = Pending::new(&agent.audit, Some(Arc::clone(caller)), surface, request_id, OTHER);
    pending.note(|touched| touched.detail(name));
    pending.refuse(Code::UnknownRoute);
}

/// Records that a socket's caller was not given another token.
pub(crate) fn refused_refresh(agent: &Agent, caller: &Arc<Caller>, request_id: &str, code: Code) {
    Pending::new(&agent.audit, Some(Arc::clone(caller)), Surface::WebSocket, request_id, SOCKET).refuse(code);
}

fn name_of(method: &Method, path: &str) -> (Surface, &'static str) {
    let tool = || path.strip_prefix("/v1/tools/").and_then(calls::entry).map(|entry| entry.name);
    match (method.as_str(), path) {
        ("POST", "/mcp") => (Surface::Mcp, "POST /mcp"),
        ("GET", "/v1/ws") => (Surface::WebSocket, SOCKET),
        ("GET", "/metrics") => (Surface::Http, "GET /metrics"),
        ("POST", _) => (Surface::Http, tool().unwrap_or(OTHER)),
        _ => (Surface::Http, audited::name_of(method, path).unwrap_or(OTHER)),
    }
}
