//! What a host does by itself for its workspaces: looks, when a time is up, whether it really is, and pauses, archives or removes;
//! and checks their health. Other hosts of the home do the same; of those that act at once the store lets one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use corehold_types::tools::{Activity, ActivityRequest, ActivityResponse};
use futures_util::future::BoxFuture;

use super::{
    IdlePolicy, TransitionTo,
    clock::{Clock, Moment},
    schedule::{self, Attend, Nudge},
    stored::{Field, Stored},
    tracker::{Because, Outlook, Phase, Previews, Seen, Tracker},
};
use crate::{
    error::{Error, ErrorKind, Result},
    events::{ChangeKind, EventKind, Signal},
    health::{self, HealthPolicy, Monitor},
    host::{Host, HostInner},
    life::{self, TransitionCause, Verb, WorkspaceState},
    state::Entry,
    workspace::{Workspace, WorkspaceId},
};

/// How long an agent may take to say what is active.
const ANSWER: Duration = Duration::from_secs(5);
/// What was counted is written down at least this often, for the case that the machine starts anew.
const WRITE_DOWN: Duration = Duration::from_secs(60 * 60);
/// What is in the middle of a transition is looked at again after this, if nobody told of its end.
const MEANWHILE: Duration = Duration::from_secs(2);
/// What is just being called is left alone for so long.
const IN_USE: Duration = Duration::from_secs(1);

/// What a host knows for this, and what holds for workspaces that have no policy of their own.
pub(crate) struct Supervision {
    pub(crate) clock: Clock,
    pub(crate) idle: IdlePolicy,
    pub(crate) health: Option<HealthPolicy>,
    nudge: Arc<Nudge<Key>>,
    trackers: Mutex<BTreeMap<WorkspaceId, Tracker>>,
    monitors: Mutex<BTreeMap<WorkspaceId, Monitor>>,
}

/// What is attended to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    concern: Concern,
    id: WorkspaceId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Concern {
    Idle,
    Health,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(formatter)
    }
}

impl Supervision {
    pub(crate) fn new(idle: IdlePolicy, health: Option<HealthPolicy>) -> Self {
        Self {
            clock: Clock::new(),
            idle,
            health,
            nudge: Arc::new(Nudge::new()),
            trackers: Mutex::default(),
            monitors: Mutex::default(),
        }
    }

    /// Something may have changed about a workspace.
    pub(crate) fn nudge(&self, id: &WorkspaceId) {
        for concern in [Concern::Idle, Concern::Health] {
            self.nudge.one(&Key { concern, id: id.clone() });
        }
    }

    pub(crate) fn monitors(&self) -> MutexGuard<'_, BTreeMap<WorkspaceId, Monitor>> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trackers(&self) -> MutexGuard<'_, BTreeMap<WorkspaceId, Tracker>> {
        self.trackers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy that holds for a workspace.
    pub(crate) fn idle_policy(&self, stored: &Stored) -> IdlePolicy {
        stored.idle.clone().unwrap_or_else(|| self.idle.clone())
    }

    pub(crate) fn health_policy(&self, stored: &Stored) -> Option<HealthPolicy> {
        stored.health.clone().or_else(|| self.health.clone())
    }

    /// What is known of a workspace, with its state as it is.
    pub(crate) fn tracker(&self, entry: &Entry, stored: &Stored, phase: Phase) -> Tracker {
        let now = self.clock.now();
        let known = self.trackers().get(&entry.id).cloned();
        let mut tracker = known.unwrap_or_else(|| match &stored.kept {
            Some(kept) => Tracker::restore(kept, &self.clock),
            // By the system's clock, once: it may have been set since, but nobody has counted.
            None => Tracker::new(phase, now, corehold_types::Timestamp::now().since(entry.created)),
        });
        tracker.enter(phase, now);
        tracker
    }
}

/// What a state means for idleness; none while it passes, or nothing is to be done about it.
pub(crate) fn phase(state: WorkspaceState) -> Option<Phase> {
    match state {
        WorkspaceState::Ready => Some(Phase::Awake),
        WorkspaceState::Paused => Some(Phase::Paused),
        WorkspaceState::Stopped => Some(Phase::Stopped),
        WorkspaceState::Asleep => Some(Phase::Asleep),
        _ => None,
    }
}

/// Attends to the host's workspaces, and closes the gates of those that others paused. Never ends by itself.
pub(crate) async fn supervise(host: Arc<HostInner>) {
    let supervision = &host.supervision;
    let listen = listen(&host);
    let attend = schedule::run(
        Arc::new(Supervisor { host: host.clone() }),
        supervision.nudge.clone(),
        supervision.clock.clone(),
    );
    tokio::join!(listen, attend);
}

async fn listen(host: &Arc<HostInner>) {
    let (mut signals, mut events) = (host.engine.subscribe(), host.events.subscribe());
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Some(Signal::LookAgain) => {
                    host.directory.close_gates();
                    host.supervision.nudge.all();
                }
                Some(Signal::Change(change)) => {
                    if let Some(id) = &change.workspace {
                        happened(host, id, change.kind);
                    }
                }
                None => return,
            },
            event = events.next() => match event {
                Some(event) => match (event.kind, &event.workspace) {
                    (EventKind::Missed { .. }, _) => host.supervision.nudge.all(),
                    (EventKind::Transition { .. } | EventKind::Created { .. }, Some(id)) => host.supervision.nudge(id),
                    _ => {}
                },
                None => return,
            },
        }
    }
}

fn happened(host: &Arc<HostInner>, id: &WorkspaceId, kind: ChangeKind) {
    host.supervision.nudge(id);
    let Some(about) = host.directory.known(id) else { return };
    if matches!(kind, ChangeKind::Ended { .. } | ChangeKind::Removed { .. }) {
        about.gate.close();
    }
    // Another host found it idle while a call of ours was on its way to it.
    if kind == ChangeKind::Paused && about.gate.was_paused() {
        let (waking, id) = (host.clone(), id.clone());
        host.cleanups.spawn(async move {
            if let Err(error) = wake(waking, id.clone()).await {
                tracing::warn!(workspace = %id, %error, "a workspace was paused under a call, and could not be woken");
            }
        });
    }
}

/// Makes a workspace run, if that is needed and it is to be woken by who calls it. Boxed, since what wakes calls the agent too,
/// by handles that don't wake.
pub(crate) fn wake(host: Arc<HostInner>, id: WorkspaceId) -> BoxFuture<'static, Result<super::Woken>> {
    Box::pin(waking(host, id))
}

async fn waking(host: Arc<HostInner>, id: WorkspaceId) -> Result<super::Woken> {
    let entry = life::existing(&host, &id).await?;
    let verb = match entry.state {
        WorkspaceState::Ready => return Ok(super::Woken::Runs),
        WorkspaceState::Paused | WorkspaceState::Asleep => Verb::Wake,
        WorkspaceState::Stopped if host.supervision.idle_policy(&Stored::of(&entry)).wake_stopped => Verb::Start,
        _ => return Ok(super::Woken::LeftAlone),
    };
    life::perform(&host, &id, verb, Duration::ZERO, TransitionCause::Called, None).await?;
    Ok(super::Woken::Runs)
}

/// What is known of a workspace's agent when nobody else is asked.
pub(crate) async fn activity(host: &Arc<HostInner>, entry: &Entry) -> Result<ActivityResponse> {
    let workspace = Workspace::of_entry(host, entry)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("workspace {} has no container", entry.id)))?;
    let asked = workspace.call::<Activity>(&ActivityRequest {});
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(ErrorKind::AgentUnavailable, "the agent does not say what is active")),
    }
}

/// What a workspace that runs does, as far as this host can find out.
pub(crate) async fn look(
    host: &Arc<HostInner>,
    entry: &Entry,
    policy: &IdlePolicy,
    tracker: &mut Tracker,
) -> Result<()> {
    let activity = activity(host, entry).await?;
    let cpu_ns = match (policy.cpu_above, &entry.container) {
        (Some(_), Some(id)) => Some(host.runtime.stats(&crate::runtime::ContainerId(id.clone())).await?.cpu_ns),
        _ => None,
    };
    let now = host.supervision.clock.now();
    let used = host.previews.used(&entry.id);
    let previews = Previews {
        open: used.iter().map(|preview| preview.connections as u64).sum(),
        used: used.iter().map(|preview| now.before(preview.quiet)).max(),
    };
    tracker.observe(policy, now, &Seen { activity: &activity, previews, cpu_ns });
    Ok(())
}

struct Supervisor {
    host: Arc<HostInner>,
}

impl Attend<Key> for Supervisor {
    async fn all(&self) -> Result<Vec<Key>> {
        let entries = self.host.store.all().await?;
        let both = |entry: Entry| [Concern::Idle, Concern::Health].map(|concern| Key { concern, id: entry.id.clone() });
        Ok(entries.into_iter().flat_map(both).collect())
    }

    async fn attend(&self, key: &Key) -> Result<Option<Moment>> {
        match key.concern {
            Concern::Idle => self.idle(&key.id).await,
            Concern::Health => health::attend(&self.host, &key.id).await,
        }
    }
}

impl Supervisor {
    async fn idle(&self, id: &WorkspaceId) -> Result<Option<Moment>> {
        let (host, supervision) = (&self.host, &self.host.supervision);
        let Some(entry) = host.store.get(id).await? else {
            supervision.trackers().remove(id);
            return Ok(None);
        };
        let stored = Stored::of(&entry);
        let policy = supervision.idle_policy(&stored);
        if policy.is_off() {
            supervision.trackers().remove(id);
            return Ok(None);
        }
        let Some(phase) = phase(entry.state).filter(|_| entry.actor.is_none()) else {
            let passes = entry.state.is_transitional() || entry.actor.is_some();
            return Ok(passes.then(|| supervision.clock.now().after(MEANWHILE)));
        };
        let mut tracker = supervision.tracker(&entry, &stored, phase);
        let due = |tracker: &Tracker| tracker.next_look(&policy).is_some_and(|due| due <= supervision.clock.now());
        let mut looked = Ok(());
        if phase == Phase::Awake && due(&tracker) {
            looked = look(host, &entry, &policy, &mut tracker).await;
        }
        supervision.trackers().insert(id.clone(), tracker.clone());
        host.store.set_policy(id, Field::Kept, &tracker.keep(&supervision.clock)).await?;
        let outlook = tracker.outlook(&policy).filter(|outlook| outlook.due <= supervision.clock.now());
        match outlook {
            // Its age is known without its agent.
            Some(outlook) if looked.is_ok() || matches!(outlook.because, Because::Age(_)) => {
                return self.act(&entry, &policy, tracker, outlook).await;
            }
            _ => looked?,
        }
        let next = tracker.next_look(&policy);
        Ok(next.map(|next| next.min(supervision.clock.now().after(WRITE_DOWN))))
    }

    /// Does what is due.
    async fn act(
        &self,
        entry: &Entry,
        policy: &IdlePolicy,
        mut tracker: Tracker,
        outlook: Outlook,
    ) -> Result<Option<Moment>> {
        let (host, id, clock) = (&self.host, &entry.id, &self.host.supervision.clock);
        // Who calls from now on waits until it is done, and wakes it then.
        let bar = match host.directory.known(id) {
            None => None,
            Some(about) => match about.gate.bar() {
                Some(bar) => Some(bar),
                None if matches!(outlook.because, Because::Age(_)) => None,
                None => {
                    tracker.touch(clock.now());
                    self.host.supervision.trackers().insert(id.clone(), tracker);
                    return Ok(Some(clock.now().after(IN_USE)));
                }
            },
        };
        if let Because::Idle(_) = outlook.because {
            // What came between the look and the bar is with the agent by now.
            if tracker.phase() == Phase::Awake {
                look(host, entry, policy, &mut tracker).await?;
            }
            if tracker.outlook(policy).is_none_or(|still| still.due > clock.now() || still.to != outlook.to) {
                self.host.supervision.trackers().insert(id.clone(), tracker);
                return Ok(Some(clock.now()));
            }
        }
        let because = outlook.because.to_string();
        tracing::info!(workspace = %id, to = ?outlook.to, because, "its time is up");
        expire(host, entry.clone(), outlook.to, because).await?;
        drop(bar);
        // The transition's event tells of what comes next.
        Ok(Some(clock.now().after(MEANWHILE)))
    }
}

/// Does to a workspace what its time being up means, and tells; nothing if somebody has changed it since it was read. Another host may have
/// put it to sleep at the same moment, and its user woken it.
pub(super) async fn expire(host: &Arc<HostInner>, entry: Entry, to: TransitionTo, because: String) -> Result<()> {
    let id = entry.id.clone();
    let (done, files) = match to {
        TransitionTo::Paused => {
            let (verb, cause) = (Verb::Pause, TransitionCause::Idle);
            (life::perform_unchanged(host, entry, verb, Duration::ZERO, cause).await?, None)
        }
        TransitionTo::Asleep => {
            // As if somebody had asked: a database has the time to bring its files in order.
            let (verb, cause) = (Verb::Sleep, TransitionCause::Expired);
            let done = life::perform_unchanged(host, entry, verb, Host::SHUTDOWN_GRACE, cause).await?;
            (done, Some(ExpiredFiles::Archived))
        }
        TransitionTo::Removed => (life::remove_unchanged(host, entry).await?, Some(ExpiredFiles::Deleted)),
    };
    if let Some(files) = files.filter(|_| done) {
        host.events.emit(Some(&id), EventKind::Expired { files, because });
    }
    Ok(())
}

/// What became of the files of a workspace whose time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ExpiredFiles {
    /// They are in an archive; the workspace sleeps.
    Archived,
    /// They are gone, and the workspace with them.
    Deleted,
}

impl fmt::Display for Because {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle(time) => write!(formatter, "nothing has counted as activity for {}", words(*time)),
            Self::Age(time) => write!(formatter, "it has lived for {}", words(*time)),
        }
    }
}

/// A duration for people: in its largest unit that divides it.
pub(super) fn words(time: Duration) -> String {
    let milliseconds = time.as_millis();
    for (unit, length) in [("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)] {
        if milliseconds >= length && milliseconds.is_multiple_of(length) {
            return format!("{} {unit}", milliseconds / length);
        }
    }
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
