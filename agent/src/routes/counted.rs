//! A download's body: its bytes are counted, and its record is made when the last of them is sent or the caller goes away.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use corehold_types::Code;
use http::header;
use hyper::body::{Frame, SizeHint};

use crate::{activity::Guard, audit::Pending};

struct Counted {
    body: Body,
    sent: u64,
    /// As the header promises; nothing where it doesn't say.
    length: Option<u64>,
    /// Until it is recorded. Dropped before, the caller went away.
    pending: Option<Pending>,
    /// It is made while it is sent, so it keeps awake until then.
    _held: Option<Guard>,
}

/// Finishes the record when the body is sent; at once if it is there already.
pub(super) fn until_sent(response: Response, pending: Pending, held: Option<Guard>) -> Response {
    if let Some(bytes) = response.body().size_hint().exact() {
        if is_content(&response) {
            pending.note(|touched| touched.went_out(bytes));
        }
        pending.finish(None);
        return response;
    }
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    response.map(|body| Body::new(Counted { body, sent: 0, length, pending: Some(pending), _held: held }))
}

/// Whether the body is the workspace's. The other answers are small JSON of ours.
fn is_content(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream")
}

impl Counted {
    fn finish(&mut self, failed: Option<Code>) {
        let Some(pending) = self.pending.take() else { return };
        pending.note(|touched| touched.went_out(self.sent));
        match failed {
            None if self.length.is_some_and(|length| length != self.sent) => drop(pending),
            failed => pending.finish(failed),
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => self.finish(Some(Code::Internal)),
            None => self.finish(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Whoever sends a body of known length doesn't ask for more than that.
        if self.length == Some(self.sent) {
            return self.finish(None);
        }
        if let Some(pending) = self.pending.take() {
            pending.note(|touched| touched.went_out(self.sent));
        }
    }
}
