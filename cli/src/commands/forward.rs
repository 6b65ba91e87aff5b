//! `corehold forward`: ports of this machine that lead into a workspace, until Ctrl-C.

use std::process::ExitCode;

use anyhow::Context as _;
use corehold_host::{ErrorKind, Forward, ForwardOptions, Workspace, WorkspaceState};
use futures_util::future;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{self, Global, PortPair},
    failure, output, surroundings,
};

pub(crate) async fn run(global: &Global, forward: &args::Forward) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let workspace = host.workspace(&forward.workspace).await?;
    match workspace.state().await? {
        state @ (WorkspaceState::Paused | WorkspaceState::Asleep) => {
            eprintln!("note: {} is {state}; the first connection wakes it", workspace.id());
        }
        // Asked once beforehand: an address that can lead nowhere is no help.
        _ => {
            workspace.agent_endpoint().await?;
        }
    }
    // Whoever reads the address may send a signal at once.
    let mut interrupted = signal(SignalKind::interrupt()).context("waiting for Ctrl-C")?;
    let mut terminated = signal(SignalKind::terminate()).context("waiting for the end")?;
    let mut open = Vec::new();
    for port in &forward.ports {
        let forward = listen(&workspace, port).await?;
        announce(global, &workspace, &forward)?;
        open.push(forward);
    }
    if !global.json {
        eprintln!("Ctrl-C ends it; the workspace goes on");
    }
    loop {
        let failures = open.iter_mut().map(|forward| {
            let port = forward.port();
            Box::pin(async move { (port, forward.next_failure().await) })
        });
        let (port, error) = tokio::select! {
            (failed, ..) = future::select_all(failures) => failed,
            _ = interrupted.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminated.recv() => return Ok(ExitCode::SUCCESS),
        };
        if error.kind() == ErrorKind::NotFound {
            // The workspace is gone or has ended: nothing comes after that.
            return Err(error.into());
        }
        if global.json {
            let error = failure::describe(&error.into());
            output::json(&json!({ "type": "failure", "port": port, "error": error }))?;
        } else {
            eprintln!("a connection to port {port} was reset: {error}");
        }
    }
}

async fn listen(workspace: &Workspace, port: &PortPair) -> anyhow::Result<Forward> {
    let options = ForwardOptions::default();
    if let Some(local) = &port.local {
        return Ok(workspace.forward(port.inside, options.local_ports(local.clone())).await?);
    }
    // The same number here is easiest to remember. Where it can't be had, any will do: it is told.
    match workspace.forward(port.inside, options.clone().local_port(port.inside)).await {
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Io) => {
            Ok(workspace.forward(port.inside, options).await?)
        }
        result => Ok(result?),
    }
}

fn announce(global: &Global, workspace: &Workspace, forward: &Forward) -> anyhow::Result<()> {
    let (port, url) = (forward.port(), forward.url());
    if global.json {
        let local = forward.local_address().port();
        let value =
            json!({ "type": "forward", "workspace": workspace.id(), "port": port, "localPort": local, "url": url });
        output::json(&value)?;
    } else {
        output::line(format_args!("{url} leads to port {port} of {}", workspace.id()))?;
    }
    Ok(())
}
