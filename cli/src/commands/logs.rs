//! `corehold logs`: what the dev server has written, and what it writes from now on.

use std::process::ExitCode;

use corehold_host::{
    Frame, Workspace,
    create::DEV,
    types::tools::{CommandEvent, CommandOutput, CommandOutputRequest},
};
use futures_util::StreamExt as _;

use super::exec::show;
use crate::{
    args::{Global, Logs},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, logs: &Logs) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    if logs.agent {
        let workspace = host.workspace(&logs.workspace).await?;
        let mut lines = workspace.agent_logs(logs.follow);
        while let Some(bytes) = lines.next().await {
            output::bytes(&bytes?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = super::called(&host, &logs.workspace).await?;
    follow(&workspace, logs.follow, global.json).await
}

/// Shows the dev server's output; with `follow` until it ends or Ctrl-C, which leaves it running.
pub(crate) async fn follow(workspace: &Workspace, follow: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let Some(dev) = workspace.latest_command(DEV).await? else {
        anyhow::bail!("workspace {} runs no dev server; `corehold logs --agent` shows the agent's log", workspace.id());
    };
    let request = CommandOutputRequest { id: dev.id, follow: Some(follow), ..Default::default() };
    let mut stream = workspace.stream::<CommandOutput>(&request).await?;
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        match frame.transpose()? {
            Some(Frame::Event(event)) => {
                if as_json {
                    output::json(&event)?;
                } else {
                    show(&event)?;
                }
                if let (CommandEvent::Exit { exit, .. }, true) = (&event, follow) {
                    let code =
                        exit.code.map_or_else(|| exit.signal.clone().unwrap_or_default(), |code| code.to_string());
                    eprintln!("the dev server has ended: {code}");
                }
            }
            Some(Frame::End(_)) => {}
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}
