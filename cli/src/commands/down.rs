//! `corehold down`: removes workspaces, all at once, one failure blocking no other.

use std::process::ExitCode;

use corehold_host::{ErrorKind, Host, RemoveOptions, Result, WorkspaceId};
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
    let options = RemoveOptions::default().archives(down.archives).other_homes(down.other_homes);
    let code = each(global, &names, async |name| {
        let removed = async {
            match host.workspace(name).await {
                Ok(workspace) => workspace.remove_with(options).await,
                // It is gone, and they may be left of it.
                Err(error) if down.archives && error.kind() == ErrorKind::NotFound => match left(&host, name).await? {
                    true => Ok(()),
                    false => Err(error),
                },
                Err(error) => Err(error),
            }
        };
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

/// Gives up the archives of a workspace that is gone; whether there were any.
async fn left(host: &Host, name: &str) -> Result<bool> {
    let workspace: WorkspaceId = name.parse()?;
    let archives = host.archives().list(Some(&workspace)).await?;
    for archive in &archives {
        host.archives().delete(&archive.reference()).await?;
    }
    Ok(!archives.is_empty())
}
