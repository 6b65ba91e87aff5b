//! Removing a workspace: from any state, also out of the hands of who makes it.

use std::sync::Arc;

use super::{
    TransitionCause, WorkspaceState,
    reconcile::{adopt, check_engine, clear_containers, settle},
    sleep,
    transition::detached,
    turn::{Taking, Turn, is_attended, put, wait_for_others},
};
use crate::{
    error::Result,
    events::EventKind,
    host::HostInner,
    state::{Durability, Entry},
    workspace::{Workspace, WorkspaceId},
};

impl Workspace {
    /// Removes it and all it held, whatever it is doing; what sleeps loses the archive that it would wake from. Removing what is gone
    /// already is no error. Who makes or wakes it meanwhile is told `Conflict`; any other transition is waited for.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Engine` or `EngineUnavailable`; it may be tried again.
    pub async fn remove(&self) -> Result<()> {
        let (host, workspace) = (self.host().clone(), self.clone());
        let work = async move {
            if workspace.about().labelled.home == host.fingerprint {
                return remove(&host, workspace.id(), Some(workspace.subject())).await;
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

pub(crate) async fn remove(host: &Arc<HostInner>, id: &WorkspaceId, subject: Option<&str>) -> Result<()> {
    loop {
        let Some(entry) = host.store.get(id).await? else {
            match adopt(host, id).await? {
                true => continue,
                false => return Ok(()),
            }
        };
        let state = entry.state;
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
                        host.events.emit_by(subject, Some(id), EventKind::Removed);
                        return Ok(());
                    }
                }
                WorkspaceState::Removed => return Ok(()),
                _ => wait_for_others(host).await,
            }
            continue;
        }
        if entry.container.is_some() || entry.actor.is_some() {
            check_engine(host, &entry).await?;
        }
        match Turn::take(host, entry, WorkspaceState::Removing, TransitionCause::Asked).await? {
            Taking::Taken(mut turn) => {
                turn.subject = subject.map(str::to_owned);
                if let Err(error) = sleep::clear_away(&turn).await {
                    // It is what it was, for whoever tries again.
                    if let Err(settling) = settle(*turn).await {
                        tracing::debug!(workspace = %id, error = %settling, "a removal that failed is still written down");
                    }
                    return Err(error);
                }
                return turn.forget().await;
            }
            Taking::Late => wait_for_others(host).await,
        }
    }
}
