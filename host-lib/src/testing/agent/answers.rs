//! Answers as an agent gives them: whole, streamed, and those of a command.

use bytes::Bytes;
use corehold_types::{
    Data, Problem, Timestamp,
    tools::{CommandEvent, CommandExit, CommandResponse},
    wire::StreamEnd,
};
use futures_util::stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::Answer;

pub(crate) fn reply(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    reply(StatusCode::OK, serde_json::to_vec(value).unwrap())
}

pub(crate) fn problem(problem: &Problem) -> Answer {
    reply(StatusCode::from_u16(problem.status).unwrap(), serde_json::to_vec(problem).unwrap())
}

/// A streamed answer of these chunks; after them it ends, or stays open for ever.
pub(crate) fn ndjson(chunks: Vec<Bytes>, stays_open: bool) -> Answer {
    let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))));
    let end = stream::once(async move {
        if stays_open {
            std::future::pending::<()>().await;
        }
        Ok(Frame::data(Bytes::new()))
    });
    let body = StreamBody::new(futures_util::StreamExt::chain(chunks, end)).boxed_unsync();
    Response::builder().header(header::CONTENT_TYPE, "application/x-ndjson").body(body).unwrap()
}

pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap();
    bytes.push(b'\n');
    bytes.into()
}

pub(super) fn exit(code: i32) -> CommandExit {
    CommandExit {
        code: Some(code),
        signal: None,
        timed_out: code == 124,
        stalled: false,
        oom_killed: None,
        duration_ms: 1,
        peak_memory_bytes: None,
        cpu_ms: None,
        survivors: vec![],
    }
}

pub(super) fn response(code: Option<i32>) -> CommandResponse {
    CommandResponse {
        id: "1".into(),
        exit: code.map(exit),
        stdout: Default::default(),
        stderr: Default::default(),
        offset: 0,
    }
}

/// What a command does that writes a line and ends with a code.
pub(super) fn run(text: &str, code: i32) -> Answer {
    ndjson(
        vec![
            line(&CommandEvent::Status { id: "1".into(), pid: 2, started: Timestamp::now(), offset: 0 }),
            line(&CommandEvent::Stdout { offset: 0, end: text.len() as u64, data: Data::Text(text.into()) }),
            line(&CommandEvent::Exit { exit: exit(code), offset: text.len() as u64 }),
            line(&StreamEnd::End { response: response(Some(code)) }),
        ],
        false,
    )
}
