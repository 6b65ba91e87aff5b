//! `corehold exec`: a command inside, whose output and exit code become ours.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use corehold_host::{
    Frame, RunCommand, Workspace,
    types::{
        Data,
        tools::{CommandEvent, CommandExit, CommandSignal, CommandSignalRequest, Pty, PtySize, Signal},
    },
};
use futures_util::StreamExt as _;
use tokio::{
    signal::unix::{self, SignalKind},
    task::JoinHandle,
};

use crate::{
    args::{Exec, Global},
    failure, input, output, surroundings,
    terminal::{self, RawTerminal},
};

/// Our own failures, apart from the command's exit codes. `docker run` uses the same number.
const OUR_FAILURE: u8 = 125;
/// The command's time ran out; `timeout(1)` uses the same number.
const TIMED_OUT: u8 = 124;

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
    if exec.tty {
        anyhow::ensure!(
            !global.json,
            "--tty passes a terminal on as it is, so there is no JSON; leave out one of the two"
        );
        RawTerminal::check()?;
    }
    let host = surroundings::waking(global).await?;
    let workspace = super::called(&host, &exec.workspace).await?;
    // From here on nothing that is signalled gets lost; the terminal's size is asked for after that.
    let mut signals = Signals::listen()?;
    let size = terminal::size();
    let command = command(&workspace, exec, size);
    let raw = exec.tty.then(RawTerminal::take).transpose()?;

    let mut stream = command.stream().await?;
    let mut running = None;
    let mut exit = None;
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            signal = signals.next() => {
                let id = running.as_ref().map(|running: &Running| running.id.as_str());
                match (signal, &raw) {
                    (Received::Resized, Some(_)) => resize(&workspace, id).await,
                    (Received::Continued, Some(raw)) => {
                        raw.set_raw()?;
                        resize(&workspace, id).await;
                    }
                    // Ctrl-C is the command's, as it is in a shell.
                    (Received::Interrupted, None) => signal_command(&workspace, id, Signal::Int).await?,
                    // Of a terminal that goes away, those who worked on it learn.
                    (Received::Interrupted | Received::Ended(_), Some(_)) => {
                        // The command may have ended, or its agent be gone: we end anyhow.
                        let _ = signal_command(&workspace, id, Signal::Hup).await;
                        return Ok(ExitCode::from(128 + signal.number()));
                    }
                    (Received::Ended(_), None) => return Ok(ExitCode::from(128 + signal.number())),
                    (Received::Resized | Received::Continued, None) => {}
                }
                continue;
            }
        };
        match frame.transpose()? {
            Some(Frame::Event(event)) => {
                if let CommandEvent::Status { id, .. } = &event {
                    if exec.tty && terminal::size() != size {
                        resize(&workspace, Some(id)).await;
                    }
                    running = Some(Running::new(&workspace, id, exec.stdin || exec.tty));
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
    // Before anything else is written.
    drop(raw);
    let exit = exit.context("the agent did not say how the command ended")?;
    if exit.oom_killed == Some(true) {
        eprintln!(
            "note: a process of the workspace was killed for want of memory; `corehold up --memory` sets the limit"
        );
    }
    Ok(ExitCode::from(exit_code(&exit)))
}

fn command(workspace: &Workspace, exec: &Exec, size: PtySize) -> RunCommand {
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
    if exec.tty {
        // What --env says of the terminal goes before what it is here.
        let named = exec.env.iter().any(|(name, _)| name == "TERM");
        let term = surroundings::terminal_type().filter(|_| !named);
        return command.terminal(Pty { columns: size.columns, rows: size.rows, term });
    }
    if exec.stdin { command.interactive() } else { command }
}

/// The command while it runs, and what feeds it.
struct Running {
    id: String,
    feeding: Option<JoinHandle<()>>,
}

impl Running {
    fn new(workspace: &Workspace, id: &str, fed: bool) -> Self {
        let feed = || {
            let (workspace, id) = (workspace.clone(), id.to_owned());
            tokio::spawn(async move {
                if let Err(error) = input::feed(workspace, id).await {
                    tracing::warn!("standard input was not passed on: {error:#}");
                }
            })
        };
        Self { id: id.to_owned(), feeding: fed.then(feed) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(feeding) = &self.feeding {
            feeding.abort();
        }
    }
}

/// A command that has ended meanwhile needs no size.
async fn resize(workspace: &Workspace, id: Option<&str>) {
    if let Some(id) = id
        && let Err(error) = workspace.resize_terminal(id, terminal::size()).await
    {
        tracing::debug!(%error, "the terminal's size was not passed on");
    }
}

async fn signal_command(workspace: &Workspace, id: Option<&str>, signal: Signal) -> anyhow::Result<()> {
    if let Some(id) = id {
        let request = CommandSignalRequest { id: id.to_owned(), signal };
        workspace.call::<CommandSignal>(&request).await?;
    }
    Ok(())
}

/// What we are signalled.
#[derive(Debug, Clone, Copy)]
enum Received {
    /// By Ctrl-C, where the terminal isn't the command's.
    Interrupted,
    /// The terminal has another size.
    Resized,
    /// A shell lets us go on.
    Continued,
    /// We are to end, by a signal of this number.
    Ended(u8),
}

impl Received {
    fn number(self) -> u8 {
        match self {
            Self::Ended(number) => number,
            _ => 2,
        }
    }
}

struct Signals {
    interrupt: unix::Signal,
    resize: unix::Signal,
    proceed: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| unix::signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            resize: listen(SignalKind::window_change())?,
            proceed: listen(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel-safe.
    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupted,
            _ = self.resize.recv() => Received::Resized,
            _ = self.proceed.recv() => Received::Continued,
            _ = self.terminate.recv() => Received::Ended(15),
            _ = self.hang_up.recv() => Received::Ended(1),
        }
    }
}

/// Output goes where the command wrote it.
fn show(event: &CommandEvent) -> anyhow::Result<()> {
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
