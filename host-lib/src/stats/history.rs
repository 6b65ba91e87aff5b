//! What is kept of the samples: one every five seconds for an hour, one a minute for 24 hours.
//!
//! A point takes 64 bytes, so that a workspace measured for a day holds 135 KiB.

use std::collections::{BTreeMap, VecDeque};

use corehold_types::Timestamp;

use super::{StatsHistory, StatsPoint, StatsRange, WorkspaceStats, sample::Amounts};

/// Between two samples.
pub(super) const FINE_SECONDS: u64 = 5;
/// Between two points of what is kept longer.
pub(super) const COARSE_SECONDS: u64 = 60;
/// How long the samples themselves are kept.
const FINE_KEPT_SECONDS: u64 = 3600;
/// How long anything is kept.
pub(super) const KEPT_SECONDS: u64 = 24 * 3600;

/// How far apart points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// Single samples, of the last hour.
    Fine,
    /// Whole minutes, which end at the same moments for all workspaces.
    Coarse,
}

impl Grain {
    /// The finest in which a range is kept.
    pub(super) fn of(range: StatsRange, now: Timestamp) -> Self {
        if now.since(range.from).as_secs() <= FINE_KEPT_SECONDS { Self::Fine } else { Self::Coarse }
    }
}

/// A point as it is kept.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: u32,
    memory_kib: u32,
    /// 0: unknown.
    limit_kib: u32,
    /// In hundredths of a percent; `u32::MAX`: unknown.
    cpu: u32,
    pids: u32,
    amounts: Amounts,
}

const UNKNOWN: u32 = u32::MAX;

/// The samples of one workspace.
#[derive(Default)]
pub(super) struct History {
    fine: Ring<{ (FINE_KEPT_SECONDS / FINE_SECONDS) as usize }>,
    coarse: Ring<{ (KEPT_SECONDS / COARSE_SECONDS) as usize }>,
    minute: Option<Minute>,
}

/// A minute that goes on.
struct Minute {
    number: u32,
    samples: u32,
    memory_kib: u64,
    limit_kib: u32,
    cpu: u64,
    cpu_samples: u32,
    pids: u32,
    amounts: Amounts,
}

impl History {
    /// Takes a sample; returns the point of a minute that is over with it.
    pub(super) fn take(&mut self, sample: &WorkspaceStats, amounts: Option<Amounts>) -> Option<StatsPoint> {
        let point = Point {
            at: narrow(u64::try_from(sample.at.as_unix_seconds()).unwrap_or(0)),
            memory_kib: narrow(sample.memory_bytes / 1024),
            limit_kib: narrow(sample.memory_limit_bytes.unwrap_or(0) / 1024),
            cpu: sample.cpu_percent.map_or(UNKNOWN, |percent| (percent * 100.0).clamp(0.0, 4e9) as u32),
            pids: narrow(sample.pids),
            amounts: amounts.unwrap_or_default(),
        };
        self.fine.push(point);
        let number = point.at / COARSE_SECONDS as u32;
        let over = self.minute.take_if(|minute| minute.number != number).map(|minute| minute.point());
        if let Some(over) = over {
            self.coarse.push(over);
        }
        self.minute.get_or_insert_with(|| Minute::new(number)).add(&point);
        over.map(|point| point.told())
    }

    /// The point of the minute that goes on, which nothing is added to any more.
    pub(super) fn end(&mut self) -> Option<StatsPoint> {
        self.minute.take().map(|minute| minute.point().told())
    }

    /// Puts points of a host before ours before all others; they are in their order.
    pub(super) fn restore(&mut self, points: &[StatsPoint]) {
        for point in points {
            self.coarse.push(Point::of(point));
        }
    }

    pub(super) fn points(&self, range: StatsRange, grain: Grain) -> StatsHistory {
        let wanted = |points: &VecDeque<Point>| {
            let told = points.iter().map(|point| point.told());
            told.filter(|point| range.from <= point.at && point.at <= range.to).collect()
        };
        match grain {
            Grain::Fine => StatsHistory { every_seconds: FINE_SECONDS, points: wanted(&self.fine.0) },
            Grain::Coarse => StatsHistory { every_seconds: COARSE_SECONDS, points: wanted(&self.coarse.0) },
        }
    }

    /// When something was measured last.
    pub(super) fn last_second(&self) -> u64 {
        self.fine.0.back().or(self.coarse.0.back()).map_or(0, |point| u64::from(point.at))
    }
}

impl Minute {
    fn new(number: u32) -> Self {
        Self {
            number,
            samples: 0,
            memory_kib: 0,
            limit_kib: 0,
            cpu: 0,
            cpu_samples: 0,
            pids: 0,
            amounts: Amounts::default(),
        }
    }

    fn add(&mut self, point: &Point) {
        self.samples += 1;
        self.memory_kib += u64::from(point.memory_kib);
        self.limit_kib = point.limit_kib;
        if point.cpu != UNKNOWN {
            self.cpu += u64::from(point.cpu);
            self.cpu_samples += 1;
        }
        self.pids = self.pids.max(point.pids);
        self.amounts.add(&point.amounts);
    }

    fn point(&self) -> Point {
        Point {
            at: (self.number + 1).saturating_mul(COARSE_SECONDS as u32),
            memory_kib: narrow(self.memory_kib / u64::from(self.samples.max(1))),
            limit_kib: self.limit_kib,
            cpu: if self.cpu_samples == 0 { UNKNOWN } else { narrow(self.cpu / u64::from(self.cpu_samples)) },
            pids: self.pids,
            amounts: self.amounts,
        }
    }
}

impl Point {
    fn of(told: &StatsPoint) -> Self {
        Self {
            at: narrow(u64::try_from(told.at.as_unix_seconds()).unwrap_or(0)),
            memory_kib: narrow(told.memory_bytes / 1024),
            limit_kib: narrow(told.memory_limit_bytes.unwrap_or(0) / 1024),
            cpu: told.cpu_percent.map_or(UNKNOWN, |percent| (percent * 100.0).clamp(0.0, 4e9) as u32),
            pids: narrow(told.pids),
            amounts: Amounts {
                cpu_ms: told.cpu_ms,
                network_received_bytes: told.network_received_bytes,
                network_sent_bytes: told.network_sent_bytes,
                disk_read_bytes: told.disk_read_bytes,
                disk_written_bytes: told.disk_written_bytes,
            },
        }
    }

    fn told(&self) -> StatsPoint {
        StatsPoint {
            at: Timestamp::from_unix(i64::from(self.at), 0),
            memory_bytes: u64::from(self.memory_kib) * 1024,
            memory_limit_bytes: Some(u64::from(self.limit_kib) * 1024).filter(|limit| *limit > 0),
            cpu_percent: (self.cpu != UNKNOWN).then(|| f64::from(self.cpu) / 100.0),
            cpu_ms: self.amounts.cpu_ms,
            network_received_bytes: self.amounts.network_received_bytes,
            network_sent_bytes: self.amounts.network_sent_bytes,
            disk_read_bytes: self.amounts.disk_read_bytes,
            disk_written_bytes: self.amounts.disk_written_bytes,
            pids: u64::from(self.pids),
        }
    }
}

impl Amounts {
    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.cpu_ms, other.cpu_ms),
            (&mut self.network_received_bytes, other.network_received_bytes),
            (&mut self.network_sent_bytes, other.network_sent_bytes),
            (&mut self.disk_read_bytes, other.disk_read_bytes),
            (&mut self.disk_written_bytes, other.disk_written_bytes),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX - 1)
}

/// The newest points, in their order of time.
#[derive(Default)]
struct Ring<const POINTS: usize>(VecDeque<Point>);

impl<const POINTS: usize> Ring<POINTS> {
    fn push(&mut self, point: Point) {
        // A clock that was set back: what it had counted ahead would be out of order for ever.
        while self.0.back().is_some_and(|last| last.at >= point.at) {
            self.0.pop_back();
        }
        if self.0.len() == POINTS {
            self.0.pop_front();
        } else if self.0.len() == self.0.capacity() {
            // A doubled queue would be half empty at its bound.
            self.0.reserve_exact((POINTS / 8).min(POINTS - self.0.len()));
        }
        self.0.push_back(point);
    }
}

/// Adds up what several workspaces used in the same minutes.
pub(super) fn sum(all: Vec<StatsHistory>) -> StatsHistory {
    let mut minutes: BTreeMap<Timestamp, StatsPoint> = BTreeMap::new();
    for point in all.into_iter().flat_map(|history| history.points) {
        let Some(sum) = minutes.get_mut(&point.at) else {
            minutes.insert(point.at, point);
            continue;
        };
        sum.memory_limit_bytes = match (sum.memory_limit_bytes, point.memory_limit_bytes) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            _ => None,
        };
        sum.cpu_percent = match (sum.cpu_percent, point.cpu_percent) {
            (Some(one), Some(other)) => Some(((one + other) * 100.0).round() / 100.0),
            (one, other) => one.or(other),
        };
        for (sum, more) in [
            (&mut sum.memory_bytes, point.memory_bytes),
            (&mut sum.cpu_ms, point.cpu_ms),
            (&mut sum.network_received_bytes, point.network_received_bytes),
            (&mut sum.network_sent_bytes, point.network_sent_bytes),
            (&mut sum.disk_read_bytes, point.disk_read_bytes),
            (&mut sum.disk_written_bytes, point.disk_written_bytes),
            (&mut sum.pids, point.pids),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
    StatsHistory { every_seconds: COARSE_SECONDS, points: minutes.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::WorkspaceState;

    const BEGIN: i64 = 1_700_000_040;

    fn sample(second: i64, memory_bytes: u64, cpu_percent: Option<f64>) -> WorkspaceStats {
        let stats = crate::runtime::Stats {
            memory_bytes,
            memory_limit_bytes: Some(1 << 20),
            pids: 3,
            ..crate::runtime::Stats::default()
        };
        super::super::sample::told(at(second), WorkspaceState::Ready, &stats, cpu_percent)
    }

    fn ever() -> StatsRange {
        StatsRange::new(at(0), at(i64::MAX))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(second, 0)
    }

    fn amounts(bytes: u64) -> Option<Amounts> {
        Some(Amounts { network_received_bytes: bytes, ..Amounts::default() })
    }

    #[test]
    fn a_minute_is_the_mean_and_the_sum_of_its_samples() {
        let mut history = History::default();
        assert_eq!(history.take(&sample(BEGIN, 2048, None), None), None);
        history.take(&sample(BEGIN + 5, 4096, Some(10.0)), amounts(7));
        history.take(&sample(BEGIN + 55, 6144, Some(20.0)), amounts(8));
        let minute = history.take(&sample(BEGIN + 60, 9, Some(90.0)), amounts(100)).unwrap();
        assert_eq!((minute.at, minute.memory_bytes, minute.cpu_percent), (at(BEGIN + 60), 4096, Some(15.0)));
        assert_eq!((minute.network_received_bytes, minute.memory_limit_bytes, minute.pids), (15, Some(1 << 20), 3));
        let all = history.points(ever(), Grain::of(ever(), at(BEGIN + 60)));
        assert_eq!((all.every_seconds, all.points), (60, vec![minute]));
    }

    #[test]
    fn a_day_is_bounded_and_its_last_hour_is_fine() {
        let mut history = History::default();
        let day = KEPT_SECONDS as i64;
        for second in (0..2 * day).step_by(5) {
            history.take(&sample(BEGIN + second, 1024, Some(1.0)), amounts(1));
        }
        let now = at(BEGIN + 2 * day);
        let day_ago = StatsRange::new(at(BEGIN + day), now);
        let coarse = history.points(day_ago, Grain::of(day_ago, now));
        assert_eq!((coarse.every_seconds, coarse.points.len()), (60, 1440));
        assert!(coarse.points.iter().all(|point| point.network_received_bytes == 12));
        let hour = StatsRange::new(at(BEGIN + 2 * day - 3600), now);
        let fine = history.points(hour, Grain::of(hour, now));
        assert_eq!((fine.every_seconds, fine.points.len()), (5, 720));
        let bytes = (history.fine.0.capacity() + history.coarse.0.capacity()) * size_of::<Point>();
        assert!(bytes <= 135 << 10, "{bytes}");
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_the_order() {
        let mut history = History::default();
        for second in [0, 60, 120, 180, 65, 130] {
            history.take(&sample(BEGIN + second, 1024, None), None);
        }
        for grain in [Grain::Fine, Grain::Coarse] {
            let points = history.points(ever(), grain).points;
            assert!(points.is_sorted_by(|one, other| one.at < other.at), "{points:?}");
        }
    }

    #[test]
    fn what_several_use_is_added_up_by_minute() {
        let (mut one, mut other) = (History::default(), History::default());
        for second in [0, 20, 40, 60, 80, 120] {
            one.take(&sample(BEGIN + second, 1024, Some(1.5)), amounts(10));
        }
        for second in [70, 130] {
            other.take(&sample(BEGIN + second, 2048, Some(2.0)), amounts(1));
        }
        let points = |history: &History| history.points(ever(), Grain::Coarse);
        let told = sum(vec![points(&one), points(&other)]);
        let shown: Vec<_> = told
            .points
            .iter()
            .map(|point| {
                let second = point.at.as_unix_seconds() - BEGIN;
                (second, point.memory_bytes, point.cpu_percent.unwrap(), point.network_received_bytes, point.pids)
            })
            .collect();
        assert_eq!(shown, [(60, 1024, 1.5, 30, 3), (120, 3072, 3.5, 21, 6)]);
        assert_eq!(sum(vec![]).points, []);
    }
}
