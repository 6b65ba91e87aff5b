//! What the engine says happens to the containers of this home: one subscription for all who need it.
//!
//! It begins with the first who asks and ends with the host. An engine that restarts is subscribed to again; what happened
//! meanwhile nobody knows, so every reader is told to look at how things are. What is a workspace's is told as events of the host, too.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::{
    runtime::Handle,
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{EventBus, EventKind};
use crate::{
    labels,
    life::WorkspaceState,
    runtime::{BoxStream, ContainerEvent, ContainerId, Runtime},
    state::Store,
    workspace::WorkspaceId,
};

/// Signals that wait for the slowest reader; beyond them it is told to look at how things are.
const BACKLOG: usize = 1024;
/// Between attempts to reach an engine that is away: the first, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Containers that this host removed and of which the engine's word may still be on its way.
const REMOVALS: usize = 1024;

/// What a reader is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signal {
    /// Something happened to a container.
    Change(Change),
    /// Something may have happened that isn't told: the engine was away, or this reader was too slow.
    LookAgain,
}

/// Something that happened to a container of this home.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// To which.
    pub(crate) container: ContainerId,
    /// Whose workspace it is, as its name says; `None` for what waits in a pool.
    pub(crate) workspace: Option<WorkspaceId>,
    /// What.
    pub(crate) kind: ChangeKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Created,
    Started,
    Ended {
        exit_code: Option<i64>,
        oom_killed: bool,
    },
    /// The kernel killed a process inside for want of memory; the container may run on.
    OutOfMemory,
    Paused,
    Resumed,
    /// It has another name, and so may have become somebody's workspace.
    Renamed,
    Removed {
        /// Whether this host did it.
        by_us: bool,
    },
}

/// The subscription, and all who read it.
pub(crate) struct EngineWatch {
    source: Source,
    signals: broadcast::Sender<Signal>,
    /// Where the task runs, whoever asks first.
    handle: Handle,
    task: OnceLock<AbortOnDropHandle<()>>,
}

/// Whom to ask, for what, and whom to tell.
#[derive(Clone)]
struct Source {
    runtime: Arc<dyn Runtime>,
    labels: BTreeMap<String, String>,
    removals: Removals,
    store: Store,
    events: EventBus,
}

impl EngineWatch {
    /// Of the containers of a home. Asks nothing of the engine before somebody subscribes. Must be called on a tokio runtime.
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        fingerprint: &str,
        removals: Removals,
        store: Store,
        events: EventBus,
    ) -> Self {
        let labels = labels::of_home(fingerprint);
        let source = Source { runtime, labels, removals, store, events };
        Self { source, signals: broadcast::channel(BACKLOG).0, handle: Handle::current(), task: OnceLock::new() }
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> Signals {
        let signals = Signals(self.signals.subscribe());
        self.start();
        signals
    }

    /// Sees to it that the engine is listened to, for the host's events.
    pub(crate) fn start(&self) {
        self.task.get_or_init(|| {
            // Subscribed here and not in the task: what the caller does next is told already.
            let stream = self.source.events();
            AbortOnDropHandle::new(self.handle.spawn(follow(self.source.clone(), stream, self.signals.clone())))
        });
    }
}

/// What one reader is told.
pub(crate) struct Signals(broadcast::Receiver<Signal>);

impl Signals {
    /// What happens next; `None` when the host is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Signal> {
        match self.0.recv().await {
            Ok(signal) => Some(signal),
            Err(RecvError::Lagged(_)) => Some(Signal::LookAgain),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Containers that this host removed, so that their end surprises nobody. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Removals(Arc<Mutex<VecDeque<ContainerId>>>);

impl Removals {
    /// A container is about to be removed. An id is never given again, so it is only forgotten for later ones.
    pub(crate) fn expect(&self, id: &ContainerId) {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.len() == REMOVALS {
            expected.pop_front();
        }
        expected.push_back(id.clone());
    }

    /// It could not be removed.
    pub(crate) fn failed(&self, id: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != id);
    }

    fn contains(&self, id: &ContainerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// Listens for ever, over every break of the engine.
async fn follow(source: Source, mut stream: BoxStream<ContainerEvent>, signals: broadcast::Sender<Signal>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let reason = source.read(&mut stream, &signals).await;
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(reason, "the engine's events broke off");
        source.events.emit(None, EventKind::EngineLost { error: reason });
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Before the question: what happens after its answer is told.
            stream = source.events();
            match source.runtime.list(&source.labels).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(%error, "the engine is still away"),
            }
        }
        source.events.emit(None, EventKind::EngineBack);
        // Nobody may be reading.
        let _ = signals.send(Signal::LookAgain);
    }
}

impl Source {
    fn events(&self) -> BoxStream<ContainerEvent> {
        self.runtime.events(&self.labels)
    }

    /// Tells what happens until the stream breaks off, and returns why.
    async fn read(&self, stream: &mut BoxStream<ContainerEvent>, signals: &broadcast::Sender<Signal>) -> String {
        loop {
            let event = match stream.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return error.to_string(),
                None => return "the engine ended its events".to_owned(),
            };
            if let Some(change) = self.change(event).await {
                let _ = signals.send(Signal::Change(change.clone()));
                self.tell(change).await;
            }
        }
    }

    /// What an engine's word means; `None` for what is nothing to us.
    async fn change(&self, event: ContainerEvent) -> Option<Change> {
        let kind = match event.action.as_str() {
            "create" => ChangeKind::Created,
            "start" => ChangeKind::Started,
            "die" => {
                // Only an inspection knows why. What is removed at once has only the event.
                let state = self.runtime.inspect(&event.id).await.ok();
                let exit_code = event.exit_code.or_else(|| state.as_ref()?.exit_code);
                ChangeKind::Ended { exit_code, oom_killed: state.is_some_and(|state| state.oom_killed) }
            }
            "oom" => ChangeKind::OutOfMemory,
            "pause" => ChangeKind::Paused,
            "unpause" => ChangeKind::Resumed,
            "rename" => ChangeKind::Renamed,
            // Podman's word is `remove`.
            "destroy" | "remove" => ChangeKind::Removed { by_us: self.removals.contains(&event.id) },
            _ => return None,
        };
        let workspace = event.name.strip_prefix(labels::NAME_PREFIX).and_then(|id| id.parse().ok());
        Some(Change { container: event.id, workspace, kind })
    }

    /// Tells the host's readers what nobody else tells them.
    async fn tell(&self, change: Change) {
        let Some(workspace) = change.workspace else { return };
        let kind = match change.kind {
            // A removal ends it first.
            ChangeKind::Ended { exit_code, oom_killed } if !self.removals.contains(&change.container) => {
                EventKind::Ended { exit_code, oom_killed }
            }
            ChangeKind::OutOfMemory => EventKind::OutOfMemory,
            // Another host may have put it to sleep, or given it another container.
            ChangeKind::Removed { by_us: false } if !self.lives_on(&workspace, &change.container).await => {
                EventKind::Vanished
            }
            _ => return,
        };
        self.events.emit(Some(&workspace), kind);
    }

    /// Whether a workspace is there without a container, by the store.
    async fn lives_on(&self, workspace: &WorkspaceId, container: &ContainerId) -> bool {
        match self.store.get(workspace).await {
            Ok(Some(entry)) => entry.state == WorkspaceState::Asleep || entry.container.as_ref() != Some(&container.0),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateWorkspace, Event, Events, Workspace,
        runtime::ContainerStatus,
        testing::{AgentScript, EngineScript, Fixture},
    };

    async fn fixture() -> (Fixture, Workspace) {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        (fixture, workspace)
    }

    /// The next event that isn't one of a creation.
    async fn next(events: &mut Events) -> Event {
        loop {
            match events.next().await.unwrap() {
                Event {
                    kind: EventKind::Creation(_) | EventKind::Created { .. } | EventKind::Transition { .. },
                    ..
                } => {}
                event => return event,
            }
        }
    }

    /// Regression: a workspace that another host put to sleep was told to have vanished, so that its lines and its use ended.
    #[tokio::test]
    async fn what_another_host_puts_to_sleep_has_not_vanished() {
        let (fixture, _workspace) = fixture().await;
        let mut events = fixture.host.events();
        let other = fixture.builder().reconciles(false).build().await.unwrap();
        let workspace = other.workspace("w").await.unwrap();
        workspace.sleep(std::time::Duration::ZERO).await.unwrap();
        workspace.wake().await.unwrap();
        fixture.engine.say_of("corehold-w", "oom");
        loop {
            match next(&mut events).await.kind {
                EventKind::OutOfMemory => break,
                told => assert_ne!(told, EventKind::Vanished),
            }
        }
        workspace.remove().await.unwrap();
        while next(&mut events).await.kind != EventKind::Vanished {}
    }

    #[tokio::test]
    async fn what_befalls_a_workspace_is_told_with_its_name() {
        let (fixture, workspace) = fixture().await;
        let mut events = fixture.host.events();
        fixture.engine.say_of("corehold-w", "exec_create: something");
        fixture.engine.say_of("corehold-w", "oom");
        fixture.engine.stop(&workspace.container(), Duration::ZERO).await.unwrap();
        fixture.engine.remove(&workspace.container()).await.unwrap();
        for kind in
            [EventKind::OutOfMemory, EventKind::Ended { exit_code: Some(7), oom_killed: false }, EventKind::Vanished]
        {
            let event = next(&mut events).await;
            assert_eq!((event.workspace.as_ref(), event.kind), (Some(workspace.id()), kind));
        }
    }

    #[tokio::test]
    async fn what_the_host_removes_itself_has_neither_ended_nor_vanished() {
        let (fixture, workspace) = fixture().await;
        let mut signals = fixture.host.watch().subscribe();
        let mut events = fixture.host.events();
        workspace.remove().await.unwrap();
        let Some(Signal::Change(change)) = signals.next().await else { panic!("the removal is told") };
        assert_eq!(change.kind, ChangeKind::Removed { by_us: true });
        assert_eq!((change.workspace.as_ref(), &change.container), (Some(workspace.id()), &workspace.container()));
        assert_eq!(next(&mut events).await.kind, EventKind::Removed);

        let script = EngineScript { remove_failures: 1, ..EngineScript::default() };
        let fixture = Fixture::new(script, AgentScript::default()).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        let mut events = fixture.host.events();
        workspace.remove().await.unwrap_err();
        fixture.engine.remove(&workspace.container()).await.unwrap();
        assert_eq!(next(&mut events).await.kind, EventKind::Vanished, "a removal that failed was none");
    }

    #[tokio::test]
    async fn others_containers_and_those_of_pools_are_nobodys_workspace() {
        let (fixture, _) = fixture().await;
        let mut signals = fixture.host.watch().subscribe();
        fixture.engine.say_of("corehold-w", "start");
        fixture.engine.rename(&ContainerId("c0".into()), "corehold-pool.x.1").await.unwrap();
        fixture.engine.backdate(labels::HOME, "another");
        fixture.engine.say_of("corehold-pool.x.1", "start");
        fixture.engine.backdate(labels::HOME, fixture.host.fingerprint());
        fixture.engine.say_of("corehold-pool.x.1", "pause");
        for (workspace, kind) in
            [(Some("w"), ChangeKind::Started), (None, ChangeKind::Renamed), (None, ChangeKind::Paused)]
        {
            let Some(Signal::Change(change)) = signals.next().await else { panic!("{kind:?} is told") };
            assert_eq!((change.workspace.as_ref().map(WorkspaceId::as_str), change.kind), (workspace, kind));
        }
    }

    #[tokio::test]
    async fn an_engine_that_goes_away_and_comes_back_is_listened_to_again() {
        let (fixture, workspace) = fixture().await;
        tokio::time::pause();
        let mut signals = fixture.host.watch().subscribe();
        let mut events = fixture.host.events();
        for _ in 0..3 {
            fixture.engine.go_away();
            assert!(matches!(next(&mut events).await.kind, EventKind::EngineLost { .. }));
            // Some attempts in vain; the clock jumps over them.
            tokio::time::sleep(Duration::from_secs(60)).await;
            fixture.engine.set_status("corehold-w", ContainerStatus::Exited);
            fixture.engine.come_back();
            assert_eq!(next(&mut events).await.kind, EventKind::EngineBack, "lost is said once");
            assert_eq!(signals.next().await, Some(Signal::LookAgain));
            fixture.engine.say_of("corehold-w", "oom");
            assert_eq!(next(&mut events).await.workspace.as_ref(), Some(workspace.id()));
            assert!(matches!(signals.next().await, Some(Signal::Change(_))));
        }
    }

    #[tokio::test]
    async fn it_ends_with_the_host() {
        let (fixture, workspace) = fixture().await;
        let (mut signals, mut events) = (fixture.host.watch().subscribe(), fixture.host.events());
        drop((fixture, workspace));
        assert_eq!(signals.next().await, None);
        while events.next().await.is_some() {}
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_to_look_again() {
        let (fixture, _workspace) = fixture().await;
        let watch = fixture.host.watch();
        let mut signals = watch.subscribe();
        for _ in 0..=BACKLOG {
            watch.signals.send(Signal::LookAgain).unwrap();
        }
        let change = Change { container: ContainerId("c".into()), workspace: None, kind: ChangeKind::Started };
        watch.signals.send(Signal::Change(change.clone())).unwrap();
        let mut told = Vec::new();
        while told.last() != Some(&Signal::Change(change.clone())) {
            told.push(signals.next().await.unwrap());
        }
        assert!(told.len() <= BACKLOG + 1);
        assert_eq!(told[0], Signal::LookAgain);
    }
}
