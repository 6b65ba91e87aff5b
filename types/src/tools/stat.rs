//! `stat`: what one or many paths are, without their content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Problem, Scope, Timestamp, Tool, WorkspacePath, tools::EntryKind};

/// Describes paths.
pub struct Stat;

impl Tool for Stat {
    const NAME: &'static str = "stat";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str =
        "Describes one or many paths: kind, size, mode, times, version, and on request a hash.";
    const SCOPE: Scope = Scope::Read;
    type Request = StatRequest;
    type Response = StatResponse;
    type Event = NoEvent;
}

/// Request of `stat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct StatRequest {
    /// The paths, answered in this order. At least one.
    #[schemars(length(min = 1), extend("x-limit" = "statPaths"))]
    pub paths: Vec<WorkspacePath>,
    /// Whether a symbolic link means what it leads to. Default false: the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Whether regular files are read and hashed. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<bool>,
}

/// Response of `stat`: one result a path, in the order asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct StatResponse {
    /// The results.
    pub entries: Vec<StatResult>,
}

/// What a path is, or why that can't be said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "status", rename_all = "camelCase")]
pub enum StatResult {
    /// It is this.
    Ok(StatEntry),
    /// It can't be said.
    Error {
        /// The path as it was asked for.
        #[schemars(with = "crate::PathAsAsked")]
        path: WorkspacePath,
        /// Why.
        problem: Problem,
    },
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct StatEntry {
    /// The path as it was asked for.
    pub path: WorkspacePath,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes of a regular file; 0 for anything else.
    pub size: u64,
    /// Permission bits, such as 0o644 (420).
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Names (hard links) that it has.
    pub links: u64,
    /// When its content changed last.
    pub modified: Timestamp,
    /// When its content or anything that `stat` tells changed last.
    pub changed: Timestamp,
    /// Version of a regular file; the same as the file route's `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// BLAKE3 of a regular file in hex, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Where a symbolic link points, as written in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<WorkspacePath>,
}
