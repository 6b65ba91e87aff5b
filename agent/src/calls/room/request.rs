//! A request's part of the room: taken while it comes, held until its call ends.
//!
//! What each connection may have for nothing ([`FREE`]) is enough for nearly all that is asked. What is larger takes its part before
//! the rest of it is taken in, all of it at once where its length is known, so that nobody holds some and waits for more. Requests
//! have half of the room at most, as streams have: neither takes all of it, whatever is sent.

use std::sync::Arc;

use corehold_types::Problem;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Room, SMALL, Waiting, permit, units};

/// Bytes of memory that the requests of one connection may take besides the room.
pub(crate) const FREE: usize = 2 * SMALL;

/// Bytes of memory that a value takes besides its text, at most, as our requests hold them: the largest are operations of `edit`
/// (two of what is counted) and variables of `command`.
const VALUE: usize = 160;

/// Bytes of memory that a request takes: its text, that again as it is understood, and the values in it.
pub(crate) fn memory_of(json: &[u8]) -> usize {
    2 * json.len() + values(json) * VALUE
}

/// Values in JSON, or more: what begins one that holds others, and what separates them. What is no JSON is counted too.
fn values(json: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' | b',' => count += 1,
            b'"' => at = end_of_string(json, at),
            _ => {}
        }
    }
    count
}

/// Behind the string's closing quote.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    loop {
        let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) else { return json.len() };
        at += found + 1;
        if json[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
}

/// What the requests of one connection may hold besides the room, where several are under way at a time.
#[derive(Debug)]
pub(crate) struct Allowance(Arc<Semaphore>);

impl Allowance {
    /// All of it is there.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(units(FREE))))
    }

    /// A request's part of it, if there is so much.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(units(bytes)).ok()?).ok()
    }
}

/// What a request or a stream holds of the room.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Of the half that is for what this is.
    of_part: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl Room {
    /// Waits for a request's part of the room. One that needs more than there is for requests takes all of that.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is none in time.
    pub(crate) async fn take_for_request(&self, bytes: usize) -> Result<Taken, Problem> {
        self.take_of(&self.for_requests, units(bytes)).await
    }

    /// Waits for so much of one half of the room, or for all of that.
    pub(super) async fn take_of(&self, part: &Arc<Semaphore>, asked: usize) -> Result<Taken, Problem> {
        let asked = asked.min(self.half);
        if let Some(taken) = self.try_take_of(part, asked) {
            return Ok(taken);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let both = async {
            // In this order only, so that of two neither has what the other waits for.
            Some(Taken { of_part: permit(part, asked).await?, of_all: permit(&self.free, asked).await? })
        };
        timeout(self.patience.as_duration(), both).await.ok().flatten().ok_or_else(|| self.full())
    }

    pub(super) fn try_take_of(&self, part: &Arc<Semaphore>, units: usize) -> Option<Taken> {
        let of_part = Arc::clone(part).try_acquire_many_owned(u32::try_from(units).ok()?).ok()?;
        Some(Taken { of_part, of_all: self.try_take(units)? })
    }

    /// Sees to it that a request which has come holds as much as it takes, without waiting: it holds some already.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is too little left, or never would be enough for so many values.
    pub(crate) fn settle_request(&self, taken: &mut Option<Taken>, json: &[u8]) -> Result<(), Problem> {
        let needed = memory_of(json);
        if units(needed - 2 * json.len()) > self.half {
            *taken = None;
            return Err(self.too_small("the memory of this one request, which has very many values,"));
        }
        if needed <= FREE {
            *taken = None;
            return Ok(());
        }
        let needed = units(needed).min(self.half);
        let held = taken.as_ref().map_or(0, Taken::units);
        if let Some(taken) = taken.as_mut().filter(|_| held > needed) {
            drop(taken.split(held - needed));
        } else if held < needed {
            let Some(more) = self.try_take_of(&self.for_requests, needed - held) else {
                *taken = None;
                return Err(self.full());
            };
            match taken {
                Some(taken) => taken.merge(more),
                None => *taken = Some(more),
            }
        }
        Ok(())
    }
}

impl Taken {
    pub(super) fn units(&self) -> usize {
        self.of_all.num_permits()
    }

    /// Adds what another holds.
    pub(crate) fn merge(&mut self, more: Self) {
        self.of_part.merge(more.of_part);
        self.of_all.merge(more.of_all);
    }

    fn split(&mut self, units: usize) -> Option<Self> {
        Some(Self { of_part: self.of_part.split(units)?, of_all: self.of_all.split(units)? })
    }

    /// The part of so many of the request's bytes, or all that there is.
    pub(super) fn part(mut self, bytes: usize) -> Self {
        let units = units(bytes).min(self.units());
        self.split(units).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::Code;

    use super::{
        super::{UNIT, tests::room},
        *,
    };

    const MIB: usize = 1 << 20;

    #[test]
    fn values_are_counted_where_they_are_some() {
        for (json, count) in [
            ("", 0),
            ("{}", 1),
            (r#"{"files":[{"path":"a"},{"path":"b"}]}"#, 5),
            (r#"{"a":",[{,\",\\"}"#, 1),
            (r#"["\\",""]"#, 2),
            (r#"{"unfinished,,,"#, 1),
            ("\"\\", 0),
        ] {
            assert_eq!(values(json.as_bytes()), count, "{json}");
        }
    }

    /// As the kernel counts it: what the parts of a request take in memory is at most what is reckoned for them.
    #[test]
    fn a_value_takes_no_more_than_is_reckoned() {
        use corehold_types::{WorkspacePath, tools};
        // The shortest text of each, and what stands in a list for it.
        for (text, size) in [
            (r#"{"type":"delete"},"#, size_of::<tools::EditOperation>()),
            (r#"{"path":"a","operations":[]},"#, size_of::<tools::FileEdit>() + 32),
            (r#"{"path":"a"},"#, size_of::<tools::ReadTarget>() + 32),
            (r#"{"path":"a","content":""},"#, size_of::<tools::WriteTarget>() + 32),
            (r#""a","#, size_of::<WorkspacePath>() + 32),
            (r#""a":"b","#, 2 * size_of::<String>() + 2 * 32 + 32),
        ] {
            let reckoned = memory_of(text.as_bytes()) - text.len();
            assert!(size <= reckoned, "{text} takes {size} bytes, {reckoned} are reckoned");
        }
    }

    #[tokio::test]
    async fn requests_have_half_of_the_room_and_answers_the_other() {
        let room = room(8);
        let first = room.take_for_request(3 * MIB).await.unwrap();
        let refused = room.take_for_request(2 * MIB).await.unwrap_err();
        assert_eq!((refused.code, refused.status, refused.retryable), (Code::LimitExceeded, 503, true));
        assert!(super::super::Share::of(&room).try_gather(MIB), "an answer has room");
        drop(first);
        let whole = room.take_for_request(100 * MIB).await.unwrap();
        assert_eq!(room.taken() as usize, 4 * MIB, "who needs more than there is takes all");
        drop(whole);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn who_waits_has_it_when_it_is_given_back() {
        let room = {
            let mut limits = crate::config::Limits::default();
            limits.answer_bytes.value = 8 << 20;
            Arc::new(Room::new(&limits))
        };
        let first = room.take_for_request(3 * MIB).await.unwrap();
        let second = tokio::spawn({
            let room = Arc::clone(&room);
            async move { room.take_for_request(3 * MIB).await.map(drop) }
        });
        while room.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_holds_what_it_takes() {
        let room = room(8);
        let mut taken = Some(room.take_for_request(3 * MIB).await.unwrap());
        let text = format!("\"{}\"", "x".repeat(MIB));
        room.settle_request(&mut taken, text.as_bytes()).unwrap();
        assert_eq!(room.taken() as usize, units(2 * text.len()) * UNIT);
        room.settle_request(&mut taken, b"{}").unwrap();
        assert!(taken.is_none() && room.taken() == 0, "what is small takes nothing");
        let many = format!("[{}0]", "0,".repeat(10_000));
        room.settle_request(&mut taken, many.as_bytes()).unwrap();
        assert!(room.taken() as usize > 10_000 * VALUE);
        let refused = room.settle_request(&mut taken, "0,".repeat(100_000).as_bytes()).unwrap_err();
        assert_eq!((refused.status, refused.retryable, room.taken()), (413, false, 0), "they never fit");
        let other = room.take_for_request(4 * MIB).await.unwrap();
        let refused = room.settle_request(&mut taken, many.as_bytes()).unwrap_err();
        assert_eq!((refused.status, refused.retryable), (503, true));
        drop(other);
    }
}
