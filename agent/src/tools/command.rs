//! `command`: starts a process and, unless detached, streams or collects what it writes until it ends.

use std::time::Duration;

use corehold_types::{
    Code, CollectedOutput, Problem, WorkspacePath,
    tools::{ActivitySource, Command, CommandEvent, CommandRequest, CommandResponse, HEALTH, PtySize},
};

use super::{
    command_end::UntoldEnd,
    command_output::{self, From},
};
use crate::{
    agent::Agent,
    audit::Touched,
    calls::Share,
    handler::{Call, Events, Handler, Resumption},
    process::{Program, Start},
};

/// Characters of a label.
const LABEL_CHARACTERS: usize = 64;

/// Columns or rows of a terminal. More is a mistake, and programs keep some bytes for each character.
const TERMINAL_CHARACTERS: u16 = 4_096;

/// What a terminal is taken for: what browsers' and people's terminals are.
const DEFAULT_TERM: &str = "xterm-256color";

impl Handler for Command {
    const EVENTS: usize = command_output::EVENTS;

    fn keeps_awake(request: &CommandRequest, _: bool) -> Option<ActivitySource> {
        (request.label.as_deref() != Some(HEALTH)).then_some(ActivitySource::Call)
    }

    async fn handle(
        call: Call,
        request: CommandRequest,
        events: Events<CommandEvent>,
    ) -> Result<CommandResponse, Problem> {
        let agent = &call.agent;
        crate::policy::check(agent, &request)?;
        let most = command_output::most_bytes(agent, request.max_output_bytes)?;
        let detach = request.detach.unwrap_or(false);
        let start = to_start(agent, request, &call.share)?;
        let (progress, share) = (call.progress.clone(), call.share.clone());
        let mut untold = UntoldEnd::of(call, start);
        let command = untold.started().await?;
        if detach {
            // Nobody may be there to be told; the command goes on all the same.
            let _ = events.send(command_output::status(&command, 0)).await;
            return Ok(CommandResponse {
                id: command.id().to_owned(),
                exit: None,
                stdout: CollectedOutput::default(),
                stderr: CollectedOutput::default(),
                offset: 0,
            });
        }
        let from = From { offset: 0, follow: true };
        let response = command_output::answer(command, from, most, &progress, &share, events).await;
        untold.answered_with(&response);
        Ok(response)
    }

    /// The answer that is kept is the command's id: whoever repeats the request reads its log from the beginning.
    fn resumption(agent: &Agent, request: &mut CommandRequest) -> Option<Resumption<Self>> {
        if request.detach == Some(true) {
            return None;
        }
        let wanted = request.max_output_bytes;
        request.detach = Some(true);
        request.timeout_ms.get_or_insert(agent.config.limits.command_ms.value);
        Some(Box::new(move |call, started: CommandResponse, events| {
            Box::pin(async move {
                let most = command_output::most_bytes(&call.agent, wanted)?;
                let command = command_output::find(&call.agent, &started.id)?;
                let from = From { offset: 0, follow: true };
                Ok(command_output::answer(command, from, most, &call.progress, &call.share, events).await)
            })
        }))
    }

    fn touches(request: &CommandRequest, touched: &mut Touched) {
        touched.paths(&request.cwd);
        match (&request.argv, &request.line) {
            (Some(arguments), _) => touched.arguments(arguments),
            (None, Some(line)) => touched.detail(line),
            (None, None) => {}
        }
        if let Some(stdin) = &request.stdin {
            touched.came_in(stdin.decoded_bytes());
        }
    }
}

/// What a request asks for, as the process room wants it.
fn to_start(agent: &Agent, request: CommandRequest, share: &Share) -> Result<Start, Problem> {
    let program = match (request.argv, request.line) {
        (Some(arguments), None) => Program::Arguments(arguments),
        (None, Some(line)) => Program::Line(line),
        (Some(_), Some(_)) => return Err(refused("line", "`argv` and `line` exclude each other")),
        (None, None) => return Err(refused("argv", "either `argv` or `line` is needed")),
    };
    if request.label.as_ref().is_some_and(|label| label.chars().count() > LABEL_CHARACTERS) {
        return Err(refused("label", "a label has at most 64 characters"));
    }
    let directory = agent.root.open_directory(&request.cwd.unwrap_or_else(|| WorkspacePath::from(".")))?;
    let stdin = match request.stdin {
        Some(data) => data.to_bytes().map_err(|error| refused("stdin", &format!("stdin is not base64: {error}")))?,
        None => Vec::new(),
    };
    // The command may read it for as long as it likes.
    let stdin = share.bind_request(stdin);
    let default_timeout = match request.detach {
        Some(true) => 0,
        _ => agent.config.limits.command_ms.value,
    };
    let terminal = match &request.pty {
        Some(pty) => Some(terminal_size(pty.columns, pty.rows)?),
        None => None,
    };
    if terminal.is_some() && request.interactive == Some(false) {
        return Err(refused("interactive", "the input of a terminal stays open"));
    }
    let mut environment = request.env;
    match request.pty.and_then(|pty| pty.term) {
        Some(term) => {
            environment.insert("TERM".to_owned(), term);
        }
        None if terminal.is_some() => {
            environment.entry("TERM".to_owned()).or_insert_with(|| DEFAULT_TERM.to_owned());
        }
        None => {}
    }
    Ok(Start {
        program,
        directory,
        environment,
        stdin,
        interactive: request.interactive.unwrap_or(false),
        terminal,
        limits: request.limits.unwrap_or_default(),
        timeout: duration(request.timeout_ms.unwrap_or(default_timeout)),
        stall_timeout: duration(request.stall_timeout_ms.unwrap_or(0)),
        label: request.label,
    })
}

/// A size that a terminal can have.
pub(super) fn terminal_size(columns: u16, rows: u16) -> Result<PtySize, Problem> {
    for (field, value) in [("columns", columns), ("rows", rows)] {
        if !(1..=TERMINAL_CHARACTERS).contains(&value) {
            return Err(refused(field, "a terminal has 1 to 4096 columns and rows"));
        }
    }
    Ok(PtySize { columns, rows })
}

/// 0 means never.
fn duration(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

pub(super) fn refused(field: &str, what: &str) -> Problem {
    Problem::new(Code::InvalidRequest, what).with("field", field)
}
