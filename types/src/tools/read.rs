//! `read`: one or many files, whole or by line or byte range.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{Data, NoEvent, Problem, Scope, Tool, WorkspacePath};

/// Reads files.
pub struct Read;

impl Tool for Read {
    const NAME: &'static str = "read";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Reads one or many files, whole or by line or byte range, with version and encoding.";
    const SCOPE: Scope = Scope::Read;
    type Request = ReadRequest;
    type Response = ReadResponse;
    type Event = NoEvent;
}

/// Request of `read`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ReadRequest {
    /// The files, answered in this order. At least one.
    #[schemars(length(min = 1), extend("x-limit" = "readFiles"))]
    pub files: Vec<ReadTarget>,
    /// Bytes of content that the whole answer may hold. Default and maximum: the agent's `readBytes` limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-limit" = "readBytes"))]
    pub max_bytes: Option<u64>,
}

/// One file to read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ReadTarget {
    /// The file.
    pub path: WorkspacePath,
    /// Only these lines. Not together with `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<LineRange>,
    /// Only these bytes. Not together with `lines`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteRange>,
}

/// Lines from `start` to `end`, both included, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct LineRange {
    /// The first line; 1 is the first of the file.
    #[schemars(range(min = 1))]
    pub start: u64,
    /// The last line. Absent: to the end. A line past the end is the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub end: Option<u64>,
}

/// Bytes from `start` on, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ByteRange {
    /// The first byte; 0 is the first of the file.
    pub start: u64,
    /// How many. Absent: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

/// Response of `read`: one result a requested file, in the order asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct ReadResponse {
    /// The results.
    pub files: Vec<ReadResult>,
}

/// A file that was read, or why it was not. One missing file does not fail the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(tag = "status", rename_all = "camelCase")]
pub enum ReadResult {
    /// It was read.
    Ok(FileContent),
    /// It was not.
    Error {
        /// The path as it was asked for.
        #[schemars(with = "crate::PathAsAsked")]
        path: WorkspacePath,
        /// Why.
        problem: Problem,
    },
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct FileContent {
    /// The path as it was asked for.
    pub path: WorkspacePath,
    /// The content: text where it is UTF-8, base64 else.
    #[serde(flatten)]
    #[ts(flatten)]
    pub data: Data,
    /// Opaque; the same as the file route's `ETag`. Another version means the file may have changed.
    pub version: String,
    /// BLAKE3 of the whole file in hex; present when the whole file was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Offset of the first byte of `data` in the file.
    pub start_byte: u64,
    /// Number of the first line of `data`, from 1; present when lines were asked for or the whole file was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_line: Option<u64>,
    /// Lines in the whole file (a last line without line ending counts); present when the whole file was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_lines: Option<u64>,
    /// Encoding of the text.
    pub encoding: Encoding,
    /// How lines end; absent when no line end was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_ending: Option<LineEnding>,
    /// Whether a NUL byte was among what was read (ripgrep's rule for binary files).
    pub binary: bool,
    /// Whether less was returned than asked for, because of a limit.
    pub truncated: bool,
}

/// Encoding of a file's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8 without byte order mark.
    Utf8,
    /// UTF-8 with byte order mark.
    Utf8Bom,
    /// UTF-16, little-endian, by its byte order mark. Content is given in base64, as it is.
    Utf16Le,
    /// UTF-16, big-endian, by its byte order mark. Content is given in base64, as it is.
    Utf16Be,
    /// Anything else: bytes.
    Unknown,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// Both occur.
    Mixed,
}
