//! An answer as JSON: in pieces where it is large, so that it is never there twice, and each is given up as it is sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use corehold_types::{Code, Problem, Tool};
use hyper::body::{Frame, SizeHint};

use super::room::{Bound, SMALL, Share};

/// Bytes of a piece.
const PIECE: usize = SMALL;

/// Bytes that there is room for at first: most answers have no more.
const FIRST: usize = 128;

/// Bytes by which a share grows at a time.
const STEP: usize = 4 * PIECE;

/// The JSON of an answer.
#[derive(Debug, Default)]
pub struct Json {
    pieces: Vec<Bound>,
    length: usize,
}

impl Json {
    /// Writes a tool's answer, and gives up the response. What is large holds its part of the room; the rest of the share is given back.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is no room for it in time; `INTERNAL`: a response that has no JSON is a mistake of ours.
    pub(crate) async fn of<T: Tool>(response: T::Response, share: &Share) -> Result<Self, Problem> {
        let bytes = T::json_bytes(&response);
        Self::written(response, bytes, |response, out| T::write_json(response, out), share).await
    }

    /// Writes a value that takes about so many bytes.
    async fn written<V>(
        value: V,
        bytes: usize,
        how: impl Fn(&V, &mut Pieces<'_>) -> serde_json::Result<()>,
        share: &Share,
    ) -> Result<Self, Problem> {
        let written = match write(&value, bytes, &how, share)? {
            Written::All(pieces) => pieces,
            Written::Counted(needed) => {
                share.hold_json(needed).await?;
                match write(&value, bytes, &how, share)? {
                    Written::All(pieces) => pieces,
                    Written::Counted(_) => {
                        return Err(Problem::new(Code::Internal, "an answer grew while it was written"));
                    }
                }
            }
        };
        drop(value);
        Ok(written.bound(share))
    }

    /// How many bytes it has.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// The pieces, in their order.
    pub(crate) fn into_pieces(self) -> impl ExactSizeIterator<Item = Bytes> {
        self.pieces.into_iter().map(Bytes::from)
    }

    /// All of it in one piece. A large one is copied, and each piece of it given up for that.
    pub(crate) fn into_contiguous(self) -> Bytes {
        let mut pieces = self.pieces.into_iter();
        let Some(mut whole) = pieces.next() else { return Bytes::new() };
        if pieces.len() > 0 {
            whole.reserve(self.length - PIECE);
            pieces.for_each(|piece| whole.append(piece));
        }
        whole.into()
    }

    /// The body of an HTTP answer, of known length.
    pub(crate) fn into_body(self) -> Body {
        if self.pieces.len() > 1 {
            return Body::new(PiecesBody { left: self.length as u64, pieces: self.pieces.into_iter() });
        }
        Body::from(self.into_contiguous())
    }
}

impl From<Vec<u8>> for Json {
    fn from(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), pieces: vec![bytes.into()] }
    }
}

fn unwritable(error: &serde_json::Error) -> Problem {
    Problem::new(Code::Internal, format!("the response can't be written as JSON: {error}"))
}

enum Written<'a> {
    All(Pieces<'a>),
    /// There was no room for all of it, so it was only counted.
    Counted(usize),
}

fn write<'a, V>(
    value: &V,
    bytes: usize,
    how: &impl Fn(&V, &mut Pieces<'_>) -> serde_json::Result<()>,
    share: &'a Share,
) -> Result<Written<'a>, Problem> {
    let first = Vec::with_capacity(bytes.clamp(FIRST, PIECE));
    let mut pieces = Pieces { share, full: Vec::new(), last: first, allowed: share.spare(), counted: None };
    how(value, &mut pieces).map_err(|error| unwritable(&error))?;
    Ok(match pieces.counted {
        // In whole pieces, as they are written: else there would be no room for the last one.
        Some(counted) => Written::Counted((counted + pieces.last.len()).next_multiple_of(PIECE)),
        None => Written::All(pieces),
    })
}

/// Where an answer is written.
struct Pieces<'a> {
    share: &'a Share,
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Bytes that the share allows.
    allowed: usize,
    /// Once there was no room: bytes that were written and not kept.
    counted: Option<usize>,
}

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() <= PIECE - self.last.len() {
            self.last.extend_from_slice(bytes);
        } else {
            self.spread(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces<'_> {
    #[cold]
    fn spread(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.len() == PIECE {
                self.begin_piece();
            }
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.last.len()));
            self.last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The last piece is full.
    fn begin_piece(&mut self) {
        if let Some(counted) = &mut self.counted {
            *counted += self.last.len();
            self.last.clear();
            return;
        }
        let needed = (self.full.len() + 2) * PIECE;
        if needed > self.allowed && self.share.try_grow(STEP) {
            self.allowed += STEP;
        }
        if needed > self.allowed {
            self.counted = Some((self.full.len() + 1) * PIECE);
            self.full = Vec::new();
            self.last.clear();
            return;
        }
        self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(PIECE)));
    }

    fn bound(self, share: &Share) -> Json {
        let length = self.full.len() * PIECE + self.last.len();
        let pieces = if self.full.is_empty() {
            vec![self.last.into()]
        } else {
            self.full.into_iter().chain([self.last]).map(|piece| share.bind(piece)).collect()
        };
        share.give_back();
        Json { pieces, length }
    }
}

/// Pieces that are given up one by one.
struct PiecesBody {
    pieces: std::vec::IntoIter<Bound>,
    left: u64,
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.next().map(Bytes::from);
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use serde::Serialize;

    use super::{super::room::Room, *};
    use crate::config::Limits;

    fn room(bytes: u64) -> Arc<Room> {
        let mut limits = Limits::default();
        limits.answer_bytes.value = bytes;
        limits.answer_ms.value = 1;
        Arc::new(Room::new(&limits))
    }

    async fn json(value: &impl Serialize, room: &Arc<Room>) -> Result<Json, Problem> {
        Json::written(value, 0, |value, out| serde_json::to_writer(out, value), &Share::of(room)).await
    }

    async fn pieces(value: &impl Serialize, room: &Arc<Room>) -> Vec<Bytes> {
        json(value, room).await.unwrap().into_pieces().collect()
    }

    #[tokio::test]
    async fn the_pieces_are_the_json_whatever_its_length() {
        let room = room(64 << 20);
        for length in [0, 1, PIECE - 3, PIECE - 2, PIECE - 1, PIECE, 2 * PIECE - 2, 2 * PIECE - 1, 5 * PIECE + 7] {
            for text in ["x".repeat(length), "\n".repeat(length / 2), "é\u{1}".repeat(length / 8)] {
                let value = (&text, length);
                let whole = serde_json::to_vec(&value).unwrap();
                let pieces = pieces(&value, &room).await;
                assert_eq!(pieces.concat(), whole);
                assert_eq!(room.taken() > 0, whole.len() > PIECE, "{length}");
                drop(pieces);
                assert_eq!(room.taken(), 0);
                let answer = json(&value, &room).await.unwrap();
                assert_eq!(answer.length(), whole.len());
                let body = answer.into_body();
                assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
                assert_eq!(body.collect().await.unwrap().to_bytes(), whole);
                let answer = json(&value, &room).await.unwrap();
                assert_eq!(answer.into_contiguous(), whole);
            }
        }
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn of_answers_that_are_made_already_few_wait() {
        let mut limits = Limits::default();
        limits.answer_bytes.value = 1 << 20;
        let room = Arc::new(Room::new(&limits));
        let all = room.take_for_request(512 << 10).await.unwrap();
        let rest = Share::of(&room);
        rest.gather(200 << 10).await.unwrap();
        let text = "x".repeat(200 << 10);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let (room, text) = (Arc::clone(&room), text.clone());
            waiting.spawn(async move { json(&text, &room).await.map(|answer| answer.length()) });
        }
        while room.waiting() < 32 {
            tokio::task::yield_now().await;
        }
        let refused = json(&text, &room).await.unwrap_err();
        assert!(refused.retryable && refused.code == Code::LimitExceeded, "{refused:?}");
        drop((all, rest));
        while let Some(length) = waiting.join_next().await {
            assert_eq!(length.unwrap().unwrap(), text.len() + 2);
        }
    }

    #[tokio::test]
    async fn what_has_no_room_waits_for_it_or_is_refused() {
        let room = room(1 << 20);
        let text = "x".repeat(600 << 10);
        let first = pieces(&text, &room).await;
        let problem = json(&text, &room).await.unwrap_err();
        assert!(problem.retryable && problem.code == Code::LimitExceeded, "{problem:?}");
        let too_large = json(&"\u{1}".repeat(200 << 10), &room).await.unwrap_err();
        assert!(!too_large.retryable && too_large.code == Code::LimitExceeded, "{too_large:?}");
        drop(first);
        assert_eq!(room.taken(), 0, "who was refused holds nothing");
        assert_eq!(pieces(&text, &room).await.concat().len(), text.len() + 2);
    }
}
