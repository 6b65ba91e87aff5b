//! Checks, restarts and alerts, on the test engine: short policies, awaited by their events.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    CreateWorkspace, Event, EventKind, Events, Host, Workspace, WorkspaceState,
    runtime::ContainerStatus,
    testing::{AgentScript, EngineScript, FakeEngine},
};

const EVERY: Duration = Duration::from_millis(100);

struct Stage {
    host: Host,
    engine: Arc<FakeEngine>,
    workspace: Workspace,
    events: Events,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new(policy: HealthPolicy) -> Self {
        let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
        let folder = tempfile::tempdir().unwrap();
        let host = Host::builder().runtime(engine.clone()).home(folder.path()).health(policy).build().await.unwrap();
        let events = host.events();
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        Self { host, engine, workspace, events, _folder: folder }
    }

    async fn until(&mut self, what: impl Fn(&EventKind) -> bool) -> EventKind {
        until(&mut self.events, what).await
    }

    /// Its container ends by itself.
    fn crash(&self) {
        self.engine.set_status("corehold-w", ContainerStatus::Exited);
        self.engine.silence("corehold-w");
        self.engine.say_of("corehold-w", "die");
    }
}

async fn until(events: &mut Events, what: impl Fn(&EventKind) -> bool) -> EventKind {
    let wait = async {
        loop {
            let Event { kind, .. } = events.next().await.expect("the host lives");
            if what(&kind) {
                return kind;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens")
}

fn policy() -> HealthPolicy {
    HealthPolicy::default().every(EVERY).timeout(EVERY * 5)
}

fn is_ready(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Transition { to: WorkspaceState::Ready, .. })
}

#[tokio::test]
async fn who_does_not_answer_three_times_is_restarted_and_told_to_be_well_again() {
    let mut stage = Stage::new(policy()).await;
    stage.until(|kind| *kind == EventKind::Healthy).await;
    let health = stage.workspace.health().await.unwrap();
    assert_eq!((health.healthy, health.consecutive_failures, health.reason), (Some(true), 0, None));
    assert!(health.last_check.is_some() && health.uptime.is_some());
    stage.engine.silence("corehold-w");
    let EventKind::Unhealthy { failures, reason } =
        stage.until(|kind| matches!(kind, EventKind::Unhealthy { .. })).await
    else {
        unreachable!("it was asked for")
    };
    assert_eq!(failures, 3);
    assert!(!reason.is_empty());
    stage.until(|kind| matches!(kind, EventKind::Restarted { restart: 1, .. })).await;
    stage.until(is_ready).await;
    stage.until(|kind| *kind == EventKind::Healthy).await;
    assert_eq!(stage.workspace.health().await.unwrap().healthy, Some(true));
}

#[tokio::test]
async fn what_fails_its_own_check_again_and_again_ends_in_one_alert() {
    let stage = Stage::new(HealthPolicy::default()).await;
    // The test agent runs `exit <code>` so.
    let strict = policy().failures(1).restarts(2).command("exit 3");
    let mut events = stage.host.events();
    assert_eq!(stage.workspace.health_policy().await.unwrap(), None, "the host's");
    stage.workspace.set_health(strict.clone()).await.unwrap();
    assert_eq!(stage.workspace.health_policy().await.unwrap(), Some(strict));
    let EventKind::HealthAlert { restarts, reason } =
        until(&mut events, |kind| matches!(kind, EventKind::HealthAlert { .. })).await
    else {
        unreachable!("it was asked for")
    };
    assert_eq!(restarts, 2);
    assert_eq!(reason, "its check `exit 3` ended with exit code 3");
    let more = tokio::time::timeout(
        EVERY * 5,
        until(&mut events, |kind| matches!(kind, EventKind::HealthAlert { .. } | EventKind::Restarted { .. })),
    );
    assert!(more.await.is_err(), "it is told once, and left alone");
    let health = stage.workspace.health().await.unwrap();
    assert_eq!((health.healthy, health.restarts), (Some(false), 2));
    stage.workspace.set_health(None).await.unwrap();
    assert_eq!(stage.workspace.health_policy().await.unwrap(), None, "the host's again");
}

#[tokio::test]
async fn what_ended_is_started_again_unless_it_was_stopped_on_purpose() {
    let mut stage = Stage::new(policy()).await;
    stage.crash();
    let EventKind::Restarted { reason, .. } = stage.until(|kind| matches!(kind, EventKind::Restarted { .. })).await
    else {
        unreachable!("it was asked for")
    };
    assert_eq!(reason, "its container ended with exit code 7");
    stage.until(is_ready).await;
    stage.workspace.stop(Duration::ZERO).await.unwrap();
    tokio::time::sleep(EVERY * 5).await;
    assert_eq!(stage.workspace.state().await.unwrap(), WorkspaceState::Stopped);
    let health = stage.workspace.health().await.unwrap();
    assert_eq!((health.healthy, health.uptime), (None, None));

    // It stays so when another host begins, and that is started again which is started on purpose.
    drop(stage.host);
    let folder = stage.workspace.host().home.clone();
    let host = Host::builder().runtime(stage.engine.clone()).home(folder).health(policy()).build().await.unwrap();
    tokio::time::sleep(EVERY * 5).await;
    let workspace = host.workspace("w").await.unwrap();
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Stopped);
    workspace.start().await.unwrap();
    let mut events = host.events();
    stage.engine.set_status("corehold-w", ContainerStatus::Exited);
    stage.engine.say_of("corehold-w", "die");
    until(&mut events, is_ready).await;
}

#[tokio::test]
async fn what_ended_stays_so_without_a_policy_that_restarts() {
    for policy in [Some(policy().restart(RestartPolicy::No)), None] {
        let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
        let folder = tempfile::tempdir().unwrap();
        let mut builder = Host::builder().runtime(engine.clone()).home(folder.path());
        if let Some(policy) = policy {
            builder = builder.health(policy);
        }
        let host = builder.build().await.unwrap();
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        engine.set_status("corehold-w", ContainerStatus::Exited);
        engine.say_of("corehold-w", "die");
        tokio::time::sleep(EVERY * 3).await;
        assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Stopped);
        assert_eq!(workspace.health().await.unwrap().healthy, None);
    }
}

#[tokio::test]
async fn what_is_paused_is_not_asked() {
    let mut stage = Stage::new(policy()).await;
    stage.until(|kind| *kind == EventKind::Healthy).await;
    stage.workspace.pause().await.unwrap();
    tokio::time::sleep(EVERY * 5).await;
    assert_eq!(stage.workspace.state().await.unwrap(), WorkspaceState::Paused);
    let health = stage.workspace.health().await.unwrap();
    assert_eq!((health.healthy, health.consecutive_failures, health.restarts), (None, 0, 0));
    stage.workspace.resume().await.unwrap();
    tokio::time::sleep(EVERY * 3).await;
    assert_eq!(stage.workspace.health().await.unwrap().healthy, Some(true));
}
