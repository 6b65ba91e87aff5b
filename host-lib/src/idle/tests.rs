//! The decision about idleness: told as stories, then held against any history that can be.

use std::{collections::BTreeMap, time::Duration};

use corehold_types::{
    Timestamp,
    tools::{ActiveSource, ActivityResponse, ActivitySource, EndedSource},
};
use proptest::prelude::*;

use super::{
    AwakeSource, Expiry, IdlePolicy, TransitionTo,
    clock::{Clock, Moment},
    tracker::{Because, Kept, Outlook, Phase, Previews, Seen, Tracker},
};

const MINUTE: Duration = Duration::from_secs(60);

fn minutes(count: u32) -> Duration {
    MINUTE * count
}

fn at(minute: i64) -> Moment {
    Moment::at(minute * 60_000)
}

/// The agent's clock: another time altogether, in another year.
fn told(minute: i64) -> Timestamp {
    Timestamp::from_unix(4_000_000_000 + minute * 60, 0)
}

fn policy() -> IdlePolicy {
    IdlePolicy::default().pause_after(minutes(10)).archive_after(minutes(60))
}

/// What an agent says at a minute: these sources are active, those ended at their minutes.
fn says(minute: i64, active: &[ActivitySource], ended: &[(ActivitySource, i64)]) -> ActivityResponse {
    let active_source = |source: &ActivitySource| ActiveSource {
        source: *source,
        count: 1,
        since: told(minute - 1),
        reason: format!("1 {source:?}"),
        labels: BTreeMap::new(),
    };
    let last = ended.iter().map(|(_, at)| told(*at)).max();
    ActivityResponse {
        sources: active.iter().map(active_source).collect(),
        idle_since: active.is_empty().then(|| last.unwrap_or(told(0))),
        last_request: None,
        ended: ended.iter().map(|(source, at)| EndedSource { source: *source, at: told(*at) }).collect(),
        now: told(minute),
    }
}

fn seen(activity: &ActivityResponse) -> Seen<'_> {
    Seen { activity, previews: Previews::default(), cpu_ns: None }
}

/// One that was looked at when it began, and did nothing.
fn awake() -> Tracker {
    let mut tracker = Tracker::new(Phase::Awake, at(0), Duration::ZERO);
    assert_eq!(tracker.next_look(&policy()), Some(at(0)), "it is asked at once, for a beginning");
    tracker.observe(&policy(), at(0), &seen(&says(0, &[], &[])));
    tracker
}

fn paused_at(tracker: &Tracker, policy: &IdlePolicy) -> Option<Moment> {
    let outlook = tracker.outlook(policy)?;
    (outlook.to == TransitionTo::Paused).then_some(outlook.due)
}

#[test]
fn it_is_paused_when_nothing_counted_for_long_enough_then_archived() {
    let mut tracker = awake();
    assert_eq!(paused_at(&tracker, &policy()), Some(at(10)));
    // A call that ended a minute before it was asked.
    tracker.observe(&policy(), at(10), &seen(&says(10, &[], &[(ActivitySource::Call, 9)])));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(19)));
    assert_eq!(tracker.next_look(&policy()), Some(at(19)));
    tracker.observe(&policy(), at(19), &seen(&says(19, &[], &[(ActivitySource::Call, 9)])));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(19)), "nothing happened in between");
    tracker.enter(Phase::Paused, at(19));
    let outlook = tracker.outlook(&policy()).unwrap();
    assert_eq!(outlook, Outlook { to: TransitionTo::Asleep, due: at(69), because: Because::Idle(minutes(60)) });
    tracker.enter(Phase::Asleep, at(69));
    assert_eq!(tracker.outlook(&policy()), None, "who sleeps stays so");
    assert_eq!(tracker.outlook(&policy().expiry(Expiry::Remove)).unwrap().to, TransitionTo::Removed);
}

#[test]
fn whatever_counts_keeps_it_awake_and_says_so() {
    for source in [
        ActivitySource::Call,
        ActivitySource::Transfer,
        ActivitySource::Command,
        ActivitySource::Terminal,
        ActivitySource::Watch,
        ActivitySource::Tunnel,
        ActivitySource::Socket,
    ] {
        let mut tracker = awake();
        tracker.observe(&policy(), at(30), &seen(&says(30, &[source], &[])));
        assert_eq!(tracker.outlook(&policy()), None, "{source:?}");
        assert_eq!(tracker.idle(at(30)), None);
        let reasons = tracker.reasons();
        assert_eq!((reasons[0].source, reasons[0].lasting), (source.into(), MINUTE));
        assert_eq!(tracker.next_look(&policy()), Some(at(40)), "it can't have been idle for long enough before");
        // It ended right after that look.
        tracker.observe(&policy(), at(40), &seen(&says(40, &[], &[(source, 30)])));
        assert_eq!(paused_at(&tracker, &policy()), Some(at(40)), "{source:?}");
    }
}

#[test]
fn what_the_policy_leaves_out_keeps_nothing_awake() {
    let without = [
        (ActivitySource::Call, policy().requests(false)),
        (ActivitySource::Transfer, policy().requests(false)),
        (ActivitySource::Command, policy().commands(false)),
        (ActivitySource::Terminal, policy().terminals(false)),
        (ActivitySource::Watch, policy().watches(false)),
        (ActivitySource::Tunnel, policy().tunnels(false)),
        (ActivitySource::Socket, policy().sockets(false)),
    ];
    for (source, policy) in without {
        let mut tracker = awake();
        tracker.observe(&policy, at(5), &seen(&says(5, &[source], &[])));
        assert!(tracker.reasons().is_empty(), "{source:?}");
        assert_eq!(paused_at(&tracker, &policy), Some(at(15)), "its end is unknown, so it counts from the look");
        tracker.observe(&policy, at(15), &seen(&says(15, &[], &[(source, 14)])));
        assert_eq!(paused_at(&tracker, &policy), Some(at(15)), "{source:?} ended, which doesn't count either");
    }
}

#[test]
fn a_dev_server_runs_always_and_doesnt_count_unless_told() {
    let mut answer = says(5, &[ActivitySource::Command], &[]);
    answer.sources[0].labels.insert("dev".to_owned(), 1);
    let mut tracker = awake();
    tracker.observe(&policy(), at(5), &seen(&answer));
    assert!(tracker.reasons().is_empty());
    tracker.observe(&policy().dev_server(true), at(6), &seen(&answer));
    assert_eq!(tracker.reasons()[0].source, AwakeSource::Command);
    answer.sources[0].count = 3;
    tracker.observe(&policy(), at(7), &seen(&answer));
    assert_eq!(tracker.reasons()[0].count, 2, "the others count");
}

#[test]
fn previews_count_while_they_are_used_and_are_no_tunnels_twice() {
    let answer = says(5, &[ActivitySource::Tunnel], &[]);
    let used = |at| Previews { open: 1, used: Some(at) };
    let look = |policy: &IdlePolicy, previews| {
        let mut tracker = awake();
        tracker.observe(policy, at(5), &Seen { activity: &answer, previews, cpu_ns: None });
        tracker
    };
    let reasons = look(&policy(), used(Moment::at(290_000))).reasons().to_vec();
    assert_eq!(reasons.len(), 1);
    assert_eq!((reasons[0].source, reasons[0].lasting), (AwakeSource::Preview, Duration::from_secs(10)));
    assert!(look(&policy().previews(false), used(at(5))).reasons().is_empty());
    let forgotten = look(&policy(), used(at(3)));
    assert!(forgotten.reasons().is_empty(), "open, and quiet for two minutes");
    let mut tracker = awake();
    let quiet = says(5, &[], &[(ActivitySource::Call, 0)]);
    let over = Previews { open: 0, used: Some(at(4)) };
    tracker.observe(&policy(), at(5), &Seen { activity: &quiet, previews: over, cpu_ns: None });
    assert_eq!(paused_at(&tracker, &policy()), Some(at(14)), "its last byte counts");
}

#[test]
fn cpu_time_counts_above_the_threshold() {
    let policy = policy().cpu_above(Some(50));
    let quiet = |minute| says(minute, &[], &[(ActivitySource::Call, 0)]);
    let look = |tracker: &mut Tracker, moment: Moment, minute, cpu_seconds: u64| {
        let seen =
            Seen { activity: &quiet(minute), previews: Previews::default(), cpu_ns: Some(cpu_seconds * 1_000_000_000) };
        tracker.observe(&policy, moment, &seen);
    };
    let mut tracker = awake();
    look(&mut tracker, at(1), 1, 100);
    assert!(tracker.reasons().is_empty(), "one reading says nothing");
    look(&mut tracker, at(11), 11, 160);
    assert_eq!(tracker.reasons()[0].source, AwakeSource::Cpu, "60 s of 600 are 100 thousandths");
    look(&mut tracker, Moment::at(11 * 60_000 + 5), 11, 160);
    assert_eq!(tracker.reasons().len(), 1, "five milliseconds say nothing new");
    look(&mut tracker, at(21), 21, 170);
    assert!(tracker.reasons().is_empty(), "10 s of 600 don't count");
    let look_before = Moment::at(11 * 60_000 + 5);
    assert_eq!(paused_at(&tracker, &policy), Some(look_before.after(minutes(10))), "it was busy until then at most");
    look(&mut tracker, at(22), 22, 3);
    assert!(tracker.reasons().is_empty(), "a container that was started anew counts from 0");
}

#[test]
fn who_wakes_it_wants_something_of_it() {
    let mut tracker = awake();
    let old = says(10, &[], &[(ActivitySource::Call, 0)]);
    tracker.observe(&policy(), at(10), &seen(&old));
    tracker.enter(Phase::Paused, at(10));
    tracker.enter(Phase::Awake, at(50));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(60)));
    // The agent's clock went on while it was frozen: fifty minutes without anything, it says.
    assert_eq!(tracker.next_look(&policy()), Some(at(50)));
    tracker.observe(&policy(), at(50), &seen(&says(50, &[], &[(ActivitySource::Call, 0)])));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(60)), "time in which it was frozen doesn't count");
    tracker.observe(&policy(), at(60), &seen(&says(60, &[], &[(ActivitySource::Call, 52)])));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(62)));
}

#[test]
fn the_longest_life_ends_also_what_is_in_use() {
    let policy = policy().max_lifetime(minutes(30)).expiry(Expiry::Remove);
    let mut tracker = Tracker::new(Phase::Awake, at(0), minutes(5));
    tracker.observe(&policy, at(1), &seen(&says(1, &[ActivitySource::Terminal], &[])));
    let outlook = tracker.outlook(&policy).unwrap();
    assert_eq!(outlook, Outlook { to: TransitionTo::Removed, due: at(25), because: Because::Age(minutes(30)) });
    assert_eq!(tracker.next_look(&policy), Some(at(11)));
}

#[test]
fn of_what_is_due_at_once_the_furthest_happens() {
    let policy = IdlePolicy::default().pause_after(minutes(10)).archive_after(minutes(10)).max_lifetime(minutes(10));
    assert_eq!(awake().outlook(&policy).unwrap().because, Because::Age(minutes(10)));
    let policy = IdlePolicy::default().pause_after(minutes(10)).archive_after(minutes(10));
    assert_eq!(awake().outlook(&policy).unwrap().to, TransitionTo::Asleep);
}

#[test]
fn an_older_agent_that_tells_no_ends_is_understood() {
    let mut answer = says(30, &[], &[]);
    answer.idle_since = Some(told(25));
    let mut tracker = awake();
    tracker.observe(&policy(), at(30), &seen(&answer));
    assert_eq!(paused_at(&tracker, &policy()), Some(at(35)));
}

#[test]
fn a_clock_that_was_set_makes_nothing_happen_early() {
    for wrong in [-600, -3, 3, 600] {
        let mut tracker = awake();
        // A call ended at 8; then the agent's clock was set, so that it seems to have been at another time.
        let mut answer = says(9, &[], &[(ActivitySource::Call, 8)]);
        answer.now = told(9 + wrong);
        tracker.observe(&policy(), at(9), &seen(&answer));
        assert_eq!(paused_at(&tracker, &policy()), Some(at(19)), "by {wrong} minutes");
        // From here on both clocks go alike again.
        answer.now = told(19 + wrong);
        tracker.observe(&policy(), at(19), &seen(&answer));
        assert_eq!(paused_at(&tracker, &policy()), Some(at(19)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_started_anew_goes_on_counting() {
    let clock = Clock::new();
    let quiet = says(3, &[], &[(ActivitySource::Call, 0)]);
    let mut tracker = Tracker::new(Phase::Awake, clock.now(), Duration::ZERO);
    tokio::time::advance(minutes(3)).await;
    tracker.observe(&policy(), clock.now(), &seen(&quiet));
    let due = paused_at(&tracker, &policy()).unwrap();
    let kept: Kept = serde_json::from_str(&serde_json::to_string(&tracker.keep(&clock)).unwrap()).unwrap();
    tokio::time::advance(minutes(4)).await;
    let mut restored = Tracker::restore(&kept, &clock);
    assert_eq!(paused_at(&restored, &policy()), Some(due));
    restored.observe(&policy(), clock.now(), &seen(&says(7, &[], &[(ActivitySource::Call, 0)])));
    assert_eq!(paused_at(&restored, &policy()), Some(due), "nothing happened while no host was there");
    let mut restored = Tracker::restore(&kept, &clock);
    restored.observe(&policy(), clock.now(), &seen(&says(7, &[], &[(ActivitySource::Call, 5)])));
    assert_eq!(paused_at(&restored, &policy()), Some(due.after(minutes(2))), "something did");
}

/// What can happen to a workspace, its agent and its machine, each lasting some seconds.
#[derive(Debug, Clone)]
enum Happens {
    /// Nothing.
    Quiet(u32),
    /// One source is active.
    Active(ActivitySource, u32),
    /// It is frozen, its agent's clock goes on, and it is unfrozen.
    Frozen(u32),
    /// The agent's clock is set, by seconds.
    Jumps(i64),
    /// The host looks at it, as it does when a time is up; or any other time.
    Looks,
    /// The host process ends and another begins.
    HostAnew,
}

fn happens() -> impl Strategy<Value = Happens> {
    let source = prop::sample::select(vec![
        ActivitySource::Call,
        ActivitySource::Command,
        ActivitySource::Terminal,
        ActivitySource::Tunnel,
    ]);
    prop_oneof![
        4 => (1_u32..1500).prop_map(Happens::Quiet),
        4 => (source, 0_u32..900).prop_map(|(source, lasts)| Happens::Active(source, lasts)),
        1 => (1_u32..2000).prop_map(Happens::Frozen),
        2 => prop_oneof![-10_000_i64..10_000, -100_i64..100].prop_map(Happens::Jumps),
        6 => Just(Happens::Looks),
        1 => Just(Happens::HostAnew),
    ]
}

/// A workspace as it is, which only its agent and the host's looks tell of.
struct World {
    clock: Clock,
    /// The agent's own clock is this many seconds ahead of ours.
    ahead: i64,
    begun: Moment,
    active: Option<(ActivitySource, Moment)>,
    ended: BTreeMap<ActivitySource, Timestamp>,
    /// Since when, in truth, nothing counts.
    quiet_from: Moment,
}

impl World {
    fn agent_time(&self, moment: Moment) -> Timestamp {
        let seconds = moment.since(self.begun);
        Timestamp::from_unix(2_000_000_000 + self.ahead, 0).after(seconds)
    }

    fn answer(&self) -> ActivityResponse {
        let now = self.clock.now();
        let source = |(source, since): (ActivitySource, Moment)| ActiveSource {
            source,
            count: 1,
            since: self.agent_time(since),
            reason: String::new(),
            labels: BTreeMap::new(),
        };
        ActivityResponse {
            sources: self.active.map(source).into_iter().collect(),
            idle_since: None,
            last_request: None,
            ended: self.ended.iter().map(|(source, at)| EndedSource { source: *source, at: *at }).collect(),
            now: self.agent_time(now),
        }
    }

    /// Whether it is rightly held to be idle for as long as the tracker says.
    fn check(&self, tracker: &Tracker, policy: &IdlePolicy) -> Result<(), TestCaseError> {
        let now = self.clock.now();
        if let Some((source, _)) = self.active {
            prop_assert_eq!(tracker.idle(now), None, "{:?} is active", source);
            prop_assert_eq!(paused_at(tracker, policy), None);
        }
        let truly = now.since(self.quiet_from);
        let held = tracker.idle(now).unwrap_or_default();
        // A clock that was set by less than what clocks go wrong anyway.
        let slack = Duration::from_secs(1) + now.since(self.begun) / 1000;
        prop_assert!(held <= truly + slack, "idle for {truly:?} and held to be for {held:?}");
        Ok(())
    }
}

proptest! {
    /// Whatever happens, and whatever the agent's clock does: nothing is paused that was in use within its time, a deadline
    /// never moves to an earlier moment, and what stays quiet is paused at the second deadline at the latest. But the clock jumps once at
    /// most between two looks: of two jumps that nearly cancel each other nobody could know, and what ended in between seems to have
    /// ended at another time.
    #[test]
    fn nothing_in_use_is_ever_paused_and_what_stays_quiet_is(history in prop::collection::vec(happens(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let policy = policy();
            let clock = Clock::new();
            let begun = clock.now();
            let mut world =
                World { clock: clock.clone(), ahead: 0, begun, active: None, ended: BTreeMap::new(), quiet_from: begun };
            let mut tracker = Tracker::new(Phase::Awake, begun, Duration::ZERO);
            let mut deadline = paused_at(&tracker, &policy);
            let pass = |seconds: u32| tokio::time::advance(Duration::from_secs(seconds.into()));
            let mut jumped = false;
            for event in history {
                match event {
                    Happens::Quiet(seconds) => pass(seconds).await,
                    Happens::Active(source, seconds) => {
                        world.active = Some((source, clock.now()));
                        pass(seconds / 2).await;
                        if seconds % 3 == 0 {
                            tracker.observe(&policy, clock.now(), &seen(&world.answer()));
                            world.check(&tracker, &policy)?;
                            jumped = false;
                        }
                        pass(seconds - seconds / 2).await;
                        world.active = None;
                        world.ended.insert(source, world.agent_time(clock.now()));
                        world.quiet_from = clock.now();
                    }
                    Happens::Frozen(seconds) => {
                        tracker.enter(Phase::Paused, clock.now());
                        pass(seconds).await;
                        tracker.enter(Phase::Awake, clock.now());
                        world.quiet_from = clock.now();
                    }
                    Happens::Jumps(_) if jumped => {}
                    Happens::Jumps(seconds) => {
                        world.ahead += seconds;
                        jumped = true;
                    }
                    Happens::Looks => {
                        tracker.observe(&policy, clock.now(), &seen(&world.answer()));
                        world.check(&tracker, &policy)?;
                        jumped = false;
                    }
                    Happens::HostAnew => tracker = Tracker::restore(&tracker.keep(&clock), &clock),
                }
                let due = paused_at(&tracker, &policy);
                if let (Some(due), Some(before)) = (due, deadline) {
                    // Stored times are whole milliseconds.
                    prop_assert!(due.after(Duration::from_millis(2)) >= before, "a deadline moved to an earlier moment");
                }
                deadline = due.or(deadline);
            }
            // From here on nothing happens any more, and the host looks when it said it would.
            let quiet = clock.now();
            for look in 0.. {
                let next = tracker.next_look(&policy).unwrap();
                tokio::time::sleep_until(clock.instant(next)).await;
                tracker.observe(&policy, clock.now(), &seen(&world.answer()));
                world.check(&tracker, &policy)?;
                if paused_at(&tracker, &policy).is_some_and(|due| due <= clock.now()) {
                    break;
                }
                prop_assert!(look < 4, "it is looked at again and again");
            }
            let late = clock.now().since(quiet);
            prop_assert!(late <= minutes(20) + Duration::from_millis(10), "paused only after {late:?}");
            Ok(())
        })?;
    }
}
