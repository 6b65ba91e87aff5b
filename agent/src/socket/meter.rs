//! The message that is coming in: how long it has been under way, and its part of the room. The library says nothing of it until
//! it is complete.
//!
//! A long one is taken in only as far as [`FREE`](crate::calls::FREE) allows before it has its part of the room; until then the
//! connection isn't read. Messages are heard in the order in which they end, and each comes with what it holds.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use corehold_types::Problem;
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::frames::{Frames, Seen};
use crate::calls::{FREE, Room, Taken};

/// What comes from a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    coming: Mutex<Coming>,
    began: Notify,
    starved: Notify,
}

#[derive(Debug, Default)]
struct Coming {
    frames: Frames,
    /// Bytes of the message, as its frames say.
    announced: u64,
    /// Bytes of it that are here.
    came: u64,
    /// Whether a part of it has begun.
    begun: bool,
    /// Since when it or a frame is under way.
    since: Option<Instant>,
    /// What it holds of the room, and for how many bytes of it.
    taken: Option<Taken>,
    taken_for: u64,
    /// What those hold that are complete and not heard yet.
    complete: VecDeque<Option<Taken>>,
    /// There was no room for it in time.
    is_starved: bool,
}

impl Coming {
    fn follow(&mut self, bytes: &[u8]) {
        let mut frames = std::mem::take(&mut self.frames);
        frames.follow(bytes, |seen| match seen {
            Seen::Begins(length) => {
                self.begun = true;
                self.announced = self.announced.saturating_add(length);
            }
            Seen::Came(length) => self.came += length,
            Seen::Ends => {
                self.complete.push_back(self.taken.take());
                (self.announced, self.came, self.taken_for, self.begun, self.since) = (0, 0, 0, false, None);
            }
        });
        self.frames = frames;
        if self.frames.is_between() && !self.begun {
            self.since = None;
        } else {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Bytes for which it still has to have room before more of it is taken in.
    fn needs(&self) -> Option<usize> {
        let is_long = self.came.saturating_mul(2) > FREE as u64;
        let more = self.announced.saturating_sub(self.taken_for);
        (is_long && more > 0).then(|| usize::try_from(more).unwrap_or(usize::MAX))
    }
}

impl Meter {
    fn coming(&self) -> MutexGuard<'_, Coming> {
        // A panic while it was held is not possible.
        self.0.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self, bytes: &[u8]) {
        let mut coming = self.coming();
        let before = coming.since;
        coming.follow(bytes);
        if coming.since != before {
            drop(coming);
            self.0.began.notify_one();
        }
    }

    /// A message was heard, text or binary. Returns what it holds of the room.
    pub(super) fn heard_message(&self) -> Option<Taken> {
        self.coming().complete.pop_front().flatten()
    }

    /// Resolves when the message that is coming has been under way for so long.
    pub(super) async fn overdue(&self, limit: Duration) {
        loop {
            let began = self.0.began.notified();
            let since = self.coming().since;
            match since {
                Some(since) => {
                    tokio::select! {
                        () = sleep_until(since + limit) => return,
                        () = began => {}
                    }
                }
                None => began.await,
            }
        }
    }

    /// Resolves when there was no room in time for the message that is coming. No more is read of it.
    pub(super) async fn starved(&self) {
        self.0.starved.notified().await;
    }
}

/// A connection whose bytes are followed as they come.
pub(super) struct Metered<S> {
    connection: S,
    meter: Meter,
    room: Arc<Room>,
    /// Bytes of a message at most: of a longer one the library refuses the head.
    longest: usize,
    waiting: Option<BoxFuture<'static, Result<Taken, Problem>>>,
}

impl<S> Metered<S> {
    pub(super) fn new(connection: S, meter: Meter, room: Arc<Room>, longest: usize) -> Self {
        Self { connection, meter, room, longest, waiting: None }
    }

    /// Ready when more of the message may be taken in.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(bytes) = self.meter.coming().needs().filter(|bytes| *bytes <= self.longest) else {
            return Poll::Ready(());
        };
        if self.meter.coming().is_starved {
            return Poll::Pending;
        }
        let room = &self.room;
        let waiting = self.waiting.get_or_insert_with(|| {
            let room = Arc::clone(room);
            // As it is, and as it is understood.
            Box::pin(async move { room.take_for_request(2 * bytes).await })
        });
        let taken = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        let mut coming = self.meter.coming();
        match taken {
            Ok(taken) => {
                match &mut coming.taken {
                    Some(held) => held.merge(taken),
                    None => coming.taken = Some(taken),
                }
                coming.taken_for = coming.announced;
                Poll::Ready(())
            }
            Err(_) => {
                coming.is_starved = true;
                self.meter.0.starved.notify_one();
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context));
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.connection).poll_read(context, buffer));
        self.meter.came(&buffer.filled()[before..]);
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::config::Limits;

    /// The head of a client's frame, masked with zeros.
    fn head(first: u8, length: u32) -> Vec<u8> {
        [&[first, 0xff, 0, 0, 0, 0][..], &length.to_be_bytes(), &[0; 4]].concat()
    }

    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

    #[tokio::test]
    async fn what_comes_between_the_parts_of_a_message_gives_it_no_more_time() {
        let meter = Meter::default();
        let since = || meter.coming().since;
        meter.came(&PING);
        assert_eq!(since(), None, "a ping is no message");
        meter.came(&PING[..3]);
        assert!(since().is_some(), "nor a whole frame");
        meter.came(&PING[3..]);
        assert_eq!(since(), None);
        meter.came(&[head(0x01, 3), b"abc".to_vec()].concat());
        let began = since();
        assert!(began.is_some());
        meter.came(&PING);
        meter.came(&head(0x80, 2));
        assert_eq!(since(), began);
        meter.came(b"de");
        assert_eq!(since(), None);
        // The next one begins with the end of this one.
        meter.came(&[head(0x81, 1), vec![b'x', 0x81]].concat());
        assert!(since().is_some());
    }

    #[tokio::test]
    async fn a_long_message_is_read_when_it_has_room_and_holds_it_until_it_was_heard() {
        const LONG: u32 = 1 << 20;
        let mut limits = Limits::default();
        limits.answer_bytes.value = 4 << 20;
        limits.answer_ms.value = 20;
        let room = Arc::new(Room::new(&limits));
        let meter = Meter::default();
        let (mut client, server) = tokio::io::duplex(4 << 20);
        let mut metered = Metered::new(server, meter.clone(), Arc::clone(&room), 2 << 20);
        let message = [head(0x82, LONG), vec![0; LONG as usize]].concat();
        client.write_all(&message).await.unwrap();
        let mut buffer = vec![0; 16 << 10];
        // As the library reads: some at a time.
        let mut left = message.len();
        while left > 0 {
            let most = left.min(buffer.len());
            left -= metered.read(&mut buffer[..most]).await.unwrap();
        }
        assert_eq!(room.taken(), u64::from(2 * LONG));
        // What is short needs none, though all of it is taken.
        client.write_all(&[head(0x82, 9), vec![0; 9]].concat()).await.unwrap();
        metered.read_exact(&mut buffer[..23]).await.unwrap();
        let first = meter.heard_message();
        assert!(first.is_some() && meter.heard_message().is_none());
        // There is none for the next one in time: it isn't read on.
        client.write_all(&message).await.unwrap();
        let mut read = 0;
        let starved = async {
            tokio::select! {
                () = meter.starved() => {}
                () = async { while metered.read(&mut buffer[..1 << 10]).await.is_ok() { read += 1 << 10; } } => {}
            }
        };
        starved.await;
        assert!(read <= FREE, "{read} bytes were taken in");
        drop((first, metered));
        assert_eq!(room.taken(), 0);
    }
}
