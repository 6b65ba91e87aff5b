//! The events of one call: each goes out as soon as the client has granted credit for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::body::Bytes;
use corehold_types::{
    EventBytes,
    rpc::{Frame, INITIAL_CREDIT, MAX_EVENT_COST, MAX_PAYLOAD, RpcId, StreamOpened, methods},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::{Outgoing, dispatch::notification};
use crate::calls::{ErasedEvent, SMALL, Share};

/// Bytes that a client still wants of a stream.
#[derive(Debug)]
pub(super) struct CreditLine {
    bytes: AtomicU64,
    granted: Notify,
}

impl CreditLine {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(INITIAL_CREDIT.into()), granted: Notify::new() })
    }

    /// The client wants more.
    pub(super) fn grant(&self, bytes: u64) {
        let more = |now: u64| Some(now.saturating_add(bytes));
        let _ = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        self.granted.notify_one();
    }

    /// Waits until something from `least` to `most` bytes is granted, uses it up and says how much it was.
    async fn spend(&self, least: usize, most: usize) -> usize {
        let (least, most) = (least as u64, most as u64);
        loop {
            let less = |now: u64| now.checked_sub(now.min(most).max(least));
            if let Ok(before) = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
                // It fits: `most` was a `usize`.
                return before.min(most) as usize;
            }
            self.granted.notified().await;
        }
    }
}

/// Where the events of a call go.
pub(super) struct Stream {
    pub(super) number: u32,
    pub(super) id: RpcId,
    pub(super) credit: Arc<CreditLine>,
    pub(super) out: mpsc::Sender<Outgoing>,
    /// What it takes of the room.
    pub(super) share: Share,
    /// The turn of its one large event that isn't sent yet.
    pub(super) turns: Arc<Semaphore>,
}

/// A large event that isn't sent yet.
struct Large {
    json: Vec<u8>,
    _share: Share,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// The socket is gone.
struct Gone;

impl Stream {
    /// Sends events until there are no more, or nobody reads them.
    pub(super) async fn forward(self, mut events: mpsc::Receiver<ErasedEvent>) {
        let opened = StreamOpened { id: self.id.clone(), stream: self.number };
        if self.text(notification(methods::STREAM, &opened)).await.is_err() {
            return;
        }
        while let Some(event) = events.recv().await {
            let sent = match event.bytes {
                Some(bytes) => self.bytes(bytes).await,
                None => self.event(event.json).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Bytes in frames small enough that other streams' come between them.
    async fn bytes(&self, bytes: EventBytes) -> Result<(), Gone> {
        // The agent has made it itself: it decodes.
        let data = bytes.data.into_bytes().map_err(|_| Gone)?;
        let (mut offset, mut rest): (u64, &[u8]) = (bytes.offset, &data);
        while !rest.is_empty() {
            let length = self.credit.spend(1, rest.len().min(MAX_PAYLOAD)).await;
            let (payload, later) = rest.split_at(length);
            rest = later;
            let frame = Frame { kind: bytes.kind, stream: self.number, offset, payload };
            self.out.send(Message::Binary(frame.encode().into()).into()).await.map_err(|_| Gone)?;
            offset += payload.len() as u64;
        }
        Ok(())
    }

    async fn event(&self, json: Vec<u8>) -> Result<(), Gone> {
        let cost = json.len().min(MAX_EVENT_COST);
        self.credit.spend(cost, cost).await;
        // As `StreamEvent` is written.
        let (method, stream) = (methods::EVENT, self.number);
        let head = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"stream":{stream},"event":"#);
        let tail = "}}";
        if json.len() <= SMALL {
            return self.text([head.as_bytes(), &json, tail.as_bytes()].concat()).await;
        }
        // Not copied, and its stream's part of the room is held until the last of it goes out.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Gone)?;
        let json = Bytes::from_owner(Large { json, _share: self.share.clone(), _turn: turn });
        let pieces = (0..json.len()).step_by(SMALL).map(|start| json.slice(start..json.len().min(start + SMALL)));
        let text = [head.into()].into_iter().chain(pieces).chain([tail.into()]).collect();
        self.out.send(Outgoing::Text(text)).await.map_err(|_| Gone)
    }

    async fn text(&self, text: impl Into<Bytes>) -> Result<(), Gone> {
        self.out.send(Outgoing::text(text)).await.map_err(|_| Gone)
    }
}
