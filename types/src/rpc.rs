//! The WebSocket's messages: what stands around a tool's request and response on `GET /v1/ws`.
//!
//! Text frames are JSON-RPC 2.0: the method is the tool's name, `params` its request, `result` its response, and
//! `error.data` the [`Problem`]. Two members are added to a request: `stream` asks for events, `idempotencyKey` is what the
//! header is over HTTP. One is added to a response, beside `result` or `error`: `idempotencyReplayed`, true where the answer is that
//! of an earlier request with the same key, else absent. What is about the connection itself has a method that begins with
//! `$/`, as in the Language Server Protocol. Bytes that commands write are binary frames, see [`Frame`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::Problem;

/// The subprotocol that a client asks for.
pub const SUBPROTOCOL: &str = "corehold.v1";
/// A second subprotocol that carries the token, for browsers, which can set no header. It is never confirmed.
pub const BEARER_PREFIX: &str = "corehold.bearer.";

/// Bytes of a stream that may be under way before the client has granted more: 256 KiB.
pub const INITIAL_CREDIT: u32 = 256 << 10;
/// Bytes of payload in one binary frame, at most: 32 KiB.
pub const MAX_PAYLOAD: usize = 32 << 10;
/// What an event in a text frame costs at most; a larger one could otherwise ask for more credit than anybody has.
pub const MAX_EVENT_COST: usize = 64 << 10;
/// The close code of a socket whose token has expired.
pub const TOKEN_EXPIRED: u16 = 4401;

/// Names of the methods that are about the connection.
pub mod methods {
    /// From the client, without an id: [`Cancel`](super::Cancel).
    pub const CANCEL: &str = "$/cancelRequest";
    /// Without an id: [`Credit`](super::Credit), from the client for events, from the agent for input.
    pub const CREDIT: &str = "$/credit";
    /// From the client, with an id: [`Refresh`](super::Refresh).
    pub const REFRESH: &str = "$/refresh";
    /// From the agent: [`StreamOpened`](super::StreamOpened).
    pub const STREAM: &str = "$/stream";
    /// From the agent: [`StreamEvent`](super::StreamEvent).
    pub const EVENT: &str = "$/event";
}

/// Numbers of JSON-RPC errors. The problem in `error.data` says more.
pub mod codes {
    /// The text is not JSON.
    pub const PARSE_ERROR: i32 = -32_700;
    /// It is JSON, but no request; a batch, or an id that is in use, among others.
    pub const INVALID_REQUEST: i32 = -32_600;
    /// No such tool.
    pub const METHOD_NOT_FOUND: i32 = -32_601;
    /// The tool refuses the request as malformed.
    pub const INVALID_PARAMS: i32 = -32_602;
    /// The client cancelled the call (Language Server Protocol).
    pub const CANCELLED: i32 = -32_800;
    /// The tool failed.
    pub const FAILED: i32 = -32_000;
}

/// Names a request among those under way on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(untagged)]
pub enum RpcId {
    /// A whole number.
    Number(i64),
    /// A word of at most 64 bytes.
    Text(#[schemars(length(max = 64))] String),
}

/// `error` of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
pub struct RpcError {
    /// One of [`codes`].
    pub code: i32,
    /// The problem's detail.
    pub message: String,
    /// The problem.
    pub data: Problem,
}

/// `$/stream`: events of a request will come under a number. Sent before the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct StreamOpened {
    /// The request.
    pub id: RpcId,
    /// Its number, new on this connection.
    pub stream: u32,
}

/// `$/event`: something that happened while a tool runs. Bytes that a command wrote come in binary frames instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct StreamEvent<E> {
    /// The stream.
    pub stream: u32,
    /// The tool's event.
    pub event: E,
}

/// `$/credit`: so many bytes of a stream were taken in, and as many more are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credit {
    /// The stream.
    pub stream: u32,
    /// Bytes. Who wants no flow control grants 2^53 − 1 at once.
    pub bytes: u64,
}

/// `$/cancelRequest`: the client doesn't want the answer any more. The call ends and is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cancel {
    /// The request.
    pub id: RpcId,
}

/// `$/refresh`: a new token for the connection. It must name the same subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refresh {
    /// The token.
    pub token: String,
}

/// What a binary frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// From the client: what a command reads next, in a streamed `commandInput`. An empty one ends the input.
    Stdin,
    /// Standard output of a command, or what its terminal shows.
    Stdout,
    /// Standard error of a command.
    Stderr,
}

impl FrameKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// A binary frame: `u8 kind, u32 stream, u64 offset`, big-endian, then at most [`MAX_PAYLOAD`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the bytes are.
    pub kind: FrameKind,
    /// The stream they belong to.
    pub stream: u32,
    /// Where they begin in the command's log; with [`FrameKind::Stdin`], among what the client has sent in this stream.
    pub offset: u64,
    /// The bytes.
    pub payload: &'a [u8],
}

/// A binary frame that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends before the payload begins.
    #[error("the frame is shorter than its header of 13 bytes")]
    Short,
    /// Its kind is not known.
    #[error("the frame's kind {0} is not known")]
    Kind(u8),
    /// It carries more than [`MAX_PAYLOAD`].
    #[error("the frame carries {0} bytes; at most 32768 are allowed")]
    Long(usize),
}

impl<'a> Frame<'a> {
    /// Bytes before the payload.
    pub const HEADER: usize = 13;

    /// The frame as it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER + self.payload.len());
        bytes.push(self.kind.byte());
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(self.payload);
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`FrameError`] says what it lacks.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let Some((header, payload)) = bytes.split_first_chunk::<13>() else {
            return Err(FrameError::Short);
        };
        let [kind, s0, s1, s2, s3, offset @ ..] = *header;
        let kind = match kind {
            0 => FrameKind::Stdin,
            1 => FrameKind::Stdout,
            2 => FrameKind::Stderr,
            other => return Err(FrameError::Kind(other)),
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::Long(payload.len()));
        }
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Ok(Self { kind, stream, offset: u64::from_be_bytes(offset), payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let frame = Frame { kind: FrameKind::Stderr, stream: 0x0102_0304, offset: 5, payload: b"hi" };
        let bytes = frame.encode();
        assert_eq!(bytes, b"\x02\x01\x02\x03\x04\0\0\0\0\0\0\0\x05hi");
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        assert_eq!(Frame::decode(&bytes[..13]).unwrap().payload, b"");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Frame::decode(&[1; 12]), Err(FrameError::Short));
        assert_eq!(Frame::decode(&[9; 13]), Err(FrameError::Kind(9)));
        assert_eq!(Frame::decode(&[1; 13 + MAX_PAYLOAD + 1]), Err(FrameError::Long(MAX_PAYLOAD + 1)));
    }
}
