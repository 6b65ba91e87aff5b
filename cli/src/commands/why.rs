//! `corehold why`: what keeps a workspace awake, what becomes of it next by itself, and whether it is well.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::{Global, Why},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, why: &Why) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let workspace = host.workspace(&why.workspace).await?;
    let awake = workspace.why_awake().await?;
    let next = workspace.next_transition().await?;
    let health = workspace.health().await?;
    if global.json {
        output::json(&json!({ "workspace": workspace.id(), "awake": awake, "next": next, "health": health }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match (awake.reasons.as_slice(), awake.idle) {
        ([], Some(idle)) => {
            output::line(format_args!("{}: {}, idle for {}", workspace.id(), awake.state, output::duration(idle)))?;
        }
        ([], None) => output::line(format_args!("{}: {}", workspace.id(), awake.state))?,
        (reasons, _) => {
            output::line(format_args!("{}: {}", workspace.id(), awake.state))?;
            for reason in reasons {
                output::line(format_args!("  {} (for {})", reason.reason, output::duration(reason.lasting)))?;
            }
        }
    }
    match next {
        Some(next) => {
            output::line(format_args!("next: {} in {}: {}", next.to, output::duration(next.after), next.because))?
        }
        None => output::line("next: nothing happens by itself")?,
    }
    match (health.healthy, &health.reason) {
        (Some(true), _) => output::line("health: well")?,
        (Some(false), reason) => {
            output::line(format_args!("health: not well: {}", reason.as_deref().unwrap_or("it failed its check")))?;
        }
        (None, Some(reason)) => output::line(format_args!("health: {reason}"))?,
        (None, None) => {}
    }
    Ok(ExitCode::SUCCESS)
}
