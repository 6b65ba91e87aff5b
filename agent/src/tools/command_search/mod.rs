//! `commandSearch`: reads a command's log from an offset and tells the lines that match.
//!
//! The log is read as any viewer reads it, on a thread beside the server's, with a turn of those that `search` takes, since a pattern may
//! take its time. Nobody waits for the end of the command: what is written while it searches isn't searched.

use std::{sync::Arc, time::Instant};

use corehold_types::{
    Data, Problem,
    tools::{
        CommandEvent, CommandSearch, CommandSearchEvent, CommandSearchRequest, CommandSearchResponse, OutputStream,
        SearchTruncation,
    },
};
use grep_regex::RegexMatcher;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    command::refused,
    command_output::find,
    search::{failed, turn},
};
use crate::{
    audit::Touched,
    config::Limits,
    handler::{Call, CallerGone, Events, Handler},
    process::{Command, Viewer},
    search::{
        Control, LineOptions, Stop,
        control::StopOnDrop,
        pattern::{self, PatternOptions},
        plan::{max_matches, out_of_range, timeout},
    },
};
use lines::{LINE_BYTES, Lines, Wanted};

mod lines;

/// Lines of context on each side of a match.
const MAX_CONTEXT: u32 = 100;
/// Bytes of a line that are shown at most.
const MAX_LINE_BYTES: u32 = 32 << 10;
/// What a line takes of the agent's memory besides its text, and what of its JSON.
const LINE_MEMORY: usize = 256;

impl Handler for CommandSearch {
    const EVENTS: usize = super::command_output::EVENTS;

    async fn handle(
        call: Call,
        request: CommandSearchRequest,
        events: Events<CommandSearchEvent>,
    ) -> Result<CommandSearchResponse, Problem> {
        let begun = Instant::now();
        let limits = &call.agent.config.limits;
        let wanted = wanted(limits, &request)?;
        let timeout = timeout(limits, request.timeout_ms)?;
        let command = find(&call.agent, &request.id)?;
        let (offset, end) = (request.offset.unwrap_or(0), command.end());
        if offset > end {
            return Err(refused("offset", &format!("the command's log ends at {end}")).with("end", end));
        }
        let permit = turn(&call.agent).await?;
        // Both streams' lines, and what may become context of each.
        let loan =
            call.agent.room.lend(2 * (LINE_BYTES + wanted.before * (wanted.lines.max_bytes + LINE_MEMORY))).await?;
        let control = Arc::new(Control::new(u64::MAX));
        let _stops = StopOnDrop(control.clone());
        let (sender, mut found) = mpsc::channel(1);
        let mut keeps = Kept { found: Vec::new(), bytes_left: limits.search_bytes.value };
        let is_streamed = events.wanted();
        let search = {
            let (control, share, runtime) = (control.clone(), call.share.clone(), Handle::current());
            let (pattern, options) = (request.pattern.clone(), options(&request));
            tokio::task::spawn_blocking(move || {
                let _held = (permit, loan);
                let matcher = pattern::compile(&pattern, &options)?;
                let mut tell = |event: CommandSearchEvent| {
                    if is_streamed {
                        return sender.blocking_send(event).is_ok();
                    }
                    keeps.take(event, |bytes| share.try_gather(bytes))
                };
                let mut response = run(&runtime, command, (offset, end), &matcher, wanted, &control, &mut tell);
                response.found = keeps.found;
                Ok::<_, Problem>(response)
            })
        };
        let timer = tokio::time::sleep(timeout);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                event = found.recv() => {
                    // The search has ended, and with it who sends.
                    let Some(event) = event else { break };
                    note(&call, &event);
                    events.send(event).await.map_err(|CallerGone| super::search::gone())?;
                }
                () = &mut timer, if control.why().is_none() => control.stop(Stop::Timeout),
            }
        }
        let response: CommandSearchResponse = search.await.map_err(|error| failed(&error))??;
        response.found.iter().for_each(|event| note(&call, event));
        Ok(CommandSearchResponse {
            id: request.id,
            elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..response
        })
    }

    fn touches(request: &CommandSearchRequest, touched: &mut Touched) {
        touched.command(&request.id);
        touched.detail(&request.pattern);
    }
}

/// Reads the log and searches it; blocks.
fn run<'a>(
    runtime: &Handle,
    command: Arc<Command>,
    (offset, end): (u64, u64),
    matcher: &'a RegexMatcher,
    wanted: Wanted,
    control: &Control,
    tell: &'a mut lines::Tell<'a>,
) -> CommandSearchResponse {
    let mut lines = Lines::new(matcher, wanted, offset, tell);
    let mut viewer = Viewer::new(command, offset, false);
    let (mut goes_on, mut follows) = (true, true);
    // It follows nothing, so it waits for the disk at most.
    while goes_on
        && !control.is_stopped()
        && let Some(event) = runtime.block_on(viewer.next())
    {
        goes_on = match event {
            CommandEvent::Stdout { offset, data, .. } => lines.push(OutputStream::Stdout, offset, &bytes(data)),
            CommandEvent::Stderr { offset, data, .. } => lines.push(OutputStream::Stderr, offset, &bytes(data)),
            CommandEvent::Gap { from, to } => lines.gap(from, to),
            CommandEvent::Exit { .. } => {
                follows = false;
                true
            }
            CommandEvent::Status { .. } => true,
        };
    }
    let stopped = control.why() == Some(Stop::Timeout);
    let (counts, next) = lines.end(goes_on && !control.is_stopped(), follows);
    let mut truncated: Vec<SearchTruncation> = counts.left.iter().map(|left| left.0).collect();
    if stopped && truncated.is_empty() {
        truncated.push(SearchTruncation::Timeout);
    }
    CommandSearchResponse {
        matched_lines: counts.matched_lines,
        searched_bytes: counts.searched_bytes,
        long_lines: counts.long_lines,
        offset: next,
        end,
        truncated,
        ..CommandSearchResponse::default()
    }
}

fn bytes(data: Data) -> Vec<u8> {
    // What the agent itself has encoded.
    data.into_bytes().unwrap_or_default()
}

/// For the audit log: what went out.
fn note(call: &Call, event: &CommandSearchEvent) {
    if let CommandSearchEvent::Match(line) | CommandSearchEvent::Context(line) = event {
        call.notes.note(|touched| touched.went_out(line.data.decoded_bytes()));
    }
}

/// What a collected answer keeps.
struct Kept {
    found: Vec<CommandSearchEvent>,
    bytes_left: u64,
}

impl Kept {
    /// Takes an event; false when there is no room for it.
    fn take(&mut self, event: CommandSearchEvent, room: impl Fn(usize) -> bool) -> bool {
        let text = match &event {
            CommandSearchEvent::Match(line) | CommandSearchEvent::Context(line) => {
                let (Data::Text(text) | Data::Base64(text)) = &line.data;
                text.len() + size_of_val(&line.ranges[..])
            }
            CommandSearchEvent::Gap { .. } => 0,
        };
        let bytes = text + LINE_MEMORY;
        match self.bytes_left.checked_sub(bytes as u64).filter(|_| room(bytes)) {
            Some(left) => {
                self.bytes_left = left;
                self.found.push(event);
                true
            }
            None => false,
        }
    }
}

fn options(request: &CommandSearchRequest) -> PatternOptions {
    PatternOptions {
        literal: request.literal == Some(true),
        case: request.case.unwrap_or_default(),
        word: request.word == Some(true),
        whole_line: request.whole_line == Some(true),
        multiline: false,
        dot_all: false,
        crlf: request.crlf == Some(true),
        nul_is_text: true,
    }
}

fn wanted(limits: &Limits, request: &CommandSearchRequest) -> Result<Wanted, Problem> {
    let context = |field: &str, lines: Option<u32>| match lines.unwrap_or(0) {
        lines if lines > MAX_CONTEXT => Err(out_of_range(field, lines.into(), 0, MAX_CONTEXT.into())),
        lines => Ok(lines as usize),
    };
    let max_line_bytes = request.max_line_bytes.unwrap_or(1_024);
    if !(1..=MAX_LINE_BYTES).contains(&max_line_bytes) {
        return Err(out_of_range("maxLineBytes", max_line_bytes.into(), 1, MAX_LINE_BYTES.into()));
    }
    Ok(Wanted {
        invert: request.invert == Some(true),
        crlf: request.crlf == Some(true),
        before: context("before", request.before)?,
        after: context("after", request.after)?,
        max_matches: max_matches(limits, request.max_matches)?,
        lines: LineOptions { columns: request.columns.unwrap_or_default(), max_bytes: max_line_bytes as usize },
    })
}

#[cfg(test)]
mod tests;
