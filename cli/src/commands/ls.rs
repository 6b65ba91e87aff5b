//! `corehold ls`: the workspaces of this home folder, running or not.

use std::process::ExitCode;

use corehold_host::{Host, WorkspaceInfo};
use futures_util::future;
use serde_json::{Value, json};

use crate::{args::Global, output, surroundings};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let mut workspaces = host.list().await?;
    if global.json {
        // An engine's listing has neither when they were started nor where they are.
        workspaces = future::join_all(workspaces.into_iter().map(|info| whole(&host, info))).await;
    }
    let sizes = future::join_all(workspaces.iter().map(|info| archive_bytes(&host, info))).await;
    let all = workspaces.iter().zip(sizes);
    if global.json {
        let shown: Vec<Value> = all.map(|(info, size)| shown(info, size)).collect::<Result<_, _>>()?;
        output::json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    if workspaces.is_empty() {
        eprintln!("no workspaces; `corehold up <template or folder>` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = all
        .map(|(info, size)| {
            [
                info.id.to_string(),
                info.state.as_str().to_owned(),
                info.template.clone().unwrap_or_else(|| "-".to_owned()),
                // Seconds are enough for people.
                info.created.to_string().get(..19).unwrap_or_default().replace('T', " "),
                place(info, size),
            ]
        })
        .collect();
    output::table(["WORKSPACE", "STATE", "TEMPLATE", "CREATED (UTC)", "PREVIEW OR ARCHIVE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// All that is known about one; what a listing has, where it is gone by now.
async fn whole(host: &Host, info: WorkspaceInfo) -> WorkspaceInfo {
    let asked = async { host.workspace(info.id.as_str()).await?.info().await };
    asked.await.unwrap_or(info)
}

/// Where one is: its preview's address, or, of one that sleeps, its archive; else why it failed.
fn place(info: &WorkspaceInfo, size: Option<u64>) -> String {
    match (&info.archive, size, &info.preview_url, &info.reason) {
        (Some(archive), Some(size), ..) => format!("{archive} ({})", output::size(size)),
        (Some(archive), None, ..) => format!("{archive} (can't be read)"),
        (None, _, Some(url), _) => url.clone(),
        (None, _, None, Some(reason)) => reason.clone(),
        (None, _, None, None) => "-".to_owned(),
    }
}

/// Bytes of the files of one that sleeps. That an archive can't be read hides no other workspace.
async fn archive_bytes(host: &Host, info: &WorkspaceInfo) -> Option<u64> {
    let found = host.archives().get(info.archive.as_ref()?).await;
    found.inspect_err(|error| tracing::warn!(workspace = %info.id, "{error}")).ok().map(|archive| archive.content_bytes)
}

fn shown(info: &WorkspaceInfo, archive_bytes: Option<u64>) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(info)?;
    if let Some(bytes) = archive_bytes {
        shown["archiveBytes"] = json!(bytes);
    }
    Ok(shown)
}
