//! The answers that are kept under `Idempotency-Key`s, so that a repeated change is answered and not done twice.
//!
//! Kept in memory: another `bootId` knows none of them. Bounded in time, number and bytes; of an answer that is too large to
//! keep, that it was given is remembered.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use blake3::Hash;
use corehold_types::{Code, Problem};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    access::Caller,
    config::{Limit, Limits},
};

/// What changes under keys have been answered.
#[derive(Debug)]
pub struct Answers {
    known: Mutex<Known>,
    /// The changes that go on whether or not their callers wait.
    pub(crate) tasks: TaskTracker,
    time: Duration,
    entries: Limit,
    bytes: Limit,
}

#[derive(Debug, Default)]
struct Known {
    slots: HashMap<Hash, Slot>,
    /// Every slot, oldest first, by its number: a key that was forgotten and came again has another one.
    order: VecDeque<(Hash, u64)>,
    /// Those whose answers are kept, oldest first.
    kept: VecDeque<(Hash, u64)>,
    kept_bytes: u64,
    last_number: u64,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    /// Of the tool and the request.
    digest: Hash,
    began: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Running(watch::Receiver<Option<Arc<Outcome>>>),
    Kept(Arc<Outcome>),
    /// It was done, but its answer was too large or too old to keep.
    Dropped,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response in JSON.
    Response(Box<[u8]>),
    /// The problem in JSON.
    Problem(Box<[u8]>),
}

/// Whose turn it is to do what a key stands for.
#[derive(Debug)]
pub(crate) enum Begin {
    /// The caller's: nobody has yet.
    First(Turn),
    /// Somebody else's, who has done it or is about to.
    Repeat(watch::Receiver<Option<Arc<Outcome>>>),
}

/// The right to do it. If it is dropped, the key is forgotten and the next one may.
#[derive(Debug)]
pub(crate) struct Turn {
    answers: Arc<Answers>,
    key: Hash,
    number: u64,
    sender: watch::Sender<Option<Arc<Outcome>>>,
}

impl Answers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            known: Mutex::default(),
            tasks: TaskTracker::new(),
            time: limits.idempotency_ms.as_duration(),
            entries: limits.idempotency_entries,
            bytes: limits.idempotency_bytes,
        }
    }

    /// Asks whose turn it is. The digest is that of the tool and the request.
    ///
    /// # Errors
    /// `IDEMPOTENCY_MISMATCH` when the key stands for another request, `LIMIT_EXCEEDED` when the answer isn't kept any more
    /// or too many are being made.
    pub(crate) fn begin(self: &Arc<Self>, caller: &Caller, key: &str, digest: Hash) -> Result<Begin, Problem> {
        // A key is the subject's own, and the workspace's: of many that would claim an agent, each is asked for by itself. Of
        // fixed size here, whatever the caller sent.
        let mut hasher = blake3::Hasher::new();
        for part in [caller.subject.as_str(), caller.workspace.as_deref().unwrap_or_default()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let hash = hasher.update(key.as_bytes()).finalize();
        let mut known = self.known();
        known.forget_old(Instant::now(), self.time);
        if let Some(slot) = known.slots.get(&hash) {
            if slot.digest != digest {
                return Err(mismatch(key));
            }
            return match &slot.stage {
                Stage::Running(receiver) => Ok(Begin::Repeat(receiver.clone())),
                Stage::Kept(outcome) => Ok(Begin::Repeat(watch::Sender::new(Some(Arc::clone(outcome))).subscribe())),
                Stage::Dropped => Err(self.dropped(key)),
            };
        }
        if known.slots.len() as u64 >= self.entries.value && !known.forget_oldest() {
            return Err(self.entries.exceeded("the number of changes under an Idempotency-Key"));
        }
        let (sender, receiver) = watch::channel(None);
        known.last_number += 1;
        let number = known.last_number;
        known.order.push_back((hash, number));
        let Known { order, slots, .. } = &mut *known;
        sweep(order, slots);
        let slot = Slot { number, digest, began: Instant::now(), stage: Stage::Running(receiver) };
        known.slots.insert(hash, slot);
        Ok(Begin::First(Turn { answers: Arc::clone(self), key: hash, number, sender }))
    }

    fn dropped(&self, key: &str) -> Problem {
        self.bytes
            .exceeded(&format!("the answer kept under the Idempotency-Key {key:?}"))
            .with("done", true)
            .suggest("the change was made; look at what is there now rather than repeat it")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic while it was held is not possible between two changes that belong together.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key stands for another request.
pub(crate) fn mismatch(key: &str) -> Problem {
    Problem::new(Code::IdempotencyMismatch, format!("the Idempotency-Key {key:?} was used for another request"))
        .suggest("take a new key for every change, and the same one only to repeat the same request")
}

/// Drops what was forgotten meanwhile, once it is more than what was not.
fn sweep(queue: &mut VecDeque<(Hash, u64)>, slots: &HashMap<Hash, Slot>) {
    if queue.len() > 2 * slots.len() + 8 {
        queue.retain(|(key, number)| slots.get(key).is_some_and(|slot| slot.number == *number));
    }
}

impl Known {
    fn forget_old(&mut self, now: Instant, time: Duration) {
        while let Some((key, number)) = self.order.front().copied() {
            match self.slots.get(&key) {
                Some(slot) if slot.number == number => {
                    if now.duration_since(slot.began) < time {
                        return;
                    }
                    self.order.pop_front();
                    match slot.stage {
                        // It takes its time; the key is kept until it is done, and somewhat longer.
                        Stage::Running(_) => return self.order.push_back((key, number)),
                        _ => self.remove(key, number),
                    }
                }
                _ => drop(self.order.pop_front()),
            }
        }
    }

    /// Makes room for one; false when all of them are being made.
    fn forget_oldest(&mut self) -> bool {
        for _ in 0..self.order.len() {
            let Some((key, number)) = self.order.pop_front() else { return false };
            match self.slots.get(&key) {
                Some(slot) if slot.number == number => {
                    if matches!(slot.stage, Stage::Running(_)) {
                        self.order.push_back((key, number));
                    } else {
                        self.remove(key, number);
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn remove(&mut self, key: Hash, number: u64) {
        if self.slots.get(&key).is_some_and(|slot| slot.number == number)
            && let Some(Slot { stage: Stage::Kept(outcome), .. }) = self.slots.remove(&key)
        {
            self.kept_bytes -= outcome.size();
        }
    }

    fn keep(&mut self, key: Hash, number: u64, outcome: Arc<Outcome>, most_bytes: u64) {
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.number == number) else { return };
        // One answer may not drive out all of the others.
        if outcome.size() > most_bytes / 4 {
            slot.stage = Stage::Dropped;
            return;
        }
        self.kept_bytes += outcome.size();
        slot.stage = Stage::Kept(outcome);
        self.kept.push_back((key, number));
        sweep(&mut self.kept, &self.slots);
        while self.kept_bytes > most_bytes {
            let Some((key, number)) = self.kept.pop_front() else { return };
            if let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.number == number)
                && let Stage::Kept(outcome) = std::mem::replace(&mut slot.stage, Stage::Dropped)
            {
                self.kept_bytes -= outcome.size();
            }
        }
    }
}

impl Outcome {
    fn size(&self) -> u64 {
        match self {
            Self::Response(json) | Self::Problem(json) => json.len() as u64,
        }
    }
}

impl Turn {
    /// Where the answer will be told.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<Outcome>>> {
        self.sender.subscribe()
    }

    /// Tells those who wait, and keeps the answer for those to come.
    pub(crate) fn keep(self, outcome: Outcome) {
        let outcome = Arc::new(outcome);
        self.answers.known().keep(self.key, self.number, Arc::clone(&outcome), self.answers.bytes.value);
        self.sender.send_replace(Some(outcome));
    }

    /// Tells those who wait; whoever comes from now on may try it again.
    pub(crate) fn forget(self, outcome: Outcome) {
        self.answers.known().remove(self.key, self.number);
        self.sender.send_replace(Some(Arc::new(outcome)));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut known = self.answers.known();
        if known
            .slots
            .get(&self.key)
            .is_some_and(|slot| slot.number == self.number && matches!(slot.stage, Stage::Running(_)))
        {
            known.remove(self.key, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(entries: u64, bytes: u64) -> Arc<Answers> {
        let mut limits = Limits::default();
        limits.idempotency_entries.value = entries;
        limits.idempotency_bytes.value = bytes;
        Arc::new(Answers::new(&limits))
    }

    fn response(length: usize) -> Outcome {
        Outcome::Response(vec![b'x'; length].into())
    }

    fn begin_as(answers: &Arc<Answers>, subject: &str, key: &str, request: &str) -> Result<Begin, Problem> {
        answers.begin(&Caller::with_every_scope(subject), key, blake3::hash(request.as_bytes()))
    }

    fn begin(answers: &Arc<Answers>, key: &str) -> Result<Begin, Code> {
        begin_as(answers, "me", key, "request").map_err(|problem| problem.code)
    }

    #[track_caller]
    fn first(answers: &Arc<Answers>, key: &str) -> Turn {
        match begin(answers, key) {
            Ok(Begin::First(turn)) => turn,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn kept(answers: &Arc<Answers>, key: &str) -> Option<Outcome> {
        match begin(answers, key) {
            Ok(Begin::Repeat(receiver)) => receiver.borrow().as_deref().cloned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_belongs_to_a_subject_and_a_request() {
        let answers = answers(10, 1_000);
        let turn = first(&answers, "k");
        assert_eq!(kept(&answers, "k"), None, "it is being made");
        turn.keep(response(3));
        assert_eq!(kept(&answers, "k"), Some(response(3)));
        let other = begin_as(&answers, "me", "k", "another").unwrap_err();
        assert_eq!(other.code, Code::IdempotencyMismatch);
        assert!(matches!(begin_as(&answers, "you", "k", "another"), Ok(Begin::First(_))));
        // Not the same as ("me", "k"), though the letters are.
        assert!(matches!(begin_as(&answers, "m", "ek", "request"), Ok(Begin::First(_))));
        let mut elsewhere = Caller::with_every_scope("me");
        elsewhere.workspace = Some("w".to_owned());
        assert!(matches!(answers.begin(&elsewhere, "k", blake3::hash(b"another")), Ok(Begin::First(_))));
    }

    #[test]
    fn what_failed_for_the_moment_and_what_was_cut_off_may_be_tried_again() {
        let answers = answers(10, 1_000);
        first(&answers, "k").forget(response(1));
        drop(first(&answers, "k"));
        first(&answers, "k").keep(response(1));
        assert_eq!(kept(&answers, "k"), Some(response(1)));
    }

    #[test]
    fn bytes_are_bounded_and_what_was_done_is_still_known() {
        let answers = answers(100, 40);
        for key in 0..10 {
            first(&answers, &key.to_string()).keep(response(10));
        }
        assert!(answers.known().kept_bytes <= 40 && answers.known().kept.len() <= 4);
        assert_eq!(begin(&answers, "0").unwrap_err(), Code::LimitExceeded);
        assert_eq!(kept(&answers, "9"), Some(response(10)));
        let turn = first(&answers, "large");
        let told = turn.subscribe();
        turn.keep(response(11));
        assert_eq!(told.borrow().as_deref(), Some(&response(11)), "who waits gets it");
        assert_eq!(begin(&answers, "large").unwrap_err(), Code::LimitExceeded);
    }

    #[test]
    fn entries_are_bounded_and_what_is_being_made_is_never_forgotten() {
        let answers = answers(3, 1_000);
        let running = first(&answers, "running");
        for key in 0..10 {
            first(&answers, &key.to_string()).keep(response(1));
        }
        assert_eq!(answers.known().slots.len(), 3);
        (0..1_000).for_each(|_| first(&answers, "fails").forget(response(1)));
        assert!(answers.known().kept.len() <= 15 && answers.known().order.len() <= 15);
        assert_eq!(kept(&answers, "running"), None);
        let (_one, _two) = (first(&answers, "a"), first(&answers, "b"));
        assert_eq!(begin(&answers, "c").unwrap_err(), Code::LimitExceeded);
        drop(running);
        drop(first(&answers, "c"));
    }

    #[test]
    fn time_is_bounded() {
        let answers = answers(10, 1_000);
        first(&answers, "done").keep(response(1));
        let _running = first(&answers, "running");
        let later = Instant::now() + Duration::from_secs(60);
        answers.known().forget_old(later, Duration::from_secs(120));
        assert_eq!(answers.known().slots.len(), 2);
        answers.known().forget_old(later, Duration::from_secs(30));
        assert_eq!(answers.known().slots.len(), 1, "what is being made stays");
        assert_eq!(answers.known().kept_bytes, 0);
        drop(first(&answers, "done"));
    }
}
