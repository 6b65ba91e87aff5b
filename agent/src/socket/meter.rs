//! How long the message that is coming in has been under way: the library says nothing of it until it is complete.
//!
//! Bytes are counted as they come from the connection. What is more than the frames that were heard is the beginning of a
//! message.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Bytes of a client's control frame besides its payload: two, and the mask (RFC 6455, section 5.2).
const CONTROL_HEAD: usize = 6;

/// What comes from a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    coming: Mutex<Coming>,
    began: Notify,
}

#[derive(Debug, Default)]
struct Coming {
    /// Bytes that belong to no message that was heard. Less than nothing when frames were heard that had come with a message
    /// before, and so were taken for that one's.
    bytes: i64,
    /// Since when there are any.
    since: Option<Instant>,
}

impl Meter {
    fn coming(&self) -> MutexGuard<'_, Coming> {
        // A panic while it was held is not possible.
        self.0.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self, bytes: usize) {
        let mut coming = self.coming();
        coming.bytes = coming.bytes.saturating_add_unsigned(bytes as u64);
        if coming.bytes > 0 && coming.since.is_none() {
            coming.since = Some(Instant::now());
            drop(coming);
            self.0.began.notify_one();
        }
    }

    /// A message was heard: all that has come is taken for it.
    pub(super) fn heard_message(&self) {
        *self.coming() = Coming::default();
    }

    /// A control frame was heard, which may stand between the parts of a message.
    pub(super) fn heard_control(&self, payload: usize) {
        let mut coming = self.coming();
        coming.bytes = coming.bytes.saturating_sub_unsigned((payload + CONTROL_HEAD) as u64);
        if coming.bytes <= 0 {
            coming.since = None;
        }
    }

    /// Resolves when the message that is coming has been under way for so long.
    pub(super) async fn overdue(&self, limit: Duration) {
        loop {
            let began = self.0.began.notified();
            let since = self.coming().since;
            match since {
                Some(since) => return sleep_until(since + limit).await,
                None => began.await,
            }
        }
    }
}

/// A connection whose bytes are counted as they come.
#[derive(Debug)]
pub(super) struct Metered<S> {
    connection: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(super) fn new(connection: S, meter: Meter) -> Self {
        Self { connection, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.connection).poll_read(context, buffer));
        self.meter.came(buffer.filled().len() - before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_between_the_parts_of_a_message_gives_it_no_more_time() {
        let meter = Meter::default();
        let since = || meter.coming().since;
        meter.came(CONTROL_HEAD + 4);
        meter.heard_control(4);
        assert_eq!(since(), None, "a ping is no message");
        meter.came(100);
        let began = since();
        assert!(began.is_some());
        meter.came(CONTROL_HEAD);
        meter.heard_control(0);
        meter.came(100);
        assert_eq!(since(), began);
        meter.heard_message();
        assert_eq!(since(), None);
        // It had come with the message.
        meter.heard_control(0);
        meter.came(CONTROL_HEAD);
        assert_eq!(since(), None);
        meter.came(1);
        assert!(since().is_some());
    }
}
