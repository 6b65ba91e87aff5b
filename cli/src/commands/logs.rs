//! `corehold logs`: what the dev server has written, and what it writes from now on.

use std::{io, process::ExitCode};

use corehold_host::{
    Workspace,
    create::{DEV, OutputStream},
    logs::{LogItem, LogLine, LogOptions, LogSource},
};

use crate::{
    args::{Global, Logs},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, logs: &Logs) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    if logs.agent {
        let workspace = host.workspace(&logs.workspace).await?;
        let options = LogOptions::default().commands(false).agent(true).follow(logs.follow);
        return show(global, &workspace, options, None).await;
    }
    let workspace = super::called(&host, &logs.workspace).await?;
    dev_server(global, &workspace, logs.follow).await
}

/// Shows the dev server's output; with `follow` until it ends or Ctrl-C, which leaves it running.
pub(crate) async fn dev_server(global: &Global, workspace: &Workspace, follow: bool) -> anyhow::Result<ExitCode> {
    let Some(dev) = workspace.latest_command(DEV).await? else {
        anyhow::bail!("workspace {} runs no dev server; `corehold logs --agent` shows the agent's log", workspace.id());
    };
    show(global, workspace, LogOptions::default().label(DEV).follow(follow), Some(&dev.id)).await
}

/// Shows lines until there are no more, of one command alone if one is named.
async fn show(
    global: &Global,
    workspace: &Workspace,
    options: LogOptions,
    command: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let mut lines = workspace.logs(options);
    loop {
        let item = tokio::select! {
            item = lines.next() => item,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(item) = item else { return Ok(ExitCode::SUCCESS) };
        if let LogItem::BrokenOff { reason } = &item {
            anyhow::bail!("the log of workspace {} can't be read to its end: {reason}", workspace.id());
        }
        if is_of_another(&item, command) {
            continue;
        }
        match &item {
            _ if global.json => output::json(&item)?,
            LogItem::Line(line) => print(line)?,
            LogItem::Gap { bytes, .. } => eprintln!("[{} of output were dropped]", output::size(*bytes)),
            LogItem::Missed { lines } => {
                eprintln!("[{lines} lines were dropped: they came faster than they were read]")
            }
            LogItem::Ended { code, signal, .. } => {
                let how = code.map_or_else(|| signal.clone().unwrap_or_default(), |code| code.to_string());
                eprintln!("the dev server has ended: {how}");
            }
            _ => {}
        }
        if matches!(item, LogItem::Ended { .. }) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Earlier dev servers wrote under the same label.
fn is_of_another(item: &LogItem, command: Option<&str>) -> bool {
    let (LogItem::Line(LogLine { source, .. }) | LogItem::Gap { source, .. } | LogItem::Ended { source, .. }) = item
    else {
        return false;
    };
    matches!((source, command), (LogSource::Command { id, .. }, Some(wanted)) if id != wanted)
}

fn print(line: &LogLine) -> io::Result<()> {
    let end = if line.continues { "" } else { "\n" };
    match line.stream {
        OutputStream::Stderr if matches!(line.source, LogSource::Command { .. }) => {
            use io::Write as _;
            write!(io::stderr().lock(), "{}{end}", line.text)
        }
        _ => output::bytes(format!("{}{end}", line.text).as_bytes()),
    }
}
