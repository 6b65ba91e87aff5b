//! What a stream has made and its connection not written yet: a bound, though hyper would take 400 KiB of any body.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
};

use axum::body::Bytes;
use futures_util::task::AtomicWaker;

use crate::calls::Share;

/// Bytes from which no more are made.
const FULL: usize = 64 << 10;

/// Of one stream.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    written: AtomicWaker,
    /// What the stream takes of the room, until its last bytes have gone out.
    _share: Share,
}

impl Unsent {
    /// Nothing yet, of a stream with this share.
    pub(super) fn of(share: Share) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), written: AtomicWaker::new(), _share: share })
    }

    /// Whether there is enough. If so, the task is woken when some of it is written.
    pub(super) fn is_full(&self, context: &Context<'_>) -> bool {
        if self.bytes.load(Ordering::Acquire) < FULL {
            return false;
        }
        self.written.register(context.waker());
        // It may have been written before the task could be woken for it.
        self.bytes.load(Ordering::Acquire) >= FULL
    }

    /// Counts bytes until they are written, or their connection is gone.
    pub(super) fn keep(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        self.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Bytes::from_owner(Part { bytes, of: Arc::clone(self) })
    }
}

struct Part {
    bytes: Vec<u8>,
    of: Arc<Unsent>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.of.written.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn who_has_made_enough_is_woken_when_it_is_written() {
        let agent = testing::agent();
        let call = testing::call(&agent);
        call.share.begin_stream().await.unwrap();
        let unsent = Unsent::of(call.share.clone());
        drop(call);
        let pieces = [unsent.keep(vec![0; FULL - 1]), unsent.keep(vec![0; 1])];
        assert!(poll_fn(|context| Poll::Ready(unsent.is_full(context))).await);
        tokio::spawn(async move { drop(pieces) });
        poll_fn(|context| if unsent.is_full(context) { Poll::Pending } else { Poll::Ready(()) }).await;
        let last = unsent.keep(vec![0; 10]);
        drop(unsent);
        assert!(agent.room.taken() > 0, "its last bytes hold the room");
        drop(last);
        assert_eq!(agent.room.taken(), 0);
    }
}
