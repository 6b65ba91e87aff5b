//! One room for the whole test process, and short words for what tests do with it.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use corehold_agent::{
    config::Limits,
    process::{self, Command, ProcessConfig, Processes, Program, Start, StartError, Viewer, environment},
};
use corehold_types::{
    CollectedOutput, Data,
    tools::{CommandEvent, CommandExit},
};

/// The room. Its commands end with the test process, or earlier.
pub(crate) fn room() -> &'static Processes {
    static ROOM: LazyLock<Processes> = LazyLock::new(|| Processes::start(config()).unwrap());
    &ROOM
}

/// Limits as they are by default, but a short grace: what ignores TERM is killed soon.
pub(crate) fn config() -> ProcessConfig {
    let mut config = ProcessConfig::from_limits(&Limits::default(), environment::of_commands(std::env::vars_os()));
    config.grace = Duration::from_millis(300);
    config
}

/// A shell line to start in `/tmp`.
pub(crate) fn line(line: &str) -> Start {
    start(Program::Line(line.to_owned()))
}

/// A program and its arguments to start in `/tmp`.
pub(crate) fn argv(arguments: &[&str]) -> Start {
    start(Program::Arguments(arguments.iter().map(|argument| (*argument).to_owned()).collect()))
}

fn start(program: Program) -> Start {
    Start { timeout: Some(Duration::from_secs(60)), ..Start::new(program, directory("/tmp".as_ref())) }
}

/// An open directory.
pub(crate) fn directory(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) exit: CommandExit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs to the end.
pub(crate) async fn run(start: Start) -> Ran {
    end_of(begin(start).await).await
}

/// Starts what must be startable.
pub(crate) async fn begin(start: Start) -> Arc<Command> {
    try_begin(start).await.unwrap()
}

/// Starts.
pub(crate) async fn try_begin(start: Start) -> Result<Arc<Command>, StartError> {
    room().start_command(start).await
}

/// Waits for the end.
pub(crate) async fn end_of(command: Arc<Command>) -> Ran {
    let collected = process::collect(command, 0, true, 64 << 20).await;
    Ran { exit: collected.exit.unwrap(), stdout: text(collected.stdout), stderr: text(collected.stderr) }
}

fn text(output: CollectedOutput) -> String {
    assert_eq!(output.omitted_bytes, 0);
    match output.head {
        Data::Text(text) => text,
        Data::Base64(bytes) => panic!("not text: {bytes}"),
    }
}

/// Waits until a command has written this to one of its streams.
pub(crate) async fn wait_for(command: &Arc<Command>, text: &str) {
    let mut viewer = Viewer::new(Arc::clone(command), 0, true);
    let mut seen = String::new();
    while let Some(event) = viewer.next().await {
        if let CommandEvent::Stdout { data, .. } | CommandEvent::Stderr { data, .. } = event {
            seen.push_str(&String::from_utf8_lossy(&data.to_bytes().unwrap()));
            if seen.contains(text) {
                return;
            }
        }
    }
    panic!("ended without {text:?}: {seen:?}, {:?}", command.exit());
}

/// Whether a process lives (a zombie doesn't).
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}
