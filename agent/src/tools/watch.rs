//! `watch`: tells what changes, until the caller leaves or the time is over.

use std::{sync::Arc, time::Duration};

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{ActivitySource, Watch, WatchEvent, WatchRequest, WatchResponse},
};
use tokio::time::Instant;

use super::command::refused;
use crate::{
    agent::Agent,
    handler::{Call, Events, Handler},
    root::os_problem,
    search::{filter::Filter, rules::RuleOptions},
    watch::{self, CantWatch, Change, Options, Watching},
};

const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT_MS: u64 = 600_000;
const DEFAULT_QUIET_MS: u64 = 50;

impl Handler for Watch {
    fn keeps_awake(streamed: bool) -> Option<ActivitySource> {
        Some(if streamed { ActivitySource::Watch } else { ActivitySource::Call })
    }

    async fn handle(call: Call, request: WatchRequest, events: Events<WatchEvent>) -> Result<WatchResponse, Problem> {
        let agent = call.agent;
        let path = request.path.clone().unwrap_or_else(|| ".".into());
        let options = options(&agent, &request, &path)?;
        let wait = request.timeout_ms.map(Duration::from_millis);
        let end = wait.or((!events.wanted()).then_some(DEFAULT_WAIT)).map(|wait| Instant::now() + wait);
        let _permit = Arc::clone(&agent.watches)
            .try_acquire_owned()
            .map_err(|_| agent.config.limits.watches.exceeded("the number of those who watch"))?;
        let mut watching = begin(&agent, options, &path).await?;
        let directories = watching.directories as u64;
        if events.send(WatchEvent::Ready { directories }).await.is_err() {
            return Ok(WatchResponse::default());
        }
        loop {
            let changes = tokio::select! {
                changes = watching.changes.recv() => changes,
                () = over(end) => return Ok(WatchResponse::default()),
                () = events.closed() => return Ok(WatchResponse::default()),
                () = agent.shutting_down() => {
                    return Err(Problem::new(Code::ShuttingDown, "the agent is shutting down"));
                }
            };
            let Some(changes) = changes else {
                return Err(Problem::new(
                    Code::Internal,
                    "the changes can't be watched any more; the agent's log says why",
                ));
            };
            let changes = changes.into_iter().map(event);
            if !events.wanted() {
                return Ok(WatchResponse { changes: changes.collect() });
            }
            for change in changes {
                if events.send(change).await.is_err() {
                    return Ok(WatchResponse::default());
                }
            }
        }
    }
}

async fn over(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn begin(agent: &Arc<Agent>, options: Options, path: &WorkspacePath) -> Result<Watching, Problem> {
    let most = agent.config.limits.watch_directories;
    let beginner = Arc::clone(agent);
    let begun = tokio::task::spawn_blocking(move || watch::start(&beginner, options)).await;
    let begun = begun.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let watching = begun.map_err(|error| match error {
        CantWatch::Start(errno) => os_problem(errno, "watch", path),
        CantWatch::Instance(error) => Problem::new(Code::LimitExceeded, format!("no more can be watched: {error}"))
            .suggest("end another `watch`, or raise fs.inotify.max_user_instances on the machine"),
    })?;
    if watching.complete {
        return Ok(watching);
    }
    let suggestion = "name a smaller `path` or fewer `globs`, ignore what needn't be watched, or raise the limit; the kernel's own is \
                      fs.inotify.max_user_watches";
    Err(most.exceeded("the number of directories to watch").suggest(suggestion))
}

fn options(agent: &Agent, request: &WatchRequest, path: &WorkspacePath) -> Result<Options, Problem> {
    let quiet = request.debounce_ms.unwrap_or(DEFAULT_QUIET_MS);
    if !(10..=10_000).contains(&quiet) {
        return Err(refused("debounceMs", "a time from 10 to 10,000 ms is possible"));
    }
    if request.timeout_ms.is_some_and(|timeout| timeout > LONGEST_WAIT_MS) {
        return Err(refused("timeoutMs", "a wait of at most 600,000 ms is possible"));
    }
    Ok(Options {
        start: agent.root.relative(path)?.as_prefix().to_vec(),
        recursive: request.recursive.unwrap_or(true),
        filter: Filter::new(&request.globs, &[], &[], request.hidden.unwrap_or(true))?,
        rules: RuleOptions { ignore_files: request.ignore_files.unwrap_or(true), require_git: false },
        quiet: Duration::from_millis(quiet),
        most: agent.config.limits.watch_directories.as_usize(),
    })
}

fn event(change: Change) -> WatchEvent {
    let path = |path: Vec<u8>| WorkspacePath::from_bytes(if path.is_empty() { b"." } else { &path });
    match change {
        Change::Created(at, directory) => WatchEvent::Created { path: path(at), directory },
        Change::Modified(at) => WatchEvent::Modified { path: path(at) },
        Change::Removed(at, directory) => WatchEvent::Removed { path: path(at), directory },
        Change::Renamed(from, to, directory) => WatchEvent::Renamed { from: path(from), to: path(to), directory },
        Change::Resync(at, reason) => WatchEvent::Resync { path: path(at), reason },
    }
}
