//! `move`: gives a file, a link or a directory another path. (The module's underscore: `move` is a word of Rust.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool, WorkspacePath};

/// Moves a file or directory.
pub struct Move;

impl Tool for Move {
    const NAME: &'static str = "move";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Moves or renames a file, a symbolic link or a whole directory.";
    const SCOPE: Scope = Scope::Write;
    type Request = MoveRequest;
    type Response = MoveResponse;
    type Event = NoEvent;
}

/// Request of `move`. Links are not followed at the end of a path: the link itself moves, or is replaced.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct MoveRequest {
    /// What moves. Not the workspace root.
    pub from: WorkspacePath,
    /// Its new path; never a directory to move into. Parent directories are made.
    pub to: WorkspacePath,
    /// Whether a file, link or empty directory that is there is replaced, by the same kind only. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
}

/// Response of `move`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct MoveResponse {
    /// Whether something was replaced.
    pub replaced: bool,
}
