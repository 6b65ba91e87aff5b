//! The end of a host: what becomes of its workspaces.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::{
    TransitionCause, WorkspaceState,
    transition::{Verb, detached, perform},
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::Host,
    workspace::WorkspaceId,
};

/// The end of a shutdown's time: what the engine has for its own part, once everything inside was killed.
const ENGINE_SHARE: Duration = Duration::from_secs(2);

/// Workspaces that are saved at once: each holds some 20 MB meanwhile.
const SAVED_AT_ONCE: usize = 16;

/// How the time of a shutdown is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// For all of it.
    whole: Duration,
    /// From TERM to KILL.
    term: Duration,
}

impl Times {
    fn of(how: Shutdown, grace: Duration) -> Self {
        let term = match how {
            // Then there is as much to be saved in.
            Shutdown::Sleep => (grace / 2).min(Host::SHUTDOWN_GRACE),
            _ => grace.saturating_sub(ENGINE_SHARE).max(grace / 2),
        };
        Self { whole: grace.max(ENGINE_SHARE), term }
    }

    fn up(self, what: &str) -> Error {
        let hint = match what {
            NOT_DONE => "it goes on as long as the process lives; the next host finishes or undoes it",
            _ => "it is as it was; give the shutdown more time",
        };
        Error::new(ErrorKind::Timeout, format!("{what} within {} s", self.whole.as_secs_f64())).hint(hint)
    }
}

const NOT_DONE: &str = "it was not done";
const NOT_BEGUN: &str = "it was not begun";

/// What becomes of workspaces when their host ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shutdown {
    /// They run on; the next host finds them.
    #[default]
    LeaveRunning,
    /// Those that run are paused.
    Pause,
    /// Those that run or are paused are stopped.
    Stop,
    /// All are saved, and their containers removed.
    Sleep,
}

/// What became of them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Those that are as they were to be.
    pub done: Vec<WorkspaceId>,
    /// Those that are not, and why.
    pub failed: Vec<(WorkspaceId, Error)>,
}

impl Host {
    /// The grace of a shutdown that needs no other: 10 seconds.
    pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

    /// Ends the pools of this host and what it does by itself, and pauses, stops or archives all workspaces of this home folder, one
    /// failure blocking no other. To be called last, on SIGTERM or SIGINT.
    ///
    /// `grace` is the time for all of it, from the call to its answer, however many there are (but 2 s at least). All of them begin at once,
    /// 16 at a time where they are saved. What runs in one is ended by TERM, and by KILL two seconds before the time is up; where files are to
    /// be saved after that, at half the time, and after 10 s at the latest: how long saving takes depends on how much there is, so
    /// [`Shutdown::Sleep`] wants more time than the others. What is under way when the time is up goes on in the background until the
    /// process ends; the next host finishes or undoes it.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// When the workspaces can't be listed. What fails for one, or isn't done in time, is in the report.
    pub async fn shutdown(&self, how: Shutdown, grace: Duration) -> Result<ShutdownReport> {
        self.pools.close();
        // Or it would start again what is stopped here, and put to sleep what is to be left.
        self.supervisor.iter().for_each(|supervisor| supervisor.abort());
        let (verb, which): (_, &[WorkspaceState]) = match how {
            Shutdown::LeaveRunning => return Ok(ShutdownReport::default()),
            Shutdown::Pause => (Verb::Pause, &[WorkspaceState::Ready]),
            Shutdown::Stop => (Verb::Stop, &[WorkspaceState::Ready, WorkspaceState::Paused]),
            Shutdown::Sleep => (Verb::Sleep, &[WorkspaceState::Ready, WorkspaceState::Paused, WorkspaceState::Stopped]),
        };
        let times = Times::of(how, grace);
        let deadline = Instant::now() + times.whole;
        let room = Semaphore::new(if how == Shutdown::Sleep { SAVED_AT_ONCE } else { Semaphore::MAX_PERMITS });
        let infos = tokio::time::timeout_at(deadline, self.list()).await.map_err(|_| times.up(NOT_BEGUN))??;
        let all = infos.into_iter().filter(|info| which.contains(&info.state) || info.state.is_transitional());
        let ends = all.map(|info| async {
            let id = info.id;
            let Some(_room) = let_in(&room, deadline).await else { return (id, Err(times.up(NOT_BEGUN))) };
            let (host, ended) = (self.inner.clone(), id.clone());
            let work = async move { perform(&host, &ended, verb, times.term, TransitionCause::Asked, None).await };
            let end = tokio::time::timeout_at(deadline, detached(&self.inner, work)).await;
            (id, end.unwrap_or_else(|_| Err(times.up(NOT_DONE))))
        });
        let mut ends: FuturesUnordered<_> = ends.collect();
        let mut report = ShutdownReport::default();
        while let Some((id, end)) = ends.next().await {
            match end {
                Ok(()) => report.done.push(id),
                // Removed meanwhile, or ended by itself.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => report.failed.push((id, error)),
            }
        }
        Ok(report)
    }
}

/// Waits for room to begin in; none when the time is up before.
async fn let_in(room: &Semaphore, deadline: Instant) -> Option<SemaphorePermit<'_>> {
    let room = tokio::time::timeout_at(deadline, room.acquire()).await.ok()?.ok()?;
    // Who is let in at the last moment, since another one's time is up, would only begin.
    (Instant::now() < deadline).then_some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_begins_when_the_time_is_up_though_there_is_room() {
        let (room, now) = (Semaphore::new(1), Instant::now());
        assert!(let_in(&room, now + Duration::from_secs(1)).await.is_some());
        assert!(let_in(&room, now).await.is_none(), "it would begin what nobody waits for");
        // And nobody waits longer for room.
        let taken = room.acquire().await.unwrap();
        assert!(let_in(&room, now + Duration::from_secs(5)).await.is_none());
        assert_eq!(now.elapsed(), Duration::from_secs(5));
        drop(taken);
    }

    #[test]
    fn all_is_over_when_the_time_is_up() {
        let of = |how, grace| {
            let times = Times::of(how, Duration::from_millis(grace));
            (times.term.as_millis(), times.whole.as_millis())
        };
        assert_eq!(of(Shutdown::Stop, 10_000), (8_000, 10_000));
        assert_eq!(of(Shutdown::Stop, 3_000), (1_500, 3_000));
        assert_eq!(of(Shutdown::Stop, 0), (0, 2_000));
        assert_eq!(of(Shutdown::Sleep, 10_000), (5_000, 10_000));
        assert_eq!(of(Shutdown::Sleep, 600_000), (10_000, 600_000));
    }
}
