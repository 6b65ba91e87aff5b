//! `extract`: an archive that lies in the container becomes files of the workspace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Event, Scope, Tool, WorkspacePath, patterns::HASH};

/// Extracts an archive.
///
/// All or nothing for what is refused: entries are staged beside the destination and moved in at the end, so a damaged
/// or hostile archive leaves nothing behind. Files that exist are replaced, directories are merged.
pub struct Extract;

impl Tool for Extract {
    const NAME: &'static str = "extract";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str =
        "Extracts a tar, tar.gz or tar.zst that lies inside the container into the workspace.";
    const SCOPE: Scope = Scope::Write;
    type Request = ExtractRequest;
    type Response = ExtractResponse;
    type Event = ExtractEvent;
}

/// Request of `extract`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ExtractRequest {
    /// The archive: a name in the agent's inbox (where the host lays archives), or a path of the workspace.
    pub archive: ArchiveSource,
    /// Directory to extract into; it is made if missing. Default: the workspace root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<WorkspacePath>,
    /// BLAKE3, in hex, that the archive's bytes must have. Checked before anything is moved in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = HASH))]
    pub expected_hash: Option<String>,
    /// Whether the archive is deleted afterwards, also when extracting failed. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<bool>,
}

/// Where an archive lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum ArchiveSource {
    /// A file name in the agent's inbox.
    Inbox(#[schemars(regex(pattern = r"^[^/\x00]+$"))] String),
    /// A path of the workspace.
    Path(WorkspacePath),
}

/// What came out of an archive. Also the answer of `PUT /v1/archive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct ExtractResponse {
    /// Regular files, hard links included.
    pub files: u64,
    /// Directories that the archive names.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// Progress of `extract`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ExtractEvent {
    /// How far it is; a few a second at most.
    Progress {
        /// Entries extracted so far.
        entries: u64,
        /// Bytes of content extracted so far.
        bytes: u64,
    },
}

impl Event for ExtractEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Progress { .. } => "progress",
        }
    }
}
