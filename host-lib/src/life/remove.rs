//! Removing a workspace: from any state, also out of the hands of who makes it.

use std::sync::Arc;

use tracing::Instrument as _;

use super::{
    TransitionCause, WorkspaceState,
    reconcile::{adopt, check_engine, clear_containers, settle},
    sleep,
    transition::detached,
    turn::{Taking, Turn, is_attended, put, wait_for_others},
};
use crate::{
    archive::Archives,
    error::Result,
    events::EventKind,
    host::HostInner,
    state::{Durability, Entry, Recipe},
    workspace::{Workspace, WorkspaceId},
};

/// What goes with a workspace. Default: all that it holds, and what it sleeps in; what somebody saved of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "it is read by `Workspace::remove_with`"]
pub struct RemoveOptions {
    archives: bool,
    other_homes: bool,
}

impl RemoveOptions {
    /// Whether every archive goes too that [`Archives::list`](crate::Archives::list) has of its name, also of an earlier workspace that had it,
    /// and those that can't be read. Default: false.
    pub fn archives(mut self, archives: bool) -> Self {
        self.archives = archives;
        self
    }

    /// Whether a workspace of another home is removed too: its container, with all that it holds. It is for one whose home is lost, as those of
    /// other users of the engine are found by their names too. Default: false.
    pub fn other_homes(mut self, other_homes: bool) -> Self {
        self.other_homes = other_homes;
        self
    }
}

impl Workspace {
    /// Removes it and all it held, whatever it is doing; what sleeps loses the archive that it would wake from. What was
    /// [saved](crate::Archives::save) of it stays, see [`remove_with`](Self::remove_with). Removing what is gone already is no error. Who makes or wakes it meanwhile is told `Conflict`; any other transition is waited for.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Engine` or `EngineUnavailable`; it may be tried again. `Conflict` when it is of another home.
    pub async fn remove(&self) -> Result<()> {
        self.remove_with(RemoveOptions::default()).await
    }

    /// The same, and says what goes with it. Archives go first: where one can't be given up, the workspace is as it was, and a second call
    /// goes on from there; only of one that is taken out of the hands of who makes or wakes it, the container does. If the process ends in the
    /// middle, the next host completes it.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and `Io` when the archive store can't be used.
    pub async fn remove_with(&self, options: RemoveOptions) -> Result<()> {
        let own = match self.own() {
            Ok(()) => true,
            Err(_) if options.other_homes => false,
            Err(error) => {
                let lost = format!("if that is lost: `corehold down {} --other-homes`", self.id());
                return Err(error.also_hint(&lost));
            }
        };
        let (host, workspace) = (self.host().clone(), self.clone());
        let work = async move {
            if own {
                return remove_with(&host, workspace.id(), Some(workspace.subject()), options).await;
            }
            // Of another home: its store isn't ours, its container can be removed.
            let Some(place) = workspace.about().place() else { return Ok(()) };
            host.runtime.remove(&place.container).await?;
            host.events.emit_by(Some(workspace.subject()), Some(workspace.id()), EventKind::Removed);
            Ok(())
        };
        detached(self.host(), work).await
    }
}

/// Removes what was decided of an entry that nobody is at; nothing if somebody has changed the workspace since: they meant it. Whether it was
/// done.
pub(crate) async fn remove_unchanged(host: &Arc<HostInner>, entry: Entry) -> Result<bool> {
    match take(host, noted(entry, RemoveOptions::default())).await? {
        Taking::Taken(turn) => carry_out(*turn).await.map(|()| true),
        Taking::Late => Ok(false),
    }
}

/// What goes with it, to be written with the state: whoever finds it cut off knows.
fn noted(entry: Entry, options: RemoveOptions) -> Entry {
    Entry { recipe: Recipe { removes_archives: options.archives, ..entry.recipe }, ..entry }
}

async fn take(host: &Arc<HostInner>, entry: Entry) -> Result<Taking> {
    if entry.container.is_some() || entry.actor.is_some() {
        check_engine(host, &entry).await?;
    }
    Turn::take(host, entry, WorkspaceState::Removing, TransitionCause::Asked).await
}

async fn carry_out(mut turn: Turn) -> Result<()> {
    let id = turn.entry.id.clone();
    let cleared = async {
        forget_archives(&turn.host, &turn.entry).await?;
        sleep::clear_away(&turn).await
    };
    let span = tracing::info_span!("removal", workspace = %id, from = %turn.from);
    if let Err(error) = cleared.instrument(span).await {
        // It is what it was, for whoever tries again.
        turn.entry.recipe.removes_archives = false;
        if let Err(settling) = settle(turn).await {
            tracing::debug!(workspace = %id, error = %settling, "a removal that failed is still written down");
        }
        return Err(error);
    }
    turn.forget().await
}

/// Gives up the archives of a workspace that is being removed, if they are to go with it.
pub(super) async fn forget_archives(host: &Arc<HostInner>, entry: &Entry) -> Result<()> {
    if !entry.recipe.removes_archives {
        return Ok(());
    }
    Archives::new(host.clone()).forget(&entry.id).await
}

async fn remove_with(
    host: &Arc<HostInner>,
    id: &WorkspaceId,
    subject: Option<&str>,
    options: RemoveOptions,
) -> Result<()> {
    loop {
        let Some(entry) = host.store.get(id).await? else {
            match adopt(host, id).await? {
                true => continue,
                false => return Ok(()),
            }
        };
        let (state, entry) = (entry.state, noted(entry, options));
        if entry.actor.is_some() && is_attended(host, &entry) {
            match state {
                // Taken out of their hands. The entry stays until they have let go: they may be about to make a container.
                WorkspaceState::Creating | WorkspaceState::Waking => {
                    let wanted = Entry { state: WorkspaceState::Removed, ..entry };
                    if let Some(entry) =
                        put(host, wanted, state, TransitionCause::Asked, subject, Durability::Process).await?
                    {
                        clear_containers(host, id).await?;
                        sleep::sweep(host, &entry.id, None).await;
                        forget_archives(host, &entry).await?;
                        host.events.emit_by(subject, Some(id), EventKind::Removed);
                        return Ok(());
                    }
                }
                WorkspaceState::Removed => return Ok(()),
                _ => wait_for_others(host).await,
            }
            continue;
        }
        match take(host, entry).await? {
            Taking::Taken(mut turn) => {
                turn.subject = subject.map(str::to_owned);
                return carry_out(*turn).await;
            }
            Taking::Late => wait_for_others(host).await,
        }
    }
}
