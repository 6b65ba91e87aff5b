//! `corehold cache`: what set-ups left, kept for the next workspace of a template.

use std::process::ExitCode;

use serde_json::json;

use crate::{args::Global, output, surroundings};

pub(crate) async fn ls(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let entries = host.setup_cache().await?;
    if global.json {
        output::json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        eprintln!("nothing is kept; `corehold up <template or folder>` keeps what its set-up leaves");
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = |time: &dyn ToString| time.to_string().get(..19).unwrap_or_default().replace('T', " ");
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let key = entry.key.get(..16).unwrap_or_default().to_owned();
            [entry.template.clone(), output::size(entry.bytes), seconds(&entry.created), seconds(&entry.used), key]
        })
        .collect();
    output::table(["TEMPLATE", "SIZE", "SET UP (UTC)", "USED (UTC)", "KEY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn clear(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let removed = host.clear_setup_cache().await?;
    if global.json {
        output::json(&json!({ "removed": removed }))?;
    } else {
        eprintln!("removed {removed}");
    }
    Ok(ExitCode::SUCCESS)
}
