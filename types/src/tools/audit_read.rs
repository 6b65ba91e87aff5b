//! `auditRead`: who did what, as the agent's bounded log has it, and as it happens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Code, Event, Scope, Timestamp, Tool, WorkspacePath};

/// Returns the records of calls, oldest first, or streams them as they are made.
pub struct AuditRead;

impl Tool for AuditRead {
    const NAME: &'static str = "auditRead";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str =
        "Returns or streams the records of who called what, on which paths, with what result.";
    const SCOPE: Scope = Scope::Admin;
    const CHANGES: bool = false;
    type Request = AuditReadRequest;
    type Response = AuditReadResponse;
    type Event = AuditEvent;
}

/// Request of `auditRead`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct AuditReadRequest {
    /// Only records after the one with this `seq`. Not together with `cursor`. Default: from the oldest that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only calls of this tool (`read`) or route (`PUT /v1/files`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Only calls by this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only calls that named this path or one under it, relative to the workspace root and compared as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Only calls that started this command or were about it, and its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Only calls that began at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Records in one collected answer. Default 100, maximum 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub limit: Option<u32>,
    /// Where to go on: the `cursor` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether a streamed answer goes on with what is recorded from now on, until its caller ends it or the agent ends.
    /// Default: true in a streamed answer; a collected one never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Response of `auditRead`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditReadResponse {
    /// The records, oldest first; empty in a streamed answer, whose events carried them.
    pub records: Vec<AuditRecord>,
    /// What is missing before the first of them, because the log is bounded; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<AuditGap>,
    /// Present when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The `seq` of the newest record there is, whether or not it was asked for; 0 when there is none.
    pub last: u64,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditRecord {
    /// Counts the records of one `bootId` from 1, in the order in which calls ended. Where a refusal took the place of one
    /// that is alike, a number is left out.
    pub seq: u64,
    /// When the call began.
    pub time: Timestamp,
    /// Who called; absent when nobody could tell, and where it was with another workspace's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Where the call came in.
    pub surface: AuditSurface,
    /// The request, as in its answer and the agent's log; empty where it was made with another workspace's token.
    pub request_id: String,
    /// The tool, or method and route: `PUT /v1/files`; `other` for what is none of these.
    pub tool: String,
    /// The paths that the call named, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<AuditPath>>")]
    pub paths: Vec<AuditPath>,
    /// Paths that were left out of `paths`, since a record is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_omitted: Option<u64>,
    /// What else there is to say in a line: of a command what runs, with what looks like a secret masked. Never content, input
    /// or values of variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The command that the call started or was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<AuditCommand>,
    /// What the call made or removed beyond the paths it named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<AuditChanged>,
    /// Bytes of content that came with the call: the body of a file or an archive, what `write` and `edit` brought, a command's input, what
    /// went through a tunnel to its port. Absent where none came, and where they aren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Bytes of content that went out: the body of a file or an archive, what `read` and `search` returned, what a command wrote, what came
    /// through a tunnel from its port. Absent where none went, and where they aren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// How long it took.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// What was wrong, when it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Whether the answer was that of an earlier call with the same `Idempotency-Key`.
    pub replayed: bool,
    /// How many refusals this record stands for: itself, and older ones that are alike (subject, surface, tool, code) and gave way
    /// to it. Absent where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// When the first of these began; absent where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A command in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditCommand {
    /// Its name.
    pub id: String,
    /// How it ended, where the call waited for that, and in the record of an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<AuditExit>,
}

/// How a command ended: what is worth keeping of `exit` in the answer of `command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditExit {
    /// The leader's exit code; absent when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended the leader, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether the wall time-out ended it.
    pub timed_out: bool,
    /// Whether the stall time-out ended it.
    pub stalled: bool,
}

/// What a call changed, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditChanged {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of their content; absent where they weren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A path that a call named, and what was and is there, where the call knew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AuditPath {
    /// As the caller wrote it; cut at 1,024 characters.
    #[schemars(with = "crate::PathAsAsked")]
    pub path: WorkspacePath,
    /// BLAKE3 of the content before, in hex, or the `version` where reading it would have cost too much; absent where there was
    /// no file, and where it wasn't looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The same of the content after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The ways into the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AuditSurface {
    /// HTTP.
    Http,
    /// The WebSocket.
    WebSocket,
    /// The Model Context Protocol.
    Mcp,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It was answered. (Single files of a `read` or `write` may have failed, and a command too.)
    Ok,
    /// It failed; `code` says why.
    Failed,
    /// It was turned away before anything was done: no valid token, no scope, no valid request. Refusals are kept apart, so
    /// that a flood of them drives out no record of a call.
    Refused,
    /// Its caller went away before it was answered. What it had done by then is done.
    CallerGone,
    /// This is no call: what an earlier one started and didn't wait for has ended, a command or a tunnel, or a change that went on
    /// when its caller went away. `time` and `durationMs` are its own, `requestId` is the call's.
    Ended,
}

/// Records that the bounded log has dropped. Some between `from` and `to` may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct AuditGap {
    /// The first `seq` that may be missing.
    pub from: u64,
    /// The last `seq` that is missing.
    pub to: u64,
    /// Whether all that is missing are refusals.
    pub refusals_only: bool,
}

/// What happens while the log is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AuditEvent {
    /// A call was recorded.
    Record {
        /// It.
        record: Box<AuditRecord>,
    },
    /// Records were dropped before this reader came to them.
    Gap {
        /// Which.
        gap: AuditGap,
    },
}

impl Event for AuditEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Record { .. } => "record",
            Self::Gap { .. } => "gap",
        }
    }

    fn offset_after(&self) -> Option<u64> {
        match self {
            Self::Record { record } => Some(record.seq),
            Self::Gap { .. } => None,
        }
    }
}
