//! `mkdir`: makes a directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool, WorkspacePath};

/// Makes a directory.
pub struct Mkdir;

impl Tool for Mkdir {
    const NAME: &'static str = "mkdir";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Makes a directory, and the directories above it.";
    const SCOPE: Scope = Scope::Write;
    type Request = MkdirRequest;
    type Response = MkdirResponse;
    type Event = NoEvent;
}

/// Request of `mkdir`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct MkdirRequest {
    /// The directory.
    pub path: WorkspacePath,
    /// Whether missing directories above it are made. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<bool>,
    /// Whether it is fine that the directory is there already. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exist_ok: Option<bool>,
    /// Permission bits of the directory itself, if it is made. Default: as the umask says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 0o777))]
    pub mode: Option<u32>,
}

/// Response of `mkdir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct MkdirResponse {
    /// Directories that were made; 0 when it was there.
    pub created: u64,
}
