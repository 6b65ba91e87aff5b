//! `activity`: what keeps the workspace awake, and since when.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Timestamp, Tool};

/// Says what keeps the workspace awake.
pub struct Activity;

impl Tool for Activity {
    const NAME: &'static str = "activity";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Says what keeps the workspace awake and since when, or since when it has been idle.";
    const SCOPE: Scope = Scope::Read;
    type Request = ActivityRequest;
    type Response = ActivityResponse;
    type Event = NoEvent;
}

/// Request of `activity`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivityRequest {}

/// Response of `activity`. Asking `info`, `activity`, `auditRead`, `/health`, `/metrics` and the documents is no activity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ActivityResponse {
    /// What keeps it awake, at most one of each source. Empty when nothing does.
    pub sources: Vec<ActiveSource>,
    /// Since when nothing has; absent while something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// When the last request came that counts; absent when none has since the agent started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<Timestamp>,
    /// When each source last kept it awake, of those that have and don't now; at most one of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<EndedSource>>")]
    pub ended: Vec<EndedSource>,
    /// The agent's own clock, to compare with.
    pub now: Timestamp,
}

/// Something that keeps the workspace awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ActiveSource {
    /// What kind of thing.
    pub source: ActivitySource,
    /// How many there are.
    pub count: u64,
    /// Since when the oldest of them has lasted.
    pub since: Timestamp,
    /// The same in words, with the names of some of them: `2 commands run: npm run dev, cargo test`.
    pub reason: String,
    /// How many of the commands bear which label, for whoever doesn't count some of them (a dev server runs always). Labels
    /// beyond the 64 first in their order are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[ts(as = "Option<BTreeMap<String, u64>>")]
    pub labels: BTreeMap<String, u64>,
}

/// Something that kept the workspace awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct EndedSource {
    /// What kind of thing.
    pub source: ActivitySource,
    /// When the last of them ended.
    pub at: Timestamp,
}

/// What can keep a workspace awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ActivitySource {
    /// A call of a tool that isn't answered yet.
    Call,
    /// A file or archive that is sent or received.
    Transfer,
    /// A command that runs, detached ones included.
    Command,
    /// A command that runs on a terminal.
    Terminal,
    /// A subscription to changes of files or ports.
    Watch,
    /// An open connection of `/v1/tunnel`.
    Tunnel,
    /// An open WebSocket on which something was asked.
    Socket,
}
