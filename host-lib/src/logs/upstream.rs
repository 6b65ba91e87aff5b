//! The one reader of a workspace's commands, or of its agent's log, that all others read from.
//!
//! It goes on over everything but the workspace's removal: where a connection breaks off, it begins again at the offset to which it
//! had come; where the agent was started anew, with the commands of the new one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use corehold_types::tools::{
    AuditRead, AuditReadRequest, CommandInfo, CommandOutput, CommandOutputRequest, Info, InfoRequest,
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{
    Kind, LogItem, LogSource,
    lines::Splitter,
    progress::{Progress, listed},
    shared::Shared,
};
use crate::{
    create::OutputStream,
    error::Result,
    events::{EventKind, Events},
    workspace::Workspace,
};

/// Between attempts to reach a workspace: the first, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reads until the workspace is removed or the task is ended.
pub(super) async fn run(workspace: Workspace, kind: Kind, shared: Arc<Shared>) {
    let mut events = workspace.host_events();
    let mut commands = Commands::default();
    let mut agent = AgentLog::default();
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let reading = async {
            match kind {
                Kind::Commands => commands.read(&workspace, &shared).await,
                Kind::Agent => agent.read(&workspace, &shared).await,
            }
        };
        tokio::select! {
            () = removal(&mut events, &workspace) => break,
            result = reading => match result {
                Ok(()) => {}
                Err(error) => tracing::debug!(workspace = %workspace.id(), %error, "reading the log broke off"),
            },
        }
        // What another process removes while it sleeps, no event tells of.
        if workspace.is_no_more().await {
            break;
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = removal(&mut events, &workspace) => break,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
    shared.close();
}

/// Waits until the workspace is gone, or the host.
async fn removal(events: &mut Events, workspace: &Workspace) {
    while let Some(event) = events.next().await {
        match event.kind {
            EventKind::Removed | EventKind::Vanished if event.workspace.as_ref() == Some(workspace.id()) => return,
            // A removal may be among them.
            EventKind::Missed { .. } if workspace.is_no_more().await => return,
            _ => {}
        }
    }
}

/// The commands of one agent, and how far each was read.
#[derive(Default)]
struct Commands {
    boot_id: Option<String>,
    known: HashMap<String, Arc<Mutex<Progress>>>,
}

impl Commands {
    /// Reads all commands until the connection breaks off.
    async fn read(&mut self, workspace: &Workspace, shared: &Arc<Shared>) -> Result<()> {
        let boot_id = workspace.ask::<Info>(&InfoRequest::default()).await?.boot_id;
        if self.boot_id.as_ref() != Some(&boot_id) {
            // Ids of commands begin anew with an agent.
            *self = Self { boot_id: Some(boot_id), known: HashMap::new() };
        }
        // Who starts a command leaves a record. From the newest on, before the listing: none falls in between.
        let newest = AuditReadRequest { limit: Some(1), tool: Some("command".to_owned()), ..Default::default() };
        let after = Some(workspace.ask::<AuditRead>(&newest).await?.last);
        let follow = AuditReadRequest { after, tool: newest.tool, follow: Some(true), ..Default::default() };
        let mut records = workspace.ask_stream::<AuditRead>(&follow).await?;

        let mut reading: FuturesUnordered<BoxFuture<'static, Result<()>>> = FuturesUnordered::new();
        // Over this connection; what was read over one before goes on where it was.
        let mut followed = HashSet::new();
        let mut look = true;
        loop {
            if std::mem::take(&mut look) {
                let listed = listed(workspace, None).await?;
                // Those that the agent has forgotten, or that are too many.
                self.known.retain(|id, _| listed.iter().any(|command| command.id == *id));
                for command in listed {
                    let progress = self.known.entry(command.id.clone());
                    let progress = progress.or_insert_with(|| Arc::new(Mutex::new(Progress::of_tail(&command))));
                    let progress = progress.clone();
                    if !lock(&progress).is_done() && followed.insert(command.id.clone()) {
                        let follower = follow_command(workspace.clone(), command, progress, shared.clone());
                        reading.push(follower.boxed());
                    }
                }
            }
            tokio::select! {
                Some(result) = reading.next() => result?,
                record = records.next() => match record {
                    Some(frame) => {
                        frame?;
                        // One look is enough for all that are there.
                        while let Some(Some(frame)) = records.next().now_or_never() {
                            frame?;
                        }
                        look = true;
                    }
                    None => return Ok(()),
                },
                () = shared.look.notified() => look = true,
            }
        }
    }
}

/// Follows one command to its end.
async fn follow_command(
    workspace: Workspace,
    command: CommandInfo,
    progress: Arc<Mutex<Progress>>,
    shared: Arc<Shared>,
) -> Result<()> {
    let source = LogSource::Command { id: command.id.clone(), label: command.label };
    let offset = Some(lock(&progress).offset());
    let request = CommandOutputRequest { id: command.id, offset, follow: Some(true), ..Default::default() };
    let mut output = workspace.ask_stream::<CommandOutput>(&request).await?;
    while let Some(frame) = output.next().await {
        lock(&progress).take(frame?, &source, |item| shared.push(item));
    }
    Ok(())
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The agent's own log, as the engine keeps it for a container, over its restarts.
#[derive(Default)]
struct AgentLog {
    container: Option<crate::runtime::ContainerId>,
    read: u64,
    lines: Splitter,
}

impl AgentLog {
    async fn read(&mut self, workspace: &Workspace, shared: &Shared) -> Result<()> {
        let place = workspace.place().await?;
        if self.container.as_ref() != Some(&place.container) {
            *self = Self { container: Some(place.container.clone()), ..Self::default() };
        }
        let mut log = workspace.agent_logs(true);
        // An engine tells it from the beginning each time.
        let mut known = self.read;
        while let Some(bytes) = log.next().await {
            let bytes = bytes?;
            let skipped = known.min(bytes.len() as u64);
            known -= skipped;
            let new = &bytes[usize::try_from(skipped).unwrap_or(usize::MAX)..];
            self.read += new.len() as u64;
            self.lines.feed(new, |text, continues| {
                shared.push(LogItem::line(&LogSource::Agent, OutputStream::Stderr, text, continues));
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        CreateWorkspace,
        logs::{LogLine, LogOptions, LogStream, progress::TAIL_BYTES},
        testing::{AgentScript, CommandLog, EngineScript, Fixture},
    };

    async fn fixture(commands: &[(&str, &str, bool)]) -> (Fixture, Workspace, Arc<CommandLog>) {
        let log = Arc::new(CommandLog::default());
        set(&log, commands);
        let agent = AgentScript { log: Some(log.clone()), ..AgentScript::default() };
        let fixture = Fixture::new(EngineScript::default(), agent).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        (fixture, workspace, log)
    }

    fn set(log: &CommandLog, commands: &[(&str, &str, bool)]) {
        let of = |(id, text, ended): &(&str, &str, bool)| ((*id).to_owned(), ((*text).to_owned(), *ended));
        *log.commands.lock().unwrap() = commands.iter().map(of).collect();
    }

    /// The next lines as `command: text`.
    async fn lines(stream: &mut LogStream, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            match stream.next().await.expect("another line") {
                LogItem::Line(LogLine { source: LogSource::Command { id, label }, text, .. }) => {
                    assert_eq!(label, Some(format!("label-{id}")));
                    lines.push(format!("{id}: {text}"));
                }
                LogItem::Line(line) => lines.push(line.text),
                LogItem::Ended { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    #[tokio::test]
    async fn all_readers_get_all_lines_of_all_commands_from_one_reader() {
        let (_fixture, workspace, log) = fixture(&[("1", "one\ntwo\n", true), ("2", "three\nunfinished", true)]).await;
        let mut streams: Vec<_> = (0..8).map(|_| workspace.logs(LogOptions::default())).collect();
        let mut only = workspace.logs(LogOptions::default().label("label-2"));
        for stream in &mut streams {
            let mut seen = lines(stream, 4).await;
            seen.sort();
            assert_eq!(seen, ["1: one", "1: two", "2: three", "2: unfinished"]);
        }
        assert_eq!(lines(&mut only, 2).await, ["2: three", "2: unfinished"]);
        assert_eq!(lines(&mut workspace.logs(LogOptions::default()), 4).await.len(), 4, "a late one as well");

        // A command that is started while they read.
        set(&log, &[("3", "new\n", false)]);
        workspace.log_rooms().command_started(workspace.id());
        assert_eq!(lines(&mut streams[0], 1).await, ["3: new"]);
        assert_eq!(log.offsets.lock().unwrap().len(), 3, "each command was read once for all readers");
        workspace.remove().await.unwrap();
        while streams[0].next().await.is_some() {}
        assert!(matches!(only.next().await, Some(LogItem::Ended { code: Some(0), .. })));
        assert!(only.next().await.is_none());
    }

    #[tokio::test]
    async fn a_connection_that_breaks_off_loses_and_repeats_nothing() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let (_fixture, workspace, log) = fixture(&[("1", &text, true)]).await;
        log.breaks_after.store(333, Ordering::Relaxed);
        tokio::time::pause();
        let seen = lines(&mut workspace.logs(LogOptions::default()), 100).await;
        assert_eq!(seen, (0..100).map(|number| format!("1: line {number}")).collect::<Vec<_>>());
        assert_eq!(*log.offsets.lock().unwrap(), [0, 333, 666]);
    }

    #[tokio::test]
    async fn a_restart_is_survived_and_ids_that_come_again_are_other_commands() {
        let (fixture, workspace, log) = fixture(&[("1", "before\n", false)]).await;
        let mut stream = workspace.logs(LogOptions::default());
        assert_eq!(lines(&mut stream, 1).await, ["1: before"]);
        set(&log, &[("1", "after\n", false)]);
        log.boot.store(1, Ordering::Relaxed);
        fixture.engine.restart_agent("corehold-w").await;
        assert_eq!(lines(&mut stream, 1).await, ["1: after"]);
    }

    #[tokio::test]
    async fn of_what_was_written_long_before_only_the_end_is_read() {
        let text = format!("{}\nthe end\n", "x".repeat(100 << 10));
        let (_fixture, workspace, log) = fixture(&[("1", &text, true)]).await;
        assert_eq!(lines(&mut workspace.logs(LogOptions::default()), 1).await, ["1: the end"]);
        assert_eq!(*log.offsets.lock().unwrap(), [text.len() as u64 - TAIL_BYTES]);
    }

    #[tokio::test]
    async fn who_doesnt_follow_gets_all_that_there_is_and_its_end() {
        let long = format!("{}\nthe end\nunfinished", "x".repeat(100 << 10));
        let (_fixture, workspace, log) = fixture(&[("1", "one\n", true), ("2", &long, false)]).await;
        let told: Vec<LogItem> = workspace.logs(LogOptions::default().agent(true).follow(false)).collect().await;
        let source = LogSource::Command { id: "1".to_owned(), label: Some("label-1".to_owned()) };
        assert_eq!(told[1], LogItem::Ended { source, code: Some(0), signal: None });
        let text = |item: &LogItem| if let LogItem::Line(line) = item { Some(line.text.clone()) } else { None };
        let texts: Vec<String> = told.iter().filter_map(text).collect();
        assert_eq!(
            (texts[0].as_str(), texts[1].len()),
            ("one", 8 << 10),
            "from the beginning, not the newest lines of it"
        );
        assert_eq!(texts[texts.len() - 3..], ["the end", "unfinished", "the agent's last words"]);
        let labelled = workspace.logs(LogOptions::default().label("label-1").follow(false));
        assert_eq!(labelled.count().await, 2);
        assert_eq!(*log.offsets.lock().unwrap(), [0, 0, 0], "nothing is read that isn't wanted");

        // What can't be read is told, and then nothing more is.
        workspace.stop(Duration::ZERO).await.unwrap();
        let told: Vec<LogItem> = workspace.logs(LogOptions::default().follow(false)).collect().await;
        assert!(matches!(told.as_slice(), [LogItem::BrokenOff { .. }]), "{told:?}");
    }

    /// Reads on until the stream ends.
    async fn ends(stream: &mut LogStream) {
        let reading = async { while stream.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it ends");
    }

    #[tokio::test]
    async fn one_that_another_process_removes_in_its_sleep_ends_the_stream() {
        let (fixture, workspace, _) = fixture(&[("1", "one\n", true)]).await;
        workspace.sleep(Duration::ZERO).await.unwrap();
        tokio::time::pause();
        let mut stream = workspace.logs(LogOptions::default().agent(true));
        assert!(tokio::time::timeout(3 * LONGEST_PAUSE, stream.next()).await.is_err(), "it may wake");
        let other = fixture.builder().reconciles(false).build().await.unwrap();
        other.workspace("w").await.unwrap().remove().await.unwrap();
        ends(&mut stream).await;
        ends(&mut workspace.logs(LogOptions::default())).await;
    }

    /// Regression: more than the bus holds happened at once, a removal among it.
    #[tokio::test]
    async fn a_removal_among_events_that_were_missed_ends_the_stream() {
        let (fixture, workspace, _) = fixture(&[("1", "one\n", false)]).await;
        let mut stream = workspace.logs(LogOptions::default());
        assert_eq!(lines(&mut stream, 1).await, ["1: one"]);
        // Its connection doesn't break off, and nobody tells that it is gone.
        let _agent = fixture.engine.forget("corehold-w");
        let state = &fixture.host.inner.store;
        let entry = state.get(workspace.id()).await.unwrap().unwrap();
        assert!(state.delete(&entry).await.unwrap());
        for _ in 0..2000 {
            fixture.host.inner.events.emit(None, EventKind::EngineBack);
        }
        ends(&mut stream).await;
    }

    #[tokio::test]
    async fn the_agents_log_is_told_once_however_often_it_is_read() {
        let (_fixture, workspace, _) = fixture(&[]).await;
        tokio::time::pause();
        let mut stream = workspace.logs(LogOptions::default().commands(false).agent(true));
        // The fake engine ends its log at once, so that it is read again and again.
        assert_eq!(lines(&mut stream, 1).await, ["the agent's last words"]);
        assert!(tokio::time::timeout(Duration::from_secs(60), stream.next()).await.is_err());
    }

    #[tokio::test]
    async fn who_reads_no_more_ends_the_reader() {
        let (fixture, workspace, _) = fixture(&[("1", "one\n", false)]).await;
        let mut stream = workspace.logs(LogOptions::default());
        lines(&mut stream, 1).await;
        let mut events = fixture.host.events();
        drop((stream, workspace, fixture));
        // What it held of the host is let go, too.
        while events.next().await.is_some() {}
    }
}
