//! A streamed answer: the tool's events as they happen, then `end` or `error`.
//!
//! The handler runs inside the response's body, in the connection's own task: when the caller goes away the body is
//! dropped and the handler with it, and a caller who reads slowly is the one who waits: [`unsent`] sees to it that not too much is
//! made ahead.

mod unsent;

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use corehold_types::{Event, Problem, wire::StreamEnd};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, header};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

use super::form::Encoding;
use crate::{
    calls,
    handler::{Call, Events, Handler},
    server::{log_in_stream, panicked},
};
use unsent::Unsent;

/// A handler that fails this soon, before any event, answers with the problem's own status instead of a stream.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Silence after which a comment keeps proxies from cutting a stream of server-sent events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes after which what has gathered is handed to the connection.
const BATCH: usize = 32 << 10;

/// Starts a handler whose events are streamed.
///
/// # Errors
/// The handler's problem, when it failed at once.
pub(super) async fn begin<T: Handler>(
    call: Call,
    request: T::Request,
    encoding: Encoding,
) -> Result<Response, Problem> {
    let (sender, receiver) = mpsc::channel(T::EVENTS);
    let (request_id, share) = (call.request_id.clone(), call.share.clone());
    let handler = calls::run::<T>(call, request, Events::into_channel(sender));
    let handler = AssertUnwindSafe(handler).catch_unwind();
    let mut stream = EventStream::<T> {
        handler: Some(handler.map(|result| result.unwrap_or_else(|_| Err(panicked()))).boxed()),
        receiver,
        waiting: None,
        result: None,
        keep_alive: Box::pin(sleep(KEEP_ALIVE)),
        expected: 0,
        encoding,
        request_id,
        unsent: Unsent::of(share),
    };
    // Whether it times out doesn't matter: the stream goes on from where it is.
    let _ = tokio::time::timeout(FIRST_WAIT, std::future::poll_fn(|context| stream.poll_begun(context))).await;
    if stream.waiting.is_none()
        && let Some(Err(problem)) = stream.result.take_if(|result| result.is_err())
    {
        return Err(problem);
    }
    let mut response = Response::new(Body::new(UnsyncBoxBody::new(stream)));
    let content_type = match encoding {
        Encoding::ServerSentEvents => "text/event-stream",
        Encoding::Ndjson => "application/x-ndjson",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct EventStream<T: Handler> {
    /// The handler while it runs.
    handler: Option<BoxFuture<'static, Result<T::Response, Problem>>>,
    receiver: mpsc::Receiver<T::Event>,
    /// The event that was taken while waiting for the first one.
    waiting: Option<T::Event>,
    /// What the handler returned, until it is written.
    result: Option<Result<T::Response, Problem>>,
    keep_alive: Pin<Box<Sleep>>,
    /// Bytes that were handed to the connection the last time: mostly as many come again.
    expected: usize,
    encoding: Encoding,
    request_id: String,
    /// What has been made and not gone out.
    unsent: Arc<Unsent>,
}

// The handler's future is boxed and pinned there; nothing else is pinned.
impl<T: Handler> Unpin for EventStream<T> {}

impl<T: Handler> EventStream<T> {
    /// Ready when there is an event, or the handler has returned.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.waiting = ready!(self.poll_event(context));
        Poll::Ready(())
    }

    /// The next event; nothing once the handler has returned and all its events were taken.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<T::Event>> {
        if let Some(event) = self.waiting.take() {
            return Poll::Ready(Some(event));
        }
        loop {
            if let Poll::Ready(event @ Some(_)) = self.receiver.poll_recv(context) {
                return Poll::Ready(event);
            }
            let Some(handler) = &mut self.handler else {
                // The channel is closed, so this ends. It may be pending though events are there: tokio makes a task that has
                // received a lot take a break.
                return self.receiver.poll_recv(context);
            };
            match handler.as_mut().poll(context) {
                Poll::Ready(result) => {
                    self.result = Some(result);
                    self.handler = None;
                    // Somebody it started may hold the sender still, but the answer is complete.
                    self.receiver.close();
                }
                Poll::Pending => {
                    return match self.receiver.poll_recv(context) {
                        Poll::Ready(Some(event)) => Poll::Ready(Some(event)),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }

    fn write_event(&self, out: &mut Vec<u8>, event: &T::Event) -> serde_json::Result<()> {
        if self.encoding == Encoding::ServerSentEvents {
            begin_sse(out, event.kind(), event.offset_after());
        }
        self.write_data(out, |out| event.write_json(out))
    }

    fn write_end(&self, out: &mut Vec<u8>, result: Result<T::Response, Problem>) -> serde_json::Result<()> {
        let (kind, end) = match result {
            Ok(response) => ("end", StreamEnd::End { response }),
            Err(mut problem) => {
                problem.request_id = Some(self.request_id.clone());
                log_in_stream(&problem, T::NAME);
                ("error", StreamEnd::Error { problem })
            }
        };
        if self.encoding == Encoding::ServerSentEvents {
            begin_sse(out, kind, None);
        }
        self.write_data(out, |out| serde_json::to_writer(out, &end))
    }

    /// JSON never has a line end in it, so one line is one value in both encodings.
    fn write_data(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) -> serde_json::Result<()> {
        if self.encoding == Encoding::ServerSentEvents {
            out.extend_from_slice(b"data: ");
        }
        write(out)?;
        out.extend_from_slice(match self.encoding {
            Encoding::ServerSentEvents => b"\n\n",
            Encoding::Ndjson => b"\n",
        });
        Ok(())
    }
}

fn begin_sse(out: &mut Vec<u8>, kind: &str, offset: Option<u64>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    if let Some(offset) = offset {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(offset.to_string().as_bytes());
    }
    out.push(b'\n');
}

impl<T: Handler> HttpBody for EventStream<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let stream = &mut *self;
        if stream.unsent.is_full(context) {
            return Poll::Pending;
        }
        let mut out = Vec::with_capacity(stream.expected);
        while out.len() < BATCH {
            match stream.poll_event(context) {
                Poll::Ready(Some(event)) => {
                    if let Err(error) = stream.write_event(&mut out, &event) {
                        return Poll::Ready(Some(Err(axum::Error::new(error))));
                    }
                }
                Poll::Ready(None) => {
                    let Some(result) = stream.result.take() else { break };
                    if let Err(error) = stream.write_end(&mut out, result) {
                        return Poll::Ready(Some(Err(axum::Error::new(error))));
                    }
                }
                Poll::Pending if out.is_empty() => {
                    if stream.encoding == Encoding::Ndjson || stream.keep_alive.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    out.extend_from_slice(b": keep-alive\n\n");
                    stream.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
                }
                Poll::Pending => break,
            }
        }
        if out.is_empty() {
            return Poll::Ready(None);
        }
        stream.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
        // One event beyond a batch has room too: what grows for it would be twice as large, for as long as nobody takes it.
        stream.expected = out.len().min(2 * BATCH);
        Poll::Ready(Some(Ok(Frame::data(stream.unsent.keep(out)))))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use corehold_types::tools::{CommandEvent, CommandOutput, CommandResponse};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::testing;

    fn stream(
        handler: BoxFuture<'static, Result<CommandResponse, Problem>>,
        receiver: mpsc::Receiver<CommandEvent>,
        encoding: Encoding,
    ) -> EventStream<CommandOutput> {
        EventStream {
            handler: Some(handler),
            receiver,
            waiting: None,
            result: None,
            keep_alive: Box::pin(sleep(KEEP_ALIVE)),
            expected: 0,
            encoding,
            request_id: String::new(),
            unsent: Unsent::of(testing::call(&testing::agent()).share),
        }
    }

    async fn next(stream: &mut EventStream<CommandOutput>) -> String {
        let frame = stream.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    /// The clock stands still but while everybody waits for it.
    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_a_comment_in_server_sent_events_and_by_nothing_in_lines() {
        let silent = || std::future::pending().boxed();
        let (sender, receiver) = mpsc::channel(16);
        let mut events = stream(silent(), receiver, Encoding::ServerSentEvents);
        let begun = Instant::now();
        for seconds in [15, 30] {
            assert_eq!(next(&mut events).await, ": keep-alive\n\n");
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        sender.try_send(CommandEvent::Gap { from: 0, to: 1 }).unwrap();
        assert!(next(&mut events).await.starts_with("event: gap\n"));
        assert_eq!(next(&mut events).await, ": keep-alive\n\n");
        assert_eq!(begun.elapsed().as_secs(), 55, "15 s after the event");

        let (_sender, receiver) = mpsc::channel(16);
        let mut lines = stream(silent(), receiver, Encoding::Ndjson);
        let said = tokio::time::timeout(Duration::from_secs(3_600), next(&mut lines)).await;
        assert!(said.is_err(), "a line that is no event: {said:?}");
    }

    #[tokio::test]
    async fn events_that_wait_when_the_handler_has_ended_are_not_lost_though_the_task_is_to_take_a_break() {
        let (sender, receiver) = mpsc::channel(16);
        for from in 0..3 {
            sender.try_send(CommandEvent::Gap { from, to: from + 1 }).unwrap();
        }
        let response = serde_json::from_str::<CommandResponse>(r#"{"id": "c", "offset": 3}"#).unwrap();
        let mut stream = stream(std::future::ready(Ok(response)).boxed(), receiver, Encoding::Ndjson);
        let mut has_budget = true;
        let first = poll_fn(|context| {
            while std::mem::take(&mut has_budget) {
                has_budget = pin!(tokio::task::consume_budget()).poll(context).is_ready();
            }
            Pin::new(&mut stream).poll_frame(context)
        })
        .await;
        let mut lines = first.unwrap().unwrap().into_data().unwrap().to_vec();
        // Somebody else holds the sender, and it ends all the same.
        lines.extend(stream.collect().await.unwrap().to_bytes());
        drop(sender);
        let lines = String::from_utf8(lines).unwrap();
        let types: Vec<_> = lines.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
        assert_eq!(types, ["gap", "gap", "gap", "end"]);
    }
}
