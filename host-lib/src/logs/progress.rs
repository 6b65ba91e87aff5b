//! How far the output of a command was read, and the lines that came of it.

use corehold_types::{
    Timestamp,
    tools::{CommandEvent, CommandInfo, CommandList, CommandListRequest, CommandOutput, CommandResponse},
};

use super::{LogItem, LogLine, LogSource, lines::Splitter};
use crate::{client::Frame, create::OutputStream, error::Result, workspace::Workspace};

/// Of what a command had written before anybody followed it.
pub(super) const TAIL_BYTES: u64 = 64 << 10;
/// Commands that are looked at, the newest.
const COMMANDS: u32 = 100;
/// Label of health checks, which say the same every few seconds.
const HEALTH: &str = "health";

/// The commands to read, of all labels or one, oldest first, as they wrote.
pub(super) async fn listed(workspace: &Workspace, label: Option<String>) -> Result<Vec<CommandInfo>> {
    let request = CommandListRequest { limit: Some(COMMANDS), label, ..Default::default() };
    let mut listed = workspace.ask::<CommandList>(&request).await?.commands;
    listed.reverse();
    listed.retain(|command| command.label.as_deref() != Some(HEALTH));
    Ok(listed)
}

/// How far a command was read.
pub(super) struct Progress {
    offset: u64,
    outputs: [Splitter; 2],
    /// The first line of a stream is likely cut off, since its beginning was not read.
    cut: [bool; 2],
    done: bool,
}

impl Progress {
    /// From the beginning of what the agent has.
    pub(super) fn of_all(command: &CommandInfo) -> Self {
        Self::from(command.first_offset)
    }

    /// From the beginning of its newest lines.
    pub(super) fn of_tail(command: &CommandInfo) -> Self {
        Self::from(command.first_offset.max(command.offset.saturating_sub(TAIL_BYTES)))
    }

    fn from(offset: u64) -> Self {
        Self { offset, outputs: Default::default(), cut: [offset > 0; 2], done: false }
    }

    /// Where to read on.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all that comes was read.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Takes what came, and hands on what it completes.
    pub(super) fn take(&mut self, frame: Frame<CommandOutput>, source: &LogSource, mut push: impl FnMut(LogItem)) {
        let event = match frame {
            Frame::Event(event) => event,
            Frame::End(CommandResponse { exit, .. }) => {
                self.done = true;
                self.finish(source, &mut push);
                if let Some(exit) = exit {
                    push(LogItem::Ended { source: source.clone(), code: exit.code, signal: exit.signal });
                }
                return;
            }
        };
        let (stream, end, data) = match event {
            CommandEvent::Stdout { end, data, .. } => (OutputStream::Stdout, end, data),
            CommandEvent::Stderr { end, data, .. } => (OutputStream::Stderr, end, data),
            CommandEvent::Gap { from, to } => {
                // What was begun before it ends there.
                self.finish(source, &mut push);
                self.outputs.iter_mut().for_each(Splitter::clear);
                self.offset = to;
                push(LogItem::Gap { source: source.clone(), bytes: to.saturating_sub(from) });
                return;
            }
            CommandEvent::Status { .. } | CommandEvent::Exit { .. } => return,
        };
        self.offset = end;
        let index = stream as usize;
        let cut = &mut self.cut[index];
        // Malformed base64 can only come from a broken agent; nothing is known of what the command wrote then.
        self.outputs[index].feed(&data.to_bytes().unwrap_or_default(), |text, continues| {
            if !*cut {
                push(LogItem::line(source, stream, text, continues));
            }
            *cut = *cut && continues;
        });
    }

    /// Tells lines that were begun and don't end any more.
    fn finish(&mut self, source: &LogSource, push: &mut impl FnMut(LogItem)) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.outputs[stream as usize]
                .finish(|text, continues| push(LogItem::line(source, stream, text, continues)));
        }
    }
}

impl LogItem {
    pub(super) fn line(source: &LogSource, stream: OutputStream, text: String, continues: bool) -> Self {
        Self::Line(LogLine { at: Timestamp::now(), source: source.clone(), stream, text, continues })
    }
}
