//! Keeps a pool filled: looks at what the engine has, listens to what happens to it, and starts what is missing.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::{task::JoinSet, time::Instant};

use super::{FailedPull, Member, Pool, class::Blank, reconcile::expired};
use crate::{
    client::{AgentClient, Patience},
    create::{
        AGENT_TIMEOUT,
        agent::{self, DeathWatch},
        reservation::Reservation,
    },
    error::{Error, ErrorKind, Result},
    events::EventKind,
    host::AGENT_PORT,
    labels,
    runtime::{ContainerEvent, ContainerId, ContainerState, ContainerStatus},
};

/// Between two looks at the whole pool, beside what events tell.
const SURVEY_EVERY: Duration = Duration::from_secs(60);
/// After the engine could not be asked, or its events broke off.
const RETRY: Duration = Duration::from_secs(1);
/// After a start that failed; doubled with each, up to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After somebody else was faster with a place: its container may be on its way out, and the name with it.
const YIELD: Duration = Duration::from_millis(50);
/// A time without a miss after which one less is kept ready.
const CALM: Duration = Duration::from_secs(60);

impl Pool {
    /// Never ends by itself. Aborted, it leaves its containers to the next one.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        loop {
            let renewed = self.renew(&mut tasks).await;
            // Events first, so that nothing between them and the survey is missed.
            let mut events = self.seat.runtime.events(&self.blank().labels());
            let surveyed = match renewed {
                Ok(()) => self.survey(&mut tasks).await,
                failed => failed,
            };
            if let Err(error) = surveyed {
                self.failed(&error.context("looking at the pool"));
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let mut again = std::pin::pin!(tokio::time::sleep(SURVEY_EVERY));
            loop {
                let due = self.refill(&mut tasks).await;
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(event)) => self.happened(event, &mut tasks),
                        Some(Err(_)) | None => {
                            self.doubt();
                            tokio::time::sleep(RETRY).await;
                            break;
                        }
                    },
                    Some(_) = tasks.join_next() => {}
                    () = self.wanted.notified() => {}
                    () = until(due) => {}
                    () = until(self.recheck()) => break,
                    () = &mut again => break,
                }
            }
        }
    }

    fn recheck(&self) -> Option<Instant> {
        self.state().recheck
    }

    /// Looks up what the image's name means. If it is another image than before, what waits is of no use any more.
    async fn renew(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<()> {
        let before = self.blank();
        let id = self.image(&before).await?;
        let limits_disk = self.seat.runtime.limits_disk().await?;
        self.state().limits_disk = limits_disk;
        let Some(blank) = before.with_image(id) else { return Ok(()) };
        *self.blank.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(blank);
        let gone = std::mem::take(&mut self.state().ready);
        if gone.is_empty() {
            return Ok(());
        }
        tracing::info!(image = before.image(), "the image was built anew; the pool is filled anew");
        for member in gone {
            self.state().attended.remove(&member.container.0);
            let seat = self.seat.clone();
            tasks.spawn(async move { seat.retire(&member.container).await });
        }
        Ok(())
    }

    /// The id of the image. One that is missing is pulled, where it may be; one that couldn't be is looked for, and pulled again after a
    /// while.
    async fn image(&self, blank: &Blank) -> Result<String> {
        let (runtime, reference) = (&self.seat.runtime, blank.image());
        match runtime.image_id(reference).await {
            Err(error) if error.kind() == ErrorKind::NotFound && blank.pulled => {}
            known => {
                self.state().pull = None;
                return known;
            }
        }
        let failures = match &self.state().pull {
            Some(failed) if failed.again > Instant::now() => {
                return Err(Error::new(failed.kind, failed.told.clone()));
            }
            failed => failed.as_ref().map_or(0, |failed| failed.count),
        };
        let image = reference.to_owned();
        self.seat.events.emit(None, EventKind::PoolImagePulling { image: image.clone() });
        let began = Instant::now();
        // How far it is nobody waits to know.
        if let Err(error) = runtime.pull_image(reference, &|_| ()).await {
            let error = error.context(format_args!("pulling {reference} for a pool"));
            let again = Instant::now() + pause(failures);
            let told = error.to_string();
            self.seat.events.emit(None, EventKind::PoolImageFailed { image, reason: told.clone() });
            self.state().pull = Some(FailedPull { count: failures.saturating_add(1), again, kind: error.kind(), told });
            return Err(error);
        }
        self.state().pull = None;
        self.seat.events.emit(None, EventKind::PoolImagePulled { image, duration: began.elapsed() });
        runtime.image_id(reference).await
    }

    /// Looks at all containers that wait: those of the class, and those of others that have waited too long.
    async fn survey(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<()> {
        let known: Vec<ContainerId> = {
            let mut state = self.state();
            state.recheck = None;
            state.ready.iter().map(|member| member.container.clone()).collect()
        };
        let states = self.seat.runtime.list(&self.blank().home_labels()).await?;
        self.seat.sweep_records(&states).await;
        let (own, others): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| self.place(&state.name).is_some());
        for id in known.iter().filter(|id| !own.iter().any(|state| state.id == **id)) {
            self.lost(id);
        }
        let left_behind = |state: &&ContainerState| state.name.starts_with(labels::POOL_NAME_PREFIX) && expired(state);
        for state in others.iter().filter(left_behind) {
            let (seat, id) = (self.seat.clone(), state.id.clone());
            tasks.spawn(async move { seat.retire(&id).await });
        }
        // Of our own one at a time, so that the pool is never empty for it.
        let (old, own): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|state| state.status == ContainerStatus::Running && expired(state));
        if let Some(oldest) = old.first() {
            let (seat, id) = (self.seat.clone(), oldest.id.clone());
            self.lost(&id);
            tasks.spawn(async move { seat.retire(&id).await });
            if old.len() > 1 {
                self.state().recheck = Some(Instant::now() + RETRY);
            }
        }
        for state in own {
            let pool = self.clone();
            tasks.spawn(async move { pool.attend(state).await });
        }
        Ok(())
    }

    /// The number of the place that a container's name says it has; none, once it is somebody's workspace.
    fn place(&self, name: &str) -> Option<usize> {
        let prefix = self.blank().slot(0);
        name.strip_prefix(prefix.strip_suffix('0')?)?.parse().ok()
    }

    /// Finds out about a container that waits, unless somebody here does already.
    async fn attend(self: &Arc<Self>, state: ContainerState) {
        if !self.state().attended.insert(state.id.0.clone()) {
            return;
        }
        match self.examine(&state).await {
            Ok(Some(member)) => return self.ready(member),
            Ok(None) => {}
            Err(error) => self.seat.give_up(&state, &error).await,
        }
        self.state().attended.remove(&state.id.0);
    }

    fn happened(self: &Arc<Self>, event: ContainerEvent, tasks: &mut JoinSet<()>) {
        match event.action.as_str() {
            // Started by another host, or continued; or ended, and then to be removed.
            "start" | "unpause" | "die" => {}
            "destroy" | "rename" | "pause" => return self.lost(&event.id),
            _ => return,
        }
        if event.action == "die" {
            self.lost(&event.id);
        }
        let pool = self.clone();
        tasks.spawn(async move {
            let Ok(state) = pool.seat.runtime.inspect(&event.id).await else { return };
            if pool.place(&state.name).is_some() {
                pool.attend(state).await;
            }
        });
    }

    /// One that was ready is no more.
    fn lost(&self, id: &ContainerId) {
        let mut state = self.state();
        let before = state.ready.len();
        state.ready.retain(|member| member.container != *id);
        if state.ready.len() < before {
            state.attended.remove(&id.0);
        }
    }

    /// Nobody told what happened meanwhile: the engine may have been restarted, and what was ready with it. Until it was looked into
    /// again, it isn't handed out.
    fn doubt(&self) {
        let mut state = self.state();
        for member in std::mem::take(&mut state.ready) {
            state.attended.remove(&member.container.0);
        }
    }

    fn ready(&self, member: Member) {
        let mut state = self.state();
        if !state.closed {
            state.ready.push_back(member);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Starts what is missing. Returns when to look again, if no event will tell.
    pub(super) async fn refill(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Instant> {
        loop {
            let calm = {
                let mut state = self.state();
                let now = Instant::now();
                if state.target > self.options.min && state.missed_at + CALM <= now {
                    (state.target, state.missed_at) = (state.target - 1, now);
                }
                let calm = (state.target > self.options.min).then_some(state.missed_at + CALM);
                let coming = state.ready.len() + state.starting.len();
                if state.closed || coming >= state.target || state.starting.len() >= self.options.starts_at_once {
                    return calm;
                }
                let then = state.not_before.max(state.held_until());
                if let Some(then) = then.filter(|then| *then > now) {
                    return Some(calm.map_or(then, |calm| calm.min(then)));
                }
                calm
            };
            // Other hosts fill it too: what they have started comes with an event.
            let taken = match self.taken().await {
                Ok(taken) => taken,
                Err(error) => {
                    self.failed(&error.context("looking at the pool"));
                    continue;
                }
            };
            let mut state = self.state();
            let free = (0..self.options.most()).find(|place| !taken.contains(place) && !state.starting.contains(place));
            let Some(place) = free.filter(|_| taken.union(&state.starting).count() < state.target) else { return calm };
            state.starting.insert(place);
            state.not_before = Some(Instant::now() + self.options.start_interval);
            drop(state);
            tasks.spawn(self.clone().start(place));
        }
    }

    /// The places that have a container which runs or is about to.
    async fn taken(&self) -> Result<BTreeSet<usize>> {
        let states = self.seat.runtime.list(&self.blank().labels()).await?;
        let alive = states.iter().filter(|state| state.status != ContainerStatus::Paused);
        Ok(alive.filter_map(|state| self.place(&state.name)).collect())
    }

    async fn start(self: Arc<Self>, place: usize) {
        let blank = self.blank();
        let brought = self.bring_up(&blank, place).await;
        match brought {
            Ok(member) => {
                let current = Arc::ptr_eq(&blank, &self.blank());
                {
                    let mut state = self.state();
                    state.starting.remove(&place);
                    (state.failures, state.failure) = (0, None);
                    if !current {
                        state.attended.remove(&member.container.0);
                    }
                }
                if current {
                    return self.ready(member);
                }
                // Of an image that was built anew meanwhile.
                self.seat.retire(&member.container).await;
            }
            Err(error) => {
                let taken = error.kind() == ErrorKind::AlreadyExists;
                {
                    let mut state = self.state();
                    state.starting.remove(&place);
                    if taken {
                        state.not_before = Some(Instant::now() + YIELD);
                    }
                    if error.kind() == ErrorKind::NotFound {
                        // Its image, which was there when it was looked for.
                        state.recheck = Some(Instant::now() + RETRY);
                    }
                }
                if !taken {
                    self.failed(&error);
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// Something went wrong that may go wrong again: it is told once, and tried after a pause.
    fn failed(&self, error: &Error) {
        let mut state = self.state();
        let pause = pause(state.failures);
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + pause);
        let told = match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        if state.failure.as_ref().is_none_or(|(_, before)| *before != told) {
            tracing::warn!(image = self.blank().image(), error = told, "a pool can't be filled");
        }
        state.failure = Some((error.kind(), told));
        drop(state);
        self.changed.notify_waiters();
    }

    async fn bring_up(&self, blank: &Blank, place: usize) -> Result<Member> {
        let (mut spec, instance) = blank.container(blank.slot(place), self.options.max_age)?;
        let runtime = &self.seat.runtime;
        let mut reservation = Reservation::new(runtime.clone(), self.seat.cleanups.clone());
        self.seat.allotment.ready(&mut spec).await?;
        let container = reservation.create(spec).await?;
        self.state().attended.insert(container.0.clone());
        let client = Arc::new(AgentClient::new(runtime.clone(), container.clone(), AGENT_PORT, Patience::default()));
        let started = async {
            let mut watch = DeathWatch::new(runtime.as_ref(), &instance);
            watch.during(runtime.start(&container)).await?;
            agent::wait(&client, &mut watch, AGENT_TIMEOUT, runtime.as_ref()).await
        };
        match started.await {
            Ok(()) => {
                reservation.keep();
                Ok(blank.member(container, instance, client))
            }
            Err(error) => {
                self.state().attended.remove(&container.0);
                // Found again by its name, should this fail too.
                let _ = reservation.discard().await;
                Err(error)
            }
        }
    }
}

/// How long to wait after so many failures and one more.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
