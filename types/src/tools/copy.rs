//! `copy`: copies a file, a link or a whole directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool, WorkspacePath};

/// Copies a file or directory.
///
/// The copy is made beside its place and moved in at the end: it is there whole or not at all.
pub struct Copy;

impl Tool for Copy {
    const NAME: &'static str = "copy";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Copies a file, a symbolic link or, with recursive, a whole directory.";
    const SCOPE: Scope = Scope::Write;
    type Request = CopyRequest;
    type Response = CopyResponse;
    type Event = NoEvent;
}

/// Request of `copy`. Symbolic links are copied as links, never followed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CopyRequest {
    /// What is copied.
    pub from: WorkspacePath,
    /// The copy's path; never a directory to copy into. Parent directories are made.
    pub to: WorkspacePath,
    /// Needed to copy a directory. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Whether a file or link that is there is replaced. A directory never is. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
}

/// Response of `copy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct CopyResponse {
    /// Regular files that were copied.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Sockets, pipes and devices, which are left out.
    pub skipped: u64,
    /// Bytes of file content.
    pub bytes: u64,
}
