//! What is taken of the room besides requests and answers: by streams, each for as long as it lasts, and by work that needs much
//! memory for a while.

use corehold_types::Problem;
use tokio::sync::OwnedSemaphorePermit;

use super::{Room, Share, Taken, units};

/// Bytes of memory that a stream takes whose reader takes nothing: what its connection holds, its events, and what they are made of.
/// Most have less. Measured by the test `memory`.
pub(crate) const STREAM: usize = 320 << 10;

/// Room for work, until it is dropped.
#[derive(Debug, Default)]
pub struct Loan {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for room for work that needs so many bytes besides its request and its answer. Who needs more than three quarters of the
    /// room takes those: streams that stay open may hold the rest for ever.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is none in time.
    pub async fn lend(&self, bytes: usize) -> Result<Loan, Problem> {
        let permit = self.take(units(bytes).min(self.half + self.half / 2)).await?;
        Ok(Loan { _permit: Some(permit) })
    }

    /// Room for a part of a file that goes out, if it is there. Files have a quarter of the room at most, so that those
    /// who take them slowly keep little from others.
    pub(crate) fn try_take_for_file(&self, bytes: usize) -> Option<Taken> {
        self.try_take_of(&self.for_files, units(bytes))
    }
}

impl Share {
    /// The call streams from now on: waits for what that takes, and holds it as long as any clone of this is there, which goes
    /// with the stream's bytes.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is none in time.
    pub(crate) async fn begin_stream(&self) -> Result<(), Problem> {
        let taken = self.room.take_of(&self.room.for_streams, units(STREAM)).await?;
        self.held().stream = Some(taken);
        Ok(())
    }

    /// The stream has something that takes so many bytes more than most: waits for them, and holds them as its others.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is none in time.
    pub(crate) async fn widen_stream(&self, bytes: usize) -> Result<(), Problem> {
        let held = self.held().stream.as_ref().map_or(0, Taken::units);
        let missing = units(STREAM + bytes).min(self.room.half).saturating_sub(held);
        if missing > 0 {
            let more = self.room.take_of(&self.room.for_streams, missing).await?;
            match &mut self.held().stream {
                Some(taken) => taken.merge(more),
                nothing => *nothing = Some(more),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::Code;

    use super::{super::tests::room, *};

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn streams_have_half_of_the_room_as_long_as_anything_of_them_is_there() {
        let room = room(8);
        let mut streams = Vec::new();
        for _ in 0..4 * MIB / STREAM {
            let share = Share::of(&room);
            share.begin_stream().await.unwrap();
            streams.push(share);
        }
        let refused = Share::of(&room).begin_stream().await.unwrap_err();
        assert_eq!((refused.code, refused.status, refused.retryable), (Code::LimitExceeded, 503, true));
        assert!(Share::of(&room).try_gather(MIB), "an answer has room");
        let last = streams[0].clone();
        streams.clear();
        assert_eq!(room.taken() as usize, STREAM);
        drop(last);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_needs_more_holds_it_to_its_end() {
        let room = room(8);
        let share = Share::of(&room);
        share.begin_stream().await.unwrap();
        for bytes in [MIB, 10, MIB] {
            share.widen_stream(bytes).await.unwrap();
            assert_eq!(room.taken() as usize, STREAM + MIB);
        }
        let other = Share::of(&room);
        other.begin_stream().await.unwrap();
        let refused = other.widen_stream(3 * MIB).await.unwrap_err();
        assert_eq!((refused.code, refused.status, refused.retryable), (Code::LimitExceeded, 503, true));
        drop(other);
        share.widen_stream(100 * MIB).await.unwrap();
        assert_eq!(room.taken() as usize, 4 * MIB, "who needs more than there is takes all");
        drop(share);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn work_borrows_what_is_there_and_three_quarters_at_most() {
        let room = room(8);
        let stream = Share::of(&room);
        stream.begin_stream().await.unwrap();
        let loan = room.lend(100 * MIB).await.unwrap();
        assert_eq!(room.taken() as usize, 6 * MIB + STREAM);
        let refused = room.lend(2 * MIB).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (Code::LimitExceeded, true));
        drop(loan);
        drop(room.lend(2 * MIB).await.unwrap());
        assert_eq!(room.taken() as usize, STREAM);
    }
}
