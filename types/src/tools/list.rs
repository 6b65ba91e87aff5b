//! `list`: the entries of a directory, to any depth, page by page.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Timestamp, Tool, WorkspacePath};

/// Lists directories.
pub struct List;

impl Tool for List {
    const NAME: &'static str = "list";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Lists the entries of a directory to a depth, in a stable order, page by page.";
    const SCOPE: Scope = Scope::Read;
    type Request = ListRequest;
    type Response = ListResponse;
    type Event = NoEvent;
}

/// Request of `list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ListRequest {
    /// The directory. Default: the workspace root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// How deep: 1 is the directory's own entries. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub depth: Option<u32>,
    /// Entries in one answer. Default 1,000; maximum: the agent's `listEntries` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "listEntries"))]
    pub limit: Option<u32>,
    /// Where to go on: the `cursor` of the answer before. Entries made or removed in between may be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Response of `list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ListResponse {
    /// The entries, each directory's in byte order of their names, a directory before what is in it.
    pub entries: Vec<ListEntry>,
    /// Present when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ListEntry {
    /// Path relative to the workspace root.
    pub path: WorkspacePath,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes of a regular file; 0 for anything else.
    pub size: u64,
    /// When its content changed last.
    pub modified: Timestamp,
    /// Permission bits, such as 0o644 (420).
    pub mode: u32,
    /// Where a symbolic link points, as written in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<WorkspacePath>,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is not followed.
    Symlink,
    /// A socket, pipe or device.
    Special,
}
