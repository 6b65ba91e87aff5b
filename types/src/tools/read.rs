//! `read`: one or many files, whole or by line or byte range.

use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    Data, NoEvent, Problem, Scope, Tool, WorkspacePath,
    escape::{escape_to, escaped_bytes},
};

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

    fn json_bytes(response: &ReadResponse) -> usize {
        response.files.iter().map(json_bytes).sum()
    }

    fn write_json(response: &ReadResponse, out: &mut impl Write) -> serde_json::Result<()> {
        write(out, b"{\"files\":[")?;
        for (index, result) in response.files.iter().enumerate() {
            if index > 0 {
                write(out, b",")?;
            }
            match result {
                ReadResult::Ok(content) => write_content(content, out)?,
                ReadResult::Error { .. } => serde_json::to_writer(&mut *out, result)?,
            }
        }
        write(out, b"]}")
    }
}

/// About as many as a file takes.
fn json_bytes(result: &ReadResult) -> usize {
    /// Bytes of most files' JSON besides their text.
    const REST: usize = 512;
    match result {
        ReadResult::Ok(FileContent { data: Data::Text(text) | Data::Base64(text), .. }) => REST + escaped_bytes(text),
        ReadResult::Error { .. } => REST,
    }
}

/// Writes a file that was read as serde would, but its text faster: that is most of what `read` answers with.
fn write_content(content: &FileContent, out: &mut impl Write) -> serde_json::Result<()> {
    // All of them, so that a new one isn't forgotten.
    let FileContent {
        path,
        data,
        version,
        hash,
        size,
        start_byte,
        start_line,
        total_lines,
        encoding,
        line_ending,
        binary,
        truncated,
    } = content;
    field(out, "{\"status\":\"ok\",\"path\":", path)?;
    let (name, text) = match data {
        Data::Text(text) => (&b",\"text\":\""[..], text),
        Data::Base64(text) => (&b",\"base64\":\""[..], text),
    };
    write(out, name)?;
    escape_to(out, text).map_err(serde_json::Error::io)?;
    field(out, "\",\"version\":", version)?;
    field_if_some(out, ",\"hash\":", hash.as_ref())?;
    field(out, ",\"size\":", size)?;
    field(out, ",\"startByte\":", start_byte)?;
    field_if_some(out, ",\"startLine\":", start_line.as_ref())?;
    field_if_some(out, ",\"totalLines\":", total_lines.as_ref())?;
    field(out, ",\"encoding\":", encoding)?;
    field_if_some(out, ",\"lineEnding\":", line_ending.as_ref())?;
    field(out, ",\"binary\":", binary)?;
    field(out, ",\"truncated\":", truncated)?;
    write(out, b"}")
}

fn write(out: &mut impl Write, json: &[u8]) -> serde_json::Result<()> {
    out.write_all(json).map_err(serde_json::Error::io)
}

fn field(out: &mut impl Write, name: &str, value: &impl Serialize) -> serde_json::Result<()> {
    write(out, name.as_bytes())?;
    serde_json::to_writer(out, value)
}

fn field_if_some(out: &mut impl Write, name: &str, value: Option<&impl Serialize>) -> serde_json::Result<()> {
    value.map_or(Ok(()), |value| field(out, name, value))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    fn content(path: WorkspacePath, data: Data) -> FileContent {
        FileContent {
            path,
            data,
            version: "v\"".to_owned(),
            hash: None,
            size: u64::MAX,
            start_byte: 3,
            start_line: None,
            total_lines: None,
            encoding: Encoding::Unknown,
            line_ending: None,
            binary: true,
            truncated: false,
        }
    }

    #[test]
    fn its_json_is_what_serde_writes() {
        let text = |text: &str| Data::Text(text.to_owned());
        let full = FileContent {
            hash: Some("h".to_owned()),
            start_line: Some(7),
            total_lines: Some(8),
            encoding: Encoding::Utf8Bom,
            line_ending: Some(LineEnding::CrLf),
            truncated: true,
            ..content("\"a\\".into(), text("one\n\"two\"\u{1}\\ žluť 🦀"))
        };
        let bytes: WorkspacePath = serde_json::from_str(r#"{"base64":"/w=="}"#).unwrap();
        let problem = Problem::new(Code::NotFound, "no\n");
        let all = [
            ReadResult::Ok(full),
            ReadResult::Ok(content("empty".into(), text(""))),
            ReadResult::Ok(content(bytes, Data::from_bytes(vec![0xff, 0]))),
            ReadResult::Error { path: "gone".into(), problem },
        ];
        for from in 0..all.len() {
            for to in from..=all.len() {
                let response = ReadResponse { files: all[from..to].to_vec() };
                let mut ours = Vec::new();
                Read::write_json(&response, &mut ours).unwrap();
                assert_eq!(String::from_utf8(ours).unwrap(), serde_json::to_string(&response).unwrap());
            }
        }
    }
}
