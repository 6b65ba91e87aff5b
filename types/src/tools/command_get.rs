//! `commandGet`: one command as it is now.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{CommandInfo, PtySize};
use crate::{NoEvent, Scope, Tool};

/// Looks at one command.
pub struct CommandGet;

impl Tool for CommandGet {
    const NAME: &'static str = "commandGet";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Returns one command: what it is, whether it runs, its terminal and its processes.";
    const SCOPE: Scope = Scope::Command;
    const CHANGES: bool = false;
    type Request = CommandGetRequest;
    type Response = CommandGetResponse;
    type Event = NoEvent;
}

/// Request of `commandGet`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandGetRequest {
    /// The command.
    pub id: String,
}

/// Response of `commandGet`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandGetResponse {
    /// As `commandList` shows it.
    pub command: CommandInfo,
    /// Whether `commandInput` can write to it.
    pub takes_input: bool,
    /// The size of its terminal; absent without one, and after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<PtySize>,
    /// Its processes that live, survivors of its leader included.
    pub processes: u32,
    /// Bytes that it has written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes that it has written to standard error, kept or not.
    pub stderr_bytes: u64,
}
