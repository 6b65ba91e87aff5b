//! What the checks of one workspace come to: the decision, without clock, agent or engine.

use std::time::Duration;

use super::{HealthPolicy, RestartPolicy};
use crate::idle::Moment;

/// Between the end of a container and its next start: the first, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Nothing; it has just become well again, or for the first time.
    Recovered,
    /// Nothing yet: it failed as many times in a row.
    Failing,
    /// It is unhealthy, and isn't to be restarted.
    Unhealthy,
    /// To be restarted, for this time in a row.
    Restart(u32),
    /// It was restarted as often as may be: somebody must look at it. Told once.
    Alert,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit_code: Option<i64>,
    pub(crate) oom_killed: bool,
    /// Whether somebody stopped it on purpose.
    pub(crate) on_purpose: bool,
    /// Whether it had ended when this host began.
    pub(crate) before_us: bool,
}

/// What is known of one workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor {
    /// The last check: when, and why it failed.
    last: Option<(Moment, Option<String>)>,
    failures: u32,
    /// Since when every check went well.
    well_since: Option<Moment>,
    /// In a row, without its being well in between.
    restarts: u32,
    alerted: bool,
    up_since: Option<Moment>,
    /// Which change of the workspace this is about: what was found before another one is of the past.
    generation: Option<i64>,
    /// When it is to be started again.
    start: Option<Moment>,
    /// How its container ended, unless somebody stopped it.
    end: Option<String>,
}

impl Monitor {
    /// It runs, since now as far as is known.
    pub(crate) fn up(&mut self, now: Moment) {
        self.up_since.get_or_insert(now);
    }

    /// Whether what is known is about the workspace since its last change.
    pub(crate) fn is_of(&self, generation: i64) -> bool {
        self.generation == Some(generation)
    }

    /// From here on it is about the workspace since that change. Failures in a row were of what ran before; restarts count on.
    pub(crate) fn of(&mut self, generation: i64) {
        if self.generation.replace(generation) != Some(generation) {
            self.failures = 0;
            self.up_since = None;
            self.well_since = None;
            self.start = None;
        }
    }

    /// To be started again at a moment.
    pub(crate) fn start_at(&mut self, due: Moment) {
        self.start = Some(due);
    }

    pub(crate) fn start_due(&self) -> Option<Moment> {
        self.start
    }

    pub(crate) fn started(&mut self) {
        self.start = None;
    }

    pub(crate) fn ended_because(&mut self, reason: Option<String>) {
        self.end = reason;
    }

    /// Why it isn't well.
    pub(crate) fn reason(&self) -> Option<&str> {
        let failure = self.last.as_ref().and_then(|(_, failure)| failure.as_deref());
        self.end.as_deref().or(failure)
    }

    /// It doesn't run any more, or stands still.
    pub(crate) fn down(&mut self) {
        self.up_since = None;
        self.well_since = None;
        self.failures = 0;
    }

    /// Whether it is well; none while nobody knows.
    pub(crate) fn is_healthy(&self, policy: &HealthPolicy) -> Option<bool> {
        let (_, failure) = self.last.as_ref()?;
        match failure {
            None => Some(true),
            Some(_) if self.failures >= policy.failures => Some(false),
            // It was well before it failed these few times; or nobody has ever seen it well.
            Some(_) => self.well_since.map(|_| true),
        }
    }

    pub(crate) fn last(&self) -> Option<(Moment, Option<&str>)> {
        self.last.as_ref().map(|(at, failure)| (*at, failure.as_deref()))
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(crate) fn uptime(&self, now: Moment) -> Option<Duration> {
        self.up_since.map(|since| now.since(since))
    }

    /// A check was made: `failure` says why it failed.
    pub(crate) fn checked(&mut self, policy: &HealthPolicy, now: Moment, failure: Option<String>) -> Verdict {
        let failed = failure.is_some();
        self.end = None;
        let before = self.last.replace((now, failure)).map(|(_, failure)| failure.is_none());
        if !failed {
            self.failures = 0;
            let since = *self.well_since.get_or_insert(now);
            // As long as it takes to be found unhealthy: what fails again and again after a moment isn't well.
            if self.restarts > 0 && now.since(since) >= policy.every.saturating_mul(policy.failures) {
                (self.restarts, self.alerted) = (0, false);
            }
            return if before == Some(true) { Verdict::Fine } else { Verdict::Recovered };
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < policy.failures {
            return Verdict::Failing;
        }
        self.well_since = None;
        let first = self.failures == policy.failures;
        if policy.restart == RestartPolicy::No {
            return if first { Verdict::Unhealthy } else { Verdict::Failing };
        }
        self.restart(policy)
    }

    /// Its container has ended.
    pub(crate) fn ended(&mut self, policy: &HealthPolicy, end: End) -> Verdict {
        self.down();
        let failed = end.oom_killed || end.exit_code != Some(0);
        let again = match policy.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always => !end.on_purpose || end.before_us,
            RestartPolicy::UnlessStopped => !end.on_purpose,
            RestartPolicy::OnFailure => !end.on_purpose && failed,
        };
        if again { self.restart(policy) } else { Verdict::Fine }
    }

    fn restart(&mut self, policy: &HealthPolicy) -> Verdict {
        if self.restarts < policy.restarts {
            self.restarts += 1;
            self.failures = 0;
            return Verdict::Restart(self.restarts);
        }
        if std::mem::replace(&mut self.alerted, true) { Verdict::Failing } else { Verdict::Alert }
    }

    /// How long to wait before it is started again.
    pub(crate) fn pause(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << self.restarts.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment::at(seconds * 1000)
    }

    fn fails() -> Option<String> {
        Some("it does not answer".to_owned())
    }

    const CRASH: End = End { exit_code: Some(1), oom_killed: false, on_purpose: false, before_us: false };

    #[test]
    fn three_failures_in_a_row_restart_it_and_three_restarts_are_followed_by_one_alert() {
        let policy = HealthPolicy::default();
        let mut monitor = Monitor::default();
        assert_eq!(monitor.is_healthy(&policy), None);
        assert_eq!(monitor.checked(&policy, at(0), None), Verdict::Recovered);
        let mut now = 0;
        let mut told = Vec::new();
        for _ in 0..15 {
            now += 30;
            told.push(monitor.checked(&policy, at(now), fails()));
        }
        let counted = |verdict: &Verdict| told.iter().filter(|told| *told == verdict).count();
        assert_eq!(told[..3], [Verdict::Failing, Verdict::Failing, Verdict::Restart(1)]);
        assert_eq!((told[5].clone(), told[8].clone()), (Verdict::Restart(2), Verdict::Restart(3)));
        assert_eq!((told[11].clone(), counted(&Verdict::Alert)), (Verdict::Alert, 1));
        assert_eq!(monitor.is_healthy(&policy), Some(false));
        assert_eq!(monitor.last().unwrap(), (at(now), Some("it does not answer")));
    }

    #[test]
    fn failures_that_are_not_in_a_row_are_none() {
        let policy = HealthPolicy::default();
        let mut monitor = Monitor::default();
        for round in 0..10 {
            let now = round * 90;
            assert_ne!(monitor.checked(&policy, at(now), fails()), Verdict::Restart(1));
            assert_eq!(monitor.checked(&policy, at(now + 30), fails()), Verdict::Failing);
            assert_eq!(monitor.checked(&policy, at(now + 60), None), Verdict::Recovered);
            assert_eq!((monitor.failures(), monitor.is_healthy(&policy)), (0, Some(true)));
        }
    }

    #[test]
    fn restarts_are_forgotten_when_it_has_been_well_for_long_enough() {
        let policy = HealthPolicy::default();
        let mut monitor = Monitor::default();
        assert_eq!(monitor.ended(&policy, CRASH), Verdict::Restart(1));
        monitor.checked(&policy, at(0), None);
        assert_eq!(monitor.ended(&policy, CRASH), Verdict::Restart(2), "well for a moment is not well");
        for check in 0..=3 {
            monitor.checked(&policy, at(100 + check * 30), None);
        }
        assert_eq!(monitor.restarts(), 0);
        assert_eq!(monitor.ended(&policy, CRASH), Verdict::Restart(1));
    }

    #[test]
    fn each_start_waits_longer_than_the_one_before() {
        let policy = HealthPolicy::default().restarts(20);
        let mut monitor = Monitor::default();
        let pauses: Vec<_> = (0..20)
            .map(|_| {
                monitor.ended(&policy, CRASH);
                monitor.pause()
            })
            .collect();
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE) && pauses[19] == LONGEST_PAUSE);
    }

    #[test]
    fn the_restart_policy_decides_what_is_started_again() {
        let clean = End { exit_code: Some(0), ..CRASH };
        let oom = End { exit_code: Some(0), oom_killed: true, ..CRASH };
        let unknown = End { exit_code: None, ..CRASH };
        let on_purpose = End { on_purpose: true, ..CRASH };
        let before_us = End { before_us: true, ..on_purpose };
        let starts = |restart, end| {
            let policy = HealthPolicy::default().restart(restart);
            matches!(Monitor::default().ended(&policy, end), Verdict::Restart(1))
        };
        let ends = [CRASH, clean, oom, unknown, on_purpose, before_us];
        let told = |restart| ends.map(|end| starts(restart, end));
        assert_eq!(told(RestartPolicy::No), [false; 6]);
        assert_eq!(told(RestartPolicy::Always), [true, true, true, true, false, true]);
        assert_eq!(told(RestartPolicy::UnlessStopped), [true, true, true, true, false, false]);
        assert_eq!(told(RestartPolicy::OnFailure), [true, false, true, true, false, false]);
    }

    #[test]
    fn whoever_changes_the_workspace_meanwhile_leaves_nothing_to_be_started() {
        let mut monitor = Monitor::default();
        monitor.of(1);
        monitor.start_at(at(1));
        monitor.of(1);
        assert_eq!(monitor.start_due(), Some(at(1)));
        monitor.of(2);
        assert_eq!(monitor.start_due(), None);
    }

    #[test]
    fn without_restarts_it_is_said_once_that_it_is_unhealthy() {
        let policy = HealthPolicy::default().restart(RestartPolicy::No);
        let mut monitor = Monitor::default();
        let told: Vec<_> = (0..5).map(|check| monitor.checked(&policy, at(check * 30), fails())).collect();
        assert_eq!(told.iter().filter(|verdict| **verdict == Verdict::Unhealthy).count(), 1);
    }

    #[test]
    fn time_up_is_counted_from_its_start() {
        let mut monitor = Monitor::default();
        assert_eq!(monitor.uptime(at(5)), None);
        monitor.up(at(10));
        monitor.up(at(20));
        assert_eq!(monitor.uptime(at(25)), Some(Duration::from_secs(15)));
        monitor.down();
        assert_eq!(monitor.uptime(at(30)), None);
    }
}
