//! Time as the idle engine counts it: this machine's monotonic clock, which nobody sets and which stands while the machine is
//! suspended. It is the same for all processes until the machine starts anew, so that what one host has counted another goes on
//! counting.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment of the monotonic clock, in milliseconds since the machine started. Negative: before it did, as far as was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(i64);

impl Moment {
    #[cfg(test)]
    pub(crate) const fn at(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// How long ago `earlier` was; nothing, where it wasn't earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(duration)))
    }

    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(milliseconds(duration)))
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tells the time. Clones tell the same.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    boot: Arc<str>,
    /// What the machine's clock said when ours began. From there on tokio's is asked, which tests can hold and move.
    base: Moment,
    begun: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        // Where it can't be read (no /proc), each process counts for itself.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let base = Moment(now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000));
        Self { boot: boot.trim().into(), base, begun: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        self.base.after(self.begun.elapsed())
    }

    /// The same moment for tokio's timers.
    pub(crate) fn instant(&self, moment: Moment) -> tokio::time::Instant {
        self.begun + moment.since(self.base)
    }

    /// A moment in the form that outlives the process, and the start of the machine.
    pub(crate) fn stamp(&self, moment: Moment) -> Stamp {
        Stamp { boot: self.boot.to_string(), at: moment.0 }
    }

    /// Back again. None when the machine was started anew since, or when nobody can tell.
    pub(crate) fn moment(&self, stamp: &Stamp) -> Option<Moment> {
        let known = !self.boot.is_empty() && stamp.boot == *self.boot;
        // One that lies ahead was never told by this clock.
        known.then_some(Moment(stamp.at)).filter(|moment| *moment <= self.now())
    }
}

/// A moment as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    boot: String,
    at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_survives_the_process_but_not_the_machine() {
        let one = Clock::new();
        let stamp = one.stamp(one.now());
        tokio::time::advance(Duration::from_secs(5)).await;
        let other = Clock { begun: one.begun, ..Clock::new() };
        let moment = other.moment(&stamp).unwrap();
        let past = other.now().since(moment);
        assert!(past >= Duration::from_secs(5) && past < Duration::from_secs(6), "{past:?}");
        let booted = Clock { boot: "another".into(), ..one.clone() };
        assert_eq!(booted.moment(&stamp), None);
        let nameless = Clock { boot: "".into(), ..one.clone() };
        assert_eq!(nameless.moment(&nameless.stamp(nameless.now())), None);
        let ahead = one.stamp(one.now().after(Duration::from_secs(60)));
        assert_eq!(one.moment(&ahead), None, "a stamp of the future is no one's");
    }

    #[tokio::test(start_paused = true)]
    async fn timers_and_moments_agree() {
        let clock = Clock::new();
        let due = clock.now().after(Duration::from_secs(90));
        tokio::time::sleep_until(clock.instant(due)).await;
        assert!(clock.now() >= due && clock.now().since(due) < Duration::from_millis(5));
    }
}
