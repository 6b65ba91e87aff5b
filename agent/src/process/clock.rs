//! Time as commands live it: a paused container's clock goes on, but its commands don't, and neither may their time-outs.

use std::time::{Duration, Instant};

/// The longest the keeper sleeps while a time-out is armed. A sleep that took much longer than planned was no sleep: the
/// container was paused, or the machine gave it no time. That time doesn't count.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How much longer than planned a sleep may take before it is taken for a pause.
const TOLERANCE: Duration = Duration::from_millis(500);

/// The clock of time-outs.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    paused: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), paused: Duration::ZERO }
    }

    /// Unpaused time since the clock was made.
    pub(super) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Duration {
        now.duration_since(self.start).saturating_sub(self.paused)
    }

    /// Accounts for a sleep that was to take at most `planned`.
    pub(super) fn slept(&mut self, began: Instant, ended: Instant, planned: Duration) {
        let excess = ended.duration_since(began).saturating_sub(planned);
        if excess > TOLERANCE {
            self.paused += excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_does_not_count() {
        let mut clock = Clock::new();
        let began = clock.start + Duration::from_secs(10);
        clock.slept(began, began + Duration::from_secs(61), Duration::from_secs(1));
        assert_eq!(clock.at(began + Duration::from_secs(61)), Duration::from_secs(11));
    }

    #[test]
    fn a_late_wake_up_does() {
        let mut clock = Clock::new();
        let began = clock.start;
        clock.slept(began, began + Duration::from_millis(1_300), Duration::from_secs(1));
        assert_eq!(clock.at(began + Duration::from_millis(1_300)), Duration::from_millis(1_300));
    }
}
