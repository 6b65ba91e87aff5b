//! `corehold down`: removes workspaces, all at once, one failure blocking no other.

use std::process::ExitCode;

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    args::{Down, Global},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, down: &Down) -> anyhow::Result<ExitCode> {
    let engine = surroundings::engine(global).await?;
    let host = surroundings::host(global, engine.clone()).await?;
    let names: Vec<String> = if down.all {
        host.list().await?.into_iter().map(|workspace| workspace.id.to_string()).collect()
    } else {
        down.workspaces.clone()
    };
    let removals = names.iter().map(|name| {
        let host = &host;
        async move {
            let removed = async { host.workspace(name).await?.remove().await };
            (name, removed.await)
        }
    });

    let mut failures = Vec::new();
    for (name, removed) in join_all(removals).await {
        match removed {
            Ok(()) if global.json => output::json(&json!({ "workspace": name, "removed": true }))?,
            Ok(()) => output::line(format_args!("removed {name}"))?,
            Err(error) => failures.push(error.context(format_args!("removing {name}"))),
        }
    }
    if down.all && failures.is_empty() {
        // What a backend on this home keeps ready; it starts anew what it needs.
        let waiting = host.drain_pools().await?;
        match (waiting, global.json) {
            (0, true) => {}
            (0, false) if names.is_empty() => eprintln!("no workspaces"),
            (0, false) => {}
            (_, true) => output::json(&json!({ "pooled": waiting, "removed": true }))?,
            (_, false) => output::line(format_args!("removed {waiting} that waited in a pool"))?,
        }
        engine.remove_unused().await?;
    }
    let Some(last) = failures.pop() else { return Ok(ExitCode::SUCCESS) };
    for failure in failures {
        eprintln!("error: {failure}");
    }
    Err(last.into())
}
