//! `commandOutput`: what a command has written, from any offset, and what it writes from now on.

use std::sync::Arc;

use corehold_types::{
    Code, CollectedOutput, Problem,
    tools::{CommandEvent, CommandOutput, CommandOutputRequest, CommandResponse},
};

use super::command::refused;
use crate::{
    agent::Agent,
    audit::Touched,
    handler::{Call, Events, Handler},
    process::{self, Command, Viewer},
};

/// Bytes of each stream that a collected answer holds when the caller doesn't say.
const DEFAULT_OUTPUT_BYTES: u64 = 64 * 1024;

impl Handler for CommandOutput {
    async fn handle(
        call: Call,
        request: CommandOutputRequest,
        events: Events<CommandEvent>,
    ) -> Result<CommandResponse, Problem> {
        let most = most_bytes(&call.agent, request.max_output_bytes)?;
        let command = find(&call.agent, &request.id)?;
        let (offset, end) = (request.offset.unwrap_or(0), command.end());
        if offset > end {
            return Err(refused("offset", &format!("the command's log ends at {end}")).with("end", end));
        }
        let from = From { offset, follow: request.follow.unwrap_or_else(|| events.wanted()) };
        let response = answer(command, from, most, events).await;
        call.notes.note(|touched| told(&response, offset, touched));
        Ok(response)
    }

    fn touches(request: &CommandOutputRequest, touched: &mut Touched) {
        touched.command(&request.id);
    }
}

/// Where a reader begins, and whether it waits for more.
pub(super) struct From {
    pub(super) offset: u64,
    pub(super) follow: bool,
}

/// The command with this id.
pub(crate) fn find(agent: &Agent, id: &str) -> Result<Arc<Command>, Problem> {
    agent.processes.find(id).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no command {id:?}"))
            .with("id", id)
            .suggest("`commandList` has those that are known; ids are void when the agent has restarted")
    })
}

/// How much of each stream to collect.
pub(super) fn most_bytes(agent: &Agent, wanted: Option<u64>) -> Result<usize, Problem> {
    let limit = agent.config.limits.command_collected_bytes;
    let most = wanted.unwrap_or(DEFAULT_OUTPUT_BYTES.min(limit.value));
    if most > limit.value {
        return Err(limit.exceeded("maxOutputBytes"));
    }
    Ok(usize::try_from(most).unwrap_or(usize::MAX))
}

/// What an answer that began at an offset has told, for the audit log.
pub(super) fn told(response: &CommandResponse, from: u64, touched: &mut Touched) {
    if response.offset > from || response.exit.is_some() {
        touched.went_out(response.offset.saturating_sub(from));
    }
    if let Some(exit) = &response.exit {
        touched.exited(exit);
    }
}

/// The event that a stream about a command begins with.
pub(super) fn status(command: &Command, offset: u64) -> CommandEvent {
    CommandEvent::Status { id: command.id().to_owned(), pid: command.pid(), started: command.started(), offset }
}

/// Streams or collects a command's output. If the caller goes away, the command doesn't notice.
pub(super) async fn answer(
    command: Arc<Command>,
    from: From,
    most: usize,
    events: Events<CommandEvent>,
) -> CommandResponse {
    let id = command.id().to_owned();
    if !events.wanted() {
        let collected = process::collect(command, from.offset, from.follow, most).await;
        let process::Collected { stdout, stderr, exit, offset } = collected;
        return CommandResponse { id, exit, stdout, stderr, offset };
    }
    let mut viewer = Viewer::new(Arc::clone(&command), from.offset, from.follow);
    let mut exit = None;
    let mut caller = events.send(status(&command, from.offset)).await;
    while caller.is_ok()
        && let Some(event) = viewer.next().await
    {
        if let CommandEvent::Exit { exit: how, .. } = &event {
            exit = Some(how.clone());
        }
        caller = events.send(event).await;
    }
    let none = CollectedOutput::default();
    CommandResponse { id, exit, stdout: none.clone(), stderr: none, offset: viewer.offset() }
}
