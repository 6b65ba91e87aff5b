//! `info`: what this agent is and can do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Standing, Timestamp, Tool, WorkspacePath};

/// Versions, tools, limits and guards of the agent.
pub struct Info;

impl Tool for Info {
    const NAME: &'static str = "info";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Says what this agent is: versions, tools, limits, workspace root and active guards.";
    const SCOPE: Scope = Scope::Read;
    const STANDING: Standing = Standing::Unclaimed;
    type Request = InfoRequest;
    type Response = InfoResponse;
    type Event = NoEvent;
}

/// Request of `info`: nothing to say.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(deny_unknown_fields)]
#[ts(type = "Record<string, never>")]
pub struct InfoRequest {}

/// Response of `info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct InfoResponse {
    /// Version of the agent's binary.
    pub version: String,
    /// Version of the contract.
    pub protocol: u32,
    /// New at every start of the agent. What was promised under another one (idempotency keys, command ids) is void.
    pub boot_id: String,
    /// The agent's name in tokens.
    pub instance: String,
    /// The workspace it serves; absent while nobody has claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Since when it serves it: when it was claimed, or started with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Timestamp>,
    /// Absolute path of the workspace root inside the container.
    pub root: WorkspacePath,
    /// The tools it has.
    pub tools: Vec<ToolInfo>,
    /// Its limits.
    pub limits: Vec<LimitInfo>,
    /// Additions since version 0.1 that a client may rely on.
    pub features: Vec<String>,
    /// The guards that are active, such as `openat2`, `seccomp-prlimit`, `landlock-signal`.
    pub guards: Vec<String>,
}

/// A tool, for those who choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct ToolInfo {
    /// The word on the wire.
    pub name: String,
    /// Minor version that had it first.
    pub since: String,
    /// What it does.
    pub summary: String,
    /// What a token must allow.
    pub scope: Scope,
}

/// A limit in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct LimitInfo {
    /// Its name, in camelCase.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What it counts: `bytes`, `entries`, `ms`, `processes`.
    pub unit: String,
    /// The environment variable of the agent that sets it.
    pub variable: String,
}
