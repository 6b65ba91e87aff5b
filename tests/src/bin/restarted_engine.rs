//! What hosts find after their engine was started anew: workspaces that run, are paused, stopped and asleep, each once and with its files, and
//! a pool of which nothing is left to be claimed.
//!
//! Run by `own_engine::run_apart`.

use std::{path::Path, time::Duration};

use corehold_e2e::{
    corehold::Corehold,
    own_engine::{OwnEngine, PATIENCE},
};
use corehold_host::{Class, CreateEventKind, CreateWorkspace, Host, PoolOptions, Step, WorkspaceState};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = arguments.as_slice() else { panic!("a folder is needed: {arguments:?}") };
    let address = std::env::var("DOCKER_HOST").expect("DOCKER_HOST names where its engine listens");
    let engine = OwnEngine::start(Path::new(folder), &address, &[]).await;
    engine.load_core_image();
    workspaces_outlive_it(engine, Path::new(folder), &address).await;
}

async fn workspaces_outlive_it(engine: OwnEngine, folder: &Path, address: &str) {
    let corehold = Corehold::start().await;
    let pool = || corehold.builder().pool(Class::default(), PoolOptions::default().min(2).max(2));
    let host = pool().build().await.expect("a host starts");
    host.pools_filled().await.expect("its pool is filled");
    // Some of them come from the pool.
    let names = ["ready", "paused", "stopped", "asleep"];
    for name in names {
        let workspace = host.create(CreateWorkspace::empty().id(name)).await.expect("it is made");
        workspace.write_file("kept", name).await.expect("it is written");
        match name {
            "paused" => workspace.pause().await.expect("it is paused"),
            "stopped" => workspace.stop(Duration::ZERO).await.expect("it is stopped"),
            "asleep" => workspace.sleep(Duration::ZERO).await.expect("it sleeps"),
            _ => {}
        }
    }
    host.pools_filled().await.expect("its pool is filled again");
    told(&host).await;

    engine.stop().await;
    let engine = OwnEngine::start(folder, address, &[]).await;
    // The host that was there all the time, and one that begins now.
    let other = pool().reconciles(false).build().await.expect("a host starts");
    for host in [&host, &other] {
        let reconciled = host.reconcile().await.expect("the engine answers");
        assert!(reconciled.failed.is_empty() && reconciled.gone.is_empty(), "{reconciled:?}");
    }
    told(&host).await;
    let infos = host.list().await.expect("it answers");
    assert_eq!(infos.len(), names.len(), "{infos:?}");
    for info in &infos {
        // What ran ended with the engine, as `docker` has it without `live-restore`; what should run, the host starts again.
        let expected: &[WorkspaceState] = match info.id.as_str() {
            "asleep" => &[WorkspaceState::Asleep],
            "stopped" => &[WorkspaceState::Stopped],
            "paused" => &[WorkspaceState::Paused, WorkspaceState::Stopped],
            _ => &[WorkspaceState::Ready, WorkspaceState::Starting, WorkspaceState::Stopped],
        };
        assert!(expected.contains(&info.state), "{info:?}");
    }
    for (number, name) in names.into_iter().enumerate() {
        let host = if number % 2 == 0 { &host } else { &other };
        let workspace = host.workspace(name).await.expect("it is there");
        workspace.start().await.expect("it starts, wherever it was");
        assert_eq!(workspace.read_file("kept").await.expect("it can be called"), name);
        let outcome = workspace.command("echo works").run().await.expect("a command runs");
        assert_eq!(outcome.stdout_text(), "works\n");
    }
    told(&host).await;

    // What waited has ended, and is never handed out: the pool is filled anew.
    // The last look may be one that failed while the engine was away; the next comes a moment later.
    let filled = async {
        while let Err(error) = host.pools_filled().await {
            println!("not yet: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filled).await.expect("its pool is filled with others");
    let mut creation = host.create(CreateWorkspace::empty().id("claimed"));
    let mut claimed = false;
    while let Some(event) = creation.next_event().await {
        claimed |= event.step == Step::Claim && matches!(event.kind, CreateEventKind::Finished { .. });
    }
    let workspace = creation.await.expect("it is made");
    assert!(claimed, "it was claimed");
    assert_eq!(workspace.command("ls -A").run().await.expect("a command runs").stdout_text(), "");
    drop((workspace, other, host, corehold));
    engine.stop().await;
    println!("all are there");
}

async fn told(host: &Host) {
    let infos = host.list().await.expect("the engine answers");
    let states = infos.iter().map(|info| format!("{}: {}", info.id, info.state));
    println!("{}", states.collect::<Vec<_>>().join(", "));
}
