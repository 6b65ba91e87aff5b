//! `corehold exec`: a command inside, whose output and exit code become ours.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use corehold_host::{
    Frame, Workspace,
    types::{
        Data,
        tools::{CommandEvent, CommandExit, CommandSignal, CommandSignalRequest, Signal},
    },
};
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;

use crate::{
    args::{Exec, Global},
    failure, output, surroundings,
};

/// Our own failures, apart from the command's exit codes. `docker run` uses the same number.
const OUR_FAILURE: u8 = 125;
/// The command's time ran out; `timeout(1)` uses the same number.
const TIMED_OUT: u8 = 124;
/// Bytes of standard input that fit into one request.
const STDIN_BYTES: u64 = 8 << 20;

pub(crate) async fn run(global: &Global, exec: &Exec) -> ExitCode {
    match attempt(global, exec).await {
        Ok(code) => code,
        Err(error) => match failure::report(&error, global.json) {
            code if code == ExitCode::SUCCESS => code,
            _ => ExitCode::from(OUR_FAILURE),
        },
    }
}

async fn attempt(global: &Global, exec: &Exec) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global, surroundings::engine(global).await?).await?;
    let workspace = host.workspace(&exec.workspace).await?;
    let mut command = workspace.command_argv(exec.argv.iter().cloned());
    if let Some(cwd) = &exec.cwd {
        command = command.cwd(cwd);
    }
    for (name, value) in &exec.env {
        command = command.env(name, value);
    }
    // People leave long commands running; only --timeout ends one.
    command = match exec.timeout {
        Some(seconds) => command.timeout(Duration::from_secs(seconds)),
        None => command.no_timeout(),
    };
    if exec.stdin {
        command = command.stdin(standard_input().await?);
    }

    let mut stream = command.stream().await?;
    let mut id = None;
    let mut exit = None;
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("waiting for Ctrl-C")?;
                interrupt(&workspace, id.as_deref()).await?;
                continue;
            }
        };
        match frame.transpose()? {
            Some(Frame::Event(event)) => {
                if let CommandEvent::Status { id: named, .. } = &event {
                    id = Some(named.clone());
                }
                if global.json {
                    output::json(&event)?;
                } else {
                    show(&event)?;
                }
                if let CommandEvent::Exit { exit: how, .. } = event {
                    exit = Some(how);
                }
            }
            Some(Frame::End(response)) => exit = exit.or(response.exit),
            None => break,
        }
    }
    let exit = exit.context("the agent did not say how the command ended")?;
    if exit.oom_killed == Some(true) {
        eprintln!(
            "note: a process of the workspace was killed for want of memory; `corehold up --memory` sets the limit"
        );
    }
    Ok(ExitCode::from(exit_code(&exit)))
}

/// Ctrl-C is the command's, as it is in a shell.
async fn interrupt(workspace: &Workspace, id: Option<&str>) -> anyhow::Result<()> {
    if let Some(id) = id {
        let request = CommandSignalRequest { id: id.to_owned(), signal: Signal::Int };
        workspace.call::<CommandSignal>(&request).await?;
    }
    Ok(())
}

async fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::io::stdin().take(STDIN_BYTES + 1).read_to_end(&mut bytes).await.context("reading standard input")?;
    anyhow::ensure!(
        bytes.len() as u64 <= STDIN_BYTES,
        "standard input is longer than {}; write it into a file of the workspace instead",
        output::size(STDIN_BYTES)
    );
    Ok(bytes)
}

/// Output goes where the command wrote it.
pub(crate) fn show(event: &CommandEvent) -> anyhow::Result<()> {
    match event {
        CommandEvent::Stdout { data, .. } => output::bytes(&bytes(data)?)?,
        CommandEvent::Stderr { data, .. } => {
            let mut err = io::stderr().lock();
            err.write_all(&bytes(data)?)?;
        }
        CommandEvent::Gap { from, to } => eprintln!("[{} of output were dropped]", output::size(to - from)),
        _ => {}
    }
    Ok(())
}

fn bytes(data: &Data) -> anyhow::Result<Vec<u8>> {
    data.to_bytes().context("the agent sent malformed base64")
}

fn exit_code(exit: &CommandExit) -> u8 {
    if exit.timed_out || exit.stalled {
        return TIMED_OUT;
    }
    match (exit.code, exit.signal.as_deref()) {
        // Exit codes have eight bits.
        (Some(code), _) => code as u8,
        (None, signal) => 128 + signal.map_or(0, signal_number),
    }
}

/// The numbers that shells add to 128, from signal(7) for x86-64 and arm64.
fn signal_number(name: &str) -> u8 {
    const NUMBERS: [(&str, u8); 15] = [
        ("SIGHUP", 1),
        ("SIGINT", 2),
        ("SIGQUIT", 3),
        ("SIGILL", 4),
        ("SIGTRAP", 5),
        ("SIGABRT", 6),
        ("SIGBUS", 7),
        ("SIGFPE", 8),
        ("SIGKILL", 9),
        ("SIGUSR1", 10),
        ("SIGSEGV", 11),
        ("SIGUSR2", 12),
        ("SIGPIPE", 13),
        ("SIGALRM", 14),
        ("SIGTERM", 15),
    ];
    NUMBERS.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, signal: Option<&str>) -> CommandExit {
        CommandExit {
            code,
            signal: signal.map(str::to_owned),
            timed_out: false,
            stalled: false,
            oom_killed: None,
            duration_ms: 1,
            peak_memory_bytes: None,
            cpu_ms: None,
            survivors: Vec::new(),
        }
    }

    #[test]
    fn exit_codes_are_those_a_shell_would_give() {
        assert_eq!(exit_code(&exit(Some(0), None)), 0);
        assert_eq!(exit_code(&exit(Some(255), None)), 255);
        assert_eq!(exit_code(&exit(None, Some("SIGKILL"))), 137);
        assert_eq!(exit_code(&exit(None, Some("SIGRTMIN"))), 128);
        assert_eq!(exit_code(&CommandExit { timed_out: true, ..exit(None, Some("SIGTERM")) }), 124);
    }
}
