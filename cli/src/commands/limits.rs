//! `corehold limits`: what a workspace may use, shown and changed while it runs.

use std::process::ExitCode;

use corehold_host::{DiskPolicy, runtime::Resources};

use crate::{
    args::{Global, Limits},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, limits: &Limits) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let workspace = host.workspace(&limits.workspace).await?;
    let asked = limits.asked.resources()?;
    if asked != Resources::default() {
        workspace.set_resources(asked).await?;
    }
    let now = workspace.info().await?.resources.unwrap_or_default();
    if global.json {
        output::json(&now)?;
        return Ok(ExitCode::SUCCESS);
    }
    let said = |value: Option<String>| value.unwrap_or_else(|| "no limit".to_owned());
    let disk = now.disk_bytes.map_or_else(everybodys_disk, output::limit);
    let rows = [
        ["memory".to_owned(), said(now.memory_bytes.map(output::limit))],
        ["CPUs".to_owned(), said(now.cpu_millis.map(|millis| (millis as f64 / 1000.0).to_string()))],
        ["disk".to_owned(), disk],
        ["processes".to_owned(), said(now.pids.map(|pids| pids.to_string()))],
    ];
    output::table(["WHAT", "AT MOST"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// What is there for who was given none of their own: a host that runs looks after it.
fn everybodys_disk() -> String {
    DiskPolicy::default().bytes.map_or_else(
        || "no limit".to_owned(),
        |bytes| format!("none of its own; {} while a host runs that sees the engine's disk", output::limit(bytes)),
    )
}
