//! What was written by now, and no more: read for one reader, as fast as it reads.

use corehold_types::tools::{CommandInfo, CommandOutput, CommandOutputRequest};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{
    Kind, LogItem, LogSource,
    lines::Splitter,
    progress::{Progress, listed},
};
use crate::{create::OutputStream, error::Result, workspace::Workspace};

/// All that the agent, or of its own lines the engine, has kept. What it fails with is the last that it tells.
pub(super) fn read(workspace: Workspace, kind: Kind, label: Option<String>) -> impl Stream<Item = LogItem> + Send {
    let items = match kind {
        Kind::Commands => commands(workspace, label).left_stream(),
        Kind::Agent => agent(workspace).right_stream(),
    };
    let mut broken = false;
    let items = items.take_while(move |item| {
        let goes_on = !broken;
        broken |= item.is_err();
        std::future::ready(goes_on)
    });
    items.map(|item| item.unwrap_or_else(|error| LogItem::BrokenOff { reason: error.to_string() }))
}

fn commands(workspace: Workspace, label: Option<String>) -> impl Stream<Item = Result<LogItem>> + Send {
    let of_each = {
        let workspace = workspace.clone();
        move |command: CommandInfo| output(workspace.clone(), command)
    };
    stream::once(async move { listed(&workspace, label).await })
        .map_ok(move |commands| stream::iter(commands.into_iter().map(Ok)).and_then(of_each.clone()).try_flatten())
        .try_flatten()
}

async fn output(workspace: Workspace, command: CommandInfo) -> Result<impl Stream<Item = Result<LogItem>> + Send> {
    let mut progress = Progress::of_all(&command);
    let source = LogSource::Command { id: command.id.clone(), label: command.label };
    let offset = Some(progress.offset());
    let request = CommandOutputRequest { id: command.id, offset, follow: Some(false), ..Default::default() };
    let frames = workspace.ask_stream::<CommandOutput>(&request).await?;
    let items = frames.map_ok(move |frame| {
        let mut items = Vec::new();
        progress.take(frame, &source, |item| items.push(Ok(item)));
        stream::iter(items)
    });
    Ok(items.try_flatten())
}

fn agent(workspace: Workspace) -> impl Stream<Item = Result<LogItem>> + Send {
    let mut lines = Splitter::default();
    let pieces = workspace.agent_logs(false).map_ok(Some).chain(stream::iter([Ok(None)]));
    let items = pieces.map_ok(move |piece| {
        let mut items = Vec::new();
        let mut push = |text, continues| {
            items.push(Ok(LogItem::line(&LogSource::Agent, OutputStream::Stderr, text, continues)));
        };
        match piece {
            Some(bytes) => lines.feed(&bytes, &mut push),
            None => lines.finish(&mut push),
        }
        stream::iter(items)
    });
    items.try_flatten()
}
