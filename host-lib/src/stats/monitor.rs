//! The task that measures all workspaces of a home, round by round, and what it knows.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use corehold_types::Timestamp;
use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::Handle,
    sync::broadcast::{self, error::RecvError},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    StatsHistory, StatsPoint, StatsRange, StatsStream, WorkspaceStats,
    history::{FINE_SECONDS, Grain, History, KEPT_SECONDS},
    sample::{self, Meter},
    store::{Ledger, Store},
};
use crate::{
    error::{Error, ErrorKind, Result},
    events::{Event, EventBus, EventKind, Events, Signal, Signals},
    labels,
    life::WorkspaceState,
    pool::Records,
    runtime::{ContainerId, ContainerState, ContainerStatus, Runtime, Stats},
    state,
    workspace::{Labelled, WorkspaceId},
};

/// Between two rounds (K8).
const PERIOD: Duration = Duration::from_secs(FINE_SECONDS);
/// How long one container may take: an engine measures at its next full second.
const PATIENCE: Duration = Duration::from_secs(4);
/// Containers that are asked for at once. All that are asked within the same second cost the engine one round of its own.
const AT_ONCE: usize = 256;
/// Samples that wait for a slow reader; it misses the older ones.
const BACKLOG: usize = 16;
/// Rounds between two looks at files that nobody needs any more: an hour.
const SWEEP_ROUNDS: u64 = 3600 / FINE_SECONDS;

/// Measures, from the first who asks it to until the host ends.
pub(crate) struct Monitor {
    room: Arc<Room>,
    handle: Handle,
    task: OnceLock<AbortOnDropHandle<()>>,
    /// Whom the task will listen to.
    listen: Box<dyn Fn() -> (Signals, Events) + Send + Sync>,
}

/// What the task and its askers share.
struct Room {
    runtime: Arc<dyn Runtime>,
    records: Records,
    labels: BTreeMap<String, String>,
    state: state::Store,
    events: EventBus,
    folder: PathBuf,
    measured: Mutex<HashMap<WorkspaceId, Measured>>,
}

/// What is known of a workspace that is measured.
struct Measured {
    readers: broadcast::Sender<WorkspaceStats>,
    /// When the workspace was made that they follow: a later one may have its name.
    followed: Option<Timestamp>,
    meter: Meter,
    history: History,
    /// The sample measured last, and when it came, by this machine's clock.
    newest: Option<(Instant, WorkspaceStats)>,
    /// Its file; `None` until it was read, and while it is written to.
    ledger: Option<Ledger>,
    /// Whether the file was read.
    restored: bool,
    /// Whose it is; absent until that is known.
    owner: Option<Option<String>>,
    /// Whether it could not be measured the last time, which is said once.
    failing: bool,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            readers: broadcast::channel(BACKLOG).0,
            followed: None,
            meter: Meter::default(),
            history: History::default(),
            newest: None,
            ledger: None,
            restored: false,
            owner: None,
            failing: false,
        }
    }
}

/// A container to be measured.
#[derive(Debug, Clone)]
struct Place {
    workspace: WorkspaceId,
    container: ContainerId,
    status: ContainerStatus,
    created: Timestamp,
}

impl Monitor {
    /// Of the workspaces of a home. Measures nothing yet. Must be called on a tokio runtime.
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        records: Records,
        fingerprint: &str,
        (state, events): (state::Store, EventBus),
        folder: PathBuf,
        listen: impl Fn() -> (Signals, Events) + Send + Sync + 'static,
    ) -> Self {
        let labels = labels::of_home(fingerprint);
        let room = Room { runtime, records, labels, state, events, folder, measured: Mutex::default() };
        Self { room: Arc::new(room), handle: Handle::current(), task: OnceLock::new(), listen: Box::new(listen) }
    }

    /// Begins to measure, if it didn't yet.
    pub(crate) fn start(&self) {
        self.task.get_or_init(|| {
            let (signals, events) = (self.listen)();
            AbortOnDropHandle::new(self.handle.spawn(measure(self.room.clone(), signals, events)))
        });
    }

    /// Follows the workspace that was made then, not another one of its name.
    pub(super) fn follow(&self, workspace: &WorkspaceId, created: Timestamp) -> StatsStream {
        let receiver = {
            let mut measured = self.room.lock();
            let known = measured.entry(workspace.clone()).or_default();
            match known.followed {
                // It is gone: another one has its name.
                Some(followed) if followed > created => return StatsStream(Box::pin(stream::empty())),
                Some(followed) if followed < created => *known = Measured::default(),
                _ => {}
            }
            known.followed = Some(created);
            known.readers.subscribe()
        };
        self.start();
        StatsStream(Box::pin(stream::unfold(receiver, |mut receiver| async {
            loop {
                match receiver.recv().await {
                    Ok(sample) => return Some((sample, receiver)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        })))
    }

    pub(super) async fn now(&self, workspace: &WorkspaceId, container: &ContainerId) -> Result<WorkspaceStats> {
        let newest = self.room.lock().get(workspace).and_then(|measured| measured.newest.clone());
        if let Some((came, newest)) = newest
            && came.elapsed() <= 2 * PERIOD
        {
            return Ok(newest);
        }
        let state = self.room.runtime.inspect(container).await?;
        let stats = match self.room.runtime.stats(container).await {
            Ok(stats) => stats,
            // It has ended, before or just now.
            Err(error) if error.kind() == ErrorKind::NotFound => Stats::default(),
            Err(error) => return Err(error),
        };
        Ok(sample::told(stats.at.unwrap_or_else(Timestamp::now), WorkspaceState::of(state.status), &stats, None))
    }

    pub(super) async fn history(&self, workspace: &WorkspaceId, range: StatsRange, grain: Grain) -> StatsHistory {
        {
            let measured = self.room.lock();
            if let Some(measured) = measured.get(workspace).filter(|measured| measured.restored) {
                return measured.history.points(range, grain);
            }
        }
        // Nobody measures here, or not yet: another host may have, and one before this.
        let (store, id) = (Store::new(self.room.folder.clone()), workspace.clone());
        let read = tokio::task::spawn_blocking(move || store.load(&id, None, Timestamp::now()).0).await;
        let mut history = History::default();
        history.restore(&read.unwrap_or_default());
        history.points(range, Grain::Coarse)
    }

    /// Of an owner, as far as it was written: whoever measures may be another host.
    pub(super) async fn history_of_owner(&self, owner: &str, range: StatsRange) -> StatsHistory {
        let (owners, owner) = (Store::new(self.room.folder.clone()).owners(), owner.to_owned());
        let read = tokio::task::spawn_blocking(move || owners.load(&owner, Timestamp::now())).await;
        let mut history = History::default();
        history.restore(&read.unwrap_or_default());
        history.points(range, Grain::Coarse)
    }
}

/// What was used in a minute, to be added to an owner's.
type Share = (String, StatsPoint);

/// Rounds, for ever.
async fn measure(room: Arc<Room>, mut signals: Signals, mut events: Events) {
    let mut rounds = tokio::time::interval(PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut files = Files { store: Some(Store::new(room.folder.clone())), told: false };
    let mut places: Option<Vec<Place>> = None;
    let mut missed = false;
    let mut ended: Vec<Share> = Vec::new();
    for round in 0_u64.. {
        // What happens to containers is known without asking; only then they are listed.
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Some(Signal::Change(_) | Signal::LookAgain) => places = None,
                    None => return,
                },
                event = events.next() => match event {
                    Some(Event { workspace: Some(workspace), kind: EventKind::Removed | EventKind::Vanished, .. }) => {
                        ended.extend(room.forget(&workspace));
                        places = None;
                    }
                    // A removal may be among them.
                    Some(Event { kind: EventKind::Missed { .. }, .. }) => (missed, places) = (true, None),
                    Some(_) => {}
                    None => return,
                },
                _ = rounds.tick() => break,
            }
        }
        if places.is_none() {
            match room.places().await {
                Ok(found) => places = Some(found),
                // That the engine is away is told by whom it concerns.
                Err(error) => tracing::debug!(%error, "workspaces to be measured can't be listed"),
            }
        }
        let Some(places) = &places else { continue };
        ended.extend(room.forget_gone(places, std::mem::take(&mut missed)).await);
        room.learn_owners(places).await;
        files.restore(&room, places).await;
        let minutes = room.round(places).await;
        files.keep(&room, minutes, std::mem::take(&mut ended)).await;
        if round % SWEEP_ROUNDS == 0 {
            room.forget_old();
            files.sweep().await;
        }
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Measured>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers that are somebody's workspace.
    async fn places(&self) -> Result<Vec<Place>> {
        let states = self.runtime.list(&self.labels).await?;
        let pooled =
            |state: &ContainerState| state.labels.get(labels::KIND).is_some_and(|kind| kind == labels::KIND_POOL);
        let records = if states.iter().any(pooled) { self.records.all().await } else { Vec::new() };
        let place = |state: ContainerState| {
            let labelled = Labelled::of(&state, &records).ok().flatten()?;
            let (workspace, created) = (labelled.id, labelled.created);
            Some(Place { workspace, container: state.id, status: state.status, created })
        };
        Ok(states.into_iter().filter_map(place).collect())
    }

    /// Measures all at once; returns the minutes that are over.
    async fn round(&self, places: &[Place]) -> Vec<(WorkspaceId, StatsPoint)> {
        let measuring = stream::iter(places.to_vec()).map(|place| async move {
            let stats = match place.status {
                ContainerStatus::Running | ContainerStatus::Paused => {
                    let asking = tokio::time::timeout(PATIENCE, self.runtime.stats(&place.container));
                    Some(asking.await.unwrap_or_else(|_| {
                        Err(Error::new(ErrorKind::Timeout, format!("nothing within {} s", PATIENCE.as_secs())))
                    }))
                }
                _ => None,
            };
            (place, stats)
        });
        let results: Vec<_> = measuring.buffer_unordered(AT_ONCE).collect().await;
        let mut measured = self.lock();
        results
            .into_iter()
            .filter_map(|(place, stats)| {
                // It may have been removed meanwhile; what comes too late is of no use then.
                let known = measured.get_mut(&place.workspace)?;
                known.take(&place, stats).map(|minute| (place.workspace.clone(), minute))
            })
            .collect()
    }

    /// Ends the streams of workspaces that are no more: what another process removes while it sleeps, no event tells of. Where nothing was
    /// missed, those that have a container are there.
    async fn forget_gone(&self, places: &[Place], missed: bool) -> Vec<Share> {
        let mut ended = Vec::new();
        let here: HashSet<&WorkspaceId> = places.iter().map(|place| &place.workspace).collect();
        let followed: Vec<(WorkspaceId, Timestamp)> = {
            let measured = self.lock();
            let read = measured.iter().filter(|(_, known)| known.readers.receiver_count() > 0);
            let followed = read.filter_map(|(id, known)| Some((id.clone(), known.followed?)));
            followed.filter(|(id, _)| missed || !here.contains(id)).collect()
        };
        for (id, created) in followed {
            let gone = match self.state.get(&id).await {
                Ok(Some(entry)) => entry.state == WorkspaceState::Removed || entry.created != created,
                // One that has a container is not adopted yet.
                Ok(None) => !here.contains(&id),
                Err(error) => {
                    tracing::debug!(workspace = %id, %error, "it can't be looked whether it is still there");
                    false
                }
            };
            // Somebody may follow another one of its name since.
            if gone && self.lock().get(&id).is_some_and(|known| known.followed == Some(created)) {
                ended.extend(self.forget(&id));
            }
        }
        ended
    }

    /// Forgets a workspace that is no more; returns what it used in its last minute.
    fn forget(&self, workspace: &WorkspaceId) -> Option<Share> {
        let mut known = self.lock().remove(workspace)?;
        known.owner.flatten().zip(known.history.end())
    }

    /// Asks the store whose those are of whom that isn't known yet.
    async fn learn_owners(&self, places: &[Place]) {
        let unknown: Vec<_> = {
            let measured = self.lock();
            let known = |place: &&Place| measured.get(&place.workspace).is_some_and(|known| known.owner.is_some());
            places.iter().filter(|place| !known(place)).map(|place| place.workspace.clone()).collect()
        };
        for id in unknown {
            match self.state.get(&id).await {
                Ok(Some(entry)) => {
                    self.lock().entry(id).or_default().owner = Some(entry.recipe.owner.or(entry.owner));
                }
                // It is not adopted yet.
                Ok(None) => {}
                Err(error) => tracing::debug!(workspace = %id, %error, "it can't be looked whose it is"),
            }
        }
    }

    /// The same minutes, as their owners'.
    fn shares(&self, minutes: &[(WorkspaceId, StatsPoint)]) -> Vec<Share> {
        let measured = self.lock();
        let owner = |id: &WorkspaceId| measured.get(id).and_then(|known| known.owner.clone().flatten());
        minutes.iter().filter_map(|(id, minute)| Some((owner(id)?, minute.clone()))).collect()
    }

    /// Drops what nobody could measure for as long as anything is kept.
    fn forget_old(&self) {
        let now = u64::try_from(Timestamp::now().as_unix_seconds()).unwrap_or(0);
        self.lock().retain(|_, measured| {
            measured.readers.receiver_count() > 0 || measured.history.last_second() + KEPT_SECONDS > now
        });
    }
}

impl Measured {
    fn take(&mut self, place: &Place, stats: Option<Result<Stats>>) -> Option<StatsPoint> {
        let status = WorkspaceState::of(place.status);
        let stats = match stats {
            Some(Ok(stats)) => stats,
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(workspace = %place.workspace, %error, "a workspace can't be measured");
                }
                return None;
            }
            // It doesn't run, or ended since it was listed. Said once.
            Some(Err(_)) | None => {
                if self.newest.as_ref().is_none_or(|(_, newest)| newest.state != status) && stats.is_none() {
                    self.tell(sample::told(Timestamp::now(), status, &Stats::default(), None));
                }
                return None;
            }
        };
        self.failing = false;
        let (sample, amounts) = self.meter.take(&place.container, status, stats);
        let minute = self.history.take(&sample, amounts);
        self.tell(sample);
        minute
    }

    fn tell(&mut self, sample: WorkspaceStats) {
        self.newest = Some((Instant::now(), sample.clone()));
        // Nobody may be reading.
        let _ = self.readers.send(sample);
    }
}

/// The files, used off the runtime's threads.
struct Files {
    /// `None` while it is used, and for ever after a panic there.
    store: Option<Store>,
    /// Whether it was said that nothing can be kept.
    told: bool,
}

impl Files {
    /// Reads what is kept of workspaces that weren't measured before.
    async fn restore(&mut self, room: &Room, places: &[Place]) {
        let unknown: Vec<(WorkspaceId, Timestamp, Option<String>)> = {
            let mut measured = room.lock();
            let unknown = places.iter().filter_map(|place| {
                let known = measured.entry(place.workspace.clone()).or_default();
                let owner = || known.owner.clone().flatten();
                (!known.restored).then(|| (place.workspace.clone(), place.created, owner()))
            });
            unknown.collect()
        };
        if unknown.is_empty() {
            return;
        }
        let load = move |store: &mut Store| {
            let now = Timestamp::now();
            let owners = store.owners();
            // Of whom nothing is kept though their workspaces are: hosts kept nothing of owners once.
            let unkept = |owner: &&String| !owners.knows(owner);
            let unkept: HashSet<String> =
                unknown.iter().filter_map(|(.., owner)| owner.as_ref()).filter(unkept).cloned().collect();
            let ours = store.ours().unwrap_or(false);
            let load = |(id, created, owner): (WorkspaceId, Timestamp, Option<String>)| {
                let (points, ledger) = store.load(&id, Some(created), now);
                if let Some(owner) = owner.filter(|owner| ours && unkept.contains(owner))
                    && let Err(error) = owners.add(&owner, &points, now)
                {
                    tracing::debug!(workspace = %id, %error, "what it used can't be kept as its owner's");
                }
                (id, points, ledger)
            };
            unknown.into_iter().map(load).collect::<Vec<_>>()
        };
        let loaded = self.off(load).await.unwrap_or_default();
        let mut measured = room.lock();
        for (id, points, ledger) in loaded {
            if let Some(known) = measured.get_mut(&id) {
                known.history.restore(&points);
                known.ledger = Some(ledger);
                known.restored = true;
            }
        }
    }

    /// Writes minutes that are over, and what others that have ended used in their last one.
    async fn keep(&mut self, room: &Room, minutes: Vec<(WorkspaceId, StatsPoint)>, ended: Vec<Share>) {
        if minutes.is_empty() && ended.is_empty() {
            return;
        }
        let mut of_owners: BTreeMap<String, Vec<StatsPoint>> = BTreeMap::new();
        for (owner, point) in ended.into_iter().chain(room.shares(&minutes)) {
            of_owners.entry(owner).or_default().push(point);
        }
        let ever = StatsRange::new(Timestamp::from_unix(0, 0), Timestamp::from_unix(i64::MAX, 0));
        let work: Vec<_> = {
            let mut measured = room.lock();
            let with_ledger = minutes.into_iter().filter_map(|(id, minute)| {
                let known = measured.get_mut(&id)?;
                let ledger = known.ledger.take()?;
                Some((id, minute, ledger, known.history.points(ever, Grain::Coarse).points))
            });
            with_ledger.collect()
        };
        let write = move |store: &mut Store| {
            let mut failure = None;
            match store.ours() {
                Ok(true) => {}
                Ok(false) => return (work.into_iter().map(|(id, _, ledger, _)| (id, ledger)).collect(), None),
                Err(error) => failure = Some(error),
            }
            for (owner, points) in of_owners {
                if let Err(error) = store.owners().add(&owner, &points, Timestamp::now()) {
                    failure.get_or_insert(error);
                }
            }
            let mut ledgers = Vec::with_capacity(work.len());
            for (id, minute, mut ledger, all) in work {
                if let Err(error) = store.append(&mut ledger, &minute, &all) {
                    failure.get_or_insert(error);
                }
                ledgers.push((id, ledger));
            }
            (ledgers, failure)
        };
        let Some((ledgers, failure)): Option<(Vec<_>, _)> = self.off(write).await else { return };
        {
            let mut measured = room.lock();
            for (id, ledger) in ledgers {
                if let Some(known) = measured.get_mut(&id) {
                    known.ledger = Some(ledger);
                }
            }
        }
        match failure {
            Some(error) if !std::mem::replace(&mut self.told, true) => {
                let folder = room.folder.display();
                let error = format!("what workspaces use can't be kept in {folder}: {error}");
                tracing::warn!(error, "measuring goes on without a file");
                room.events.emit(None, EventKind::NotKept { error });
            }
            Some(_) => {}
            None => self.told = false,
        }
    }

    async fn sweep(&mut self) {
        let swept = self.off(|store| if store.ours()? { store.sweep() } else { Ok(()) }).await;
        if let Some(Err(error)) = swept {
            tracing::debug!(%error, "old files of what workspaces used can't be swept");
        }
    }

    /// Does blocking work with the store.
    async fn off<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Store) -> T + Send + 'static) -> Option<T> {
        let mut store = self.store.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut store);
            (store, done)
        });
        let (store, done) = done.await.ok()?;
        self.store = Some(store);
        Some(done)
    }
}
