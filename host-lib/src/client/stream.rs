//! Streamed answers: one JSON object a line, the last of them `end` or `error`.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use corehold_types::{Tool, wire::StreamEnd};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;

use super::{
    AgentClient, TokenSource, authorized,
    call::{JSON, prepare, repeat},
    misunderstood, root_cause,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Bytes that one frame may have. The agent's largest (the response of `read`) is well below.
const FRAME_BYTES: usize = 64 << 20;

/// What comes out of a streamed call.
pub enum Frame<T: Tool> {
    /// Something happened.
    Event(T::Event),
    /// The tool has done its work; nothing follows. What the events carried is empty in it.
    End(T::Response),
}

impl<T: Tool> fmt::Debug for Frame<T>
where
    T::Event: fmt::Debug,
    T::Response: fmt::Debug,
{
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => formatter.debug_tuple("Event").field(event).finish(),
            Self::End(response) => formatter.debug_tuple("End").field(response).finish(),
        }
    }
}

/// A tool's answer while it is made. Its last item is [`Frame::End`] or an error: a stream that was cut off never looks
/// like one that ended. Dropping it tells the agent that nobody listens; a command goes on nevertheless.
pub struct ToolStream<T: Tool>(BoxStream<Frame<T>>);

impl<T: Tool> ToolStream<T> {
    /// Reads on to the end, handing every event to `on_event`, and returns the tool's response.
    /// Dropping the future ends the reading; a command goes on.
    ///
    /// # Errors
    /// What the agent reports, or `AgentUnavailable` when the stream was cut off.
    pub async fn finish(mut self, mut on_event: impl FnMut(T::Event)) -> Result<T::Response> {
        while let Some(frame) = self.0.next().await {
            match frame? {
                Frame::Event(event) => on_event(event),
                Frame::End(response) => return Ok(response),
            }
        }
        Err(cut_off())
    }
}

impl<T: Tool> Stream for ToolStream<T> {
    type Item = Result<Frame<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl AgentClient {
    /// Calls a tool and returns its events as they come.
    pub(crate) async fn stream<T: Tool>(
        self: &Arc<Self>,
        tokens: &TokenSource,
        request: &T::Request,
    ) -> Result<ToolStream<T>> {
        let (path, body) = prepare::<T>(request)?;
        let response = self
            .while_alive(async {
                let request = authorized(Method::POST, &path, tokens)
                    .header(header::CONTENT_TYPE, JSON)
                    .header(header::ACCEPT, NDJSON);
                self.send(request, body.clone(), repeat::<T>()).await
            })
            .await?;
        let reader = Reader { client: self.clone(), lines: Lines::new(response.into_body()) };
        Ok(ToolStream(Box::pin(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next::<T>().await {
                Ok(frame @ Frame::Event(_)) => Some((Ok(frame), Some(reader))),
                last => Some((last, None)),
            }
        }))))
    }
}

struct Reader {
    client: Arc<AgentClient>,
    lines: Lines,
}

impl Reader {
    async fn next<T: Tool>(&mut self) -> Result<Frame<T>> {
        let line = self.client.while_alive(self.lines.next()).await?;
        parse(&line)
    }
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

fn parse<T: Tool>(line: &[u8]) -> Result<Frame<T>> {
    let fail = |error: serde_json::Error| misunderstood(&format!("an event of {}", T::NAME), &error);
    let kind = serde_json::from_slice::<Kind<'_>>(line).map_err(fail)?.kind;
    if kind != "end" && kind != "error" {
        return serde_json::from_slice(line).map(Frame::Event).map_err(fail);
    }
    match serde_json::from_slice(line).map_err(fail)? {
        StreamEnd::End { response } => Ok(Frame::End(response)),
        StreamEnd::Error { problem } => Err(problem.into()),
    }
}

fn cut_off() -> Error {
    Error::new(ErrorKind::AgentUnavailable, "the agent's stream was cut off before its end")
        .hint("a command goes on without its listener: commandOutput replays what was missed")
}

/// Splits a body at line feeds. Empty lines keep a silent connection alive and carry nothing.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no line feed.
    searched: usize,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line that carries something. Cancel-safe: what was read stays in the buffer.
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            while let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(line);
                }
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > FRAME_BYTES {
                return Err(Error::new(
                    ErrorKind::Agent,
                    format!("the agent sent an event of more than {FRAME_BYTES} bytes"),
                ));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(cut_off().caused_by(root_cause(&error))),
                None => return Err(cut_off()),
            }
        }
    }
}
