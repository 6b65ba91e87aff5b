//! `corehold ls`: the workspaces of this home folder, running or not.

use std::process::ExitCode;

use crate::{args::Global, output, surroundings};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global, surroundings::engine(global).await?).await?;
    let workspaces = host.list().await?;
    if global.json {
        output::json(&workspaces)?;
        return Ok(ExitCode::SUCCESS);
    }
    if workspaces.is_empty() {
        eprintln!("no workspaces; `corehold up <template or folder>` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = workspaces
        .iter()
        .map(|workspace| {
            [
                workspace.id.to_string(),
                workspace.state.as_str().to_owned(),
                workspace.template.clone().unwrap_or_else(|| "-".to_owned()),
                // Seconds are enough for people.
                workspace.created.to_string().get(..19).unwrap_or_default().replace('T', " "),
                workspace.preview_url.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    output::table(["WORKSPACE", "STATE", "TEMPLATE", "CREATED (UTC)", "PREVIEW"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
