//! `corehold why`: what keeps a workspace awake, and what becomes of it next by itself.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::{Global, Why},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, why: &Why) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global, surroundings::engine(global).await?).await?;
    let workspace = host.workspace(&why.workspace).await?;
    let awake = workspace.why_awake().await?;
    let next = workspace.next_transition().await?;
    if global.json {
        output::json(&json!({ "workspace": workspace.id(), "awake": awake, "next": next }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match (awake.reasons.as_slice(), awake.idle) {
        ([], Some(idle)) => {
            output::line(format_args!("{}: {}, idle for {} s", workspace.id(), awake.state, idle.as_secs()))?;
        }
        ([], None) => output::line(format_args!("{}: {}", workspace.id(), awake.state))?,
        (reasons, _) => {
            output::line(format_args!("{}: {}", workspace.id(), awake.state))?;
            for reason in reasons {
                output::line(format_args!("  {} (for {} s)", reason.reason, reason.lasting.as_secs()))?;
            }
        }
    }
    match next {
        Some(next) => output::line(format_args!("next: {} in {} s: {}", next.to, next.after.as_secs(), next.because))?,
        None => output::line("next: nothing happens by itself")?,
    }
    Ok(ExitCode::SUCCESS)
}
