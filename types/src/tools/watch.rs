//! `watch`: what changes in the workspace, while it changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Event, Scope, Tool, WorkspacePath};

/// Tells which files and directories come, go, change and get other names. What ignore files exclude isn't watched at all.
pub struct Watch;

impl Tool for Watch {
    const NAME: &'static str = "watch";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Streams which files and directories are created, modified, removed and renamed; without a stream, waits for the next changes.";
    const SCOPE: Scope = Scope::Read;
    type Request = WatchRequest;
    type Response = WatchResponse;
    type Event = WatchEvent;
}

/// Request of `watch`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct WatchRequest {
    /// The directory. Default: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Whether the directories beneath are watched too. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Only paths that these globs allow, as in `search`. Directories that they exclude aren't watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub globs: Vec<String>,
    /// Whether names that begin with a dot are told of. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// Whether `.gitignore`, `.ignore`, `.rgignore` and `.git/info/exclude` count, and `.git` itself is left out. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_files: Option<bool>,
    /// Milliseconds of quiet after which changes are told together, one for each file; four times as long at most. Default
    /// 50; from 10 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 10_000))]
    pub debounce_ms: Option<u64>,
    /// Milliseconds after which the answer comes though nothing has changed, or a stream ends. Maximum 600,000. Default: 30,000
    /// for a collected answer; a stream goes on until its caller leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 600_000))]
    pub timeout_ms: Option<u64>,
}

/// Response of `watch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct WatchResponse {
    /// The first changes, those that came together; empty when the time was over, and in a streamed answer.
    #[serde(default)]
    pub changes: Vec<WatchEvent>,
}

/// What has changed. Changes of one file within the quiet time are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WatchEvent {
    /// Everything is watched: what changes from now on is told. Comes first.
    Ready {
        /// Directories that are watched.
        directories: u64,
    },
    /// There is something of this name now. It may have taken the place of what had the name before.
    Created {
        /// Where.
        path: WorkspacePath,
        /// Whether it is a directory. What is in it is told too.
        directory: bool,
    },
    /// The file's content was written to.
    Modified {
        /// The file.
        path: WorkspacePath,
    },
    /// It is gone, with everything in it.
    Removed {
        /// Where it was.
        path: WorkspacePath,
        /// Whether it was a directory.
        directory: bool,
    },
    /// It has another name, and so has everything in it.
    Renamed {
        /// The name that it had.
        from: WorkspacePath,
        /// The name that it has.
        to: WorkspacePath,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Changes beneath this directory were not seen: list it again.
    Resync {
        /// The directory.
        path: WorkspacePath,
        /// Why.
        reason: ResyncReason,
    },
}

/// Why changes were not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ResyncReason {
    /// More changed than the kernel keeps for a reader, or than this caller read in time.
    Overflow,
    /// Directories were made and moved faster than they could be looked through.
    Moves,
    /// An ignore file changed, and with it what is watched.
    Rules,
    /// There is a limit of directories to watch, the agent's or the kernel's; some of this one are not.
    Limit,
}

impl Event for WatchEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Created { .. } => "created",
            Self::Modified { .. } => "modified",
            Self::Removed { .. } => "removed",
            Self::Renamed { .. } => "renamed",
            Self::Resync { .. } => "resync",
        }
    }
}
