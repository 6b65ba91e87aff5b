//! Pools: containers that were started ahead and belong to nobody yet, so that a workspace is handed over instead of built.
//!
//! `class` says what the containers of a pool have in common, `keeper` keeps as many ready as was asked for, `claim` takes
//! one, `record` remembers what labels can't say. The engine's containers are the truth: a place in a pool is a container's
//! name, who owns one its agent decides. So a host that is killed at any moment leaves nothing that the next one doesn't
//! understand, and hosts on one engine share a pool without knowing of each other.
//!
//! ```text
//!  free place ──create, with the place's name──► starting ──agent answers──► ready ──claim: the agent decides──► claimed
//!      ▲                                            │                          │                                  │
//!      └────────────── removed: it ended, failed, or was restarted ◄───────────┘      rename: the place is free ──┘──► workspace
//! ```

mod claim;
mod class;
mod keeper;
mod reconcile;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::task::TaskTracker;

pub use self::class::Class;
pub(crate) use self::{
    claim::{HandOver, Outcome, Wish},
    reconcile::drain,
    record::{Record, Records},
};
use crate::{
    client::{AgentClient, TokenSource},
    create::plan::Plan,
    error::{Error, ErrorKind, Result},
    events::EventBus,
    host::HostInner,
    key::HostKey,
    life::Turns,
    network::Allotment,
    runtime::{ContainerId, Resources, Runtime},
    state::HostProcess,
};

/// How many containers a pool holds, and how fast it is filled.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Containers that are kept ready. Default 2.
    pub min: usize,
    /// Containers that may wait in the pool, of all hosts on the engine together. While claims find the pool empty, one more
    /// is kept ready for each, up to this; a minute without such a claim takes one back. Default: twice `min`.
    pub max: Option<usize>,
    /// Containers that are started at a time. Default 2.
    pub starts_at_once: usize,
    /// Time from the beginning of one start to that of the next, at least. Default: none.
    pub start_interval: Duration,
    /// How long a claim waits for a container that is being started, before one is made for it. Default 500 ms.
    pub wait: Duration,
    /// How long a container may wait in the pool before it is replaced, at least a minute. What nobody keeps any more, since
    /// its host is gone or is configured otherwise, goes then too, as soon as any host of the same home keeps a pool.
    /// Default: an hour.
    pub max_age: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            min: 2,
            max: None,
            starts_at_once: 2,
            start_interval: Duration::ZERO,
            wait: Duration::from_millis(500),
            max_age: Duration::from_secs(3600),
        }
    }
}

impl PoolOptions {
    /// Containers that are kept ready.
    #[must_use]
    pub fn min(mut self, containers: usize) -> Self {
        self.min = containers;
        self
    }

    /// Containers that may wait in the pool.
    #[must_use]
    pub fn max(mut self, containers: usize) -> Self {
        self.max = Some(containers);
        self
    }

    /// Containers that are started at a time.
    #[must_use]
    pub fn starts_at_once(mut self, containers: usize) -> Self {
        self.starts_at_once = containers;
        self
    }

    /// Time from the beginning of one start to that of the next, at least.
    #[must_use]
    pub fn start_interval(mut self, interval: Duration) -> Self {
        self.start_interval = interval;
        self
    }

    /// How long a claim waits for a container that is being started.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long a container may wait in the pool before it is replaced.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    fn most(&self) -> usize {
        self.max.unwrap_or(self.min.saturating_mul(2))
    }

    /// # Errors
    /// `Invalid` for numbers that can't be meant.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if self.min > self.most() {
            return invalid(format!(
                "a pool can't keep {} containers ready and hold at most {}",
                self.min,
                self.most()
            ));
        }
        if self.most() > PLACES {
            return invalid(format!("a pool of {} containers is larger than {PLACES}", self.most()));
        }
        if self.max_age < Duration::from_secs(60) {
            return invalid("a pool whose containers are replaced more than once a minute does little else".to_owned());
        }
        if self.starts_at_once == 0 {
            return invalid("a pool that starts 0 containers at a time is never filled".to_owned());
        }
        Ok(())
    }
}

/// More than an engine can carry.
const PLACES: usize = 10_000;

/// How a pool is doing, as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PoolStatus {
    /// The image of its containers.
    pub image: String,
    /// Containers that can be claimed.
    pub ready: usize,
    /// Containers that this host is starting.
    pub starting: usize,
    /// Containers that are to be ready now: between the pool's `min` and `max`.
    pub wanted: usize,
    /// Containers that this host has claimed since it began.
    pub claimed: u64,
    /// Claims for which none was ready in time, so that a container was made for them.
    pub missed: u64,
    /// Why the last start failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What a pool's work needs of its host. Not the host itself, which ends its pools when it goes.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) key: Arc<HostKey>,
    pub(crate) subject: String,
    pub(crate) records: Records,
    pub(crate) cleanups: TaskTracker,
    allotment: Allotment,
    /// As long as somebody works for the host, it lives.
    process: Arc<HostProcess>,
    turns: Arc<Turns>,
    events: EventBus,
}

impl Seat {
    pub(crate) fn of(host: &HostInner) -> Self {
        Self {
            runtime: host.runtime.clone(),
            key: host.key.clone(),
            subject: host.subject.clone(),
            records: host.records.clone(),
            cleanups: host.cleanups.clone(),
            allotment: Allotment::of(host),
            process: host.process.clone(),
            turns: host.turns.clone(),
            events: host.events.clone(),
        }
    }

    fn tokens(&self, instance: &str, workspace: &str) -> TokenSource {
        TokenSource::new(self.key.clone(), instance.to_owned(), workspace.to_owned(), self.subject.clone())
    }
}

/// The pools of a host. They are kept as long as it lives; their containers outlive it.
#[derive(Default)]
pub(crate) struct Pools {
    pools: Vec<Arc<Pool>>,
    keepers: Vec<JoinHandle<()>>,
}

impl Pools {
    /// Begins to keep pools.
    pub(crate) fn start(host: &HostInner, wanted: Vec<(Class, PoolOptions)>) -> Self {
        let pools: Vec<_> = wanted
            .into_iter()
            .map(|(class, options)| Arc::new(Pool::new(Seat::of(host), class::Blank::new(class, host), options)))
            .collect();
        let keepers = pools.iter().map(|pool| tokio::spawn(pool.clone().keep())).collect();
        Self { pools, keepers }
    }

    /// A pool whose containers are what a plan needs: best with its limits already.
    pub(crate) fn meeting(&self, plan: &Plan) -> Option<&Arc<Pool>> {
        let meeting = || self.pools.iter().filter(|pool| pool.blank().meets(plan));
        let alike = |pool: &&Arc<Pool>| *pool.blank().limits() == plan.spec.resources;
        meeting().find(alike).or_else(|| meeting().find(|pool| pool.can_take_on(&plan.spec.resources)))
    }

    pub(crate) fn status(&self) -> Vec<PoolStatus> {
        self.pools.iter().map(|pool| pool.status()).collect()
    }

    /// Waits until every pool has what it is to have.
    pub(crate) async fn filled(&self) -> Result<()> {
        for pool in &self.pools {
            pool.filled().await?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn nth(&self, number: usize) -> Arc<Pool> {
        self.pools[number].clone()
    }

    /// Nothing is started or handed out any more.
    pub(crate) fn close(&self) {
        for pool in &self.pools {
            let mut state = pool.state();
            state.closed = true;
            state.ready.clear();
            drop(state);
            pool.changed.notify_waiters();
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}

/// Containers of one class.
pub(crate) struct Pool {
    seat: Seat,
    /// What its containers are; another one when the image's name means another image.
    blank: Mutex<Arc<class::Blank>>,
    options: PoolOptions,
    state: Mutex<State>,
    /// There is one more ready, or one less on its way.
    changed: Notify,
    /// Something is to be started.
    wanted: Notify,
}

/// A container that nobody owns, as far as is known here. Only its agent knows.
#[derive(Clone)]
pub(crate) struct Member {
    container: ContainerId,
    /// Id of its image.
    image: String,
    /// Those of its class.
    limits: Resources,
    instance: String,
    client: Arc<AgentClient>,
}

struct State {
    ready: VecDeque<Member>,
    /// Places for which this host is starting a container.
    starting: BTreeSet<usize>,
    /// Containers that somebody in this process looks after already.
    attended: HashSet<String>,
    /// Claims that wait for one that is being started.
    waiting: usize,
    /// Containers on their way to their owners, for which starts wait.
    handing_over: usize,
    /// Since when there were such; absent when nothing waits for them.
    held_since: Option<Instant>,
    target: usize,
    /// When the last claim found nothing, or the target was lowered.
    missed_at: Instant,
    /// When to look again at what was left alone.
    recheck: Option<Instant>,
    /// Nothing is started before this.
    not_before: Option<Instant>,
    failures: u32,
    /// The last one, for people, with the next step.
    failure: Option<(ErrorKind, String)>,
    /// Whether the engine has a quota for each container, so that a limit of disk can't be changed.
    limits_disk: bool,
    /// What came of pulling the image, if that failed.
    pull: Option<FailedPull>,
    claimed: u64,
    missed: u64,
    closed: bool,
}

/// A pull that failed, and is tried again.
struct FailedPull {
    /// How many have, in a row.
    count: u32,
    /// Not before this.
    again: Instant,
    kind: ErrorKind,
    told: String,
}

impl Pool {
    fn new(seat: Seat, blank: class::Blank, options: PoolOptions) -> Self {
        let state = State {
            ready: VecDeque::new(),
            starting: BTreeSet::new(),
            attended: HashSet::new(),
            waiting: 0,
            handing_over: 0,
            held_since: None,
            target: options.min,
            missed_at: Instant::now(),
            recheck: None,
            not_before: None,
            failures: 0,
            failure: None,
            limits_disk: true,
            pull: None,
            claimed: 0,
            missed: 0,
            closed: false,
        };
        let blank = Mutex::new(Arc::new(blank));
        Self { seat, blank, options, state: Mutex::new(state), changed: Notify::new(), wanted: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blank(&self) -> Arc<class::Blank> {
        self.blank.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its containers can get these limits. One that there is can be changed, not taken away.
    fn can_take_on(&self, limits: &Resources) -> bool {
        let blank = self.blank();
        let kept = |limit: fn(&Resources) -> Option<u64>| limit(limits).is_some() || limit(blank.limits()).is_none();
        let all = kept(|limits| limits.memory_bytes) && kept(|limits| limits.cpu_millis) && kept(|limits| limits.pids);
        let disk = limits.disk_bytes;
        let same_but_disk = Resources { disk_bytes: disk, ..*blank.limits() } == *limits;
        (disk == blank.limits().disk_bytes || !self.state().limits_disk)
            && (same_but_disk || (all && self.seat.runtime.updates_limits()))
    }

    fn status(&self) -> PoolStatus {
        let state = self.state();
        PoolStatus {
            image: self.blank().image().to_owned(),
            ready: state.ready.len(),
            starting: state.starting.len(),
            wanted: state.target,
            claimed: state.claimed,
            missed: state.missed,
            failure: state.failure.as_ref().map(|(_, told)| told.clone()),
        }
    }

    async fn filled(&self) -> Result<()> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.closed || state.ready.len() >= state.target {
                    return Ok(());
                }
                if let Some((kind, failure)) = &state.failure {
                    return Err(Error::new(*kind, format!("the pool can't be filled: {failure}")));
                }
            }
            changed.await;
        }
    }
}
