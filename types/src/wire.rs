//! Bodies of the routes that are not tools, and the frame around the events of a streamed answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::Problem;

/// Answer of `GET /health`, the only route without authorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// What the agent is doing.
    pub status: HealthStatus,
    /// Version of the agent's binary.
    pub version: String,
    /// Version of the contract it speaks.
    pub protocol: u32,
    /// Milliseconds since the agent started.
    pub uptime_ms: u64,
}

/// What an agent that answers is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum HealthStatus {
    /// It serves requests.
    Ok,
    /// It was told to end and finishes what runs.
    ShuttingDown,
}

/// The last frame of a streamed answer. A stream without one was cut off.
///
/// Frames before it are the tool's events; all are JSON objects told apart by `type`. In server-sent events, `event:`
/// repeats the `type` and `id:` is the offset after the event, where the tool has offsets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum StreamEnd<R> {
    /// The tool has done its work. Fields of the response that the events already carried are empty in it.
    End {
        /// The tool's response.
        response: R,
    },
    /// The tool failed after the stream had begun.
    Error {
        /// Why.
        problem: Problem,
    },
}

/// Answer of `PUT /v1/files/{path}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct FileWritten {
    /// The file's new version, also sent as `ETag`.
    pub version: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the file is new.
    pub created: bool,
}
