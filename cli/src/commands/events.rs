//! `corehold events`: what happens to the workspaces of this home folder, whoever does it, until Ctrl-C. And `corehold supervise`,
//! which sees to it that something does: their policies of idleness and health.

use std::process::ExitCode;

use corehold_host::Host;

use crate::{
    args::{Global, Supervise},
    output, surroundings,
};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    show(global, &host).await
}

pub(crate) async fn supervise(global: &Global, supervise: &Supervise) -> anyhow::Result<ExitCode> {
    let mut builder = surroundings::builder(global, surroundings::engine(global).await?).reconciles(true);
    if let Some(bundle) = surroundings::machine_ca_bundle() {
        // For the containers of those that wake.
        builder = builder.ca_bundle(bundle);
    }
    if let Some(policy) = supervise.idle.policy() {
        builder = builder.idle(policy);
    }
    let host = builder.build().await?;
    show(global, &host).await
}

async fn show(global: &Global, host: &Host) -> anyhow::Result<ExitCode> {
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
