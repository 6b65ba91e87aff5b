//! What runs in a workspace writes, as whole lines, for any number of readers from one reader upstream.
//!
//! The lines of all commands and those of the agent itself. Nobody waits for a reader: one that is too slow is told how much it missed.
//! What was written before somebody asked is the agent's to keep (`commandOutput` has it by offset); here the newest lines of it come
//! first. Asking keeps no workspace awake and wakes none, but while commands are read, their output is a call that keeps it awake.

mod lines;
mod now;
mod progress;
mod shared;
mod upstream;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use corehold_types::Timestamp;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use self::shared::Shared;
use crate::{
    create::OutputStream,
    workspace::{Workspace, WorkspaceId},
};

/// Which lines to read. Default: those of all commands.
#[derive(Debug, Clone)]
#[must_use = "it is read by `Workspace::logs`"]
pub struct LogOptions {
    commands: bool,
    agent: bool,
    label: Option<String>,
    follow: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { commands: true, agent: false, label: None, follow: true }
    }
}

impl LogOptions {
    /// Only commands with this label: [`DEV`](crate::create::DEV) is the dev server, [`SETUP`](crate::create::SETUP) the
    /// set-up commands.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Whether the lines of commands are read. Default: true.
    pub fn commands(mut self, commands: bool) -> Self {
        self.commands = commands;
        self
    }

    /// Whether the lines that the agent itself logs are read. Default: false.
    pub fn agent(mut self, agent: bool) -> Self {
        self.agent = agent;
        self
    }

    /// Whether to go on with what comes. Default: true. Otherwise all that is kept of each command is told, one after the other, then
    /// the agent's own lines, and the stream ends.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    fn wants(&self, source: &LogSource) -> bool {
        match (source, &self.label) {
            (LogSource::Command { label, .. }, Some(wanted)) => label.as_ref() == Some(wanted),
            _ => true,
        }
    }
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum LogItem {
    /// A line.
    Line(LogLine),
    /// Lines that were dropped before this reader came to them, of any source: it is too slow.
    Missed {
        /// How many lines and marks.
        lines: u64,
    },
    /// Bytes of a command's output that were dropped before they were read: the agent's log of it is bounded.
    Gap {
        /// Of which command.
        source: LogSource,
        /// How many.
        bytes: u64,
    },
    /// A command has ended, and all its lines were told.
    Ended {
        /// Which command.
        source: LogSource,
        /// Its exit code; absent when a signal ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// The signal that ended it, such as `SIGKILL`.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// What the commands, or the agent, have written can't be read to its end. Only told to who doesn't
    /// [`follow`](LogOptions::follow), and may ask again; for those who do it is read on as soon as that can be.
    BrokenOff {
        /// Why.
        reason: String,
    },
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LogLine {
    /// When the host read it: of what was written before anybody read it, later than it was written.
    pub at: Timestamp,
    /// Whose it is.
    pub source: LogSource,
    /// Where it was written.
    pub stream: OutputStream,
    /// The line without its end; what isn't UTF-8 is replaced.
    pub text: String,
    /// Whether the line goes on in the next one of this source and stream: lines are split after 8 KiB.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

/// Who wrote a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum LogSource {
    /// A command.
    Command {
        /// Names it.
        id: String,
        /// The label that its caller gave.
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// The agent itself.
    Agent,
}

/// Lines of a workspace as they are written, the newest of those before first: a [`Stream`] that ends when the workspace is removed.
#[must_use = "it only tells what is read from it"]
pub struct LogStream(Pin<Box<dyn Stream<Item = LogItem> + Send>>);

impl LogStream {
    /// The next line. Cancel-safe.
    pub async fn next(&mut self) -> Option<LogItem> {
        std::future::poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }
}

impl Stream for LogStream {
    type Item = LogItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LogItem>> {
        self.0.as_mut().poll_next(context)
    }
}

impl Workspace {
    /// Follows what its commands write, and the agent itself if asked for: first the newest lines of what was written before, at most
    /// 64 KiB of each command, then what comes. Any number may follow at once. A command whose caller waits for it is noticed when
    /// that call ends, unless this host made the call. A restart of the workspace ends nothing. Must be called on a tokio runtime.
    ///
    /// With [`follow(false)`](LogOptions::follow) it is what was written by now, all that is kept of it, read for this reader alone; one
    /// that is paused or asleep isn't woken for it, so there is nothing to be read then.
    pub fn logs(&self, options: LogOptions) -> LogStream {
        let kinds = [(Kind::Commands, options.commands), (Kind::Agent, options.agent)];
        let kinds = kinds.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind));
        if options.follow {
            let streams = kinds.map(|kind| self.log_rooms().follow(self, kind, options.clone()));
            return LogStream(Box::pin(stream::select_all(streams)));
        }
        let streams: Vec<_> = kinds.map(|kind| now::read(self.clone(), kind, options.label.clone()).boxed()).collect();
        LogStream(stream::iter(streams).flatten().boxed())
    }
}

/// The upstream readers there are, one for each workspace and kind that somebody reads.
#[derive(Default)]
pub(crate) struct LogRooms(Mutex<HashMap<(WorkspaceId, Kind), Weak<Reader>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Commands,
    Agent,
}

/// Reads as long as somebody holds it.
struct Reader {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl LogRooms {
    fn follow(
        &self,
        workspace: &Workspace,
        kind: Kind,
        options: LogOptions,
    ) -> Pin<Box<dyn Stream<Item = LogItem> + Send>> {
        let (reader, (before, receiver)) = {
            let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.retain(|_, reader| reader.strong_count() > 0);
            let key = (workspace.id().clone(), kind);
            let reader = rooms.get(&key).and_then(Weak::upgrade).filter(|reader| !reader.shared.is_closed());
            let reader = reader.unwrap_or_else(|| {
                let shared = Arc::new(Shared::default());
                // It ends with its last reader, and holds the host no longer.
                let task = tokio::spawn(upstream::run(workspace.clone(), kind, shared.clone()));
                let reader = Arc::new(Reader { shared, _task: AbortOnDropHandle::new(task) });
                rooms.insert(key, Arc::downgrade(&reader));
                reader
            });
            let subscription = reader.shared.subscribe();
            (reader, subscription)
        };
        let wanted = move |item: &LogItem| {
            let wanted = match item {
                LogItem::Line(line) => options.wants(&line.source),
                LogItem::Gap { source, .. } | LogItem::Ended { source, .. } => options.wants(source),
                LogItem::Missed { .. } | LogItem::BrokenOff { .. } => true,
            };
            std::future::ready(wanted)
        };
        let live = stream::unfold((receiver, reader), |(mut receiver, reader)| async {
            Some((receiver.as_mut()?.next().await?, (receiver, reader)))
        });
        stream::iter(before).chain(live).filter(wanted).boxed()
    }

    /// A command was started in a workspace: whoever reads its commands looks for it.
    pub(crate) fn command_started(&self, workspace: &WorkspaceId) {
        let reader = {
            let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.get(&(workspace.clone(), Kind::Commands)).and_then(Weak::upgrade)
        };
        if let Some(reader) = reader {
            reader.shared.look.notify_one();
        }
    }
}
