//! `watch`: tells what changes, until the caller leaves or the time is over.

use std::{sync::Arc, time::Duration};

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{ActivitySource, Watch, WatchEvent, WatchRequest, WatchResponse},
};
use rustix::io::Errno;
use tokio::time::Instant;

use super::command::refused;
use crate::{
    agent::Agent,
    config::Limits,
    handler::{Call, Events, Handler},
    root::os_problem,
    search::filter::Filter,
    watch::{CantWatch, Change, Incomplete, Listening, Told, What},
};

const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT_MS: u64 = 600_000;
const DEFAULT_QUIET_MS: u64 = 50;

impl Handler for Watch {
    fn keeps_awake(_: &Self::Request, streamed: bool) -> Option<ActivitySource> {
        Some(if streamed { ActivitySource::Watch } else { ActivitySource::Call })
    }

    async fn handle(call: Call, request: WatchRequest, events: Events<WatchEvent>) -> Result<WatchResponse, Problem> {
        let agent = call.agent;
        let path = request.path.clone().unwrap_or_else(|| ".".into());
        let (what, filter) = what(&agent, &request, &path)?;
        let wait = request.timeout_ms.map(Duration::from_millis);
        let end = wait.or((!events.wanted()).then_some(DEFAULT_WAIT)).map(|wait| Instant::now() + wait);
        let _permit = Arc::clone(&agent.watch_calls)
            .try_acquire_owned()
            .map_err(|_| agent.config.limits.watches.exceeded("the number of those who watch"))?;
        let mut listening = begin(&agent, what, filter, &path).await?;
        loop {
            let told = tokio::select! {
                told = listening.next() => told,
                () = over(end) => return Ok(WatchResponse::default()),
                () = events.closed() => return Ok(WatchResponse::default()),
                () = agent.shutting_down() => {
                    return Err(Problem::new(Code::ShuttingDown, "the agent is shutting down"));
                }
            };
            let changes = match told {
                Told::Changes(changes) => changes,
                Told::Ready(directories) => {
                    if events.send(WatchEvent::Ready { directories: directories as u64 }).await.is_err() {
                        return Ok(WatchResponse::default());
                    }
                    continue;
                }
                Told::Over => {
                    let over = "the changes can't be watched any more; the agent's log says why";
                    return Err(Problem::new(Code::Internal, over));
                }
            };
            let changes = changes.iter().map(event);
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

async fn begin(agent: &Arc<Agent>, what: What, filter: Filter, path: &WorkspacePath) -> Result<Listening, Problem> {
    let beginner = Arc::clone(agent);
    // The answer is dropped, and with it what was begun, if the caller leaves meanwhile.
    let begun = tokio::task::spawn_blocking(move || beginner.watches.listen(&beginner, what, filter)).await;
    let begun = begun.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    begun.map_err(|error| refusal(error, &agent.config.limits, path))
}

/// What lacks, and whose limit it is.
fn refusal(error: CantWatch, limits: &Limits, path: &WorkspacePath) -> Problem {
    let smaller = "name a smaller `path` or fewer `globs`, ignore what needn't be watched, or raise";
    match error {
        CantWatch::Start(errno) => os_problem(errno, "watch", path),
        CantWatch::Trees => limits.watch_trees.exceeded("the number of trees that are watched").suggest(
            "end another `watch`, ask for what another one watches (with the same fields), or raise the limit",
        ),
        CantWatch::Incomplete(Incomplete::Allowance) => limits
            .watch_directories
            .exceeded("the number of directories that are watched")
            .suggest(format!("{smaller} the limit")),
        CantWatch::Incomplete(Incomplete::Kernel(Errno::NOSPC)) => {
            let setting = "/proc/sys/fs/inotify/max_user_watches";
            kernels(
                "directories can't be watched",
                Errno::NOSPC,
                setting,
                &format!("{smaller} {setting} on the machine"),
            )
        }
        CantWatch::Instance(Errno::MFILE) => {
            let setting = "/proc/sys/fs/inotify/max_user_instances";
            let end =
                format!("end another `watch` or another program that watches files, or raise {setting} on the machine");
            kernels("no further tree can be watched", Errno::MFILE, setting, &end)
        }
        CantWatch::Incomplete(Incomplete::Kernel(errno)) | CantWatch::Instance(errno) => {
            no_resources(&std::io::Error::from(errno))
        }
        CantWatch::Thread(error) => no_resources(&error),
    }
}

fn kernels(what: &str, errno: Errno, setting: &str, suggestion: &str) -> Problem {
    let error = std::io::Error::from(errno);
    Problem::new(Code::LimitExceeded, format!("{what}: {error}; the kernel allows this user as many as {setting} says"))
        .with("setting", setting)
        .suggest(suggestion)
}

fn no_resources(error: &std::io::Error) -> Problem {
    Problem::new(Code::LimitExceeded, format!("no more can be watched: {error}"))
        .suggest("end another `watch`, or raise the limits of memory, processes and open files that hold for the agent")
}

fn what(agent: &Agent, request: &WatchRequest, path: &WorkspacePath) -> Result<(What, Filter), Problem> {
    let quiet = request.debounce_ms.unwrap_or(DEFAULT_QUIET_MS);
    if !(10..=10_000).contains(&quiet) {
        return Err(refused("debounceMs", "a time from 10 to 10,000 ms is possible"));
    }
    if request.timeout_ms.is_some_and(|timeout| timeout > LONGEST_WAIT_MS) {
        return Err(refused("timeoutMs", "a wait of at most 600,000 ms is possible"));
    }
    let hidden = request.hidden.unwrap_or(true);
    let filter = Filter::new(&request.globs, &[], &[], hidden)?;
    let what = What {
        start: agent.root.relative(path)?.as_prefix().to_vec(),
        recursive: request.recursive.unwrap_or(true),
        globs: request.globs.clone(),
        hidden,
        ignore_files: request.ignore_files.unwrap_or(true),
        quiet: Duration::from_millis(quiet),
    };
    Ok((what, filter))
}

fn event(change: &Change) -> WatchEvent {
    let path = |path: &[u8]| WorkspacePath::from_bytes(if path.is_empty() { b"." } else { path });
    match change {
        Change::Created(at, directory) => WatchEvent::Created { path: path(at), directory: *directory },
        Change::Modified(at) => WatchEvent::Modified { path: path(at) },
        Change::Removed(at, directory) => WatchEvent::Removed { path: path(at), directory: *directory },
        Change::Renamed(from, to, directory) => {
            WatchEvent::Renamed { from: path(from), to: path(to), directory: *directory }
        }
        Change::Resync(at, reason) => WatchEvent::Resync { path: path(at), reason: *reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_limit_it_is_is_said() {
        let limits = Limits::default();
        for (error, name) in [
            (CantWatch::Trees, "COREHOLD_LIMIT_WATCH_TREES"),
            (CantWatch::Incomplete(Incomplete::Allowance), "COREHOLD_LIMIT_WATCH_DIRECTORIES"),
            (CantWatch::Incomplete(Incomplete::Kernel(Errno::NOSPC)), "/proc/sys/fs/inotify/max_user_watches"),
            (CantWatch::Instance(Errno::MFILE), "/proc/sys/fs/inotify/max_user_instances"),
            (CantWatch::Instance(Errno::NFILE), "open files"),
            (CantWatch::Thread(Errno::AGAIN.into()), "processes"),
        ] {
            let shown = format!("{error:?}");
            let problem = refusal(error, &limits, &".".into());
            assert_eq!(problem.code, Code::LimitExceeded, "{shown}");
            let said = format!("{} {:?} {:?}", problem.detail, problem.context, problem.suggestion);
            assert!(said.contains(name), "{shown}: {said}");
        }
        assert_eq!(refusal(CantWatch::Start(Errno::NOENT), &limits, &".".into()).code, Code::NotFound);
    }
}
