//! `find`: files and directories by glob or by a fuzzy query, ranked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    NoEvent, Scope, Tool, WorkspacePath,
    tools::{EntryKind, SearchTrouble},
};

/// Finds files by their paths.
pub struct Find;

impl Tool for Find {
    const NAME: &'static str = "find";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str =
        "Finds files by glob or by a fuzzy query over their paths, best first, with the ignore rules of search.";
    const SCOPE: Scope = Scope::Read;
    type Request = FindRequest;
    type Response = FindResponse;
    type Event = NoEvent;
}

/// Request of `find`. Without `query`, everything that `globs` and the ignore rules allow, in the order of paths.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct FindRequest {
    /// Letters that occur in the path in this order, as in fzf: words separated by spaces must all match; `'word` matches
    /// literally, `^word` at the beginning, `word$` at the end, `!word` excludes. Case matters if there is an upper-case
    /// letter in a word. Best matches come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_024))]
    pub query: Option<String>,
    /// Only paths that these globs allow, as in `search`: `*.rs`, `src/**`, `!*.test.ts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub globs: Vec<String>,
    /// Only files of these types, as in `search`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub types: Vec<String>,
    /// Where to look. Default: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// What to find. Default `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FindKind>,
    /// Whether names that begin with a dot are found. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// Whether ignore files count, as in `search`. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_files: Option<bool>,
    /// Whether git's ignore files count only inside a git repository, as in `search`. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_git: Option<bool>,
    /// Whether symbolic links are followed, as far as they stay in the workspace. Default false: they are found as links
    /// are, among files, and not entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// How deep to descend: 1 is the directory's own entries. Default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    /// Whether to say which characters of each path the query matched. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<bool>,
    /// Entries in one answer. Default 100; maximum: the agent's `listEntries` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "listEntries"))]
    pub limit: Option<u32>,
    /// Where to go on: the `cursor` of the answer before, with the same request. Its place is that of the last entry in
    /// the order, so entries made or removed in between shift nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Milliseconds after which the walk stops with what it has. Default and maximum: the agent's `searchMs` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "searchMs"))]
    pub timeout_ms: Option<u64>,
}

/// What to find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum FindKind {
    /// Everything but directories.
    #[default]
    Files,
    /// Directories.
    Directories,
    /// Both.
    Any,
}

/// Response of `find`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct FindResponse {
    /// What was found: by falling score, then shorter paths, then in the byte order of paths.
    pub entries: Vec<FoundEntry>,
    /// How many match, on all pages.
    pub total: u64,
    /// Paths that were looked at.
    pub considered: u64,
    /// Whether `timeoutMs` was over before everything had been looked at.
    pub timed_out: bool,
    /// What could not be read or understood on the way: the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<SearchTrouble>>")]
    pub troubles: Vec<SearchTrouble>,
    /// Present when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// A file or directory that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct FoundEntry {
    /// Path relative to the workspace root.
    pub path: WorkspacePath,
    /// What it is.
    pub kind: EntryKind,
    /// How well it matches; only comparable within one query. Absent without a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
    /// Which characters of the path match, from 0, in Unicode scalar values; present when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Vec<u32>>,
}
