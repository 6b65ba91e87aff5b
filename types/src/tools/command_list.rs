//! `commandList`: the commands that the agent knows, running and finished.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Timestamp, Tool, tools::CommandExit};

/// Lists commands, newest first.
pub struct CommandList;

impl Tool for CommandList {
    const NAME: &'static str = "commandList";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Lists the commands that run or have run, newest first.";
    const SCOPE: Scope = Scope::Command;
    const CHANGES: bool = false;
    type Request = CommandListRequest;
    type Response = CommandListResponse;
    type Event = NoEvent;
}

/// Request of `commandList`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandListRequest {
    /// Only those with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Commands in one answer. Default 100, maximum 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub limit: Option<u32>,
    /// Where to go on: the `cursor` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Response of `commandList`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandListResponse {
    /// The commands, newest first.
    pub commands: Vec<CommandInfo>,
    /// Present when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A command that runs or has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandInfo {
    /// Names it.
    pub id: String,
    /// The label that its caller gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What runs, as the shell line or the arguments joined by spaces; cut at 1,024 characters.
    pub line: String,
    /// The leader's process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<CommandExit>,
    /// Where its log begins: bytes before it were dropped.
    pub first_offset: u64,
    /// Where its log ends.
    pub offset: u64,
}
