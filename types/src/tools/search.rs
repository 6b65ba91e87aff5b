//! `search`: a regular expression or literal over the tree, with ripgrep's rules and answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Data, Event, Scope, Tool, WorkspacePath, escape::escape_into};

/// Searches file contents.
pub struct Search;

impl Tool for Search {
    const NAME: &'static str = "search";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Searches file contents for a regular expression or literal, with ripgrep's rules; says what it searched, skipped and cut.";
    const SCOPE: Scope = Scope::Read;
    type Request = SearchRequest;
    type Response = SearchResponse;
    type Event = SearchEvent;
}

/// Request of `search`. Defaults are those of `rg`, save for the caps and for `requireGit`; each field names its flag.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct SearchRequest {
    /// What to look for: a regular expression in the syntax of Rust's `regex`, or a literal.
    pub pattern: String,
    /// Whether the pattern is taken literally (`-F`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub literal: Option<bool>,
    /// Files and directories to search. A file named here is searched whatever the ignore rules say. Default: the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<WorkspacePath>>")]
    #[schemars(length(max = 1_000))]
    pub paths: Vec<WorkspacePath>,
    /// Whether letter case matters. Default `sensitive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<SearchCase>,
    /// Whether matches must be whole words (`-w`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<bool>,
    /// Whether matches must be whole lines (`-x`). Default false. Wins over `word`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_line: Option<bool>,
    /// Whether a match may span lines (`-U`). Each file is then read as a whole. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<bool>,
    /// With `multiline`, whether `.` matches a line's end too (`--multiline-dotall`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dot_all: Option<bool>,
    /// Whether `\r\n` is a line's end too, so that `$` matches before it (`--crlf`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crlf: Option<bool>,
    /// Whether to report the lines that don't match (`-v`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
    /// Lines of context before each match (`-B`). Default 0, maximum 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000))]
    pub before: Option<u32>,
    /// Lines of context after each match (`-A`). Default 0, maximum 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000))]
    pub after: Option<u32>,
    /// Only paths that these globs allow, in the syntax of a line of `.gitignore`: one that begins with `!` excludes, any
    /// other includes; the last that matches decides; they win over ignore files (`-g`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub globs: Vec<String>,
    /// Only files of these types, by ripgrep's names: `rust`, `ts`, `py` (`-t`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub types: Vec<String>,
    /// No files of these types (`-T`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<String>>")]
    pub types_not: Vec<String>,
    /// Whether files and directories whose names begin with a dot are searched (`--hidden`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// Whether `.gitignore`, `.ignore`, `.rgignore` and `.git/info/exclude` count (false is `--no-ignore`). Only such
    /// files inside the workspace do; nobody's global excludes. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_files: Option<bool>,
    /// Whether git's ignore files count only inside a git repository, as they do for `rg`. Default false (`rg
    /// --no-require-git`), since a folder that was poured in is seldom a repository, and its `.gitignore` is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_git: Option<bool>,
    /// Whether symbolic links are followed, as far as they stay in the workspace (`--follow`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// How deep to descend: 1 is the entries of the directories in `paths` (`--max-depth`). Default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    /// Files larger than this are skipped, unless they are named in `paths` (`--max-filesize`). Default: none is too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// What to do about files with NUL bytes. Default `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<SearchBinary>,
    /// Encoding of the files, by a label of the Encoding Standard such as `latin1` or `utf-16le` (`-E`). `auto`: UTF-8, or
    /// UTF-16 by its byte order mark. `none`: bytes, without a look at byte order marks. Default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// What is reported. Default `lines`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<SearchReport>,
    /// Whether files come in the byte order of their paths (`--sort path`), which takes a single thread. Default false:
    /// as they are found, each file's lines together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorted: Option<bool>,
    /// What columns count. Default `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<SearchColumns>,
    /// Matching lines (files, where lines are not reported) in the answer; the search stops there. Default 1,000; maximum: the
    /// agent's `searchMatches` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "searchMatches"))]
    pub max_matches: Option<u64>,
    /// Matching lines of each file; the file's search stops there (`-m`). Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_matches_per_file: Option<u64>,
    /// Bytes of each line that are shown, around its first match. Default 1,024, maximum 1,048,576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_line_bytes: Option<u32>,
    /// Milliseconds after which the search stops with what it has. Default and maximum: the agent's `searchMs` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-limit" = "searchMs"))]
    pub timeout_ms: Option<u64>,
}

/// Whether letter case matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum SearchCase {
    /// It does (`-s`).
    #[default]
    Sensitive,
    /// It doesn't (`-i`).
    Insensitive,
    /// It does if the pattern has an upper-case letter (`-S`).
    Smart,
}

/// What to do about files with NUL bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum SearchBinary {
    /// Leave the file where its first NUL byte is seen, as `rg` does. Files named in `paths` are searched on.
    #[default]
    Skip,
    /// Search on, with NUL as a line's end (`--binary`).
    Search,
    /// They are text like any other (`-a`).
    Text,
}

/// What a search reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum SearchReport {
    /// Every matching line.
    #[default]
    Lines,
    /// The files that match, each left at its first match (`-l`).
    Files,
    /// The files that match, each with its number of matching lines (`-c`).
    Counts,
}

/// What columns count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum SearchColumns {
    /// Bytes of the line (of its UTF-8, where the file was transcoded).
    #[default]
    Bytes,
    /// UTF-16 code units, as editors and the language server protocol count; an invalid sequence counts as one.
    Utf16,
}

/// Response of `search`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SearchResponse {
    /// Files with matches; empty in a streamed answer, whose events carried them.
    #[serde(default)]
    pub files: Vec<SearchFile>,
    /// Lines that matched (pieces of text, if they span lines), as far as the search came.
    pub matched_lines: u64,
    /// Files with at least one.
    pub matched_files: u64,
    /// Files that were searched.
    pub searched_files: u64,
    /// Bytes of them that were read.
    pub searched_bytes: u64,
    /// What was left out.
    pub skipped: SearchSkipped,
    /// Why there may be more than this answer says; empty when it is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<SearchTruncation>>")]
    pub truncated: Vec<SearchTruncation>,
    /// What could not be read or understood on the way: the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<SearchTrouble>>")]
    pub troubles: Vec<SearchTrouble>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Files and directories that were left out, by reason. A directory counts once, whatever is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct SearchSkipped {
    /// An ignore file says so.
    pub ignored: u64,
    /// Its name begins with a dot.
    pub hidden: u64,
    /// `globs`, `types` or `typesNot` say so.
    pub filtered: u64,
    /// It holds NUL bytes: not searched, or searched only as far as the first of them was seen.
    pub binary: u64,
    /// It is larger than `maxFileBytes`, or has a line (with `multiline`, is a file) larger than the agent's
    /// `searchBufferBytes` limit.
    pub too_large: u64,
    /// A symbolic link, and links aren't followed.
    pub symlinks: u64,
    /// A symbolic link that leads outside of the workspace or back to a directory that it is in.
    pub links_refused: u64,
    /// A socket, pipe or device.
    pub special: u64,
    /// It could not be opened or read.
    pub unreadable: u64,
}

/// Why an answer may be incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SearchTruncation {
    /// There are more matches than `maxMatches`.
    MaxMatches,
    /// A file was left at `maxMatchesPerFile`.
    MaxMatchesPerFile,
    /// `timeoutMs` was over.
    Timeout,
    /// A collected answer reached the agent's `searchBytes` limit; a streamed one has no such limit.
    AnswerBytes,
}

/// Something that could not be read or understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct SearchTrouble {
    /// Where.
    pub path: WorkspacePath,
    /// What.
    pub detail: String,
}

/// A file with matches, in a collected answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SearchFile {
    /// The file.
    pub path: WorkspacePath,
    /// Its matching lines; with `report: files`, 1.
    pub matched_lines: u64,
    /// Its lines, in their order; empty unless lines are reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<SearchFileLine>>")]
    pub lines: Vec<SearchFileLine>,
    /// Where a NUL byte was seen, about which `binary` decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_offset: Option<u64>,
}

/// A line of a file, in a collected answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum SearchFileLine {
    /// It matches.
    Match(SearchLine),
    /// It is near one that matches.
    Context(SearchLine),
}

/// A line, or with `multiline` the lines that a match spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SearchLine {
    /// Number of the (first) line, from 1.
    pub line: u64,
    /// The line without its end; a piece of it where it is longer than `maxLineBytes`.
    #[serde(flatten)]
    #[ts(flatten)]
    pub data: Data,
    /// Each match from its first column to the one after its last, from 0, counted in the whole line. A match of the
    /// line's end lies behind `data`. Empty when the line is reported for not matching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<[u64; 2]>>")]
    pub ranges: Vec<[u64; 2]>,
    /// Present when only a piece of the line is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<SearchCut>,
}

/// Which piece of a line is shown. Numbers count what `columns` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct SearchCut {
    /// Column of the first byte or unit that is shown.
    pub start: u64,
    /// Length of the whole line.
    pub length: u64,
    /// Matches that begin outside of the piece; they are not in `ranges`.
    pub hidden_matches: u64,
}

/// What is found, while it is found. The events of one file come together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum SearchEvent {
    /// A line that matches.
    Match(SearchHit),
    /// A line near one that matches. Each comes once, in its place among the matches of its file.
    Context(SearchHit),
    /// A file that matches; comes instead of its lines where these are not reported.
    File {
        /// The file.
        path: WorkspacePath,
        /// Its matching lines; with `report: files`, 1.
        matched_lines: u64,
    },
    /// The file whose lines came last holds a NUL byte, about which `binary` decided.
    Binary {
        /// The file.
        path: WorkspacePath,
        /// Where the NUL byte was seen.
        offset: u64,
    },
}

/// A line and the file it is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    /// The file.
    pub path: WorkspacePath,
    /// The line.
    #[serde(flatten)]
    #[ts(flatten)]
    pub line: SearchLine,
}

impl Event for SearchEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Match(_) => "match",
            Self::Context(_) => "context",
            Self::File { .. } => "file",
            Self::Binary { .. } => "binary",
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let (Self::Match(hit) | Self::Context(hit)) = self else { return serde_json::to_writer(out, self) };
        // As nearly all are.
        let SearchHit {
            path: WorkspacePath::Text(path),
            line: SearchLine { line, data: Data::Text(text), ranges, cut: None },
        } = hit
        else {
            return serde_json::to_writer(out, self);
        };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.extend_from_slice(b"\",\"path\":\"");
        escape_into(out, path);
        out.extend_from_slice(b"\",\"line\":");
        serde_json::to_writer(&mut *out, line)?;
        out.extend_from_slice(b",\"text\":\"");
        escape_into(out, text);
        out.push(b'"');
        if !ranges.is_empty() {
            out.extend_from_slice(b",\"ranges\":");
            serde_json::to_writer(&mut *out, ranges)?;
        }
        out.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_json_is_what_serde_writes() {
        let cut = SearchCut { start: 1, length: 2, hidden_matches: 3 };
        let mut events = vec![
            SearchEvent::File { path: "f".into(), matched_lines: 1 },
            SearchEvent::Binary { path: "f".into(), offset: 7 },
        ];
        for path in ["plain".into(), "\"\\ \n ž".into(), WorkspacePath::from_bytes(b"\xff")] {
            for data in [Data::default(), Data::Text("\t\"\\\u{1} žluť 🦀".into()), Data::from_bytes(vec![0xff])] {
                for ranges in [vec![], vec![[0, 1]], vec![[0, u64::MAX], [3, 4]]] {
                    for cut in [None, Some(cut)] {
                        let line = SearchLine { line: 12, data: data.clone(), ranges: ranges.clone(), cut };
                        let hit = SearchHit { path: path.clone(), line };
                        events.extend([SearchEvent::Match(hit.clone()), SearchEvent::Context(hit)]);
                    }
                }
            }
        }
        for event in events {
            let mut json = Vec::new();
            event.write_json(&mut json).unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&event).unwrap());
        }
    }
}
