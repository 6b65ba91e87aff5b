//! `corehold events`: what happens to the workspaces of this home folder, whoever does it, until Ctrl-C or TERM. And `corehold supervise`,
//! which sees to it that something does: their policies of idleness and health, and what becomes of them at its end.

use std::process::ExitCode;

use corehold_host::{Host, Shutdown, ShutdownReport};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::{Global, Supervise},
    failure, output, surroundings,
};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let mut ends = Ends::new()?;
    let host = surroundings::host(global).await?;
    show(global, &host, &mut ends).await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn supervise(global: &Global, supervise: &Supervise) -> anyhow::Result<ExitCode> {
    // From the beginning: until then either signal would end the process at once.
    let mut ends = Ends::new()?;
    let mut builder = surroundings::builder(global, surroundings::engine(global).await?).reconciles(true);
    if let Some(bundle) = surroundings::machine_ca_bundle() {
        // For the containers of those that wake.
        builder = builder.ca_bundle(bundle);
    }
    if let Some(policy) = supervise.idle.policy() {
        builder = builder.idle(policy);
    }
    let host = builder.build().await?;
    show(global, &host, &mut ends).await?;
    let how = supervise.on_end();
    if how == Shutdown::LeaveRunning {
        // Ends the pools; their containers wait for the next host.
        host.shutdown(how, supervise.grace).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = tokio::select! {
        report = host.shutdown(how, supervise.grace) => report?,
        () = ends.next() => anyhow::bail!("ended by a second signal; what was begun is finished or undone by the next host"),
    };
    tell(global, &supervise.on_end, &report)
}

/// What became of the workspaces.
fn tell(global: &Global, what: &str, report: &ShutdownReport) -> anyhow::Result<ExitCode> {
    for id in &report.done {
        match global.json {
            true => output::json(&json!({ "workspace": id, "onEnd": what }))?,
            false => output::line(format_args!("{what}: {id}"))?,
        }
    }
    let mut code = ExitCode::SUCCESS;
    for (id, error) in &report.failed {
        code = ExitCode::FAILURE;
        let error = anyhow::anyhow!("{what}: {id}: {error}");
        failure::report(&error, global.json);
    }
    Ok(code)
}

/// The signals that end a command which goes on until then.
struct Ends([Signal; 2]);

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Shows what happens until a signal comes, or the host ends.
async fn show(global: &Global, host: &Host, ends: &mut Ends) -> anyhow::Result<()> {
    let mut events = host.events();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = ends.next() => None,
        };
        let Some(event) = event else { return Ok(()) };
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
