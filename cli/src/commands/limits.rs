//! `corehold limits`: what a workspace may use, shown and changed while it runs.

use std::process::ExitCode;

use corehold_host::runtime::Resources;

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
    let rows = [
        ["memory".to_owned(), said(now.memory_bytes.map(output::size))],
        ["CPUs".to_owned(), said(now.cpu_millis.map(|millis| (millis as f64 / 1000.0).to_string()))],
        ["disk".to_owned(), said(now.disk_bytes.map(output::size))],
        ["processes".to_owned(), said(now.pids.map(|pids| pids.to_string()))],
    ];
    output::table(["LIMIT", "OF"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
