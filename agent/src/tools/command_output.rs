//! `commandOutput`: what a command has written, from any offset, and what it writes from now on.

use std::{sync::Arc, time::Duration};

use corehold_types::{
    Code, CollectedOutput, Problem,
    tools::{CommandEvent, CommandOutput, CommandOutputRequest, CommandResponse},
};
use tokio::time::timeout;

use super::command::refused;
use crate::{
    agent::Agent,
    audit::Touched,
    calls::Share,
    handler::{Call, Events, Handler, Progress},
    process::{self, Command, Viewer},
};

/// Bytes of each stream that a collected answer holds when the caller doesn't say.
const DEFAULT_OUTPUT_BYTES: u64 = 64 * 1024;

/// Each may have 32 KiB, and there may be thousands of streams whose readers take nothing.
pub(super) const EVENTS: usize = 1;

/// How long a reader may take nothing until what was read ahead for him is given up.
const REST_AFTER: Duration = Duration::from_millis(100);

/// Characters of a line that is told while a command runs.
const SAID_CHARACTERS: usize = 200;

impl Handler for CommandOutput {
    const EVENTS: usize = EVENTS;

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
        let response = answer(command, from, most, &call.progress, &call.share, events).await;
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

/// Says the last line that a command has written.
fn say(progress: &Progress, bytes: &[u8]) {
    let mut lines = bytes.rsplit(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    if progress.is_heard()
        && let Some(line) = lines.find(|line| !line.is_empty())
    {
        progress.say(|| plain(&String::from_utf8_lossy(line)));
    }
}

/// A line without colours and other orders to a terminal, and not too long.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.next_if_eq(&'[').is_some() {
            // ECMA-48, 5.4: parameters, then one final byte.
            let _ = letters.by_ref().find(|letter| ('@'..='~').contains(letter));
        } else if !letter.is_control() {
            text.push(letter);
        }
    }
    text.chars().take(SAID_CHARACTERS).collect()
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
    progress: &Progress,
    share: &Share,
    events: Events<CommandEvent>,
) -> CommandResponse {
    let id = command.id().to_owned();
    if !events.wanted() {
        // Without room for more, the rest is left out, as beyond `most`: the log has it.
        let room = |bytes| share.try_gather(bytes);
        let along = |bytes: &[u8]| say(progress, bytes);
        let collected = process::collect_along(command, from.offset, from.follow, most, along, room).await;
        let process::Collected { stdout, stderr, exit, offset } = collected;
        return CommandResponse { id, exit, stdout, stderr, offset };
    }
    let mut viewer = Viewer::new(Arc::clone(&command), from.offset, from.follow).waited_for();
    let mut exit = None;
    let mut caller = events.send(status(&command, from.offset)).await;
    while caller.is_ok()
        && let Some(event) = viewer.next().await
    {
        if let CommandEvent::Exit { exit: how, .. } = &event {
            exit = Some(how.clone());
        }
        if timeout(REST_AFTER, events.ready()).await.is_err() {
            viewer.rest();
        }
        caller = events.send(event).await;
    }
    let none = CollectedOutput::default();
    CommandResponse { id, exit, stdout: none.clone(), stderr: none, offset: viewer.offset() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_the_last_line_without_orders_to_a_terminal() {
        let (progress, heard) = Progress::heard();
        for (written, told) in [
            (&b"one\ntwo\n"[..], "two"),
            (b"\n \n", "two"),
            (b"10 %\r20 %\r", "20 %"),
            (b"\x1b[1;31mred\x1b[0m \x07end\x1b[", "red end"),
            ("ž\n".repeat(2).as_bytes(), "ž"),
            (b"\xff", "\u{fffd}"),
        ] {
            say(&progress, written);
            assert_eq!(*heard.borrow(), told);
        }
        say(&progress, "é".repeat(1000).as_bytes());
        assert_eq!(heard.borrow().chars().count(), SAID_CHARACTERS);
        say(&Progress::default(), b"nobody hears it");
    }
}
