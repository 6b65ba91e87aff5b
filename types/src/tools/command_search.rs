//! `commandSearch`: lines of what a command has written, by a pattern.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    Data, Event, Scope, Tool,
    tools::{SearchCase, SearchColumns, SearchCut, SearchTruncation},
};

/// Searches a command's log.
///
/// A tool of its own rather than an option of `commandOutput`: what it answers are lines and not bytes, and a client of that tool
/// would have had to learn new events.
pub struct CommandSearch;

impl Tool for CommandSearch {
    const NAME: &'static str = "commandSearch";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Searches what a command has written for a regular expression or literal; says each line's stream and offset, and what the log has dropped.";
    const SCOPE: Scope = Scope::Command;
    const CHANGES: bool = false;
    type Request = CommandSearchRequest;
    type Response = CommandSearchResponse;
    type Event = CommandSearchEvent;
}

/// Request of `commandSearch`. What has the name of a field of `search` means the same. The log is searched as far as it is written
/// when the call begins. Standard output and standard error have lines of their own, however they come in between each other; NUL
/// bytes are text like any other.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandSearchRequest {
    /// The command.
    pub id: String,
    /// What to look for: a regular expression in the syntax of Rust's `regex`, or a literal.
    pub pattern: String,
    /// Where in the log to begin, such as `offset` of an answer. A line that begins before is seen from there on. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whether the pattern is taken literally. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub literal: Option<bool>,
    /// Whether letter case matters. Default `sensitive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<SearchCase>,
    /// Whether matches must be whole words. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<bool>,
    /// Whether matches must be whole lines. Default false. Wins over `word`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_line: Option<bool>,
    /// Whether `\r\n` is a line's end too, so that `$` matches before it, as a terminal writes them. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crlf: Option<bool>,
    /// Whether to report the lines that don't match. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
    /// Lines of the same stream before each match. Default 0, maximum 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub before: Option<u32>,
    /// Lines of the same stream after each match. Default 0, maximum 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub after: Option<u32>,
    /// What columns count. Default `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<SearchColumns>,
    /// Matching lines in the answer; the search stops there. Default 1,000; maximum: the agent's `searchMatches` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "searchMatches"))]
    pub max_matches: Option<u64>,
    /// Bytes of each line that are shown, around its first match. Default 1,024, maximum 32,768.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_768))]
    pub max_line_bytes: Option<u32>,
    /// Milliseconds after which the search stops with what it has. Default and maximum: the agent's `searchMs` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "searchMs"))]
    pub timeout_ms: Option<u64>,
}

/// Response of `commandSearch`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandSearchResponse {
    /// The command.
    pub id: String,
    /// Lines and gaps, in the order in which they were complete; empty in a streamed answer, whose events they were.
    #[serde(default)]
    pub found: Vec<CommandSearchEvent>,
    /// Lines that matched, as far as the search came.
    pub matched_lines: u64,
    /// Bytes of the log that were searched.
    pub searched_bytes: u64,
    /// Lines of more than 524,288 bytes: they are searched in pieces of so many, each as if it were a line, so a match over their
    /// border is not found.
    pub long_lines: u64,
    /// Where to go on with another call's `offset`: behind what is in this answer, before a line that hasn't ended yet. Where the two
    /// streams come in between each other, a line of the other one may then be seen again, or from there on only.
    pub offset: u64,
    /// Where the log ended when the search began.
    pub end: u64,
    /// Why there may be more than this answer says; empty when it is complete but for gaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<SearchTruncation>>")]
    pub truncated: Vec<SearchTruncation>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// What is found in a log, while it is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CommandSearchEvent {
    /// A line that matches.
    Match(CommandSearchLine),
    /// A line near one that matches. Each comes once, in its place among the matches of its stream.
    Context(CommandSearchLine),
    /// Bytes that the bounded log has dropped: whether anything in them matched can't be told. A line that they cut is searched in
    /// what is left of it.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The first that is there again.
        to: u64,
    },
}

/// What a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum OutputStream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a command's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CommandSearchLine {
    /// Where it was written to.
    pub stream: OutputStream,
    /// Where it begins in the log.
    pub offset: u64,
    /// Where it ends in the log, behind its line's end. What the other stream wrote meanwhile lies in between.
    pub end: u64,
    /// The line without its end; a piece of it where it is longer than `maxLineBytes`.
    #[serde(flatten)]
    #[ts(flatten)]
    pub data: Data,
    /// Each match from its first column to the one after its last, from 0, counted in the whole line; 1,000 at most. Empty when
    /// the line is reported for not matching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<[u64; 2]>>")]
    pub ranges: Vec<[u64; 2]>,
    /// Present when only a piece of the line is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<SearchCut>,
}

impl Event for CommandSearchEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Match(_) => "match",
            Self::Context(_) => "context",
            Self::Gap { .. } => "gap",
        }
    }
}
