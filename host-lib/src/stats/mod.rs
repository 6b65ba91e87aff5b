//! What workspaces use: now, as a stream, and over the last 24 hours.
//!
//! All workspaces of a home are measured in one round every five seconds: the engine answers all questions of a round at its own next
//! moment, which costs it a quarter of what its streams (one sample a second for each container) do. This room says what was
//! used; what follows from it, limits and pauses, is decided elsewhere.

mod history;
mod monitor;
mod owners;
mod sample;
mod store;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use corehold_types::Timestamp;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use self::history::Grain;
pub(crate) use self::monitor::Monitor;
use crate::{
    error::{ErrorKind, Result},
    host::Host,
    life::WorkspaceState,
    runtime::Stats,
    workspace::{Workspace, WorkspaceId},
};

/// What a workspace uses at one moment. What is counted is counted since the start of its container.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkspaceStats {
    /// When it was measured.
    pub at: Timestamp,
    /// What it was doing. Unless it runs or is paused, it uses nothing.
    pub state: WorkspaceState,
    /// Memory in use, in bytes, without the page cache that the kernel can drop.
    pub memory_bytes: u64,
    /// Memory that it may use, in bytes; without a limit, what the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Share of that limit in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// CPUs in use since the sample before, in percent of one CPU: 200 is two of them. Absent in a first sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// CPU time used, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes that came in over its network.
    pub network_received_bytes: u64,
    /// Bytes that went out over its network.
    pub network_sent_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What a workspace used in an interval that ended at a moment: means of what is in use, amounts of what is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StatsPoint {
    /// When the interval ended, to the second.
    pub at: Timestamp,
    /// Mean memory in use, in bytes, to the KiB.
    pub memory_bytes: u64,
    /// Memory that it might use, in bytes, to the KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Mean CPUs in use, in percent of one CPU; absent where nobody could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// CPU time used, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes that came in over the network.
    pub network_received_bytes: u64,
    /// Bytes that went out over the network.
    pub network_sent_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_written_bytes: u64,
    /// The most processes and threads.
    pub pids: u64,
}

/// What was used over a time, oldest first. Moments in which nothing was measured, or the workspace didn't run, have no point.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StatsHistory {
    /// Between two points, in seconds: 5 where all of the time that was asked for lies in the last hour, else 60.
    pub every_seconds: u64,
    /// The points.
    pub points: Vec<StatsPoint>,
}

/// The time of a [`StatsHistory`]: from a moment to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatsRange {
    /// The first moment.
    pub from: Timestamp,
    /// The last moment.
    pub to: Timestamp,
}

impl StatsRange {
    /// From a moment to another. Nothing is kept longer than 24 hours.
    #[must_use]
    pub const fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to }
    }

    /// The last of this long until now: an hour comes in steps of 5 seconds, more in steps of a minute.
    #[must_use]
    pub fn last(duration: Duration) -> Self {
        let to = Timestamp::now();
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { from: Timestamp::from_unix(to.as_unix_seconds().saturating_sub(seconds), 0), to }
    }
}

/// Samples of a workspace as they are measured, every five seconds: a [`Stream`] that ends when the workspace is removed, and with the
/// host. Who reads slowly misses the older ones.
#[must_use = "it only tells what is read from it"]
pub struct StatsStream(Pin<Box<dyn Stream<Item = WorkspaceStats> + Send>>);

impl StatsStream {
    /// The next sample. Cancel-safe.
    pub async fn next(&mut self) -> Option<WorkspaceStats> {
        std::future::poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }
}

impl Stream for StatsStream {
    type Item = WorkspaceStats;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WorkspaceStats>> {
        self.0.as_mut().poll_next(context)
    }
}

impl Workspace {
    /// What it uses now: the sample measured last where the host measures (see
    /// [`HostBuilder::measure`](crate::HostBuilder::measure)), else one measured for this call, in which
    /// [`cpu_percent`](WorkspaceStats::cpu_percent) is absent. One that sleeps uses nothing. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it was removed; those of the engine.
    pub async fn stats(&self) -> Result<WorkspaceStats> {
        match self.place().await {
            Ok(place) => self.monitor().now(self.id(), &place.container).await,
            // It has no container, whatever it is doing.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let state = self.info().await?.state;
                Ok(sample::told(Timestamp::now(), state, &Stats::default(), None))
            }
            Err(error) => Err(error),
        }
    }

    /// What it uses from now on. The host measures all workspaces of its home from the first such call on; of one of another home
    /// nothing is told.
    pub fn follow_stats(&self) -> StatsStream {
        self.monitor().follow(self.id(), self.about().labelled.created)
    }

    /// What it used, as far as a host measured and not longer ago than 24 hours. Cancel-safe.
    pub async fn stats_history(&self, range: StatsRange) -> StatsHistory {
        let grain = Grain::of(range, Timestamp::now());
        self.monitor().history(self.id(), range, grain).await
    }
}

impl Host {
    /// What several workspaces used together, such as those of a team: their minutes, added up. Of one that was removed the name must not be
    /// another's by now. Cancel-safe.
    pub async fn stats_history_of(&self, workspaces: &[WorkspaceId], range: StatsRange) -> StatsHistory {
        let mut all = Vec::with_capacity(workspaces.len());
        for id in workspaces {
            all.push(self.monitor().history(id, range, Grain::Coarse).await);
        }
        history::sum(all)
    }

    /// What all workspaces of an owner ([`CreateWorkspace::owner`](crate::CreateWorkspace::owner)) used together, those that were removed
    /// since included: their minutes, added up, as far as a host of this home measured and not longer ago than 24 hours. A minute is
    /// told when it is over, or its workspace is removed. Kept for the 4,096 owners that used something last; of anybody else there are no
    /// points. Cancel-safe.
    pub async fn stats_history_of_owner(&self, owner: &str, range: StatsRange) -> StatsHistory {
        self.monitor().history_of_owner(owner, range).await
    }
}
