//! The end of a host: what becomes of its workspaces.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::{
    TransitionCause, WorkspaceState,
    transition::{Verb, detached, perform},
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::Host,
    workspace::WorkspaceId,
};

/// Workspaces that are ended at once.
const AT_ONCE: usize = 32;

/// What the engine may take beyond the grace.
const MARGIN: Duration = Duration::from_secs(5);

fn took_too_long(bound: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("it was not done within {} s", bound.as_secs_f64()))
        .hint("it goes on as long as the process lives; the next host finishes or undoes it")
}

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

    /// Ends the pools of this host, and pauses, stops or archives all workspaces of this home folder, in parallel, one failure blocking no
    /// other. What runs in one is ended by TERM, and by KILL after the grace. What was waited for in vain goes on in the background
    /// until the process ends; the next host finishes or undoes it. To be called last, on SIGTERM or SIGINT.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// When the workspaces can't be listed. What fails for one is in the report.
    pub async fn shutdown(&self, how: Shutdown, grace: Duration) -> Result<ShutdownReport> {
        self.pools.close();
        let (verb, which): (_, &[WorkspaceState]) = match how {
            Shutdown::LeaveRunning => return Ok(ShutdownReport::default()),
            Shutdown::Pause => (Verb::Pause, &[WorkspaceState::Ready]),
            Shutdown::Stop => (Verb::Stop, &[WorkspaceState::Ready, WorkspaceState::Paused]),
            Shutdown::Sleep => (Verb::Sleep, &[WorkspaceState::Ready, WorkspaceState::Paused, WorkspaceState::Stopped]),
        };
        let infos = self.list().await?;
        let all = infos.into_iter().filter(|info| which.contains(&info.state) || info.state.is_transitional());
        let ends = all.map(|info| async move {
            let (host, id) = (self.inner.clone(), info.id.clone());
            let work = async move { perform(&host, &id, verb, grace, TransitionCause::Asked, None).await };
            let end = detached(&self.inner, work);
            let bound = grace.saturating_add(MARGIN);
            let ended = match how {
                // How long that takes depends on how much there is to save.
                Shutdown::Sleep => end.await,
                _ => tokio::time::timeout(bound, end).await.unwrap_or_else(|_| Err(took_too_long(bound))),
            };
            (info.id, ended)
        });
        let mut ends = stream::iter(ends).buffer_unordered(AT_ONCE);
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
