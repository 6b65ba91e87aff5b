//! What happens in a host, as one typed stream for whoever wants to know: a dashboard, a log, the command line.
//!
//! It tells what was done, and is not how rooms of this library speak to each other: nobody may rely on a reader. Nothing waits
//! for readers either; who falls behind is told how much was missed and goes on from there.

mod engine;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use corehold_types::Timestamp;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

pub(crate) use self::engine::{Change, ChangeKind, EngineWatch, Removals, Signal, Signals};
use crate::{
    archive::ArchiveRef,
    create::{CreateEvent, Step, milliseconds},
    disk::DiskAction,
    idle::ExpiredFiles,
    life::{TransitionCause, WorkspaceState},
    metrics::Metrics,
    workspace::WorkspaceId,
};

/// Events that wait for the slowest reader; beyond them it misses the oldest.
const BACKLOG: usize = 1024;

/// Something happened in a host. As JSON, `event` names what, and the fields of its [`EventKind`] stand beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// To which workspace; absent for what concerns none or all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceId>,
    /// In whose name this host did it, where that isn't the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum EventKind {
    /// A step of a creation began or ended. What its commands write isn't told here, see
    /// [`Creation::next_event`](crate::Creation::next_event).
    Creation(CreateEvent),
    /// A workspace was made and handed over to whoever asked for it.
    Created {
        /// Since its creation began.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
    },
    /// A creation failed or was given up; what it had made is removed, unless it was to be kept.
    CreationFailed {
        /// The step that failed; absent when it was given up, or failed before its first step.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<Step>,
        /// For people.
        error: String,
    },
    /// It was looked whether a set-up was done before.
    SetupCache {
        /// Whether the workspace has its result, so that the set-up isn't run.
        hit: bool,
        /// The entry, as [`Host::setup_cache`](crate::Host::setup_cache) lists it.
        key: String,
        /// Why an entry was dropped that was there: it was damaged, or the agent refused it.
        #[serde(skip_serializing_if = "Option::is_none")]
        dropped: Option<String>,
    },
    /// A workspace came into another state.
    Transition {
        /// Out of which.
        from: WorkspaceState,
        /// Into which.
        to: WorkspaceState,
        /// Why.
        cause: TransitionCause,
    },
    /// A workspace was removed by a host. Of one whose container others removed, [`Vanished`](Self::Vanished) is told.
    Removed,
    /// A workspace's time was up: nothing had counted as activity for long enough, or it was old enough. Its
    /// [`IdlePolicy`](crate::IdlePolicy) said so.
    Expired {
        /// What became of its files.
        files: ExpiredFiles,
        /// For people.
        because: String,
    },
    /// A workspace is well, for the first time since it was started or since it was not.
    Healthy,
    /// A workspace failed as many checks in a row as its [`HealthPolicy`](crate::HealthPolicy) allows.
    Unhealthy {
        /// How many.
        failures: u32,
        /// Why the last one failed, for people.
        reason: String,
    },
    /// A workspace is restarted by itself, since it was unhealthy or had ended.
    Restarted {
        /// The how manieth time in a row.
        restart: u32,
        /// For people.
        reason: String,
    },
    /// A workspace was restarted as often as it may be, and still isn't well: somebody must look at it.
    HealthAlert {
        /// How often it was restarted.
        restarts: u32,
        /// For people.
        reason: String,
    },
    /// The container of a workspace ended, and not because this host removed it: it was stopped, its agent ended, or the machine
    /// or the engine did. What it held is still there.
    Ended {
        /// Exit code of the agent, where the engine knows it: 128 and a signal's number when a signal ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        /// Whether the kernel killed it for want of memory.
        oom_killed: bool,
    },
    /// The kernel killed a process of a workspace for want of memory. If it was not the agent, the workspace runs on.
    OutOfMemory,
    /// A workspace has more on the engine's disk than it may. Told again when it had not meanwhile.
    DiskExceeded {
        /// Bytes that it has there.
        bytes: u64,
        /// Bytes that it may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit_bytes: Option<u64>,
        /// Files and folders that it has there, where they are counted.
        #[serde(skip_serializing_if = "Option::is_none")]
        files: Option<u64>,
        /// Files and folders that it may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit_files: Option<u64>,
        /// What is done about it.
        action: DiskAction,
    },
    /// A named volume holds more than it may ([`DiskPolicy::volume_bytes`](crate::DiskPolicy::volume_bytes)). Told again when it had
    /// not meanwhile.
    VolumeExceeded {
        /// Its name.
        volume: String,
        /// Bytes that it holds.
        bytes: u64,
        /// Bytes that it may hold.
        limit_bytes: u64,
    },
    /// The image of a pool is missing, and is pulled from its registry.
    PoolImagePulling {
        /// The image.
        image: String,
    },
    /// The image of a pool was pulled; the pool is filled.
    PoolImagePulled {
        /// The image.
        image: String,
        /// How long that took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
    },
    /// The image of a pool could not be pulled. It is tried again, after a minute at the latest.
    PoolImageFailed {
        /// The image.
        image: String,
        /// For people.
        reason: String,
    },
    /// The container of a workspace was removed, and not by this host: by hand, or by another host of this home.
    Vanished,
    /// The engine can't be reached any more, or never could. Events of it are missing until [`EngineBack`](Self::EngineBack).
    EngineLost {
        /// For people.
        error: String,
    },
    /// The engine can be reached again. [`Host::list`](crate::Host::list) says how things are now.
    EngineBack,
    /// Something that is to survive this host can't be written. Work goes on; it is tried again, and said again when it
    /// fails after it had worked.
    NotKept {
        /// What, where and why, for people.
        error: String,
    },
    /// A workspace was saved.
    Saved {
        /// The archive; an earlier one where nothing had changed since.
        archive: ArchiveRef,
        /// Bytes that were written for it: what the store didn't have.
        written_bytes: u64,
        /// How long it took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
    },
    /// The files of a workspace were replaced by those of an archive.
    Loaded {
        /// Which.
        archive: ArchiveRef,
        /// How long it took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
    },
    /// What no archive needed any more was removed from the archive store, as hosts do by themselves
    /// ([`HostBuilder::prune_every`](crate::HostBuilder::prune_every)).
    Pruned {
        /// Objects that were removed.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The archive store could not be pruned, so it grows. It is tried again when the time has gone by once more.
    NotPruned {
        /// Why, for people.
        error: String,
    },
    /// This reader was too slow, and these events are not told to it. [`Host::list`](crate::Host::list) says how things are now.
    Missed {
        /// How many.
        events: u64,
    },
}

/// The events of a host from the moment it was asked for them: a [`Stream`] that ends with the host.
#[must_use = "it only tells what is read from it"]
pub struct Events(Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Events {
    /// What happens next; `None` when the last handle of the host, its workspaces and creations is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Where events are told. Clones tell the same readers.
#[derive(Clone)]
pub(crate) struct EventBus {
    sender: broadcast::Sender<Event>,
    metrics: Arc<Metrics>,
}

impl EventBus {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, metrics: Arc::default() }
    }

    /// Tells what happened. Never waits, never fails.
    pub(crate) fn emit(&self, workspace: Option<&WorkspaceId>, kind: EventKind) {
        self.emit_by(None, workspace, kind);
    }

    /// Tells what was done in somebody's name.
    pub(crate) fn emit_by(&self, subject: Option<&str>, workspace: Option<&WorkspaceId>, kind: EventKind) {
        // Here and not by a reader, who may miss some.
        self.metrics.event(&kind);
        let (workspace, subject) = (workspace.cloned(), subject.map(str::to_owned));
        // Nobody may be reading.
        let _ = self.sender.send(Event { at: Timestamp::now(), workspace, subject, kind });
    }

    /// For whoever may outlive the host: it doesn't keep the events from ending.
    pub(crate) fn downgrade(&self) -> WeakBus {
        WeakBus(self.sender.downgrade(), self.metrics.clone())
    }

    /// What was counted of all that happened.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events(Box::pin(stream::unfold(self.sender.subscribe(), |mut receiver| async {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(events)) => {
                    Event { at: Timestamp::now(), workspace: None, subject: None, kind: EventKind::Missed { events } }
                }
                Err(RecvError::Closed) => return None,
            };
            Some((event, receiver))
        })))
    }
}

/// An [`EventBus`] that may be gone.
#[derive(Clone)]
pub(crate) struct WeakBus(broadcast::WeakSender<Event>, Arc<Metrics>);

impl WeakBus {
    /// Tells what happened, if the host is still there.
    pub(crate) fn emit(&self, workspace: Option<&WorkspaceId>, kind: EventKind) {
        if let Some(sender) = self.0.upgrade() {
            EventBus { sender, metrics: self.1.clone() }.emit(workspace, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::{
        CreateWorkspace,
        create::CreateEventKind,
        testing::{AgentScript, EngineScript, Fixture},
    };

    /// What is there to be read now.
    async fn told(events: &mut Events) -> Vec<Event> {
        let mut told = Vec::new();
        while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
            told.push(event);
        }
        told
    }

    #[tokio::test]
    async fn a_life_is_told_to_every_reader_without_what_its_commands_wrote() {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let template = fixture.template(r#"{"setup": ["exit 0"]}"#);
        let (mut one, mut other) = (fixture.host.events(), fixture.host.events());
        let request = CreateWorkspace::from_template(&template).id("w");
        let workspace = fixture.host.create(request).await.unwrap();
        workspace.remove().await.unwrap();

        let events = told(&mut one).await;
        assert_eq!(events, told(&mut other).await);
        assert!(events.iter().all(|event| event.workspace.as_ref() == Some(workspace.id())));
        assert!(events.is_sorted_by_key(|event| event.at));
        let finished: Vec<Step> = events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Creation(CreateEvent { step, kind: CreateEventKind::Finished { .. } }) => Some(*step),
                EventKind::Creation(CreateEvent { kind: CreateEventKind::Started { .. }, .. }) => None,
                EventKind::SetupCache { hit: false, .. } => None,
                EventKind::Created { .. } | EventKind::Transition { .. } | EventKind::Removed => None,
                other => panic!("{other:?}"),
            })
            .filter(|step| *step != Step::Pack)
            .collect();
        assert_eq!(finished, [Step::Create, Step::Start, Step::Agent, Step::Ship, Step::Setup, Step::Keep]);
        let [.., ready, created, removing, removed] = events.as_slice() else { panic!("{events:?}") };
        let asked = |from, to| EventKind::Transition { from, to, cause: TransitionCause::Asked };
        assert_eq!(ready.kind, asked(WorkspaceState::Creating, WorkspaceState::Ready));
        assert_eq!(removing.kind, asked(WorkspaceState::Ready, WorkspaceState::Removing));
        assert!(matches!(created.kind, EventKind::Created { .. }), "{created:?}");
        assert_eq!(removed.kind, EventKind::Removed);
    }

    #[tokio::test]
    async fn a_failed_creation_names_its_step_and_one_that_nobody_takes_is_given_up() {
        let script = EngineScript { start: true, ..EngineScript::default() };
        let fixture = Fixture::new(script, AgentScript::default()).await;
        let mut events = fixture.host.events();
        let error = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap_err();
        let Some(Event { kind: EventKind::CreationFailed { step, error: told_error }, .. }) =
            told(&mut events).await.pop()
        else {
            panic!("the failure is told last")
        };
        assert_eq!((step, told_error), (Some(Step::Start), error.to_string()));

        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        for polled_to_its_end in [false, true] {
            let mut events = fixture.host.events();
            let mut creation = fixture.host.create(CreateWorkspace::empty().id("w"));
            assert!(creation.next_event().await.is_some());
            while polled_to_its_end && creation.next_event().await.is_some() {}
            drop(creation);
            let last = told(&mut events).await.pop().unwrap();
            assert!(matches!(last.kind, EventKind::CreationFailed { step: None, .. }), "{last:?}");
            fixture.host.settled().await;
        }
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_how_much_and_goes_on() {
        let bus = EventBus::new();
        let mut events = bus.subscribe();
        let number = |number: u64| EventKind::Missed { events: number };
        let beyond = 7;
        for event in 0..BACKLOG as u64 + beyond {
            bus.emit(None, number(event));
        }
        assert_eq!(events.next().await.unwrap().kind, number(beyond));
        assert_eq!(events.next().await.unwrap().kind, number(beyond), "the oldest that was kept");
        drop(bus);
        assert_eq!(events.count().await, BACKLOG - 1, "the rest is told before the end");
    }

    #[test]
    fn as_json_an_event_is_flat_and_says_its_kind() {
        let event =
            |kind| Event { at: Timestamp::from_unix(0, 0), workspace: Some("w".parse().unwrap()), subject: None, kind };
        let kind = CreateEventKind::Finished { duration: Duration::from_micros(1500), detail: None };
        let json = serde_json::to_value(event(EventKind::Creation(CreateEvent { step: Step::Start, kind }))).unwrap();
        let at = Timestamp::from_unix(0, 0).to_string();
        assert_eq!(
            json,
            serde_json::json!({
                "at": at, "workspace": "w", "event": "creation", "step": "start", "type": "finished", "durationMs": 1.5
            })
        );
        let json = serde_json::to_value(event(EventKind::CreationFailed { step: None, error: "no".into() })).unwrap();
        assert_eq!(json, serde_json::json!({"at": at, "workspace": "w", "event": "creationFailed", "error": "no"}));
    }
}
