//! `ports`: what listens inside.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Event, Scope, Tool};

/// Lists the TCP ports on which something listens, or streams what opens and closes.
pub struct Ports;

impl Tool for Ports {
    const NAME: &'static str = "ports";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Lists the TCP ports on which something listens inside, and whose they are; waits for one to open; streams what opens and closes.";
    const SCOPE: Scope = Scope::Read;
    type Request = PortsRequest;
    type Response = PortsResponse;
    type Event = PortsEvent;
}

/// Request of `ports`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct PortsRequest {
    /// Answer as soon as something listens on this port, instead of at once. A stream ends then. From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub wait_for: Option<u16>,
    /// Milliseconds after which a collected answer with `waitFor`, or a stream, ends; `opened` says whether the port did.
    /// Maximum 600,000. Default: 30,000 for a collected answer; a stream goes on until its caller leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 600_000))]
    pub timeout_ms: Option<u64>,
    /// Milliseconds between two looks at the kernel's tables, which have no events. Default 250; from 100 to 60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 60_000))]
    pub interval_ms: Option<u64>,
    /// Ports in one answer. Default 1,000, maximum 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub limit: Option<u32>,
    /// Where to go on: the `cursor` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Response of `ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct PortsResponse {
    /// What listens, by port and address, without the agent itself; empty in a streamed answer, whose events carried it.
    #[serde(default)]
    pub ports: Vec<ListeningPort>,
    /// With `waitFor`: whether something listens there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<bool>,
    /// Present when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A TCP socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ListeningPort {
    /// The address that it is bound to, such as `127.0.0.1`, `0.0.0.0` or `::`.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Whether only what runs inside reaches it. The agent's tunnel does.
    pub loopback: bool,
    /// A process that holds the socket, the one with the lowest id; absent where the agent can't see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The command that the process belongs to, as `commandList` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// What changes. What listens already comes first, as `opened`, then `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum PortsEvent {
    /// All that listened at the beginning was told; what comes now is new.
    Ready,
    /// Something listens. What opens and closes between two looks isn't seen.
    Opened(ListeningPort),
    /// It doesn't any more.
    Closed {
        /// The address that it was bound to.
        address: String,
        /// The port.
        port: u16,
    },
}

impl Event for PortsEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Opened(_) => "opened",
            Self::Closed { .. } => "closed",
        }
    }
}
