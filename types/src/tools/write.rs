//! `write`: one or many files with new content, each written whole or not at all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Content, NoEvent, Problem, Scope, Tool, WorkspacePath};

/// Writes files.
pub struct Write;

impl Tool for Write {
    const NAME: &'static str = "write";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Writes one or many files, each atomically, with the parent directories they need.";
    const SCOPE: Scope = Scope::Write;
    type Request = WriteRequest;
    type Response = WriteResponse;
    type Event = NoEvent;
}

/// Request of `write`. For all files or none, `edit` has `create`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct WriteRequest {
    /// The files, written and answered in this order. At least one.
    #[schemars(length(min = 1), extend("x-limit" = "writeFiles"))]
    pub files: Vec<WriteTarget>,
    /// Whether the answer waits until everything is on the disk (fsync). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
}

/// One file to write.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct WriteTarget {
    /// The file. A symbolic link means what it leads to.
    pub path: WorkspacePath,
    /// All of its content, taken byte for byte.
    pub content: Content,
    /// The `version` or the `hash` that the file must have, else it stays as it is (`VERSION_MISMATCH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Whether a file that exists is replaced. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// Permission bits, such as 493 (0o755). Default: as the umask says; a file that exists keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 0o777))]
    pub mode: Option<u32>,
}

/// Response of `write`: one result a file, in the order asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct WriteResponse {
    /// The results.
    pub files: Vec<WriteResult>,
}

/// A file that was written, or why it was not. One that fails does not fail the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "status", rename_all = "camelCase")]
pub enum WriteResult {
    /// It was written.
    Ok(WrittenFile),
    /// It was not.
    Error {
        /// The path as it was asked for.
        #[schemars(with = "crate::PathAsAsked")]
        path: WorkspacePath,
        /// Why.
        problem: Problem,
    },
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct WrittenFile {
    /// The path as it was asked for.
    pub path: WorkspacePath,
    /// Its new version.
    pub version: String,
    /// BLAKE3 of its content before in hex. Absent where there was none, and where it wasn't read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    /// BLAKE3 of its content in hex.
    pub hash: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the file is new.
    pub created: bool,
    /// Other names (hard links) of the file, which keep the old content. Absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_names: Option<u64>,
}
