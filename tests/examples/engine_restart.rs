//! What a host finds after its engine was started anew: workspaces that run, are paused, stopped and asleep, each once and with its files.
//! Not among the tests: an engine that others use mustn't be restarted. Start one of your own (`CONTRIBUTING.md`), then
//!
//! ```sh
//! DOCKER_HOST=unix:///…/docker.sock cargo run -p corehold-e2e --example engine_restart -- 'sh restart-it.sh'
//! ```
//!
//! The command is to stop the engine and start it, and may return before it answers.

use std::{process::Command, time::Duration};

use corehold_e2e::corehold::Corehold;
use corehold_host::{CreateWorkspace, Host, WorkspaceState};

/// For an engine on a busy machine to start.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [restart] = arguments.as_slice() else { panic!("name the command that restarts the engine: {arguments:?}") };
    let corehold = Corehold::start().await;
    let host = &corehold.host;
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
    told(host).await;
    let status = Command::new("sh").args(["-c", restart]).status().expect("it can be run");
    assert!(status.success(), "{restart} failed");
    let back = async {
        while host.list().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("the engine answers again");
    // The host that was there all the time, and one that begins now.
    let other = corehold.builder().reconciles(false).build().await.expect("a host starts");
    for host in [host, &other] {
        let reconciled = host.reconcile().await.expect("the engine answers");
        assert!(reconciled.failed.is_empty() && reconciled.gone.is_empty(), "{reconciled:?}");
    }
    told(host).await;
    assert!(other.reconcile().await.expect("it answers").is_empty());
    let infos = host.list().await.expect("it answers");
    assert_eq!(infos.len(), names.len(), "{infos:?}");
    for info in &infos {
        // What ran ended with the engine, as `docker` has it without `live-restore`; and what is said of it is what is so.
        let expected: &[WorkspaceState] = match info.id.as_str() {
            "asleep" => &[WorkspaceState::Asleep],
            "stopped" => &[WorkspaceState::Stopped],
            "paused" => &[WorkspaceState::Paused, WorkspaceState::Stopped],
            _ => &[WorkspaceState::Ready, WorkspaceState::Stopped],
        };
        assert!(expected.contains(&info.state), "{info:?}");
    }
    for (number, name) in names.into_iter().enumerate() {
        let host = if number % 2 == 0 { host } else { &other };
        let workspace = host.workspace(name).await.expect("it is there");
        workspace.start().await.expect("it starts, wherever it was");
        assert_eq!(workspace.read_file("kept").await.expect("it can be called"), name);
        let outcome = workspace.command("echo works").run().await.expect("a command runs");
        assert_eq!(outcome.stdout_text(), "works\n");
    }
    told(host).await;
}

async fn told(host: &Host) {
    let infos = host.list().await.expect("the engine answers");
    let states = infos.iter().map(|info| format!("{}: {}", info.id, info.state));
    println!("{}", states.collect::<Vec<_>>().join(", "));
}
