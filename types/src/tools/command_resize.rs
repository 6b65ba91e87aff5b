//! `commandResize`: the size of a command's terminal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool};

/// Sets the size of a command's terminal; its foreground processes get SIGWINCH.
pub struct CommandResize;

impl Tool for CommandResize {
    const NAME: &'static str = "commandResize";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Sets the size of the terminal that a command runs in.";
    const SCOPE: Scope = Scope::Command;
    type Request = CommandResizeRequest;
    type Response = CommandResizeResponse;
    type Event = NoEvent;
}

/// Request of `commandResize`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandResizeRequest {
    /// The command.
    pub id: String,
    /// Characters in a line, 1 to 4,096.
    #[schemars(range(min = 1, max = 4_096))]
    pub columns: u16,
    /// Lines, 1 to 4,096.
    #[schemars(range(min = 1, max = 4_096))]
    pub rows: u16,
}

/// Response of `commandResize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct CommandResizeResponse {}
