//! `corehold down`: removes workspaces, all at once, one failure blocking no other.

use std::process::ExitCode;

use serde_json::json;

use super::life::each;
use crate::{
    args::{Down, Global},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, down: &Down) -> anyhow::Result<ExitCode> {
    let engine = surroundings::engine(global).await?;
    let host = surroundings::host_of(global, engine.clone()).await?;
    let names: Vec<String> = if down.all {
        host.list().await?.into_iter().map(|workspace| workspace.id.to_string()).collect()
    } else {
        down.workspaces.clone()
    };
    let code = each(global, &names, async |name| {
        let removed = async { host.workspace(name).await?.remove().await };
        removed.await.map_err(|error| error.context(format_args!("removing {name}")))?;
        match global.json {
            true => output::json(&json!({ "workspace": name, "removed": true }))?,
            false => output::line(format_args!("removed {name}"))?,
        }
        Ok(())
    })
    .await?;
    // A network goes with its last container, beside what is done.
    host.settled().await;
    if down.all && code == ExitCode::SUCCESS {
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
    Ok(code)
}
