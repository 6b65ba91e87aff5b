//! `corehold events`: what happens to the workspaces of this home folder, whoever does it, until Ctrl-C.

use std::process::ExitCode;

use crate::{args::Global, output, surroundings};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global, surroundings::engine(global).await?).await?;
    let mut events = host.events();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = event else { return Ok(ExitCode::SUCCESS) };
        if global.json {
            output::json(&event)?;
            continue;
        }
        // The kind's own fields, as they are written for scripts.
        let serde_json::Value::Object(mut fields) = serde_json::to_value(&event.kind)? else { continue };
        let kind = fields.remove("event");
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default();
        let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let workspace = event.workspace.as_ref().map_or("-", |workspace| workspace.as_str());
        output::line(format_args!("{} {workspace} {kind}{fields}", event.at))?;
    }
}
