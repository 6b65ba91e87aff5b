//! What is true after anything: transitions that were cut off are finished or undone, and the store learns what the engine knows.
//! The module above has the tables.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tracing::Instrument as _;

use super::{
    TransitionCause, WorkspaceState, found, limits,
    remove::forget_archives,
    sleep,
    transition::detached,
    turn::{Taking, Turn, is_at_work, is_attended, put},
    up,
};
use crate::{
    error::{Error, ErrorKind, Result},
    events::{Change, ChangeKind, Signal},
    host::HostInner,
    labels,
    pool::Seat,
    runtime::{ContainerId, ContainerState, ContainerStatus},
    state::{Dev, Durability, Entry, Recipe},
    workspace::{Labelled, WorkspaceId},
};

/// Workspaces that are looked into at once.
const AT_ONCE: usize = 16;
/// Between two looks at what could not be recovered.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What [`Host::reconcile`](crate::Host::reconcile) found and did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Reconciled {
    /// Containers and sleeping workspaces that the store didn't know: of an older version, or the store was lost.
    pub adopted: Vec<WorkspaceId>,
    /// Transitions that were cut off, and are finished now.
    pub finished: Vec<WorkspaceId>,
    /// Transitions that were cut off, and are undone now.
    pub undone: Vec<WorkspaceId>,
    /// Those whose container was in another state than was written down.
    pub corrected: Vec<WorkspaceId>,
    /// Those whose container is gone, and which have no archive.
    pub gone: Vec<WorkspaceId>,
    /// What could not be looked into or set right; the next time tries again.
    pub failed: Vec<(WorkspaceId, Error)>,
}

impl Reconciled {
    /// Whether everything was as it was written down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { adopted, finished, undone, corrected, gone, failed } = self;
        [adopted, finished, undone, corrected, gone].iter().all(|all| all.is_empty()) && failed.is_empty()
    }

    fn take(&mut self, id: WorkspaceId, result: Result<Outcome>) {
        match result {
            Ok(Outcome::Same) => {}
            Ok(Outcome::Adopted) => self.adopted.push(id),
            Ok(Outcome::Finished) => self.finished.push(id),
            Ok(Outcome::Undone) => self.undone.push(id),
            Ok(Outcome::Corrected) => self.corrected.push(id),
            Ok(Outcome::Gone) => self.gone.push(id),
            Err(error) => self.failed.push((id, error)),
        }
    }
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was to be done, or somebody else does it.
    Same,
    Adopted,
    Finished,
    Undone,
    Corrected,
    Gone,
}

/// Looks at all workspaces of the home.
pub(crate) async fn all(host: &Arc<HostInner>) -> Result<Reconciled> {
    look_at_all(host).instrument(tracing::info_span!("reconcile")).await
}

async fn look_at_all(host: &Arc<HostInner>) -> Result<Reconciled> {
    // The store first: what is made from now on is written there before it is in the engine. A container that the store doesn't have
    // now is looked up once more before it is adopted.
    let entries = host.store.all().await?;
    let known: HashSet<WorkspaceId> = entries.iter().map(|entry| entry.id.clone()).collect();
    let (mut unknown, mut never_ran) = (Vec::new(), Vec::new());
    for (labelled, state) in containers(host).await?.into_values() {
        match state.status {
            ContainerStatus::Created if state.labels.contains_key(labels::MAKER) => {
                never_ran.push((labelled.id, state.id))
            }
            _ if !known.contains(&labelled.id) => unknown.push(labelled.id),
            _ => {}
        }
    }
    let known = entries.into_iter().map(|entry| {
        let host = host.clone();
        async move { (entry.id.clone(), one(&host, entry).await) }
    });
    let mut reconciled = Reconciled::default();
    let mut results = stream::iter(known).buffer_unordered(AT_ONCE);
    while let Some((id, result)) = results.next().await {
        reconciled.take(id, result);
    }
    for id in unknown {
        let adopted = adopt(host, &id).await;
        reconciled.take(id, adopted.map(|adopted| if adopted { Outcome::Adopted } else { Outcome::Same }));
    }
    for (id, container) in never_ran {
        let cleared = clear_left_over(host, &id, &container).await;
        reconciled.take(id, cleared.map(|cleared| if cleared { Outcome::Undone } else { Outcome::Same }));
    }
    match found::sleepers(host).await {
        Ok(found) => reconciled.adopted.extend(found),
        Err(error) => {
            tracing::warn!(%error, "it could not be looked yet which workspaces sleep");
            host.turns.leave();
        }
    }
    Ok(reconciled)
}

/// Looks at one. What is begun is brought to its end, even if whoever waits for it goes away.
async fn one(host: &Arc<HostInner>, entry: Entry) -> Result<Outcome> {
    let inner = host.clone();
    let work = async move {
        // A home may be used with several engines, one at a time.
        let elsewhere = entry.engine != inner.engine_identity().await?;
        if elsewhere && (entry.container.is_some() || entry.actor.is_some()) {
            return Ok(Outcome::Same);
        }
        if entry.actor.is_some() {
            return if is_attended(&inner, &entry) { Ok(Outcome::Same) } else { recover(&inner, entry).await };
        }
        let generation = entry.generation;
        Ok(match truth(&inner, entry, TransitionCause::Engine).await? {
            Some(entry) if entry.generation == generation && entry.recipe.limits_pending => {
                limits::settle(&inner, entry).await?;
                Outcome::Finished
            }
            Some(entry) if entry.generation == generation => Outcome::Same,
            Some(_) => Outcome::Corrected,
            None => Outcome::Gone,
        })
    };
    detached(host, work.in_current_span()).await
}

/// Of what is in another engine nothing is known here, and nothing can be done.
pub(super) async fn check_engine(host: &HostInner, entry: &Entry) -> Result<()> {
    if entry.engine == host.engine_identity().await? {
        return Ok(());
    }
    let message = format!("workspace {} is in another engine ({})", entry.id, entry.engine);
    Err(Error::new(ErrorKind::Conflict, message).hint("use the engine that it was made with"))
}

/// A workspace that nobody is at, as it is: what differs from what is written down is written down. None when it is no more.
pub(crate) async fn truth(host: &Arc<HostInner>, entry: Entry, cause: TransitionCause) -> Result<Option<Entry>> {
    let Some(container) = entry.container.clone().map(ContainerId) else { return Ok(Some(entry)) };
    check_engine(host, &entry).await?;
    let before = entry.state;
    let put = match host.runtime.inspect(&container).await {
        Ok(found) => {
            let state = WorkspaceState::of(found.status);
            // Why it failed is more than its container's status says.
            if state == before || before == WorkspaceState::Failed {
                return Ok(Some(entry));
            }
            put(host, Entry { state, ..entry.clone() }, before, cause, None, Durability::Process).await?
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Err(_) if entry.archive.is_some() => {
            tracing::warn!(workspace = %entry.id, "its container is gone; it has the files of its archive");
            moved(host, &entry.id);
            put(host, asleep(&entry), before, cause, None, Durability::Disk).await?
        }
        Err(_) => {
            tracing::warn!(workspace = %entry.id, "its container is gone, and with it the workspace");
            return match Turn::take(host, entry.clone(), WorkspaceState::Removing, cause).await? {
                Taking::Taken(turn) => turn.forget().await.map(|()| None),
                Taking::Late => host.store.get(&entry.id).await,
            };
        }
    };
    match put {
        Some(entry) => Ok(Some(entry)),
        // Somebody was faster.
        None => host.store.get(&entry.id).await,
    }
}

/// A workspace as who only looks is to have it: as it is, if nobody is at it. None when it is no more.
pub(crate) async fn look(host: &Arc<HostInner>, entry: Entry) -> Result<Option<Entry>> {
    match entry.state {
        WorkspaceState::Removed => Ok(None),
        _ if entry.actor.is_some() => Ok(Some(entry)),
        _ => truth(host, entry, TransitionCause::Engine).await,
    }
}

fn asleep(entry: &Entry) -> Entry {
    Entry { state: WorkspaceState::Asleep, container: None, actor: None, ..entry.clone() }
}

/// All handles look for it anew.
pub(super) fn moved(host: &HostInner, id: &WorkspaceId) {
    if let Some(about) = host.directory.known(id) {
        about.moved(None);
    }
}

/// Gives a turn back in the state that the engine says. None when the workspace is no more.
pub(super) async fn settle(mut turn: Turn) -> Result<Option<Entry>> {
    let host = turn.host.clone();
    let found = match turn.entry.container.clone().map(ContainerId) {
        Some(container) => match host.runtime.inspect(&container).await {
            Ok(found) => Some(WorkspaceState::of(found.status)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    match found {
        Some(state) => turn.finish(state).await.map(Some),
        None if turn.entry.archive.is_some() => {
            moved(&host, &turn.entry.id);
            turn.finish_with(WorkspaceState::Asleep, Durability::Disk, |entry| entry.container = None).await.map(Some)
        }
        None => {
            turn.note(Durability::Process, |entry| entry.state = WorkspaceState::Removing).await?;
            turn.forget().await.map(|()| None)
        }
    }
}

/// Finishes or undoes what was cut off.
pub(super) async fn recover(host: &Arc<HostInner>, entry: Entry) -> Result<Outcome> {
    check_engine(host, &entry).await?;
    let state = entry.state;
    let Taking::Taken(turn) = Turn::take(host, entry, state, TransitionCause::Recovered).await? else {
        return Ok(Outcome::Same);
    };
    let span = tracing::info_span!("recovery", workspace = %turn.entry.id, %state);
    finish_or_undo(host, turn, state).instrument(span).await
}

async fn finish_or_undo(host: &Arc<HostInner>, turn: Box<Turn>, state: WorkspaceState) -> Result<Outcome> {
    tracing::info!(workspace = %turn.entry.id, %state, "recovering what was cut off");
    match state {
        WorkspaceState::Creating | WorkspaceState::Removed => {
            clear_containers(host, &turn.entry.id).await?;
            forget_archives(host, &turn.entry).await?;
            turn.forget().await.map(|()| Outcome::Undone)
        }
        WorkspaceState::Removing => {
            forget_archives(host, &turn.entry).await?;
            sleep::clear_away(&turn).await?;
            turn.forget().await.map(|()| Outcome::Finished)
        }
        WorkspaceState::Waking => {
            clear_containers(host, &turn.entry.id).await?;
            // It may have been written down already.
            let asleep = turn.finish_with(WorkspaceState::Asleep, Durability::Process, |entry| entry.container = None);
            asleep.await.map(|_| Outcome::Undone)
        }
        // Its archive is written down, and its container isn't removed yet.
        WorkspaceState::Asleep => sleep::leave_container(*turn).await.map(|_| Outcome::Finished),
        WorkspaceState::Starting => match up::bring_up(&turn).await {
            Ok(workspace) => {
                up::start_dev(&workspace, &turn.entry.recipe).await;
                turn.finish(WorkspaceState::Ready).await.map(|_| Outcome::Finished)
            }
            Err(error) => {
                tracing::warn!(workspace = %turn.entry.id, %error, "a start that was cut off could not be finished");
                Ok(settle(*turn).await?.map_or(Outcome::Gone, |_| Outcome::Undone))
            }
        },
        WorkspaceState::Archiving => sleep::undo(*turn).await,
        _ => Ok(settle(*turn).await?.map_or(Outcome::Gone, |_| Outcome::Undone)),
    }
}

/// Removes every container of a workspace, also one of a pool that is claimed for it and has its name not yet.
pub(super) async fn clear_containers(host: &HostInner, id: &WorkspaceId) -> Result<()> {
    for (labelled, state) in containers(host).await?.into_values() {
        if labelled.id == *id {
            host.runtime.remove(&state.id).await?;
            host.records.forget(&state.id, id).await;
        }
    }
    Seat::of(host).undo_claims(id).await
}

/// Removes a container in which nothing ever ran and that no workspace has: the engine made it for a host that was killed, and was done when
/// that had been undone already. False when it is no such container.
async fn clear_left_over(host: &Arc<HostInner>, id: &WorkspaceId, container: &ContainerId) -> Result<bool> {
    let state = match host.runtime.inspect(container).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        inspected => inspected?,
    };
    // Also where its maker has another store than we: one was lost, and they know the old one.
    let is_left = state.labels.get(labels::MAKER).is_some_and(|maker| !is_at_work(host, maker, id));
    if state.status != ContainerStatus::Created || !is_left {
        return Ok(false);
    }
    // After that look: whoever has a container made is written down before.
    let entry = host.store.get(id).await?;
    if entry.is_some_and(|entry| entry.actor.is_some() || entry.container.as_ref() == Some(&container.0)) {
        return Ok(false);
    }
    tracing::info!(workspace = %id, "a container that was made for a host that is gone is removed");
    host.runtime.remove(container).await?;
    Ok(true)
}

/// Takes a container of this home into the store that it doesn't know. False when there is none.
pub(super) async fn adopt(host: &Arc<HostInner>, id: &WorkspaceId) -> Result<bool> {
    let found = containers(host).await?.into_values().find(|(labelled, _)| labelled.id == *id);
    let Some((labelled, state)) = found else { return Ok(false) };
    if state.status == ContainerStatus::Created && state.labels.contains_key(labels::MAKER) {
        clear_left_over(host, id, &state.id).await?;
        // Whoever is having it made is found in the store.
        return Ok(host.store.get(id).await?.is_some());
    }
    let entry = Entry {
        id: id.clone(),
        owner: None,
        state: WorkspaceState::of(state.status),
        reason: None,
        engine: host.engine_identity().await?.to_owned(),
        container: Some(state.id.0.clone()),
        instance: labelled.instance,
        recipe: guessed(host, labelled.template, labelled.preview_port).await,
        archive: None,
        created: labelled.created,
        entered_at: corehold_types::Timestamp::now(),
        generation: 0,
        actor: None,
        policy: None,
    };
    if host.store.insert(entry.clone()).await?.is_err() {
        // Somebody else did, or it was made since.
        return Ok(true);
    }
    // It may have been removed between the listing and now, by somebody who found nothing to remove in the store.
    match host.runtime.inspect(&state.id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => host.store.delete(&entry).await.map(|_| false),
        _ => {
            tracing::info!(workspace = %id, "a container that the store didn't know is taken into it");
            Ok(true)
        }
    }
}

/// What can be said of how a container was made by its labels, and by its template as it is now.
pub(super) async fn guessed(host: &Arc<HostInner>, template: Option<String>, preview_port: Option<u16>) -> Recipe {
    let bare = Recipe { template: template.clone(), preview_port, ..Recipe::default() };
    let Some(name) = template else { return bare };
    let catalog = host.catalog.clone();
    match tokio::task::spawn_blocking(move || catalog.find(&name)).await {
        Ok(Ok(template)) => Recipe {
            image: template.image.clone(),
            env: template.env.clone(),
            memory_bytes: template.resources.memory_bytes,
            cpu_millis: template.resources.cpu_millis,
            pids: template.resources.pids,
            dev: Dev::of(&template),
            ..bare
        },
        _ => bare,
    }
}

/// All containers of this home's workspaces, by their ids.
async fn containers(host: &HostInner) -> Result<HashMap<String, (Labelled, ContainerState)>> {
    let of_kind = |kind| labels::of_kind_at_home(kind, &host.fingerprint);
    let (made, pooled) = (of_kind(labels::KIND_WORKSPACE), of_kind(labels::KIND_POOL));
    let (mut states, pooled) = tokio::try_join!(host.runtime.list(&made), host.runtime.list(&pooled))?;
    let records = if pooled.is_empty() { Vec::new() } else { host.records.all().await };
    states.extend(pooled);
    // A container whose labels somebody damaged is not ours to judge.
    let labelled = states.into_iter().filter_map(|state| Some((Labelled::of(&state, &records).ok()??, state)));
    Ok(labelled.map(|(labelled, state)| (state.id.0.clone(), (labelled, state))).collect())
}

/// Reconciles at the start, and whenever the engine says that something happened. Never ends by itself.
pub(crate) async fn supervise(host: Arc<HostInner>) {
    // Before the first look: what happens after it is told.
    let mut signals = host.engine.subscribe();
    survey(&host).await;
    let mut again = tokio::time::interval(LOOK_AGAIN);
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            _ = again.tick() => {
                if host.turns.take_left() {
                    survey(&host).await;
                }
                continue;
            }
        };
        match signal {
            None => return,
            Some(Signal::LookAgain) => survey(&host).await,
            Some(Signal::Change(change)) => {
                if let Err(error) = happened(&host, &change).await {
                    tracing::debug!(container = change.container.0, %error, "a change could not be looked into");
                }
            }
        }
    }
}

async fn survey(host: &Arc<HostInner>) {
    match all(host).await {
        Ok(reconciled) => {
            if !reconciled.failed.is_empty() {
                host.turns.leave();
            }
            for (workspace, error) in &reconciled.failed {
                tracing::warn!(%workspace, %error, "a workspace could not be reconciled");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the workspaces could not be reconciled");
            host.turns.leave();
        }
    }
}

pub(super) async fn happened(host: &Arc<HostInner>, change: &Change) -> Result<()> {
    match (change.kind, &change.workspace) {
        (ChangeKind::Created, Some(id)) => {
            let entry = host.store.get(id).await?;
            // Whoever is having it made, as is usual, goes on with it.
            if entry.is_none_or(|entry| entry.actor.is_none()) {
                clear_left_over(host, id, &change.container).await?;
            }
            return Ok(());
        }
        (ChangeKind::Created | ChangeKind::OutOfMemory | ChangeKind::Renamed, _) => return Ok(()),
        _ => {}
    }
    match host.store.by_container(&change.container.0).await? {
        // Who is at it finds out.
        Some(entry) if entry.actor.is_none() => one(host, entry).await.map(|_| ()),
        _ => Ok(()),
    }
}
