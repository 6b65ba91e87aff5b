//! The events of one call: each goes out as soon as the client has granted credit for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use corehold_types::{
    EventBytes,
    rpc::{Frame, INITIAL_CREDIT, MAX_EVENT_COST, MAX_PAYLOAD, RpcId, StreamEvent, StreamOpened, methods},
};
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::{Outgoing, dispatch::notification};
use crate::calls::ErasedEvent;

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
        let json = String::from_utf8(json).map_err(|_| Gone)?;
        let event = RawValue::from_string(json).map_err(|_| Gone)?;
        self.text(notification(methods::EVENT, &StreamEvent { stream: self.number, event })).await
    }

    async fn text(&self, text: String) -> Result<(), Gone> {
        self.out.send(Outgoing::text(text)).await.map_err(|_| Gone)
    }
}
