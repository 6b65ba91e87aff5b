//! The life of a workspace: its states, who may change them, and what is true after anything was cut off.
//!
//! | state | means | leaves it by |
//! |---|---|---|
//! | creating | it is being made | ready; gone, if it fails; failed, if it is to be kept then |
//! | ready | it runs, and its agent can be called | `stop`, `pause`, `sleep`; stopped, when its container ends |
//! | stopped | its container has ended; its files are in it | `start`, `sleep` |
//! | paused | it is frozen; memory is kept | `resume`, `wake`, `start`; `stop`, `sleep` |
//! | asleep | its files are in an archive; there is no container | `wake`, `start` |
//! | failed | its container was kept after a failure | `start`, `remove` |
//! | stopping, starting, pausing, resuming, archiving, waking, removing | somebody is at it | the end of that |
//!
//! Each of them may be removed. A transition is a write to the store (its state and who is at it, by compare-and-set, so one
//! begins of those who try), then the work, then a write of what came of it. Whoever comes second waits for the first.
//!
//! **What is true**: of a state that stays, what the engine says: a row that says ready, and whose container has ended, is stopped. Of
//! one that nobody is at any more, since its process was killed or its task was dropped ([`reconcile`], or whoever comes next):
//!
//! | was cut off in | becomes |
//! |---|---|
//! | creating | undone: its container is removed, it never was |
//! | stopping, pausing, resuming | what the engine says |
//! | starting | finished: started, claimed again, its dev server started |
//! | archiving, before the archive is written down | what the engine says |
//! | archiving, after it | asleep: its container is removed |
//! | waking | undone: asleep, its new container is removed |
//! | removing | finished |
//!
//! | there is | becomes |
//! |---|---|
//! | a container of this home that the store doesn't know | adopted: by older versions, or the store was lost |
//! | a container in which nothing ever ran and that no row names | removed: the engine made it for a host that was killed (`labels::MAKER`) |
//! | an archive of one that slept, that the store doesn't know | asleep: the store was lost (looked for once in each new store) |
//! | a row whose container is gone, with an archive | asleep: with the files of the time when it slept last |
//! | a row whose container is gone, without one | removed |
//!
//! A row names its engine: where another one is used with the same home, nothing of it is taken for gone. No decision is made by a clock.

mod found;
mod limits;
mod owner;
mod reconcile;
mod remove;
mod shutdown;
mod sleep;
mod state;
#[cfg(test)]
mod tests;
mod transition;
mod turn;
mod up;

use serde::Serialize;

use self::turn::is_attended;
pub(crate) use self::{
    found::give_up,
    reconcile::{all as reconcile_all, look, supervise},
    remove::remove_unchanged,
    sleep::Bed,
    transition::{Verb, existing, is_in_use, perform, perform_unchanged},
    turn::{Turn, Turns},
};
pub use self::{
    reconcile::Reconciled,
    remove::RemoveOptions,
    shutdown::{Shutdown, ShutdownReport},
    state::WorkspaceState,
};
use crate::{host::HostInner, runtime::ContainerStatus, state::Entry};

/// Why a workspace came into another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TransitionCause {
    /// Somebody asked for it.
    Asked,
    /// Something happened to its container, and the host took note.
    Engine,
    /// What was cut off was finished or undone.
    Recovered,
    /// Somebody called it, or its preview.
    Called,
    /// Nothing had counted as activity for long enough.
    Idle,
    /// Its time was up, and its files were to be archived.
    Expired,
    /// It wasn't well, or ended by itself.
    Health,
    /// It had more on disk than it may.
    Disk,
}

/// What a workspace is doing, as who only looks is told it, and why it failed. None when it is no more.
pub(crate) fn seen(
    host: &HostInner,
    entry: Option<&Entry>,
    status: Option<ContainerStatus>,
) -> Option<(WorkspaceState, Option<String>)> {
    let of_engine = status.map(WorkspaceState::of);
    let Some(entry) = entry else { return of_engine.map(|state| (state, None)) };
    let without_container = || entry.archive.is_some().then_some(WorkspaceState::Asleep);
    match entry.state {
        WorkspaceState::Removed => None,
        state if entry.actor.is_some() && is_attended(host, entry) => Some((state, None)),
        WorkspaceState::Creating => {
            let reason = format!("its creation was cut off; `corehold down {}` removes what is left of it", entry.id);
            Some((WorkspaceState::Failed, Some(reason)))
        }
        WorkspaceState::Asleep => Some((WorkspaceState::Asleep, None)),
        WorkspaceState::Failed if status.is_some() => Some((WorkspaceState::Failed, entry.reason.clone())),
        _ => of_engine.or_else(without_container).map(|state| (state, None)),
    }
}
