//! What a host does by itself, on the test engine: short policies, awaited by their events.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use corehold_types::{
    Code, Problem, Timestamp,
    tools::{ActiveSource, ActivitySource, EndedSource},
};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    CreateWorkspace, ErrorKind, Event, EventKind, Events, Host, TransitionCause, Workspace, WorkspaceState,
    testing::{self, AgentScript, EngineScript, FakeEngine},
};

/// Long enough that what must not happen by then would have.
const SHORT: Duration = Duration::from_millis(150);

struct Stage {
    engine: Arc<FakeEngine>,
    agent: AgentScript,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(AgentScript::default())
    }

    fn with(agent: AgentScript) -> Self {
        let engine = Arc::new(FakeEngine::new(EngineScript::default(), agent.clone()));
        Self { engine, agent, folder: tempfile::tempdir().unwrap() }
    }

    async fn host(&self, policy: IdlePolicy) -> Host {
        Host::builder().runtime(self.engine.clone()).home(self.folder.path()).idle(policy).build().await.unwrap()
    }

    /// Something is active from now on; nothing, if none.
    fn active(&self, source: Option<ActivitySource>) {
        let mut activity = self.agent.activity.lock().unwrap();
        activity.1 = activity.0.iter().map(|was| EndedSource { source: was.source, at: Timestamp::now() }).collect();
        activity.0 = source
            .map(|source| ActiveSource {
                source,
                count: 1,
                since: Timestamp::now(),
                reason: "1 command runs: make".to_owned(),
                labels: BTreeMap::new(),
            })
            .into_iter()
            .collect();
    }
}

fn pausing() -> IdlePolicy {
    IdlePolicy::default().pause_after(SHORT)
}

async fn until(events: &mut Events, what: impl Fn(&Event) -> bool) -> Event {
    let wait = async {
        loop {
            let event = events.next().await.expect("the host lives");
            if what(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens")
}

async fn until_state(events: &mut Events, state: WorkspaceState) -> TransitionCause {
    let event = until(events, |event| matches!(event.kind, EventKind::Transition { to, .. } if to == state)).await;
    let EventKind::Transition { cause, .. } = event.kind else { unreachable!("it was asked for") };
    cause
}

async fn create(host: &Host) -> Workspace {
    host.create(CreateWorkspace::empty().id("w")).await.unwrap()
}

#[tokio::test]
async fn what_nobody_uses_is_paused_and_the_next_call_wakes_it() {
    let stage = Stage::new();
    let host = stage.host(pausing()).await;
    let mut events = host.events();
    let workspace = create(&host).await;
    assert_eq!(until_state(&mut events, WorkspaceState::Paused).await, TransitionCause::Idle);
    workspace.write_file("a", "b").await.unwrap();
    assert_eq!(until_state(&mut events, WorkspaceState::Ready).await, TransitionCause::Called);
    assert_eq!(workspace.read_file("a").await.unwrap(), "b");
    assert_eq!(until_state(&mut events, WorkspaceState::Paused).await, TransitionCause::Idle, "and so on");
}

#[tokio::test]
async fn what_is_used_stays_awake_and_says_why() {
    let stage = Stage::new();
    let host = stage.host(pausing()).await;
    let mut events = host.events();
    stage.active(Some(ActivitySource::Command));
    let workspace = create(&host).await;
    tokio::time::sleep(SHORT * 4).await;
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
    let why = workspace.why_awake().await.unwrap();
    assert_eq!((why.state, why.idle), (WorkspaceState::Ready, None));
    assert_eq!(why.reasons[0].source, AwakeSource::Command);
    let next = workspace.next_transition().await.unwrap().unwrap();
    assert_eq!((next.to, next.after), (TransitionTo::Paused, SHORT));
    assert_eq!(next.because, "150 ms after nothing keeps it awake any more; now: 1 command runs: make");
    stage.active(None);
    until_state(&mut events, WorkspaceState::Paused).await;
    let why = workspace.why_awake().await.unwrap();
    assert!(why.reasons.is_empty() && why.idle.unwrap() >= SHORT);
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Paused, "to ask wakes nobody");
    assert_eq!(workspace.next_transition().await.unwrap(), None, "nothing else is to happen");
}

#[tokio::test]
async fn many_calls_at_once_wake_it_once() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    workspace.write_file("a", "b").await.unwrap();
    for _ in 0..5 {
        workspace.pause().await.unwrap();
        let mut events = host.events();
        let read = join_all((0..20).map(|_| workspace.read_file("a"))).await;
        assert!(read.into_iter().all(|content| content.unwrap() == "b"));
        assert_eq!(until_state(&mut events, WorkspaceState::Resuming).await, TransitionCause::Called);
        until_state(&mut events, WorkspaceState::Ready).await;
        assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
        let more = tokio::time::timeout(
            Duration::from_millis(20),
            until(&mut events, |event| matches!(event.kind, EventKind::Transition { .. })),
        );
        assert!(more.await.is_err(), "it was woken once");
    }
}

#[tokio::test]
async fn what_was_stopped_is_started_by_a_call_only_if_it_may() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    workspace.stop(Duration::ZERO).await.unwrap();
    assert!(workspace.read_file("a").await.is_err());
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Stopped);
    workspace.set_idle(IdlePolicy::default().wake_stopped(true)).await.unwrap();
    workspace.write_file("a", "b").await.unwrap();
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
}

/// Its gate is open, and nobody of this process has closed it.
#[tokio::test]
async fn what_another_process_paused_is_woken_too() {
    let stage = Stage::new();
    let (one, other) = (stage.host(IdlePolicy::default()).await, stage.host(IdlePolicy::default()).await);
    let workspace = create(&one).await;
    workspace.write_file("a", "b").await.unwrap();
    let theirs = other.workspace("w").await.unwrap();
    for _ in 0..20 {
        theirs.pause().await.unwrap();
        // Before the engine's word of it is here, or after: a call that hangs already goes on.
        let read = tokio::time::timeout(Duration::from_secs(5), workspace.read_file("a"));
        assert_eq!(read.await.expect("it is woken").unwrap(), "b");
        assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
    }
}

/// A browser keeps its connections: what it says on one must not be lost on who sleeps.
#[tokio::test]
async fn a_quiet_connection_of_a_preview_keeps_nobody_awake_and_its_next_byte_wakes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    let preview = workspace.preview(port).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(preview.url.strip_prefix("http://").unwrap()).await.unwrap();
    let mut answer = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    workspace.pause().await.unwrap();
    let mut events = host.events();
    stream.write_all(b"again").await.unwrap();
    assert_eq!(until_state(&mut events, WorkspaceState::Ready).await, TransitionCause::Called);
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"again");
    drop(stream);
    echo.await.unwrap();
}

#[tokio::test]
async fn of_two_hosts_one_acts_and_the_policy_is_the_workspaces_own() {
    let stage = Stage::new();
    let (one, other) = (stage.host(pausing()).await, stage.host(pausing()).await);
    let mut told = stream::select(one.events(), other.events());
    create(&one).await;
    let (mut begun, mut paused) = (0, false);
    let acting = async {
        while !paused {
            let Some(Event { kind: EventKind::Transition { to, .. }, .. }) = told.next().await else { continue };
            begun += usize::from(to == WorkspaceState::Pausing);
            paused = to == WorkspaceState::Paused;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), acting).await.expect("one of them acts");
    // Time for the other to act too, if it would.
    tokio::time::sleep(SHORT * 2).await;
    while let Some(Some(event)) = told.next().now_or_never() {
        begun += usize::from(matches!(event.kind, EventKind::Transition { to: WorkspaceState::Pausing, .. }));
    }
    assert_eq!(begun, 1);
    assert_eq!(one.workspace("w").await.unwrap().state().await.unwrap(), WorkspaceState::Paused);

    // Another host, which has no policy: the workspace has.
    drop((one, other));
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = host.workspace("w").await.unwrap();
    workspace.set_idle(pausing().max_lifetime(SHORT).expiry(Expiry::Remove)).await.unwrap();
    let mut events = host.events();
    until(&mut events, |event| matches!(event.kind, EventKind::Removed)).await;
    assert_eq!(host.workspace("w").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Two hosts find it idle at the same moment. One puts it to sleep, its user wakes it: what the other found is of the past.
#[tokio::test]
async fn what_was_changed_since_it_was_found_idle_is_left_alone() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    let inner = workspace.host();
    let found = inner.store.get(workspace.id()).await.unwrap().unwrap();
    workspace.sleep(Duration::ZERO).await.unwrap();
    workspace.wake().await.unwrap();
    let mut events = host.events();
    for to in [TransitionTo::Paused, TransitionTo::Asleep, TransitionTo::Removed] {
        supervision::expire(inner, found.clone(), to, String::new()).await.unwrap();
        assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready, "{to}");
    }
    assert!(events.next().now_or_never().is_none(), "nothing was done, and nothing is told");
    let found = inner.store.get(workspace.id()).await.unwrap().unwrap();
    supervision::expire(inner, found, TransitionTo::Removed, String::new()).await.unwrap();
    until(&mut events, |event| matches!(event.kind, EventKind::Expired { files: ExpiredFiles::Deleted, .. })).await;
}

/// Another process is just putting it to sleep: its agent takes nothing more.
#[tokio::test]
async fn a_call_that_an_ending_agent_refuses_is_made_again_once() {
    static REFUSALS: AtomicUsize = AtomicUsize::new(0);
    let route: testing::Route = |request| {
        let refuses = request.uri().path().starts_with("/v1/files/")
            && REFUSALS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        refuses.then(|| testing::problem(&Problem::new(Code::ShuttingDown, "it ends")))
    };
    let stage = Stage::with(AgentScript { route: Some(route), ..AgentScript::default() });
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    REFUSALS.store(1, Ordering::Relaxed);
    workspace.write_file("a", "b").await.unwrap();
    REFUSALS.store(1, Ordering::Relaxed);
    assert_eq!(workspace.read_file("a").await.unwrap(), "b");
    REFUSALS.store(2, Ordering::Relaxed);
    let refused = workspace.read_file("a").await.unwrap_err();
    assert_eq!(refused.problem().map(|problem| problem.code), Some(Code::ShuttingDown));
    assert_eq!(workspace.read_file("a").await.unwrap(), "b");
}

#[tokio::test]
async fn whose_time_is_up_has_the_usual_grace_before_its_files_are_saved() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let mut events = host.events();
    let policy = IdlePolicy::default().archive_after(SHORT);
    let workspace = host.create(CreateWorkspace::empty().id("w").idle(policy)).await.unwrap();
    let expired = until(&mut events, |event| matches!(event.kind, EventKind::Expired { .. })).await;
    assert!(matches!(expired.kind, EventKind::Expired { files: ExpiredFiles::Archived, .. }), "{expired:?}");
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Asleep);
    assert_eq!(stage.engine.last_grace(), Some(Duration::from_secs(10)), "a database isn't killed while it writes");
}

#[tokio::test]
async fn whose_time_is_up_is_removed_with_its_files_where_the_policy_says_so() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let mut events = host.events();
    let policy = IdlePolicy::default().archive_after(SHORT).expiry(Expiry::Remove);
    let workspace = host.create(CreateWorkspace::empty().id("w").idle(policy)).await.unwrap();
    let expired = until(&mut events, |event| matches!(event.kind, EventKind::Expired { .. })).await;
    let because = "nothing has counted as activity for 150 ms".to_owned();
    assert_eq!(expired.kind, EventKind::Expired { files: ExpiredFiles::Deleted, because });
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Removed);
    assert!(stage.engine.names().is_empty());
    assert_eq!(workspace.read_file("a").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_waking_that_fails_is_told_to_all_who_wait() {
    let stage = Stage::new();
    let host = stage.host(IdlePolicy::default()).await;
    let workspace = create(&host).await;
    workspace.pause().await.unwrap();
    stage.engine.resume_fails.store(1, Ordering::Relaxed);
    let failed = join_all((0..10).map(|_| workspace.read_file("a"))).await;
    assert!(failed.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::Engine));
    workspace.write_file("a", "b").await.unwrap();
}

#[tokio::test]
async fn a_policy_that_no_time_fits_is_refused() {
    let stage = Stage::new();
    let wrong = || IdlePolicy::default().pause_after(Duration::ZERO);
    let builder = Host::builder().runtime(stage.engine.clone()).home(stage.folder.path()).idle(wrong());
    assert_eq!(builder.build().await.unwrap_err().kind(), ErrorKind::Invalid);
    let host = stage.host(IdlePolicy::default()).await;
    let refused = host.create(CreateWorkspace::empty().idle(wrong())).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(create(&host).await.set_idle(wrong()).await.unwrap_err().kind(), ErrorKind::Invalid);
}
