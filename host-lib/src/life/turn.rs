//! Whose turn it is: one at a time changes a workspace, among the tasks of a process and among the processes of a home.
//!
//! A turn is taken by writing a transitional state with this process as the actor, and given back by writing the state that came of
//! it. Within a process the set of turns says whether somebody is still at it; of another one its lock says whether it lives.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use corehold_types::Timestamp;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::{TransitionCause, WorkspaceState};
use crate::{
    error::{Error, ErrorKind, Result},
    events::EventKind,
    host::HostInner,
    state::{Durability, Entry, Taken},
    workspace::WorkspaceId,
};

/// Between two looks at what another process is at: SQLite tells nobody that something was written.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The workspaces that somebody in this process changes.
#[derive(Default)]
pub(crate) struct Turns {
    taken: Mutex<HashSet<WorkspaceId>>,
    /// One was given back.
    changed: Notify,
    /// Something was left that could not be recovered at once.
    left: AtomicBool,
}

impl Turns {
    /// Whether somebody in this process changes a workspace.
    pub(crate) fn has(&self, id: &WorkspaceId) -> bool {
        self.lock().contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<WorkspaceId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is left, to be looked at again.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether something was left, since this was asked last.
    pub(super) fn take_left(&self) -> bool {
        self.left.swap(false, Ordering::Relaxed)
    }
}

/// Held by who changes a workspace, within this process.
struct Hold {
    host: Arc<HostInner>,
    id: WorkspaceId,
    /// Whether nothing is left in the store that others would wait for.
    done: bool,
}

impl Hold {
    fn take(host: &Arc<HostInner>, id: &WorkspaceId) -> Option<Self> {
        let new = host.turns.lock().insert(id.clone());
        new.then(|| Self { host: host.clone(), id: id.clone(), done: false })
    }

    /// Nothing was written.
    fn let_go(mut self) {
        self.done = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.host.turns.lock().remove(&self.id);
        self.host.turns.changed.notify_waiters();
        // Other processes see that this one lives, and would wait for ever. If it ends now, they see that.
        if !self.done && tokio::runtime::Handle::try_current().is_ok() {
            let (host, id) = (self.host.clone(), self.id.clone());
            self.host.cleanups.spawn(async move {
                if let Err(error) = recover_own(&host, &id).await {
                    tracing::warn!(workspace = %id, %error, "what was cut off could not be recovered yet");
                    host.turns.leave();
                }
            });
        }
    }
}

/// Recovers what this process has left in the middle.
async fn recover_own(host: &Arc<HostInner>, id: &WorkspaceId) -> Result<()> {
    let Some(entry) = host.store.get(id).await? else { return Ok(()) };
    if entry.actor.as_deref() == Some(host.process.name()) && !host.turns.has(id) {
        super::reconcile::recover(host, entry).await?;
    }
    Ok(())
}

/// The right to change a workspace, until it is finished. Dropped before, it is cut off: the next who comes recovers it.
pub(crate) struct Turn {
    pub(crate) host: Arc<HostInner>,
    pub(crate) entry: Entry,
    /// The state that it began in.
    pub(crate) from: WorkspaceState,
    pub(super) cause: TransitionCause,
    /// In whose name, where somebody asked for it.
    pub(crate) subject: Option<String>,
    hold: Hold,
}

/// What came of an attempt to take a turn.
pub(crate) enum Taking {
    Taken(Box<Turn>),
    /// Somebody else changed it since it was read.
    Late,
}

impl Turn {
    /// Takes the turn of an entry as it was read, if nobody has it. Cancel-safe: taken for nobody, it is recovered.
    pub(crate) async fn take(
        host: &Arc<HostInner>,
        entry: Entry,
        to: WorkspaceState,
        cause: TransitionCause,
    ) -> Result<Taking> {
        let Some(hold) = Hold::take(host, &entry.id) else { return Ok(Taking::Late) };
        let (host, from) = (host.clone(), entry.state);
        let gate = host.directory.known(&entry.id).map(|about| about.gate.clone());
        // Before, so that nobody passes while it is written; and after, since somebody may have looked meanwhile.
        gate.iter().for_each(|gate| gate.close());
        let actor = Some(host.process.name().to_owned());
        let wanted = Entry { state: to, actor, reason: None, ..entry };
        let tracker = host.cleanups.clone();
        whole(&tracker, async move {
            let put = put(&host, wanted, from, cause, None, Durability::Process).await;
            Ok(match put {
                Ok(Some(entry)) => {
                    let pauses = to == WorkspaceState::Pausing;
                    gate.iter().for_each(|gate| if pauses { gate.expect_pause() } else { gate.close() });
                    Taking::Taken(Box::new(Self { host, entry, from, cause, subject: None, hold }))
                }
                other => {
                    // What others left is theirs.
                    hold.let_go();
                    other.map(|_| Taking::Late)?
                }
            })
        })
        .await
    }

    /// Adds an entry whose turn this process has: that of a workspace in the making. Cancel-safe, as [`take`](Self::take).
    pub(crate) async fn begin(host: &Arc<HostInner>, entry: Entry) -> Result<Result<Self, Taken>> {
        let Some(hold) = Hold::take(host, &entry.id) else { return Ok(Err(Taken::Id)) };
        let host = host.clone();
        let entry = Entry { actor: Some(host.process.name().to_owned()), generation: 0, ..entry };
        let (from, cause) = (entry.state, TransitionCause::Asked);
        let tracker = host.cleanups.clone();
        whole(&tracker, async move {
            Ok(match host.store.insert(entry.clone()).await {
                Ok(Ok(())) => Ok(Self { host, entry, from, cause, subject: None, hold }),
                other => {
                    hold.let_go();
                    Err(other?.err().unwrap_or(Taken::Id))
                }
            })
        })
        .await
    }

    /// Writes something down before going on.
    ///
    /// # Errors
    /// `Conflict` when the workspace was taken from us: somebody removes it.
    pub(crate) async fn note(&mut self, durability: Durability, change: impl FnOnce(&mut Entry)) -> Result<()> {
        let mut entry = self.entry.clone();
        change(&mut entry);
        let before = self.entry.state;
        match put(&self.host, entry, before, self.cause, self.subject.as_deref(), durability).await? {
            Some(entry) => {
                self.entry = entry;
                Ok(())
            }
            None => Err(self.taken_away()),
        }
    }

    /// Whether somebody has removed the workspace meanwhile.
    pub(super) async fn is_taken_away(&self) -> Result<bool> {
        let entry = self.host.store.get(&self.entry.id).await?;
        Ok(entry.is_none_or(|entry| entry.state == WorkspaceState::Removed))
    }

    /// Gives the turn back in a state.
    pub(crate) async fn finish(self, state: WorkspaceState) -> Result<Entry> {
        self.finish_with(state, Durability::Process, |_| {}).await
    }

    /// The same, writing more than the state.
    pub(crate) async fn finish_with(
        mut self,
        state: WorkspaceState,
        durability: Durability,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Entry> {
        self.note(durability, |entry| {
            entry.state = state;
            entry.actor = None;
            change(entry);
        })
        .await?;
        if state == WorkspaceState::Ready
            && let Some(about) = self.host.directory.known(&self.entry.id)
        {
            about.gate.open();
        }
        Ok(self.release().1)
    }

    /// Gives the turn back of what is no more. Of one that was never handed over nobody has to know.
    pub(crate) async fn forget(mut self) -> Result<()> {
        let host = &self.host;
        if !host.store.delete(&self.entry).await? {
            // Taken away by who removes it: what was left for us to clear away is gone now.
            let left = host.store.get(&self.entry.id).await?;
            let ours = |entry: &Entry| entry.state == WorkspaceState::Removed && entry.actor == self.entry.actor;
            if let Some(entry) = left.filter(ours) {
                host.store.delete(&entry).await?;
            }
        } else if self.entry.state != WorkspaceState::Creating && self.cause != TransitionCause::Engine {
            host.events.emit_by(self.subject.as_deref(), Some(&self.entry.id), EventKind::Removed);
        }
        self.hold.done = true;
        Ok(())
    }

    /// Lets go of what was given back by a note.
    pub(crate) fn release(mut self) -> (Arc<HostInner>, Entry) {
        self.hold.done = true;
        (self.host.clone(), self.entry.clone())
    }

    fn taken_away(&self) -> Error {
        let id = &self.entry.id;
        Error::new(ErrorKind::Conflict, format!("workspace {id} was removed while it was {}", self.entry.state))
    }
}

/// Does it as a whole: a write goes on when nobody waits for it any more, and what it brings is not to be lost.
async fn whole<T: Send + 'static>(
    tracker: &TaskTracker,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let cut_off = |error| Error::new(ErrorKind::Io, "a write to the state store was cut off").caused_by(error);
    tracker.spawn(work).await.map_err(cut_off)?
}

/// Writes an entry and tells its change of state.
pub(super) async fn put(
    host: &HostInner,
    entry: Entry,
    from: WorkspaceState,
    cause: TransitionCause,
    subject: Option<&str>,
    durability: Durability,
) -> Result<Option<Entry>> {
    let changes = entry.state != from;
    let entry = if changes { Entry { entered_at: Timestamp::now(), ..entry } } else { entry };
    let put = host.store.put(entry, durability).await?;
    if let Some(entry) = put.as_ref().filter(|_| changes) {
        host.events.emit_by(subject, Some(&entry.id), EventKind::Transition { from, to: entry.state, cause });
    }
    Ok(put)
}

/// Whether somebody is at an entry: a living process, or a task of this one.
pub(crate) fn is_attended(host: &HostInner, entry: &Entry) -> bool {
    entry.actor.as_ref().is_some_and(|actor| is_at_work(host, actor, &entry.id))
}

/// Whether a process is at a workspace: another one that lives may be, this one knows.
pub(crate) fn is_at_work(host: &HostInner, process: &str, id: &WorkspaceId) -> bool {
    if process == host.process.name() { host.turns.has(id) } else { host.process.lives(process) }
}

/// Waits until whoever is at it may be done.
pub(crate) async fn wait_for_others(host: &HostInner) {
    // What is given back before this listens is seen at the next look.
    let _ = tokio::time::timeout(LOOK_AGAIN, host.turns.changed.notified()).await;
}
