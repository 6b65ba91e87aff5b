//! `commandInput`: what a running command reads next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Data, NoEvent, Scope, Tool};

/// Writes to a command that was started with `interactive` or `pty`. Nothing is dropped: where the command doesn't read, the
/// call waits. Calls are served in the order in which they came.
pub struct CommandInput;

impl Tool for CommandInput {
    const NAME: &'static str = "commandInput";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Writes to the standard input or terminal of a running command, or ends it.";
    const SCOPE: Scope = Scope::Command;
    type Request = CommandInputRequest;
    type Response = CommandInputResponse;
    type Event = NoEvent;
}

/// Request of `commandInput`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandInputRequest {
    /// The command.
    pub id: String,
    /// The bytes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Whether the input ends after them. A pipe is closed; a terminal gets its end-of-input character (Ctrl-D), which
    /// programs that read lines take as the end at the beginning of a line. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<bool>,
    /// Milliseconds to wait for a command that doesn't read. Default and most: the agent's `commandInputMs` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-limit" = "commandInputMs"))]
    pub timeout_ms: Option<u64>,
}

/// Response of `commandInput`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct CommandInputResponse {
    /// Bytes of `data` that were taken. Fewer than there were when the time was over first: send the rest again.
    pub accepted: u64,
    /// Whether all was done that was asked for, the end included.
    pub complete: bool,
}
