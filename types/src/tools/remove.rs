//! `remove`: removes a file, a link or a directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool, WorkspacePath};

/// Removes a file or directory.
pub struct Remove;

impl Tool for Remove {
    const NAME: &'static str = "remove";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Removes a file, a symbolic link or, with recursive, a whole directory.";
    const SCOPE: Scope = Scope::Write;
    type Request = RemoveRequest;
    type Response = RemoveResponse;
    type Event = NoEvent;
}

/// Request of `remove`. A symbolic link is removed itself, never what it leads to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct RemoveRequest {
    /// What is removed. Not the workspace root.
    pub path: WorkspacePath,
    /// Needed to remove a directory that isn't empty. It vanishes at once; its content is deleted after that. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Whether it is fine that there is nothing. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_ok: Option<bool>,
    /// The `version` or the `hash` that a regular file must have, else it stays (`VERSION_MISMATCH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// Response of `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct RemoveResponse {
    /// Files, links and directories that were removed; 0 when there was nothing.
    pub removed: u64,
}
