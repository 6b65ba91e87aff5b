//! What a host finds on a real engine after another one was killed while it changed a workspace, or somebody has removed a container:
//! each workspace once, with its files, and nothing else.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    CreateWorkspace, ErrorKind, Host, WorkspaceState,
    runtime::{ContainerId, Runtime as _},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// Parts of the time that it takes undisturbed, after each of which it is killed.
const PARTS: u32 = 5;
/// For an engine on a busy machine to do what it was asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has a process do something to a workspace, and kills it after a while. Says how long it took, if it came to its end.
async fn killed_after(host: &Host, id: &str, verb: &str, after: Duration) -> Option<Duration> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_changing_host"));
    command.arg(host.home()).args([id, verb]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("begun"));
    let began = Instant::now();
    match tokio::time::timeout(after, child.wait()).await {
        Ok(status) => {
            assert!(status.unwrap().success(), "it is done");
            Some(began.elapsed())
        }
        Err(_) => {
            child.kill().await.unwrap();
            None
        }
    }
}

/// The containers of a workspace that the engine has.
async fn containers(corehold: &Corehold, id: &str) -> Vec<ContainerId> {
    let labels = BTreeMap::from([("dev.corehold.workspace".to_owned(), id.to_owned())]);
    let all = corehold.docker.list(&labels).await.unwrap();
    all.into_iter().map(|state| state.id).collect()
}

/// A host that does nothing by itself.
async fn host(corehold: &Corehold) -> Host {
    corehold.builder().reconciles(false).build().await.unwrap()
}

/// It is there once, with its files, in a state that stays; and no archive but that which it may wake from.
async fn whole(corehold: &Corehold, host: &Host, id: &str, content: &str) {
    let reconciled = host.reconcile().await.unwrap();
    assert!(reconciled.failed.is_empty(), "{reconciled:?}");
    let deadline = Instant::now() + PATIENCE;
    // What the engine was asked for by the dead it may still be doing.
    loop {
        let again = host.reconcile().await.unwrap();
        if again.is_empty() {
            break;
        }
        assert!(again.failed.is_empty() && again.gone.is_empty() && Instant::now() < deadline, "{again:?}");
    }
    let infos = host.list().await.unwrap();
    let [info] = infos.as_slice() else { panic!("{infos:?}") };
    assert!(info.id.as_str() == id && !info.state.is_transitional(), "{info:?}");
    let asleep = info.state == WorkspaceState::Asleep;
    assert_eq!(containers(corehold, id).await.len(), usize::from(!asleep), "{info:?}");
    let workspace = host.workspace(id).await.unwrap();
    let archives = host.archives().list(None).await.unwrap();
    assert!(archives.len() <= 1 && (!asleep || archives.len() == 1), "{archives:?}");
    let read = async || {
        workspace.start().await?;
        workspace.read_file("kept").await
    };
    loop {
        match read().await {
            Ok(read) => break assert_eq!(read, content),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_outlives_whoever_is_killed_while_changing_it() {
    let corehold = Corehold::start().await;
    let host = host(&corehold).await;
    host.create(CreateWorkspace::empty().id("killed")).await.unwrap();
    let long = Duration::from_secs(120);
    for verb in ["sleep", "wake", "restart", "remove"] {
        let mut took = None;
        for part in (0..PARTS).rev() {
            let content = format!("{verb} {part}");
            match host.workspace("killed").await {
                Ok(workspace) => workspace.write_file("kept", content.clone()).await.unwrap(),
                Err(error) => {
                    assert_eq!((error.kind(), verb), (ErrorKind::NotFound, "remove"), "{error}");
                    let made = host.create(CreateWorkspace::empty().id("killed")).await.unwrap();
                    made.write_file("kept", content.clone()).await.unwrap()
                }
            };
            if verb == "wake" {
                host.workspace("killed").await.unwrap().sleep(Duration::ZERO).await.unwrap();
            }
            let after = took.map_or(long, |took: Duration| took * part / PARTS);
            let done = killed_after(&host, "killed", verb, after).await;
            println!("{verb}, killed after {after:?}; done: {done:?}");
            took = took.or(done);
            if verb == "remove" {
                host.reconcile().await.unwrap();
                if host.list().await.unwrap().is_empty() {
                    assert_eq!(containers(&corehold, "killed").await, []);
                    assert_eq!(host.archives().list(None).await.unwrap(), []);
                    continue;
                }
                assert!(done.is_none(), "it was removed");
            }
            whole(&corehold, &host, "killed", &content).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_removes_takes_no_more_than_was_in_no_archive() {
    let corehold = Corehold::start().await;
    let host = host(&corehold).await;
    let workspace = host.create(CreateWorkspace::empty().id("vanishes")).await.unwrap();
    workspace.write_file("kept", "slept once").await.unwrap();
    workspace.sleep(Duration::ZERO).await.unwrap();
    for state in [WorkspaceState::Ready, WorkspaceState::Paused, WorkspaceState::Stopped, WorkspaceState::Asleep] {
        workspace.start().await.unwrap();
        match state {
            WorkspaceState::Paused => workspace.pause().await.unwrap(),
            WorkspaceState::Stopped => workspace.stop(Duration::ZERO).await.unwrap(),
            WorkspaceState::Asleep => workspace.sleep(Duration::ZERO).await.unwrap(),
            _ => {}
        }
        for container in containers(&corehold, "vanishes").await {
            corehold.docker.remove(&container).await.unwrap();
        }
        host.reconcile().await.unwrap();
        assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Asleep, "removed while {state}");
        whole(&corehold, &host, "vanishes", "slept once").await;
    }
    workspace.remove().await.unwrap();

    let never_slept = host.create(CreateWorkspace::empty().id("gone")).await.unwrap();
    for container in containers(&corehold, "gone").await {
        corehold.docker.remove(&container).await.unwrap();
    }
    host.reconcile().await.unwrap();
    assert_eq!(host.workspace("gone").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(never_slept.state().await.unwrap(), WorkspaceState::Removed);
    host.create(CreateWorkspace::empty().id("gone")).await.expect("its name is free");
}
