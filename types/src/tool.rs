//! The tool seam: what makes an operation a tool, and the one list of all tools.

use std::io;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use ts_rs::TS;

use crate::{Data, Scope, rpc::FrameKind};

/// One operation of the agent, as both sides of the wire see it.
///
/// The agent has one handler for each; the host calls it generically. Routes, methods, MCP tools, OpenAPI and TypeScript
/// all come from [`for_each_tool!`](crate::for_each_tool), so a tool exists on every surface or on none.
pub trait Tool: Send + Sync + 'static {
    /// The word on the wire: `POST /v1/tools/{NAME}`, JSON-RPC method, MCP tool.
    const NAME: &'static str;
    /// Minor version of the agent (0.x) that had it first; a client can tell what an older agent lacks.
    const SINCE: &'static str;
    /// One sentence for people and models who choose among tools.
    const SUMMARY: &'static str;
    /// What a token must allow.
    const SCOPE: Scope;
    /// Whether a call may change something. Changes take an `Idempotency-Key`; the others may be repeated at will.
    const CHANGES: bool = !matches!(Self::SCOPE, Scope::Read);
    /// Which agents answer it.
    const STANDING: Standing = Standing::Served;
    /// What goes in. Unknown fields are refused.
    type Request: Serialize + DeserializeOwned + JsonSchema + TS + Send + Sync + 'static;
    /// What comes out. Unknown fields must be ignored.
    type Response: Serialize + DeserializeOwned + JsonSchema + TS + Send + Sync + 'static;
    /// What comes out while it runs; [`NoEvent`] for a tool that only answers.
    type Event: Event;

    /// About how many bytes a response's JSON has, if it is known without writing it: for the memory that it is written into.
    fn json_bytes(_response: &Self::Response) -> usize {
        0
    }

    /// Writes a response as the JSON that serde would write. A response that carries much text does better than serde.
    ///
    /// # Errors
    /// It has something that JSON can't say, or the writer's.
    fn write_json(response: &Self::Response, out: &mut impl io::Write) -> serde_json::Result<()> {
        serde_json::to_writer(out, response)
    }
}

/// Which agents answer a tool, as seen by the workspace that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Those that serve the workspace.
    Served,
    /// These, and those that serve none yet.
    Unclaimed,
    /// All: the tool decides.
    Any,
}

/// An event of a streamed answer: a JSON object with a `type` other than `end` and `error`.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + TS + Send + Sync + 'static {
    /// The event's `type`, the same word as in its JSON.
    fn kind(&self) -> &'static str;

    /// Where a reader stands after this event, if the tool's stream can be resumed from there: the SSE `id`.
    fn offset_after(&self) -> Option<u64> {
        None
    }

    /// Appends the event as JSON. One that carries much text does better than serde.
    ///
    /// # Errors
    /// It has something that JSON can't say.
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(out, self)
    }

    /// The bytes that the event carries, if it carries any: a WebSocket sends them as a binary frame and not the event.
    ///
    /// # Errors
    /// The event itself, if it carries none.
    fn into_bytes(self) -> Result<EventBytes, Self>
    where
        Self: Sized,
    {
        Err(self)
    }
}

/// Bytes of an event, and where they stand in their stream.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBytes {
    /// What they are.
    pub kind: FrameKind,
    /// Where they begin.
    pub offset: u64,
    /// The bytes.
    pub data: Data,
}

/// The event of a tool that has none: there is no value of it.
#[derive(Debug, Clone, Copy, Serialize, serde::Deserialize, JsonSchema, TS)]
#[ts(type = "never")]
pub enum NoEvent {}

impl Event for NoEvent {
    fn kind(&self) -> &'static str {
        match *self {}
    }
}

/// The one list of all tools: calls the macro it is given with their types, each a path in [`crate::tools`].
///
/// ```
/// macro_rules! names { ($($tool:ident),*) => { [$(<corehold_types::tools::$tool as corehold_types::Tool>::NAME),*] } }
/// assert!(corehold_types::for_each_tool!(names).contains(&"read"));
/// ```
#[macro_export]
macro_rules! for_each_tool {
    ($callback:ident) => {
        $callback!(
            Info,
            Claim,
            Read,
            List,
            Search,
            Find,
            Extract,
            Command,
            CommandOutput,
            CommandSearch,
            CommandSignal,
            CommandList,
            CommandGet,
            CommandInput,
            CommandResize,
            Stat,
            Edit,
            Write,
            Mkdir,
            Move,
            Copy,
            Remove,
            Activity,
            AuditRead,
            Ports,
            Watch
        )
    };
}
