//! `corehold stats`: what workspaces use, now or every five seconds.

use std::process::ExitCode;

use corehold_host::{Workspace, stats::WorkspaceStats};
use futures_util::{StreamExt as _, future, stream};

use crate::{
    args::{Global, Stats},
    output, surroundings,
};

const HEAD: [&str; 8] = ["WORKSPACE", "STATUS", "CPU", "MEMORY", "LIMIT", "NETWORK IN/OUT", "DISK IN/OUT", "PROCESSES"];

pub(crate) async fn run(global: &Global, stats: &Stats) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let mut names = stats.workspaces.clone();
    if names.is_empty() {
        names = host.list().await?.into_iter().map(|workspace| workspace.id.to_string()).collect();
    }
    let mut workspaces = Vec::with_capacity(names.len());
    for name in &names {
        workspaces.push(host.workspace(name).await?);
    }
    if workspaces.is_empty() {
        eprintln!("no workspaces; `corehold up <template or folder>` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    if stats.follow {
        return follow(global, &workspaces).await;
    }
    // All at once: an engine measures at its own full seconds.
    let samples = future::try_join_all(workspaces.iter().map(Workspace::stats)).await?;
    let all = workspaces.iter().zip(&samples);
    if global.json {
        for (workspace, sample) in all {
            output::json(&shown(workspace, sample)?)?;
        }
    } else {
        let rows: Vec<_> = all.map(|(workspace, sample)| row(workspace, sample)).collect();
        output::table(HEAD, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows each sample as it is measured, until Ctrl-C or until all workspaces are removed.
async fn follow(global: &Global, workspaces: &[Workspace]) -> anyhow::Result<ExitCode> {
    let streams = workspaces.iter().map(|workspace| workspace.follow_stats().map(move |sample| (workspace, sample)));
    let mut samples = stream::select_all(streams);
    if !global.json {
        output::line(HEAD.join("  "))?;
    }
    loop {
        let sample = tokio::select! {
            sample = samples.next() => sample,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some((workspace, sample)) = sample else { return Ok(ExitCode::SUCCESS) };
        if global.json {
            output::json(&shown(workspace, &sample)?)?;
        } else {
            output::line(row(workspace, &sample).join("  "))?;
        }
    }
}

fn shown(workspace: &Workspace, sample: &WorkspaceStats) -> anyhow::Result<serde_json::Value> {
    let mut shown = serde_json::to_value(sample)?;
    shown["workspace"] = workspace.id().as_str().into();
    Ok(shown)
}

fn row(workspace: &Workspace, sample: &WorkspaceStats) -> [String; 8] {
    let both = |one, other| format!("{} / {}", output::size(one), output::size(other));
    [
        workspace.id().to_string(),
        sample.state.as_str().to_owned(),
        // A single sample can't tell a share; the time can be told.
        sample.cpu_percent.map_or_else(|| format!("{} ms", sample.cpu_ms), |percent| format!("{percent:.1} %")),
        output::size(sample.memory_bytes),
        sample.memory_limit_bytes.map_or_else(|| "-".to_owned(), output::limit),
        both(sample.network_received_bytes, sample.network_sent_bytes),
        both(sample.disk_read_bytes, sample.disk_written_bytes),
        sample.pids.to_string(),
    ]
}
