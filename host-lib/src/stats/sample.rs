//! From what the engine counts to what is told: shares, and amounts between two samples.

use corehold_types::Timestamp;

use super::WorkspaceStats;
use crate::{
    life::WorkspaceState,
    runtime::{ContainerId, Stats},
};

/// Samples nearer to each other say nothing about the CPU: the kernel counts in ticks.
const SHORTEST_MS: u128 = 100;

/// Remembers a workspace's sample before.
#[derive(Default)]
pub(super) struct Meter {
    before: Option<(ContainerId, Timestamp, Stats)>,
}

/// What was used between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) cpu_ms: u64,
    pub(super) network_received_bytes: u64,
    pub(super) network_sent_bytes: u64,
    pub(super) disk_read_bytes: u64,
    pub(super) disk_written_bytes: u64,
}

impl Meter {
    /// Takes a sample of a container that runs or is paused. The amounts are `None` for a first sample: nobody knows
    /// in which time what it counts was used.
    pub(super) fn take(
        &mut self,
        container: &ContainerId,
        state: WorkspaceState,
        stats: Stats,
    ) -> (WorkspaceStats, Option<Amounts>) {
        let at = stats.at.unwrap_or_else(Timestamp::now);
        let before = self.before.replace((container.clone(), at, stats));
        // Another container, or one that was started again, counts from nothing.
        let same = |id: &ContainerId, before: &Stats| id == container && before.cpu_ns <= stats.cpu_ns;
        let mut cpu_percent = None;
        let mut amounts = None;
        if let Some((id, earlier, before)) = before {
            let before = if same(&id, &before) { before } else { Stats::default() };
            let elapsed = at.since(earlier);
            let cpu_ns = stats.cpu_ns - before.cpu_ns;
            if elapsed.as_millis() >= SHORTEST_MS {
                cpu_percent = Some(rounded(cpu_ns as f64 / elapsed.as_nanos() as f64 * 100.0));
            }
            amounts = Some(Amounts {
                cpu_ms: cpu_ns / 1_000_000,
                network_received_bytes: stats.network_received_bytes.saturating_sub(before.network_received_bytes),
                network_sent_bytes: stats.network_sent_bytes.saturating_sub(before.network_sent_bytes),
                disk_read_bytes: stats.disk_read_bytes.saturating_sub(before.disk_read_bytes),
                disk_written_bytes: stats.disk_written_bytes.saturating_sub(before.disk_written_bytes),
            });
        }
        (told(at, state, &stats, cpu_percent), amounts)
    }
}

/// A sample as it is told.
pub(super) fn told(at: Timestamp, state: WorkspaceState, stats: &Stats, cpu_percent: Option<f64>) -> WorkspaceStats {
    WorkspaceStats {
        at,
        state,
        memory_bytes: stats.memory_bytes,
        memory_limit_bytes: stats.memory_limit_bytes,
        memory_percent: stats.memory_limit_bytes.map(|limit| rounded(stats.memory_bytes as f64 / limit as f64 * 100.0)),
        cpu_percent,
        cpu_ms: stats.cpu_ns / 1_000_000,
        network_received_bytes: stats.network_received_bytes,
        network_sent_bytes: stats.network_sent_bytes,
        disk_read_bytes: stats.disk_read_bytes,
        disk_written_bytes: stats.disk_written_bytes,
        pids: stats.pids,
    }
}

/// Hundredths of a percent are enough for anybody.
fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(second: i64, cpu_ms: u64, received: u64) -> Stats {
        Stats {
            at: Some(Timestamp::from_unix(second, 0)),
            memory_bytes: 50,
            memory_limit_bytes: Some(150),
            cpu_ns: cpu_ms * 1_000_000,
            network_received_bytes: received,
            ..Stats::default()
        }
    }

    fn id(name: &str) -> ContainerId {
        ContainerId(name.to_owned())
    }

    #[test]
    fn shares_are_of_the_time_between_two_samples_by_the_engines_clock() {
        let mut meter = Meter::default();
        let (first, amounts) = meter.take(&id("a"), WorkspaceState::Ready, stats(100, 70_000, 5));
        assert_eq!((first.cpu_percent, amounts), (None, None));
        assert_eq!((first.memory_percent, first.cpu_ms), (Some(33.33), 70_000));
        let (second, amounts) = meter.take(&id("a"), WorkspaceState::Ready, stats(105, 77_500, 12));
        assert_eq!(second.cpu_percent, Some(150.0));
        let amounts = amounts.unwrap();
        assert_eq!((amounts.cpu_ms, amounts.network_received_bytes), (7500, 7));
        // The same moment again, as when two ask at once, and a clock that was set back.
        for second in [105, 90] {
            let (sample, amounts) = meter.take(&id("a"), WorkspaceState::Paused, stats(second, 77_500, 12));
            assert_eq!((sample.cpu_percent, amounts), (None, Some(Amounts::default())));
        }
    }

    #[test]
    fn counters_that_begin_anew_are_no_use_below_nothing() {
        let mut meter = Meter::default();
        meter.take(&id("a"), WorkspaceState::Ready, stats(100, 70_000, 500));
        let (restarted, amounts) = meter.take(&id("a"), WorkspaceState::Ready, stats(110, 1000, 300));
        assert_eq!(restarted.cpu_percent, Some(10.0));
        assert_eq!(amounts.unwrap().network_received_bytes, 300);
        // Another container may have counted further already.
        let (woken, amounts) = meter.take(&id("b"), WorkspaceState::Ready, stats(120, 2000, 400));
        assert_eq!((woken.cpu_percent, amounts.unwrap().network_received_bytes), (Some(20.0), 400));
    }
}
