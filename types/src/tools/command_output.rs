//! `commandOutput`: what a command has written, from any offset, and what it writes from now on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    Scope, Tool,
    tools::{CommandEvent, CommandResponse},
};

/// Replays a command's log from an offset, then follows it until the command ends.
pub struct CommandOutput;

impl Tool for CommandOutput {
    const NAME: &'static str = "commandOutput";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Replays what a command wrote from any offset, then follows it until it ends.";
    const SCOPE: Scope = Scope::Command;
    const CHANGES: bool = false;
    type Request = CommandOutputRequest;
    type Response = CommandResponse;
    type Event = CommandEvent;
}

/// Request of `commandOutput`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandOutputRequest {
    /// The command.
    pub id: String,
    /// Where to begin: the `id` of the last server-sent event, or the end of the last data. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whether to wait for more until the command ends. Default: true in a streamed answer, false in a collected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Bytes of each stream that a collected answer holds, half from its head and half from its tail. Default 65,536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-limit" = "commandCollectedBytes"))]
    pub max_output_bytes: Option<u64>,
}
