//! Those who listen to one watched tree: each with what it hasn't read yet, and what it was spared.
//!
//! The tree's thread tells all of them the same batches. What one hasn't read is bounded. A reader who is behind is waited
//! for a moment; then what it has missed is one `resync`, and the others go on.

use std::{
    collections::VecDeque,
    mem,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use corehold_types::tools::ResyncReason;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use tokio::sync::Notify;

use super::changes::{Change, cost};

/// Bytes of changes that wait for one reader, about as many changes as the kernel's own queue holds.
const MOST_KEPT: usize = 1 << 20;

/// How long the tree's thread waits for readers who are behind. Meanwhile the kernel's queue holds what happens.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is told together.
type Batch = Arc<[Change]>;

/// Those who listen to one tree.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The tree's directory.
    start: Vec<u8>,
    members: Mutex<Members>,
    /// Readable when somebody came, or the last one left.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Members {
    present: Vec<Arc<Queue>>,
    /// They are told from the next moment on at which nothing waits.
    joining: Vec<Arc<Queue>>,
    /// Whether all that is asked for is watched: if not, nobody else is let in.
    incomplete: bool,
    /// Nobody is told anything any more.
    over: bool,
}

/// What one of them hasn't read.
#[derive(Debug, Default)]
struct Queue {
    unread: Mutex<Unread>,
    /// There is something to read.
    told: Notify,
    /// There is room, or the reader has left.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Unread {
    ready: Option<usize>,
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
    /// It was too slow. From here on nothing is kept until it knows.
    missed: bool,
    /// The reader has left.
    left: bool,
    /// The tree's thread has ended.
    over: bool,
}

/// What a reader is told.
#[derive(Debug)]
pub enum Told {
    /// So many directories are watched, all that were asked for. Comes first.
    Ready(usize),
    /// Changes, in the order in which they happened.
    Changes(Batch),
    /// The changes can't be watched any more.
    Over,
}

/// Somebody listens. Dropping it ends that, and with the last one the watch itself.
#[derive(Debug)]
pub struct Listening {
    queue: Arc<Queue>,
    listeners: Arc<Listeners>,
}

/// A thread that panicked has left nothing half-done here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// The first one, too.
    ///
    /// # Errors
    /// The agent may not have more open files.
    pub(super) fn new(start: Vec<u8>) -> Result<(Arc<Self>, Listening), Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let listeners = Arc::new(Self { start, members: Mutex::default(), wake });
        let first = listeners.enter(&mut locked(&listeners.members));
        Ok((listeners, first))
    }

    pub(super) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// One more; none if the watch is over or doesn't cover everything.
    pub(super) fn join(self: &Arc<Self>) -> Option<Listening> {
        let mut members = locked(&self.members);
        (!members.over && !members.incomplete).then(|| self.enter(&mut members))
    }

    fn enter(self: &Arc<Self>, members: &mut Members) -> Listening {
        let queue = Arc::<Queue>::default();
        members.joining.push(Arc::clone(&queue));
        self.wake_up();
        Listening { queue, listeners: Arc::clone(self) }
    }

    /// Some of what was asked for isn't watched any more.
    pub(super) fn mark_incomplete(&self) {
        locked(&self.members).incomplete = true;
    }

    pub(super) fn is_over(&self) -> bool {
        locked(&self.members).over
    }

    /// Whether somebody wants to be let in.
    pub(super) fn is_asked(&self) -> bool {
        // A wake-up that is missed here comes with the next one who joins.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        !locked(&self.members).joining.is_empty()
    }

    /// Lets in who waits for it. So many directories are watched.
    pub(super) fn admit(&self, directories: usize) {
        let mut members = locked(&self.members);
        for queue in mem::take(&mut members.joining) {
            locked(&queue.unread).ready = Some(directories);
            queue.told.notify_one();
            members.present.push(queue);
        }
    }

    /// Tells all of them. Waits for those who are behind, all in all as long as [`PATIENCE`].
    pub(super) fn tell(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let bytes = changes.iter().map(cost).sum();
        let batch = Batch::from(changes);
        let deadline = Instant::now() + PATIENCE;
        let present = locked(&self.members).present.clone();
        for queue in present {
            queue.push(&batch, bytes, deadline);
        }
    }

    /// The thread has ended: nobody is told anything any more.
    pub(super) fn end(&self) {
        let mut members = locked(&self.members);
        members.over = true;
        let members = &mut *members;
        for queue in members.present.drain(..).chain(members.joining.drain(..)) {
            locked(&queue.unread).over = true;
            queue.told.notify_one();
        }
    }

    fn leave(&self, queue: &Arc<Queue>) {
        {
            let mut members = locked(&self.members);
            let other = |member: &Arc<Queue>| !Arc::ptr_eq(member, queue);
            members.present.retain(other);
            members.joining.retain(other);
            members.over |= members.present.is_empty() && members.joining.is_empty();
        }
        self.wake_up();
    }

    fn wake_up(&self) {
        // It fails when it was woken 2^64 times already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Queue {
    fn push(&self, batch: &Batch, bytes: usize, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let full = |unread: &Unread| unread.bytes > 0 && unread.bytes + bytes > MOST_KEPT;
        let waited = self.room.wait_timeout_while(locked(&self.unread), patience, |unread| {
            !unread.left && !unread.missed && full(unread)
        });
        let (mut unread, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if unread.left || unread.missed {
            return;
        }
        if full(&unread) {
            unread.batches = VecDeque::new();
            unread.bytes = 0;
            unread.missed = true;
        } else {
            unread.batches.push_back((Arc::clone(batch), bytes));
            unread.bytes += bytes;
        }
        drop(unread);
        self.told.notify_one();
    }
}

impl Listening {
    /// What is next; waits for it. Nothing is lost if this is given up and asked again.
    pub async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.unread() {
                return told;
            }
            self.queue.told.notified().await;
        }
    }

    fn unread(&self) -> Option<Told> {
        let mut unread = locked(&self.queue.unread);
        if let Some(directories) = unread.ready.take() {
            return Some(Told::Ready(directories));
        }
        if mem::take(&mut unread.missed) {
            let resync = Change::Resync(self.listeners.start.clone(), ResyncReason::Overflow);
            return Some(Told::Changes(Batch::from([resync])));
        }
        if let Some((batch, bytes)) = unread.batches.pop_front() {
            unread.bytes -= bytes;
            self.queue.room.notify_one();
            return Some(Told::Changes(batch));
        }
        unread.over.then_some(Told::Over)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        locked(&self.queue.unread).left = true;
        self.queue.room.notify_one();
        self.listeners.leave(&self.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(length: usize) -> Vec<Change> {
        vec![Change::Modified(vec![b'x'; length])]
    }

    fn told(listening: &Listening) -> String {
        match listening.unread() {
            None => "nothing".to_owned(),
            Some(Told::Ready(directories)) => format!("ready {directories}"),
            Some(Told::Changes(batch)) => match &batch[..] {
                [Change::Modified(path)] => format!("modified {}", path.len()),
                [Change::Resync(path, reason)] => format!("resync {} {reason:?}", String::from_utf8_lossy(path)),
                other => panic!("{other:?}"),
            },
            Some(Told::Over) => "over".to_owned(),
        }
    }

    #[test]
    fn each_is_told_what_came_after_it() {
        let (listeners, first) = Listeners::new(b"d".to_vec()).unwrap();
        assert!(listeners.is_asked());
        listeners.admit(3);
        listeners.tell(changes(1));
        let second = listeners.join().unwrap();
        listeners.tell(changes(2));
        assert_eq!(told(&second), "nothing", "not yet");
        listeners.admit(4);
        assert!(!listeners.is_asked());
        listeners.tell(changes(3));
        assert_eq!([(); 5].map(|()| told(&first)), ["ready 3", "modified 1", "modified 2", "modified 3", "nothing"]);
        assert_eq!([(); 3].map(|()| told(&second)), ["ready 4", "modified 3", "nothing"]);
        drop(second);
        assert!(!listeners.is_over());
        listeners.end();
        assert_eq!(told(&first), "over");
        assert!(listeners.join().is_none());
    }

    #[test]
    fn with_the_last_one_it_is_over() {
        let (listeners, first) = Listeners::new(Vec::new()).unwrap();
        let second = listeners.join().unwrap();
        listeners.admit(1);
        drop(first);
        assert!(!listeners.is_over());
        drop(second);
        assert!(listeners.is_over() && listeners.join().is_none());
    }

    #[test]
    fn a_tree_that_is_not_whole_takes_nobody_in() {
        let (listeners, _first) = Listeners::new(Vec::new()).unwrap();
        listeners.mark_incomplete();
        assert!(listeners.join().is_none());
    }

    #[test]
    fn who_is_too_slow_is_told_to_look_again_and_the_others_are_told_everything() {
        let (listeners, slow) = Listeners::new(b"d".to_vec()).unwrap();
        let quick = listeners.join().unwrap();
        listeners.admit(1);
        assert_eq!((told(&slow), told(&quick)), ("ready 1".to_owned(), "ready 1".to_owned()));
        // More than is kept for one, whatever came before.
        for _ in 0..3 {
            listeners.tell(changes(MOST_KEPT));
            assert_eq!(told(&quick), format!("modified {MOST_KEPT}"));
        }
        assert!(locked(&slow.queue.unread).batches.is_empty(), "nothing is kept for it");
        assert_eq!(told(&slow), "resync d Overflow");
        listeners.tell(changes(7));
        assert_eq!([told(&slow), told(&slow)], ["modified 7", "nothing"]);
    }

    #[test]
    fn who_reads_in_time_is_waited_for() {
        let (listeners, reader) = Listeners::new(Vec::new()).unwrap();
        listeners.admit(1);
        let teller = Arc::clone(&listeners);
        let thread = std::thread::spawn(move || {
            for _ in 0..8 {
                teller.tell(changes(MOST_KEPT / 2));
            }
            teller.end();
        });
        let mut read = Vec::new();
        while read.last().is_none_or(|last| last != "over") {
            let next = told(&reader);
            if next != "nothing" {
                read.push(next);
            }
        }
        thread.join().unwrap();
        assert_eq!(read.len(), 10, "{read:?}");
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let (listeners, gone) = Listeners::new(Vec::new()).unwrap();
        let stays = listeners.join().unwrap();
        listeners.admit(1);
        listeners.tell(changes(MOST_KEPT));
        drop(gone);
        assert_eq!([told(&stays), told(&stays)], ["ready 1".to_owned(), format!("modified {MOST_KEPT}")]);
        assert_eq!(locked(&listeners.members).present.len(), 1);
    }
}
