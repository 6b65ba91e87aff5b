//! Asleep: the files in an archive, and no container; and awake again in another one.
//!
//! Before it is saved everything in it is ended, by stopping its container and starting it with nothing but the agent: what writes
//! while it is saved would be lost with the container. It is asleep from the moment that the archive is written down, on disk;
//! only then the container goes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    WorkspaceState,
    reconcile::{Outcome, clear_containers, moved, settle},
    transition::{Verb, container},
    turn::Turn,
    up,
};
use crate::{
    archive::{Archive, Archives, Sleeper},
    create::{self, reservation::Reservation},
    error::{Error, ErrorKind, Result},
    host::HostInner,
    idle::Stored,
    network,
    runtime::{ContainerId, ContainerStatus},
    state::{Durability, Entry},
    workspace::{Workspace, WorkspaceId},
};

/// Where the files of those who sleep are kept.
#[async_trait]
pub(crate) trait Bed: Send + Sync + 'static {
    /// Saves the files, reads them back, and returns by what they are found.
    async fn save_verified(&self, workspace: &Workspace, sleeper: Sleeper) -> Result<String>;

    /// Lays the files into a workspace, all or none.
    async fn restore(&self, archive: &str, workspace: &Workspace) -> Result<()>;

    /// Removes what was saved of a workspace that it may sleep, but for what it needs.
    async fn sweep(&self, workspace: &WorkspaceId, needed: Option<&str>) -> Result<()>;

    /// Who sleeps, or woke, and by what the files are found.
    async fn sleepers(&self) -> Result<Vec<(WorkspaceId, String, Sleeper)>>;
}

#[async_trait]
impl Bed for Archives {
    async fn save_verified(&self, workspace: &Workspace, sleeper: Sleeper) -> Result<String> {
        Ok(Archives::save_verified(self, workspace, sleeper).await?.to_string())
    }

    async fn restore(&self, archive: &str, workspace: &Workspace) -> Result<()> {
        Archives::restore(self, &archive.parse()?, workspace).await.map(|_| ())
    }

    async fn sweep(&self, workspace: &WorkspaceId, needed: Option<&str>) -> Result<()> {
        Archives::sweep(self, workspace, needed).await
    }

    async fn sleepers(&self) -> Result<Vec<(WorkspaceId, String, Sleeper)>> {
        let all = Archives::sleepers(self).await?.into_iter();
        let found = |archive: Archive| {
            let reference = archive.reference().to_string();
            Some((archive.workspace, reference, *archive.sleeper?))
        };
        Ok(all.filter_map(found).collect())
    }
}

impl Workspace {
    /// Saves its files, reads them back from where they were saved, and removes its container. All that runs in it is ended first, as
    /// by [`stop`](Self::stop) with the same grace; memory, and files outside of the workspace's root, are gone. What is asleep
    /// stays so.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// As the archive store says; it is ready then as before, its dev server started again, or stopped, if it was.
    pub async fn sleep(&self, grace: Duration) -> Result<()> {
        self.transition(Verb::Sleep, grace).await
    }

    /// Makes a container for what is asleep, with its files, and starts its dev server, which isn't waited for; resumes what is paused.
    /// What runs stays so.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Conflict` when it is stopped: who stopped it wants that. As the archive store and the engine say; it is asleep then as before.
    pub async fn wake(&self) -> Result<()> {
        self.transition(Verb::Wake, Duration::ZERO).await
    }
}

pub(super) async fn archive(mut turn: Turn, grace: Duration) -> Result<()> {
    let host = turn.host.clone();
    let saved = async {
        host.runtime.stop(&container(&turn.entry)?, grace).await?;
        let workspace = up::bring_up(&turn).await?;
        let archive = host.bed().save_verified(&workspace, Sleeper::of(&host, &turn.entry)).await?;
        turn.note(Durability::Disk, |entry| {
            entry.state = WorkspaceState::Asleep;
            entry.archive = Some(archive);
        })
        .await
    };
    if let Err(error) = saved.await {
        if let Err(undoing) = undo(turn).await {
            tracing::warn!(error = %undoing, "a workspace that could not be put to sleep could not be set right");
        }
        return Err(error);
    }
    leave_container(turn).await.map(|_| ())
}

/// Removes the container of what has its archive.
pub(super) async fn leave_container(turn: Turn) -> Result<Entry> {
    remove_container(&turn).await?;
    // What hasn't changed since it slept last is not saved anew: it is the same archive.
    sweep(&turn.host, &turn.entry.id, turn.entry.archive.as_deref()).await;
    moved(&turn.host, &turn.entry.id);
    turn.finish_with(WorkspaceState::Asleep, Durability::Process, |entry| entry.container = None).await
}

/// Sets right what could not be put to sleep: nothing but the agent may run in it.
pub(super) async fn undo(turn: Turn) -> Result<Outcome> {
    let host = turn.host.clone();
    if let Some(container) = turn.entry.container.clone().map(ContainerId) {
        let running =
            host.runtime.inspect(&container).await.is_ok_and(|state| state.status == ContainerStatus::Running);
        // Of one that was cut off, whoever stopped it left word.
        let was_cut_off = turn.from == WorkspaceState::Archiving;
        if turn.from == WorkspaceState::Stopped || was_cut_off && Stored::of(&turn.entry).stopped {
            host.runtime.stop(&container, Duration::ZERO).await?;
        } else if running && let Ok(workspace) = up::bring_up(&turn).await {
            up::start_dev(&workspace, &turn.entry.recipe).await;
        }
    }
    // It may be that the archive is written down, and we weren't told.
    let entry = host.store.get(&turn.entry.id).await?;
    if entry.is_some_and(|entry| entry.archive == turn.entry.archive) {
        sweep(&host, &turn.entry.id, turn.entry.archive.as_deref()).await;
    }
    Ok(settle(turn).await?.map_or(Outcome::Gone, |_| Outcome::Undone))
}

pub(super) async fn wake(mut turn: Turn) -> Result<()> {
    let host = turn.host.clone();
    let (workspace, place) = match woken(&turn).await {
        Ok(woken) => woken,
        Err((error, place)) => return sleep_on(turn, place, error).await,
    };
    let entered = async {
        let engine = host.engine_identity().await?.to_owned();
        let at = workspace.place().await?;
        turn.note(Durability::Process, |entry| {
            entry.container = Some(at.container.0.clone());
            entry.instance.clone_from(&at.instance);
            entry.engine = engine;
        })
        .await
    };
    if let Err(error) = entered.await {
        return sleep_on(turn, place, error).await;
    }
    place.keep();
    up::start_dev(&workspace, &turn.entry.recipe).await;
    turn.finish(WorkspaceState::Ready).await.map(|_| ())
}

/// A container with the files of the archive.
async fn woken(turn: &Turn) -> std::result::Result<(Workspace, Reservation), (Error, Reservation)> {
    let (host, entry) = (&turn.host, &turn.entry);
    let mut place = Reservation::new(host.runtime.clone(), host.cleanups.clone());
    let restored = async {
        let archive = entry.archive.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("workspace {} is asleep, and has no archive", entry.id))
        })?;
        // The engine may have made a container for a host that didn't live to hear of it.
        clear_containers(host, &entry.id).await?;
        let workspace = create::bring_up_again(host, entry, &mut place).await?;
        host.bed().restore(archive, &workspace).await?;
        Ok(workspace)
    };
    match restored.await {
        Ok(workspace) => Ok((workspace, place)),
        Err(error) => {
            let error = host.whose_disk(error).await;
            Err((error.context(format_args!("waking workspace {}", entry.id)), place))
        }
    }
}

/// What could not be woken sleeps on, and its new container goes. Where that can't be done, it is cut off, and tried again.
async fn sleep_on(turn: Turn, place: Reservation, error: Error) -> Result<()> {
    moved(&turn.host, &turn.entry.id);
    if let Err(removal) = place.discard().await {
        return Err(error.also_hint(&format!("its new container could not be removed yet ({removal})")));
    }
    let id = turn.entry.id.clone();
    let settled = match turn.is_taken_away().await {
        Ok(true) => turn.forget().await,
        _ => turn.finish(WorkspaceState::Asleep).await.map(|_| ()),
    };
    if let Err(settling) = settled {
        tracing::warn!(workspace = %id, error = %settling, "that a workspace sleeps on could not be written down yet");
    }
    Err(error)
}

/// Removes all that there is of a workspace but its entry.
pub(super) async fn clear_away(turn: &Turn) -> Result<()> {
    if turn.entry.container.is_some() {
        remove_container(turn).await?;
    } else {
        clear_containers(&turn.host, &turn.entry.id).await?;
    }
    turn.host.previews.close(&turn.entry.id);
    sweep(&turn.host, &turn.entry.id, None).await;
    Ok(())
}

async fn remove_container(turn: &Turn) -> Result<()> {
    let Some(container) = turn.entry.container.clone().map(ContainerId) else { return Ok(()) };
    turn.host.runtime.remove(&container).await?;
    network::release(&turn.host, &turn.entry.recipe);
    turn.host.records.forget(&container, &turn.entry.id).await;
    Ok(())
}

/// Removes archives that nothing wakes from any more. One that stays costs room, and nothing else.
pub(super) async fn sweep(host: &Arc<HostInner>, id: &WorkspaceId, needed: Option<&str>) {
    if let Err(error) = host.bed().sweep(id, needed).await {
        tracing::warn!(workspace = %id, %error, "an archive of no more use could not be removed");
    }
}
