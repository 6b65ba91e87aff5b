//! Workspaces on a real engine that are paused by themselves, wake with the next call or connection, and are restarted when they end.
//! One host each: of several that watch a workspace one acts, and it alone tells of it.

use std::time::Duration;

use corehold_e2e::{
    corehold::Corehold,
    watching::{until, until_state},
    web::get,
};
use corehold_host::{
    AwakeSource, CreateWorkspace, EventKind, HealthPolicy, IdlePolicy, TransitionCause, TransitionTo, WorkspaceState,
    runtime::{ContainerId, Runtime as _},
};

/// More than a look at the agent takes on a busy machine.
const SHORT: Duration = Duration::from_secs(1);
/// A policy that nothing in a test reaches.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_workspace_is_paused_and_wakes_with_the_next_call_or_connection() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let template = host.catalog().find("node-api").unwrap();
    let request = CreateWorkspace::from_template(&template).idle(IdlePolicy::default().pause_after(SHORT));
    let workspace = host.create(request).await.unwrap();

    // Its dev server runs on, and doesn't count.
    assert_eq!(until_state(&mut events, WorkspaceState::Paused).await, TransitionCause::Idle);
    assert!(workspace.why_awake().await.unwrap().reasons.is_empty());
    assert_eq!(workspace.command("echo awake").run().await.unwrap().stdout_text(), "awake\n");
    assert_eq!(until_state(&mut events, WorkspaceState::Ready).await, TransitionCause::Called);

    let preview = workspace.preview(template.port).await.unwrap();
    assert_eq!(until_state(&mut events, WorkspaceState::Paused).await, TransitionCause::Idle);
    assert_eq!(get(&preview.url, "/").await.0, 200);
    assert_eq!(until_state(&mut events, WorkspaceState::Ready).await, TransitionCause::Called);
    workspace.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_keeps_a_workspace_awake_and_is_told_as_the_reason() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let request = CreateWorkspace::empty().idle(IdlePolicy::default().pause_after(SHORT).archive_after(LONG));
    let workspace = host.create(request).await.unwrap();
    let command = workspace.command("read line").interactive().detach().await.unwrap();
    tokio::time::sleep(SHORT * 4).await;
    let why = workspace.why_awake().await.unwrap();
    assert_eq!((why.state, why.idle), (WorkspaceState::Ready, None));
    assert_eq!((why.reasons[0].source, why.reasons[0].count), (AwakeSource::Command, 1));
    let next = workspace.next_transition().await.unwrap().unwrap();
    assert_eq!(next.to, TransitionTo::Paused);
    workspace.end_input(&command).await.unwrap();
    assert_eq!(until_state(&mut events, WorkspaceState::Paused).await, TransitionCause::Idle);
    assert_eq!(workspace.next_transition().await.unwrap().unwrap().to, TransitionTo::Asleep);
    workspace.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_ends_is_started_again_unless_it_was_stopped() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let mut events = host.events();
    let request = CreateWorkspace::empty().health(HealthPolicy::default().every(SHORT));
    let workspace = host.create(request).await.unwrap();
    workspace.write_file("kept", "as it was").await.unwrap();
    until(&mut events, |kind| *kind == EventKind::Healthy).await;
    let health = workspace.health().await.unwrap();
    assert!(health.healthy == Some(true) && health.uptime.is_some(), "{health:?}");

    // As by hand: nobody has told this library.
    let container = ContainerId(workspace.info().await.unwrap().container.unwrap());
    corehold.docker.stop(&container, Duration::ZERO).await.unwrap();
    until(&mut events, |kind| matches!(kind, EventKind::Restarted { restart: 1, .. })).await;
    until_state(&mut events, WorkspaceState::Ready).await;
    assert_eq!(workspace.read_file("kept").await.unwrap(), "as it was");

    workspace.stop(Duration::ZERO).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Stopped);
    workspace.remove().await.unwrap();
}
