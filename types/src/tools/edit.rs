//! `edit`: a transaction over files. All of it happens or nothing does, also when the disk fills or the agent is killed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Content, NoEvent, Scope, Tool, WorkspacePath};

/// Edits files.
pub struct Edit;

impl Tool for Edit {
    const NAME: &'static str = "edit";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Edits, creates, deletes and renames files as one transaction, and returns diffs.";
    const SCOPE: Scope = Scope::Write;
    type Request = EditRequest;
    type Response = EditResponse;
    type Event = NoEvent;
}

/// Request of `edit`.
///
/// Every entry speaks of the files as they are before the transaction, so the order of entries doesn't matter: two
/// entries may swap two files. The operations of one entry apply one after the other. A file may be named by one entry
/// only, and at the end every name may be taken by one file only.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct EditRequest {
    /// The files and what happens to them. At least one.
    #[schemars(length(min = 1), extend("x-limit" = "editFiles"))]
    pub files: Vec<FileEdit>,
    /// Answers what would happen and touches nothing. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Whether the answer waits until everything is on the disk (fsync), so that it survives a loss of power too. Default
    /// false: it survives the death of the agent, not of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
    /// Lines of context in the diffs that come back. Default 3, maximum 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub context_lines: Option<u32>,
    /// Bytes of diff in the answer, all files together; 0 for none. Default and maximum: the agent's `editDiffBytes` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-limit" = "editDiffBytes"))]
    pub max_diff_bytes: Option<u64>,
}

/// One file and what happens to it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct FileEdit {
    /// The file. A symbolic link means what it leads to, except where the entry deletes or renames: then the link itself.
    pub path: WorkspacePath,
    /// The `version` or the `hash` that the file must have, else nothing happens (`VERSION_MISMATCH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What happens, in this order. At least one.
    #[schemars(length(min = 1))]
    pub operations: Vec<EditOperation>,
}

/// One change of one file.
///
/// Unless said otherwise, a line ending in what the caller gives stands for the file's own: `\n` and `\r\n` in `old` match
/// either one, and what is inserted gets the ending of the lines around it. Bytes that aren't named stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub enum EditOperation {
    /// Replaces text that occurs exactly once, unless `all` or `count` says otherwise.
    Replace {
        /// What is there. Not empty.
        #[schemars(extend("minLength" = 1))]
        old: Content,
        /// What takes its place.
        new: Content,
        /// Replaces every occurrence; at least one is needed. Not together with `count`. Default false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        all: Option<bool>,
        /// Replaces every occurrence, and there must be exactly this many. Default 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        count: Option<u64>,
        /// Takes `old` and `new` byte for byte, line endings included. The only way to change a file that isn't UTF-8, and
        /// to change line endings. Default false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exact: Option<bool>,
    },
    /// Replaces the lines from `start` to `end`, both included, counted from 1.
    Lines {
        /// The first line to go.
        #[schemars(range(min = 1))]
        start: u64,
        /// The last line to go; it must exist. Default: `start`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        end: Option<u64>,
        /// The lines that come instead; a line ending after the last one makes no difference. Empty: none.
        text: String,
    },
    /// Inserts lines before a line.
    Insert {
        /// Becomes the number of the first new line: 1 puts them at the beginning, one more than the file has at the end.
        #[schemars(range(min = 1))]
        line: u64,
        /// The lines; a line ending after the last one makes no difference.
        text: String,
    },
    /// Applies a unified diff of this file, as `patch` would. File names in it are not looked at.
    Diff {
        /// The diff: headers if you like, then hunks.
        diff: String,
        /// Lines of context at the edges of a hunk that may differ. Default 0, maximum 10 (`patch` takes 2).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 10))]
        fuzz: Option<u32>,
    },
    /// Makes the file, with its parent directories. Only as the first operation, and not together with `rename`.
    Create {
        /// All of its content, taken byte for byte.
        content: Content,
        /// Whether a file that exists is replaced; it keeps its mode and owner. Default false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overwrite: Option<bool>,
        /// Permission bits, such as 493 (0o755). Default: as the umask says; a file that exists keeps its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 0o777))]
        mode: Option<u32>,
    },
    /// Deletes the file. Only as the only operation.
    Delete {},
    /// Renames the file; the operations after this one go on with it. Parent directories are made.
    Rename {
        /// The new path.
        to: WorkspacePath,
        /// Whether a file that is there is replaced. Default false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overwrite: Option<bool>,
    },
}

/// Response of `edit`: one result an entry, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct EditResponse {
    /// The results.
    pub files: Vec<EditedFile>,
    /// Whether nothing was touched because the caller asked for that.
    pub dry_run: bool,
}

/// What happened to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct EditedFile {
    /// The path as it was asked for.
    pub path: WorkspacePath,
    /// Where the file is now, if it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<WorkspacePath>,
    /// What happened.
    pub change: FileChange,
    /// The new version. Absent after a deletion and in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// BLAKE3 of the old content in hex. Absent where there was none, and where it wasn't read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    /// BLAKE3 of the new content in hex. Absent after a deletion, and after a rename that changes no content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The new size in bytes; 0 after a deletion.
    pub size: u64,
    /// Lines that are new or different.
    pub lines_added: u64,
    /// Lines that are gone or different.
    pub lines_removed: u64,
    /// A unified diff from the old content to the new. Absent where nothing changed, where either isn't UTF-8, and where
    /// none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Whether the diff was cut after a whole hunk because of `maxDiffBytes`.
    pub diff_truncated: bool,
    /// Where hunks of a given diff were applied, of those that weren't where they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<_>")]
    pub displaced_hunks: Vec<DisplacedHunk>,
    /// Other names (hard links) of the file, which keep the old content. Absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_names: Option<u64>,
}

/// What happened to a file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FileChange {
    /// It is new.
    Created,
    /// Its content changed.
    Modified,
    /// It has another name, and maybe another content.
    Renamed,
    /// It is gone.
    Deleted,
    /// The operations came to nothing: the file was not touched.
    Unchanged,
}

/// A hunk that was applied elsewhere than it said, or with less context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct DisplacedHunk {
    /// Its number in the diff, from 1.
    pub hunk: u64,
    /// The line where it was applied, in the file as it was before the diff.
    pub line: u64,
    /// How many lines further down than it said; negative: up.
    pub offset: i64,
    /// Lines of context at either edge that were not compared.
    pub fuzz: u32,
}
