//! The room for large requests and answers: bytes of memory that all who call share.
//!
//! A call takes its share of the room before it gathers what it answers. The share goes over to the answer's bytes, and comes
//! back as they are written to the caller's connection or as that breaks. So it is the room that callers who don't read use up,
//! and not the agent's memory. Who finds too little of it waits, for a bounded time. What is small takes nothing. Of what comes
//! in, [`request`] tells; of what goes out for as long as somebody likes, and of work that needs much memory, [`loan`].

mod loan;
mod request;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use corehold_types::Problem;
use http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::config::{Limit, Limits};
pub use loan::Loan;
pub(crate) use request::{Allowance, FREE, Taken, memory_of};

/// Bytes of an answer that needs no share.
pub(crate) const SMALL: usize = 64 << 10;

/// Bytes that one permit of the semaphore stands for: it counts in 32 bits.
const UNIT: usize = 1 << 10;

/// Answers that may wait for room though they are there already, made without asking for any: each has a megabyte at most.
const MADE: usize = 32;

/// The agent's room.
#[derive(Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    /// What requests may take of it: half.
    for_requests: Arc<Semaphore>,
    /// What open streams may take of it: half.
    for_streams: Arc<Semaphore>,
    /// What files that go out may take of it: a quarter.
    for_files: Arc<Semaphore>,
    half: usize,
    /// For those of [`MADE`] that wait.
    made: Semaphore,
    waiting: AtomicUsize,
    bytes: Limit,
    patience: Limit,
}

impl Room {
    /// All of it is free.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let units = units(limits.answer_bytes.as_usize()).min(u32::MAX as usize);
        Self {
            free: Arc::new(Semaphore::new(units)),
            for_requests: Arc::new(Semaphore::new(units / 2)),
            for_streams: Arc::new(Semaphore::new(units / 2)),
            for_files: Arc::new(Semaphore::new(units / 4)),
            half: units / 2,
            made: Semaphore::new(MADE),
            waiting: AtomicUsize::new(0),
            bytes: limits.answer_bytes,
            patience: limits.answer_ms,
        }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.bytes.value.saturating_sub((self.free.available_permits() * UNIT) as u64)
    }

    /// Calls that wait for some of it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn try_take(&self, units: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }

    async fn take(&self, units: usize) -> Result<OwnedSemaphorePermit, Problem> {
        if let Some(permit) = self.try_take(units) {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let taken = timeout(self.patience.as_duration(), permit(&self.free, units)).await;
        taken.ok().flatten().ok_or_else(|| self.full())
    }

    /// There was no room in time. There may be in a moment: as soon as others have read their answers.
    fn full(&self) -> Problem {
        let mut problem =
            self.bytes.exceeded("the memory that the requests and the unread answers of all callers hold");
        problem.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        problem.retryable = true;
        let (bytes, patience) = (self.bytes.variable, self.patience.variable);
        problem.suggest(format!(
            "try again in a moment, or ask for less at a time; {bytes} sets the limit, {patience} how long a call waits"
        ))
    }

    /// One request or answer needs more than there is.
    fn too_small(&self, what: &str) -> Problem {
        self.bytes.exceeded(what).suggest(format!("ask for less at a time; {} sets this limit", self.bytes.variable))
    }
}

/// A call waits as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One call's share of the room. Clones are the same share.
#[derive(Debug, Clone)]
pub struct Share {
    room: Arc<Room>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// The request's, until the call ends.
    request: Option<Taken>,
    /// The same, of what its connection has besides the room.
    allowed: Option<OwnedSemaphorePermit>,
    /// Its stream's, until the last of that has gone out.
    stream: Option<Taken>,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that the call has gathered by now.
    content: usize,
}

impl Held {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }
}

impl Share {
    /// A call's share: nothing yet.
    #[must_use]
    pub fn of(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), held: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // At worst a share is too large.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call is about to gather so many bytes besides those before. Says whether there is room for them and for what will be
    /// written of them, without waiting.
    #[must_use]
    pub fn try_gather(&self, bytes: usize) -> bool {
        let mut held = self.held();
        let content = held.content.saturating_add(bytes);
        let missing = units(with_json(content)).saturating_sub(held.units());
        if content > SMALL && missing > 0 {
            let Some(more) = self.room.try_take(missing) else { return false };
            held.add(more);
        }
        held.content = content;
        true
    }

    /// Waits for the room of so many bytes in all. What was gathered by now is taken for given up, and its room given back: of calls
    /// that each hold some and wait for more, none would go on.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is no room in time, or never.
    pub async fn gather(&self, bytes: usize) -> Result<(), Problem> {
        self.give_back();
        if bytes > SMALL { self.hold(with_json(bytes)).await } else { Ok(()) }
    }

    /// Waits until the share is as large as that.
    async fn hold(&self, bytes: usize) -> Result<(), Problem> {
        let units = units(bytes);
        if units > self::units(self.room.bytes.as_usize()) {
            return Err(self.room.too_small("the memory of this one answer"));
        }
        let missing = units.saturating_sub(self.held().units());
        if missing > 0 {
            let more = self.room.take(missing).await?;
            self.held().add(more);
        }
        Ok(())
    }

    /// Waits for the room of so many bytes that are there already: of few too, which would else take none.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is no room in time, or when many wait for some already.
    pub(crate) async fn hold_waiting(&self, bytes: usize) -> Result<(), Problem> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let _made = self.room.made.try_acquire().map_err(|_| self.room.full())?;
        self.hold(bytes).await
    }

    /// Binds that room to those bytes.
    pub(crate) fn bind_waiting(&self, bytes: Bytes) -> Bytes {
        self.bind(bytes.into()).into()
    }

    /// Waits for the room of an answer of so many bytes, besides what was gathered.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` when there is no room in time, or never; or when many wait already that gathered without asking.
    pub(super) async fn hold_json(&self, bytes: usize) -> Result<(), Problem> {
        let content = self.held().content;
        let _made = match content {
            0 => Some(self.room.made.try_acquire().map_err(|_| self.room.full())?),
            _ => None,
        };
        self.hold(content.saturating_add(bytes)).await
    }

    /// Bytes that may be written besides what was gathered, without more room.
    pub(super) fn spare(&self) -> usize {
        let held = self.held();
        (held.units() * UNIT).saturating_sub(held.content)
    }

    /// Makes the share larger, if there is room.
    pub(super) fn try_grow(&self, bytes: usize) -> bool {
        self.room.try_take(units(bytes)).map(|more| self.held().add(more)).is_some()
    }

    /// Binds as much of the share to an answer's bytes, for as long as they are kept.
    pub(super) fn bind(&self, bytes: Vec<u8>) -> Bound {
        let permit = self.held().permit.as_mut().and_then(|permit| permit.split(units(bytes.len())));
        Bound { bytes, permit }
    }

    /// Gives back what is left; not what the request holds.
    pub(super) fn give_back(&self) {
        let mut held = self.held();
        let left = held.permit.take();
        held.content = 0;
        drop((held, left));
    }

    /// The call holds this until it ends: what its request takes of the room.
    pub(crate) fn keep_request(&self, taken: Option<Taken>) {
        self.held().request = taken;
    }

    /// The same, where the request's connection has so much besides the room.
    pub(crate) fn keep_allowed(&self, allowed: OwnedSemaphorePermit) {
        self.held().allowed = Some(allowed);
    }

    /// The request is done with but for these bytes of it, which may be kept for longer than the call: they hold its part of the
    /// room from now on.
    pub(crate) fn bind_request(&self, bytes: Vec<u8>) -> Bytes {
        match self.held().request.take() {
            Some(taken) => {
                let taken = taken.part(bytes.len());
                Bytes::from_owner(OfRequest { bytes, _taken: taken })
            }
            None => bytes.into(),
        }
    }
}

/// Bytes with their part of the room.
#[derive(Debug)]
pub(super) struct Bound {
    bytes: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Bound {
    /// Adds bytes, and their part of the room to that of these.
    pub(super) fn append(&mut self, other: Self) {
        self.bytes.extend_from_slice(&other.bytes);
        match (&mut self.permit, other.permit) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit @ None, more) => *permit = more,
            (Some(_), None) => {}
        }
    }

    /// Makes room for so many more bytes, which are appended then.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }
}

impl AsRef<[u8]> for Bound {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Bound {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, permit: None }
    }
}

impl From<Bound> for Bytes {
    fn from(bound: Bound) -> Self {
        if bound.permit.is_some() { Self::from_owner(bound) } else { bound.bytes.into() }
    }
}

/// Bytes of a request with their part of the room.
struct OfRequest {
    bytes: Vec<u8>,
    _taken: Taken,
}

impl AsRef<[u8]> for OfRequest {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Waits for permits; nothing if there can't be so many.
async fn permit(of: &Arc<Semaphore>, units: usize) -> Option<OwnedSemaphorePermit> {
    Arc::clone(of).acquire_many_owned(u32::try_from(units).ok()?).await.ok()
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// Content, and what is written of it: a quarter more for quotes and line ends. Where there are still more of them, the share
/// grows while it is written.
const fn with_json(content: usize) -> usize {
    content.saturating_mul(9) / 4
}

#[cfg(test)]
mod tests {
    use corehold_types::Code;

    use super::*;

    const MIB: usize = 1 << 20;

    pub(super) fn room(mebibytes: u64) -> Arc<Room> {
        let mut limits = Limits::default();
        limits.answer_bytes.value = mebibytes << 20;
        limits.answer_ms.value = 1;
        Arc::new(Room::new(&limits))
    }

    #[tokio::test]
    async fn what_is_small_takes_nothing_and_what_is_large_its_share() {
        let room = room(8);
        let share = Share::of(&room);
        assert!(share.try_gather(SMALL) && room.taken() == 0);
        assert!(share.try_gather(MIB - SMALL));
        assert_eq!(room.taken() as usize, with_json(MIB), "what came before counts too");
        assert!(!share.try_gather(7 * MIB), "there isn't so much");
        assert_eq!(share.spare(), with_json(MIB) - MIB, "nothing has changed");
        drop(share);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_and_is_told_which_limit_it_was() {
        let room = room(8);
        let (first, second) = (Share::of(&room), Share::of(&room));
        assert!(first.try_gather(2 * MIB) && !second.try_gather(2 * MIB));
        let problem = second.gather(2 * MIB).await.unwrap_err();
        assert_eq!((problem.code, problem.status, problem.retryable), (Code::LimitExceeded, 503, true));
        assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_ANSWER_BYTES");
        let problem = second.gather(4 * MIB).await.unwrap_err();
        assert_eq!((problem.status, problem.retryable), (413, false), "it never fits");
        first.give_back();
        second.gather(2 * MIB).await.unwrap();
        assert!(second.try_gather(2 * MIB), "it was waited for already");
        assert_eq!(room.taken() as usize, with_json(2 * MIB));
    }

    #[tokio::test]
    async fn a_share_goes_with_the_bytes() {
        let room = room(8);
        let share = Share::of(&room);
        assert!(share.try_gather(MIB));
        let (one, two) = (Bytes::from(share.bind(vec![1; MIB])), share.bind(vec![2; 1000]));
        share.give_back();
        drop(share);
        assert_eq!(room.taken() as usize, MIB + UNIT);
        let part = one.slice(..10);
        drop((one, two));
        assert_eq!((room.taken() as usize, part[0]), (MIB, 1), "as long as any of it is kept");
        drop(part);
        assert_eq!(room.taken(), 0);
    }
}
