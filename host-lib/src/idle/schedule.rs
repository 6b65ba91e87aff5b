//! One task for all timers of a host: waits for the next moment at which something is due, and attends to it.
//!
//! Nothing is polled. Whatever may change when something is due is told by a [`Nudge`]; all else is known from the last time.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};

use super::clock::{Clock, Moment};
use crate::error::Result;

/// Workspaces that are attended to at once. Each is a question to its agent, and now and then a transition.
const AT_ONCE: usize = 8;
/// After a failure; doubled with each in a row, up to the other.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// What is attended to when its time has come.
pub(crate) trait Attend<K>: Send + Sync + 'static {
    /// All there is to attend to. Asked at the beginning and whenever nobody knows any more.
    fn all(&self) -> impl Future<Output = Result<Vec<K>>> + Send;

    /// Does what is due and says when it is to be attended to next; none while only a nudge can tell. It may be cut off
    /// when the host ends.
    fn attend(&self, key: &K) -> impl Future<Output = Result<Option<Moment>>> + Send;
}

/// Tells the scheduler that something may have changed. Never waits; many nudges of one are one.
pub(crate) struct Nudge<K> {
    pending: Mutex<Pending<K>>,
    told: Notify,
}

struct Pending<K> {
    keys: BTreeSet<K>,
    all: bool,
}

impl<K: Ord + Clone> Nudge<K> {
    pub(crate) fn new() -> Self {
        // Nothing is known in the beginning.
        Self { pending: Mutex::new(Pending { keys: BTreeSet::new(), all: true }), told: Notify::new() }
    }

    /// Something may have changed about one.
    pub(crate) fn one(&self, key: &K) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).keys.insert(key.clone());
        self.told.notify_one();
    }

    /// Something may have changed about any.
    pub(crate) fn all(&self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.told.notify_one();
    }

    fn take(&self) -> (BTreeSet<K>, bool) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut pending.keys), std::mem::take(&mut pending.all))
    }
}

/// When what is due. Each key is due once, or is being attended to, or neither.
struct Agenda<K> {
    due: BTreeSet<(Moment, K)>,
    when: BTreeMap<K, Moment>,
    failures: BTreeMap<K, u32>,
    busy: BTreeSet<K>,
    /// Nudged while they were attended to.
    again: BTreeSet<K>,
}

impl<K: Ord + Clone> Agenda<K> {
    fn new() -> Self {
        Self {
            due: BTreeSet::new(),
            when: BTreeMap::new(),
            failures: BTreeMap::new(),
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
        }
    }

    /// Puts it at a moment, instead of the one at which it is.
    fn put(&mut self, key: K, at: Moment) {
        match self.when.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let before = entry.insert(at);
                self.due.remove(&(before, key.clone()));
            }
            Entry::Vacant(entry) => {
                entry.insert(at);
            }
        }
        self.due.insert((at, key));
    }

    fn nudged(&mut self, key: K, now: Moment) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else {
            self.put(key, now);
        }
    }

    fn next(&self) -> Option<Moment> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// What is due longest, if anything is.
    fn take(&mut self, now: Moment) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.when.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: K, next: Option<Option<Moment>>, now: Moment) {
        self.busy.remove(&key);
        let again = self.again.remove(&key);
        let next = match next {
            Some(next) => {
                self.failures.remove(&key);
                next
            }
            None => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LONGEST_PAUSE);
                *failures += 1;
                Some(now.after(pause))
            }
        };
        match next {
            _ if again => self.put(key, now),
            Some(moment) => self.put(key, moment),
            None => {}
        }
    }
}

/// Attends to everything for ever. Dropped, it ends with all that it began.
pub(crate) async fn run<K, A>(attend: Arc<A>, nudge: Arc<Nudge<K>>, clock: Clock)
where
    K: Ord + Clone + Send + Sync + std::fmt::Display + 'static,
    A: Attend<K>,
{
    let mut agenda = Agenda::new();
    let mut work = JoinSet::new();
    let mut survey = None;
    loop {
        let (keys, all) = nudge.take();
        for key in keys {
            agenda.nudged(key, clock.now());
        }
        if all {
            survey = Some(clock.now());
        }
        if survey.is_some_and(|due| due <= clock.now()) {
            survey = match attend.all().await {
                Ok(keys) => {
                    let now = clock.now();
                    keys.into_iter().for_each(|key| agenda.nudged(key, now));
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "the workspaces can't be listed, so none is attended to");
                    Some(clock.now().after(FIRST_PAUSE))
                }
            };
        }
        while work.len() < AT_ONCE
            && let Some(key) = agenda.take(clock.now())
        {
            let attend = attend.clone();
            work.spawn(async move {
                let next = attend.attend(&key).await;
                (key, next)
            });
        }
        let next = agenda.next().filter(|_| work.len() < AT_ONCE);
        let next = [next, survey].into_iter().flatten().min();
        tokio::select! {
            Some(done) = work.join_next() => match done {
                Ok((key, next)) => {
                    if let Err(error) = &next {
                        tracing::warn!(workspace = %key, %error, "a workspace could not be attended to");
                    }
                    agenda.done(key, next.ok(), clock.now());
                }
                // It panicked, and nobody knows which it was: all are looked at anew.
                Err(error) => {
                    tracing::error!(%error, "attending to a workspace failed");
                    agenda.busy.clear();
                    nudge.all();
                }
            },
            () = nudge.told.notified() => {}
            () = until(&clock, next) => {}
        }
    }
}

async fn until(clock: &Clock, moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(clock.instant(moment)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Attends to everything every minute, and takes a second for it.
    struct Everything {
        clock: Clock,
        keys: Mutex<Vec<u32>>,
        attended: Mutex<Vec<(u32, Moment)>>,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
        fails: AtomicUsize,
        panics: AtomicUsize,
    }

    impl Everything {
        fn new(count: u32) -> Arc<Self> {
            Arc::new(Self {
                clock: Clock::new(),
                keys: Mutex::new((0..count).collect()),
                attended: Mutex::default(),
                at_once: AtomicUsize::new(0),
                most_at_once: AtomicUsize::new(0),
                fails: AtomicUsize::new(0),
                panics: AtomicUsize::new(0),
            })
        }

        fn of(&self, key: u32) -> Vec<Moment> {
            let attended = self.attended.lock().unwrap();
            attended.iter().filter(|(other, _)| *other == key).map(|(_, moment)| *moment).collect()
        }
    }

    fn takes(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    impl Attend<u32> for Everything {
        async fn all(&self) -> Result<Vec<u32>> {
            Ok(self.keys.lock().unwrap().clone())
        }

        async fn attend(&self, key: &u32) -> Result<Option<Moment>> {
            self.attended.lock().unwrap().push((*key, self.clock.now()));
            let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            assert!(!takes(&self.panics), "as a bug would");
            if takes(&self.fails) {
                return Err(Error::new(ErrorKind::Io, "no disk"));
            }
            Ok((*key != 99).then(|| self.clock.now().after(Duration::from_secs(60))))
        }
    }

    fn start(everything: &Arc<Everything>) -> (Arc<Nudge<u32>>, tokio_util::task::AbortOnDropHandle<()>) {
        let nudge = Arc::new(Nudge::new());
        let task = tokio::spawn(run(everything.clone(), nudge.clone(), everything.clock.clone()));
        (nudge, tokio_util::task::AbortOnDropHandle::new(task))
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_millis(seconds * 1000 + 10)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_attended_to_when_it_is_due_and_few_at_once() {
        let everything = Everything::new(20);
        let _task = start(&everything);
        pass(10).await;
        assert_eq!(everything.attended.lock().unwrap().len(), 20);
        assert_eq!(everything.most_at_once.load(Ordering::Relaxed), AT_ONCE);
        pass(125).await;
        for key in 0..20 {
            let times = everything.of(key);
            assert_eq!(times.len(), 3, "{key}");
            assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(61)), "{key}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nudge_brings_it_forward_and_one_that_comes_meanwhile_is_not_lost() {
        let everything = Everything::new(1);
        let (nudge, _task) = start(&everything);
        pass(10).await;
        nudge.one(&0);
        tokio::time::sleep(Duration::from_millis(500)).await;
        nudge.one(&0);
        nudge.one(&0);
        pass(5).await;
        assert_eq!(everything.of(0).len(), 3, "at first, as nudged, and once for those that came meanwhile");
        everything.keys.lock().unwrap().push(99);
        pass(30).await;
        assert!(everything.of(99).is_empty(), "nobody told of it");
        nudge.all();
        pass(200).await;
        assert_eq!(everything.of(99).len(), 1, "it is attended to when somebody says so only");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_after_longer_and_longer_pauses_and_stops_nothing() {
        let everything = Everything::new(1);
        everything.fails.store(3, Ordering::Relaxed);
        let (_nudge, _task) = start(&everything);
        pass(100).await;
        let times = everything.of(0);
        let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
        assert_eq!(pauses, [6, 11, 21, 61]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_nothing_else() {
        let everything = Everything::new(2);
        everything.panics.store(1, Ordering::Relaxed);
        let (_nudge, _task) = start(&everything);
        pass(200).await;
        assert!(everything.of(0).len() >= 3 && everything.of(1).len() >= 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_what_it_began() {
        let everything = Everything::new(1);
        let (_nudge, task) = start(&everything);
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(task);
        pass(200).await;
        assert_eq!(everything.of(0).len(), 1);
        assert_eq!(everything.at_once.load(Ordering::Relaxed), 1, "it was cut off");
    }
}
