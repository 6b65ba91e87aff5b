//! A file's bytes on their way to a connection: a piece at a time, each read when the connection wants it, since the
//! connection keeps what was read until its reader takes it.
//!
//! Pieces are large where the room has a part for them, which each of them holds until it is written. Where it has none
//! they are as small as an answer that needs none, and the next one is read when the one before is written. So a file
//! that nobody takes costs little, and nobody who wants one is refused, or waits for others.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::calls::{Room, SMALL, Taken};

/// Bytes of a piece that has its part of the room.
const LARGE: u64 = 256 << 10;

/// A piece that isn't written yet, with what it holds.
struct Piece {
    bytes: Vec<u8>,
    _taken: Option<Taken>,
    /// The turn of its connection's one piece that has taken nothing.
    _turn: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes from `start` to `end`, if they are one piece that may be read at once.
///
/// # Errors
/// They can't be read, or aren't all there.
pub(super) fn at_once(room: &Room, file: &File, start: u64, end: u64) -> io::Result<Option<Bytes>> {
    let length = end - start;
    if length <= SMALL as u64 {
        return Ok(Some(read(file, start, end)?.into()));
    }
    if length > LARGE {
        return Ok(None);
    }
    let taken = room.try_take_for_file(length as usize);
    if taken.is_none() {
        return Ok(None);
    }
    let bytes = read(file, start, end)?;
    Ok(Some(Bytes::from_owner(Piece { bytes, _taken: taken, _turn: None })))
}

/// The bytes from `start` to `end` in pieces. A file that has become shorter is an error, since the length was
/// promised.
pub(super) fn pieces(
    room: Arc<Room>,
    file: File,
    start: u64,
    end: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (file, turns) = (Arc::new(file), Arc::new(Semaphore::new(1)));
    stream::try_unfold(start, move |offset| {
        let (room, file, turns) = (Arc::clone(&room), Arc::clone(&file), Arc::clone(&turns));
        async move {
            if offset >= end {
                return Ok(None);
            }
            let large = LARGE.min(end - offset);
            let taken = room.try_take_for_file(large as usize);
            let (length, turn) = match &taken {
                Some(_) => (large, None),
                None => {
                    let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
                    (large.min(SMALL as u64), Some(turn))
                }
            };
            let until = offset + length;
            // It holds its part while it is read too, though its connection may have gone.
            let reading = tokio::task::spawn_blocking(move || {
                read(&file, offset, until).map(|bytes| Piece { bytes, _taken: taken, _turn: turn })
            });
            let piece = reading.await.map_err(io::Error::other)??;
            Ok(Some((Bytes::from_owner(piece), until)))
        }
    })
}

fn read(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, pin::pin};

    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::config::Limits;

    const SIZE: u64 = 1 << 20;

    fn room(mebibytes: u64) -> Arc<Room> {
        let mut limits = Limits::default();
        limits.answer_bytes.value = mebibytes << 20;
        Arc::new(Room::new(&limits))
    }

    fn file() -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..SIZE).map(|at| (at / 1_000) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    #[tokio::test]
    async fn pieces_hold_room_until_they_are_written_and_without_it_come_one_by_one() {
        // A quarter of it is for files: one large piece.
        let room = room(1);
        let ((file, content), mut got) = (file(), Vec::new());
        let mut pieces = pin!(pieces(Arc::clone(&room), file, 0, SIZE));
        let large = pieces.next().await.unwrap().unwrap();
        assert_eq!((large.len() as u64, room.taken()), (LARGE, LARGE));
        got.extend_from_slice(&large);
        let small = pieces.next().await.unwrap().unwrap();
        assert_eq!((small.len(), room.taken()), (SMALL, LARGE));
        got.extend_from_slice(&small);
        assert!(pieces.next().now_or_never().is_none(), "there is one already");
        drop(small);
        let small = pieces.next().await.unwrap().unwrap();
        assert_eq!(small.len(), SMALL);
        got.extend_from_slice(&small);
        drop((large, small));
        while let Some(piece) = pieces.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert!(got == content);
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn what_is_one_piece_is_read_at_once_where_there_is_room() {
        let room = room(1);
        let (file, content) = file();
        let read = |start: u64, end: u64| at_once(&room, &file, start, end).unwrap();
        assert!(read(5, 5 + SMALL as u64).unwrap() == content[5..5 + SMALL] && room.taken() == 0);
        let large = read(7, 7 + LARGE).unwrap();
        assert!(large == content[7..7 + LARGE as usize] && room.taken() == LARGE);
        assert!(read(0, SMALL as u64 + 1).is_none(), "there is no room");
        assert!(read(0, SMALL as u64).is_some());
        drop(large);
        assert!(read(0, LARGE + 1).is_none(), "it is more than a piece");
        assert!(at_once(&room, &file, SIZE - 1, SIZE + 1).is_err(), "it isn't all there");
    }
}
