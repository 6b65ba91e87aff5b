//! The transitions that somebody asks for: start, stop, restart, pause, resume.

use std::{sync::Arc, time::Duration};

use tracing::Instrument as _;

use super::{
    TransitionCause, WorkspaceState,
    reconcile::{adopt, recover, settle, truth},
    sleep,
    turn::{Taking, Turn, is_attended, wait_for_others},
    up,
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
    idle::Field,
    runtime::ContainerId,
    state::{Durability, Entry},
    workspace::{Workspace, WorkspaceId},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Sleep,
    Wake,
}

/// What it means in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is so.
    Already,
    /// To be gone through.
    Through(WorkspaceState),
    /// It can't be; what can be done instead.
    Refused(&'static str),
}

impl Verb {
    /// What it means in a state that stays.
    pub(super) const fn next(self, state: WorkspaceState) -> Next {
        use WorkspaceState as S;
        match (self, state) {
            (Self::Start | Self::Resume | Self::Wake, S::Ready)
            | (Self::Stop, S::Stopped | S::Asleep)
            | (Self::Pause, S::Paused)
            | (Self::Sleep, S::Asleep) => Next::Already,
            (Self::Start, S::Stopped | S::Failed) | (Self::Restart, S::Stopped | S::Failed) => {
                Next::Through(S::Starting)
            }
            (Self::Start | Self::Resume | Self::Wake, S::Paused) => Next::Through(S::Resuming),
            (Self::Start | Self::Wake | Self::Restart, S::Asleep) => Next::Through(S::Waking),
            (Self::Stop | Self::Restart, S::Ready | S::Paused) | (Self::Stop, S::Failed) => Next::Through(S::Stopping),
            (Self::Pause, S::Ready) => Next::Through(S::Pausing),
            (Self::Sleep, S::Ready | S::Paused | S::Stopped) => Next::Through(S::Archiving),
            (Self::Pause | Self::Resume | Self::Wake, S::Stopped) => Next::Refused("start it first"),
            (Self::Pause | Self::Resume, S::Asleep) => Next::Refused("wake it first"),
            (_, S::Failed) => Next::Refused("start it, or remove it"),
            // A state that passes is waited for, and what is no more isn't found.
            _ => Next::Refused("it is no more"),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Sleep => "put to sleep",
            Self::Wake => "woken",
        }
    }
}

/// Does what is asked for, to its end.
pub(crate) async fn perform(
    host: &Arc<HostInner>,
    id: &WorkspaceId,
    verb: Verb,
    grace: Duration,
    cause: TransitionCause,
    subject: Option<&str>,
) -> Result<()> {
    match begin(host, id, verb, cause).await? {
        Some(mut turn) => {
            turn.subject = subject.map(str::to_owned);
            carry_out(turn, verb, grace).await
        }
        None => Ok(()),
    }
}

/// Does what was decided of an entry, to its end; nothing if somebody has changed the workspace since: they meant it. Whether it was done.
pub(crate) async fn perform_unchanged(
    host: &Arc<HostInner>,
    entry: Entry,
    verb: Verb,
    grace: Duration,
    cause: TransitionCause,
) -> Result<bool> {
    let Next::Through(to) = verb.next(entry.state) else { return Ok(false) };
    match Turn::take(host, entry, to, cause).await? {
        Taking::Taken(turn) => carry_out(*turn, verb, grace).await.map(|()| true),
        Taking::Late => Ok(false),
    }
}

async fn carry_out(turn: Turn, verb: Verb, grace: Duration) -> Result<()> {
    let (from, to) = (turn.from, turn.entry.state);
    let span = tracing::info_span!("transition", workspace = %turn.entry.id, %from, %to, cause = ?turn.cause);
    work(turn, verb, grace).instrument(span).await
}

async fn work(mut turn: Turn, verb: Verb, grace: Duration) -> Result<()> {
    let id = turn.entry.id.clone();
    let done = match turn.entry.state {
        WorkspaceState::Pausing => pause(&turn).await,
        WorkspaceState::Resuming => resume(&turn).await,
        WorkspaceState::Stopping if verb == Verb::Restart => restart(&mut turn, grace).await,
        WorkspaceState::Stopping => stop(&turn, grace).await,
        WorkspaceState::Starting => start(&turn).await,
        WorkspaceState::Archiving => return sleep::archive(turn, grace).await,
        _ => return sleep::wake(turn).await,
    };
    match done {
        Ok(state) => turn.finish(state).await.map(|_| ()),
        Err(error) => {
            // What went wrong first is what matters; what can't be written down now, whoever comes next finds out.
            if let Err(settling) = settle(turn).await {
                tracing::warn!(workspace = %id, error = %settling, "what became of a failed transition could not be written down");
            }
            Err(error)
        }
    }
}

/// Takes the turn for what is asked for; none when it is so already.
async fn begin(host: &Arc<HostInner>, id: &WorkspaceId, verb: Verb, cause: TransitionCause) -> Result<Option<Turn>> {
    loop {
        let entry = existing(host, id).await?;
        let to = match verb.next(entry.state) {
            Next::Already => return Ok(None),
            Next::Through(to) => to,
            Next::Refused(instead) => {
                let message = format!("workspace {id} is {}, so it can't be {}", entry.state, verb.as_str());
                return Err(Error::new(ErrorKind::Conflict, message).hint(instead));
            }
        };
        match Turn::take(host, entry, to, cause).await? {
            Taking::Taken(turn) => return Ok(Some(*turn)),
            Taking::Late => wait_for_others(host).await,
        }
    }
}

/// A workspace in a state that stays and is true. Who is at it is waited for; what was cut off is recovered.
///
/// # Errors
/// `NotFound` when there is none, `Conflict` when it is in another engine.
pub(crate) async fn existing(host: &Arc<HostInner>, id: &WorkspaceId) -> Result<Entry> {
    loop {
        let Some(entry) = host.store.get(id).await? else {
            if adopt(host, id).await? {
                continue;
            }
            return Err(Error::new(ErrorKind::NotFound, format!("there is no workspace {id}")));
        };
        if entry.actor.is_some() {
            match is_attended(host, &entry) {
                true if entry.state == WorkspaceState::Removed => {
                    return Err(Error::new(ErrorKind::NotFound, format!("workspace {id} is being removed")));
                }
                true => wait_for_others(host).await,
                false => drop(recover(host, entry).await?),
            }
            continue;
        }
        let (before, state) = (entry.generation, entry.state);
        match truth(host, entry, TransitionCause::Engine).await? {
            Some(entry) if entry.generation == before => return Ok(Entry { state, ..entry }),
            // It was written down, or somebody was faster.
            _ => {}
        }
    }
}

/// Whether a name is taken by a workspace that there is, or is being made. One that is being removed is waited for.
pub(crate) async fn is_in_use(host: &Arc<HostInner>, id: &WorkspaceId) -> Result<bool> {
    loop {
        let Some(entry) = host.store.get(id).await? else { return Ok(false) };
        if entry.actor.is_some() {
            match is_attended(host, &entry) {
                true if entry.state == WorkspaceState::Removing => wait_for_others(host).await,
                true => return Ok(true),
                false => drop(recover(host, entry).await?),
            }
            continue;
        }
        match truth(host, entry, TransitionCause::Engine).await? {
            None => return Ok(false),
            Some(entry) if entry.actor.is_none() => return Ok(true),
            // Somebody was faster, who may be about to remove it.
            Some(_) => {}
        }
    }
}

pub(super) fn container(entry: &Entry) -> Result<ContainerId> {
    let none = || Error::new(ErrorKind::Conflict, format!("workspace {} has no container", entry.id));
    entry.container.clone().map(ContainerId).ok_or_else(none)
}

async fn pause(turn: &Turn) -> Result<WorkspaceState> {
    turn.host.runtime.pause(&container(&turn.entry)?).await?;
    Ok(WorkspaceState::Paused)
}

async fn resume(turn: &Turn) -> Result<WorkspaceState> {
    turn.host.runtime.resume(&container(&turn.entry)?).await?;
    Ok(WorkspaceState::Ready)
}

async fn stop(turn: &Turn, grace: Duration) -> Result<WorkspaceState> {
    turn.host.runtime.stop(&container(&turn.entry)?, grace).await?;
    Ok(WorkspaceState::Stopped)
}

async fn start(turn: &Turn) -> Result<WorkspaceState> {
    let workspace = up::bring_up(turn).await?;
    up::start_dev(&workspace, &turn.entry.recipe).await;
    Ok(WorkspaceState::Ready)
}

async fn restart(turn: &mut Turn, grace: Duration) -> Result<WorkspaceState> {
    stop(turn, grace).await?;
    turn.note(Durability::Process, |entry| entry.state = WorkspaceState::Starting).await?;
    start(turn).await
}

impl Workspace {
    /// What it is doing. While somebody is at it, what that is; else what the engine says. Cancel-safe.
    ///
    /// # Errors
    /// `EngineUnavailable` or `Engine`; what is no more is [`WorkspaceState::Removed`].
    pub async fn state(&self) -> Result<WorkspaceState> {
        match self.info().await {
            Ok(info) => Ok(info.state),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(WorkspaceState::Removed),
            Err(error) => Err(error),
        }
    }

    /// Makes it ready from whatever it is doing: starts what is stopped, resumes what is paused, wakes what is asleep. Its files are
    /// what they were. Commands ended with the container that was stopped; the template's dev server is started again, and not
    /// waited for. What is ready already stays so. Who comes while somebody else is at it waits for them.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `NotFound` when it is no more, `AgentUnavailable` or `Timeout` when its agent doesn't answer; it is stopped then.
    pub async fn start(&self) -> Result<()> {
        self.transition(Verb::Start, Duration::ZERO).await
    }

    /// Ends all that runs in it, and keeps its files: TERM, and KILL after the grace, whose fraction of a second counts as a whole
    /// one. What is paused is resumed for that. What doesn't run stays so.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `NotFound` when it is no more, `EngineUnavailable` or `Engine`.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.transition(Verb::Stop, grace).await
    }

    /// Stops it, if it runs, and starts it, as one transition: nobody else comes in between.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&self, grace: Duration) -> Result<()> {
        self.transition(Verb::Restart, grace).await
    }

    /// Freezes it where it is, in some ten milliseconds: it uses no CPU, and keeps its memory. The next call, or byte to its preview, wakes it.
    /// What is paused stays so.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Conflict` when it doesn't run, `Unsupported` by the runtime.
    pub async fn pause(&self) -> Result<()> {
        self.transition(Verb::Pause, Duration::ZERO).await
    }

    /// Lets what is paused go on where it was. What runs stays so.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Conflict` when it is stopped or asleep, `Unsupported` by the runtime.
    pub async fn resume(&self) -> Result<()> {
        self.transition(Verb::Resume, Duration::ZERO).await
    }

    pub(super) async fn transition(&self, verb: Verb, grace: Duration) -> Result<()> {
        self.own()?;
        let (host, id, subject) = (self.host().clone(), self.id().clone(), self.subject().to_owned());
        let work = async move {
            if matches!(verb, Verb::Start | Verb::Stop | Verb::Restart) {
                // What is stopped on purpose isn't started again by itself.
                host.store.set_policy(&id, Field::Stopped, &(verb == Verb::Stop)).await?;
            }
            perform(&host, &id, verb, grace, TransitionCause::Asked, Some(&subject)).await
        };
        detached(self.host(), work).await
    }

    /// Those of other homes are theirs to use and to change: their agents don't trust us.
    pub(crate) fn own(&self) -> Result<()> {
        if self.about().labelled.home == self.host().fingerprint {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, format!("workspace {} belongs to another state folder", self.id()))
            .hint("use the COREHOLD_HOME that it was made with"))
    }
}

/// Does what is to be done to its end, whether or not somebody waits for it.
pub(super) async fn detached<T: Send + 'static>(
    host: &HostInner,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = host.cleanups.spawn(work).await;
    done.map_err(|error| Error::new(ErrorKind::Engine, "the transition was cut off").caused_by(error))?
}
