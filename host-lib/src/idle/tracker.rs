//! Since when a workspace is idle, and what becomes of it when: the decision, without clock, agent or store.
//!
//! The agent's clock is another one than ours. It may be set, it goes on while the container is frozen, and it may be wrong from the
//! beginning. So what the agent tells of the past is taken for two things only, and only if its clock went as ours did meanwhile:
//! whether anything that counts ended since it was last asked (its marks are others than before), and how long ago within that
//! time. All else is counted by our own clock, so that no jump of either can make anything happen early.

use std::{collections::BTreeMap, time::Duration};

use corehold_types::{
    Timestamp,
    tools::{ActivityResponse, ActivitySource},
};
use serde::{Deserialize, Serialize};

use super::{
    AwakeReason, AwakeSource, Expiry, IdlePolicy, TransitionTo,
    clock::{Clock, Moment, Stamp},
};
use crate::create::DEV;

/// Over a shorter time, the CPU that was used says nothing.
const CPU_WINDOW: Duration = Duration::from_secs(1);

/// A connection to a preview that carried nothing for this long isn't in use: a forgotten tab holds a WebSocket for ever. From its last
/// byte on, the workspace is idle.
const PREVIEW_QUIET: Duration = Duration::from_secs(60);
/// By how much another clock may go wrong: this much at once, and a thousandth of the time.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// What a workspace does, as far as idleness is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// It runs.
    Awake,
    /// It is frozen: nothing can happen in it.
    Paused,
    /// Its container has ended.
    Stopped,
    /// It is an archive.
    Asleep,
}

/// What was found out about a workspace that runs, at a moment.
pub(crate) struct Seen<'a> {
    pub(crate) activity: &'a ActivityResponse,
    pub(crate) previews: Previews,
    /// CPU time that it has used since its start, where the runtime tells.
    pub(crate) cpu_ns: Option<u64>,
}

/// The connections to its previews that this process carries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Previews {
    pub(crate) open: u64,
    /// When one of them came or went or carried a byte; none when there never was one.
    pub(crate) used: Option<Moment>,
}

/// What the agent told, by its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marks {
    /// When each source that counts last ended.
    ended: BTreeMap<ActivitySource, Timestamp>,
    /// When it told so.
    now: Timestamp,
}

/// What is to happen, unless something counts before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) to: TransitionTo,
    pub(crate) due: Moment,
    pub(crate) because: Because,
}

/// Which time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// `pause_after` or `archive_after`, as long as this.
    Idle(Duration),
    /// `max_lifetime`, as long as this.
    Age(Duration),
}

impl Outlook {
    /// Whether activity would put it off.
    pub(crate) fn is_by_idleness(&self) -> bool {
        matches!(self.because, Because::Idle(_))
    }
}

/// What is known of one workspace.
#[derive(Debug, Clone)]
pub(crate) struct Tracker {
    phase: Phase,
    born: Moment,
    /// Up to when everything that counts is accounted for.
    looked: Moment,
    /// Since when nothing has counted; none while something does. Never after `looked`.
    idle_from: Option<Moment>,
    /// What the agent told at `looked`; none before it was asked the first time since it runs.
    marks: Option<Marks>,
    cpu: Option<(Moment, u64)>,
    reasons: Vec<AwakeReason>,
}

impl Tracker {
    /// Of a workspace that nobody knows more of than its age.
    pub(crate) fn new(phase: Phase, now: Moment, age: Duration) -> Self {
        Self {
            phase,
            born: now.before(age),
            looked: now,
            idle_from: Some(now),
            marks: None,
            cpu: None,
            reasons: Vec::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// What keeps it awake, as it was found at the last look.
    pub(crate) fn reasons(&self) -> &[AwakeReason] {
        &self.reasons
    }

    /// How long nothing has counted; none while something does.
    pub(crate) fn idle(&self, now: Moment) -> Option<Duration> {
        self.idle_from.map(|from| now.since(from))
    }

    /// It does something else now. Whoever wakes a workspace wants something of it: its time begins anew.
    pub(crate) fn enter(&mut self, phase: Phase, now: Moment) {
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        self.reasons.clear();
        self.cpu = None;
        if phase == Phase::Awake {
            self.marks = None;
            self.looked = now;
            self.idle_from = Some(now);
        } else {
            self.idle_from.get_or_insert(now);
        }
    }

    /// Somebody of this process used it in a way that counts, up to now.
    pub(crate) fn touch(&mut self, now: Moment) {
        if self.phase == Phase::Awake {
            self.looked = self.looked.max(now);
            self.idle_from = self.idle_from.map(|_| self.looked);
        }
    }

    /// Takes in what was found out about a workspace that runs.
    pub(crate) fn observe(&mut self, policy: &IdlePolicy, now: Moment, seen: &Seen<'_>) {
        let marks = Marks::of(policy, seen.activity);
        let mut reasons = active(policy, seen);
        reasons.extend(previews(policy, now, seen));
        reasons.extend(self.cpu(policy, now, seen.cpu_ns));
        let window = now.since(self.looked);
        self.idle_from = match (&self.marks, self.idle_from) {
            _ if !reasons.is_empty() => None,
            (Some(before), Some(from)) if before.ended == marks.ended && marks.went_alike(before, window) => Some(from),
            (Some(before), _) => Some(now.before(marks.ago(before, window))),
            (None, _) => Some(now),
        };
        if policy.previews {
            self.idle_from = self.idle_from.map(|from| seen.previews.used.map_or(from, |used| from.max(used.min(now))));
        }
        self.marks = Some(marks);
        self.looked = self.looked.max(now);
        self.reasons = reasons;
    }

    /// Whether it used more CPU than counts, on average since the last look.
    fn cpu(&mut self, policy: &IdlePolicy, now: Moment, used: Option<u64>) -> Option<AwakeReason> {
        let (threshold, used) = (policy.cpu_above?, used?);
        let Some((then, before)) = self.cpu.filter(|(_, before)| *before <= used) else {
            self.cpu = Some((now, used));
            return None;
        };
        let window = now.since(then);
        if window < CPU_WINDOW {
            // What was found over a longer time holds.
            return self.reasons.iter().find(|reason| reason.source == AwakeSource::Cpu).cloned();
        }
        self.cpu = Some((now, used));
        let thousandths = u64::try_from(u128::from(used - before) * 1000 / window.as_nanos()).unwrap_or(u64::MAX);
        (thousandths > u64::from(threshold)).then(|| AwakeReason {
            source: AwakeSource::Cpu,
            count: 1,
            lasting: window,
            reason: format!("it used {thousandths} thousandths of a CPU for {} s", window.as_secs()),
        })
    }

    /// What is next to happen to it by itself; none while nothing is, or something keeps it from all there is.
    pub(crate) fn outlook(&self, policy: &IdlePolicy) -> Option<Outlook> {
        let end = match policy.expiry {
            Expiry::Archive => TransitionTo::Asleep,
            Expiry::Remove => TransitionTo::Removed,
        };
        let ends = end == TransitionTo::Removed || self.phase != Phase::Asleep;
        let aged = policy.max_lifetime.filter(|_| ends).map(|time| Outlook {
            to: end,
            due: self.born.after(time),
            because: Because::Age(time),
        });
        let idle = |time: Option<Duration>, to| {
            time.zip(self.idle_from).map(|(time, from)| Outlook {
                to,
                due: from.after(time),
                because: Because::Idle(time),
            })
        };
        let archived = idle(policy.archive_after.filter(|_| ends), end);
        let paused = idle(policy.pause_after.filter(|_| self.phase == Phase::Awake), TransitionTo::Paused);
        // Of those that are due at once the one that goes furthest: the others would be in vain.
        [aged, archived, paused].into_iter().flatten().min_by_key(|outlook| outlook.due)
    }

    /// The same, as if what keeps it awake ended now.
    pub(crate) fn outlook_if_idle(&self, policy: &IdlePolicy, now: Moment) -> Option<Outlook> {
        let mut idle = self.clone();
        idle.idle_from.get_or_insert(now);
        idle.outlook(policy)
    }

    /// When it is to be looked at again. Nothing that keeps it awake can end and its time be up before that.
    pub(crate) fn next_look(&self, policy: &IdlePolicy) -> Option<Moment> {
        let outlook = self.outlook(policy).map(|outlook| outlook.due);
        if self.phase == Phase::Awake && self.marks.is_none() && !policy.is_off() {
            // What it tells later is held against this.
            return Some(self.looked);
        }
        if self.phase != Phase::Awake || self.idle_from.is_some() {
            return outlook;
        }
        let times = [policy.pause_after, policy.archive_after];
        let shortest = times.into_iter().flatten().min().map(|time| self.looked.after(time));
        [outlook, shortest].into_iter().flatten().min()
    }

    /// In the form that outlives this process.
    pub(crate) fn keep(&self, clock: &Clock) -> Kept {
        let now = clock.now();
        let ago = |moment: Moment| u64::try_from(now.since(moment).as_millis()).unwrap_or(u64::MAX);
        Kept {
            stamp: clock.stamp(now),
            phase: self.phase,
            age_ms: ago(self.born),
            idle_ms: self.idle_from.map(ago),
            looked_ms: ago(self.looked),
            marks: self.marks.clone(),
        }
    }

    /// As it was kept, and the time since added as far as it is known: while the machine was off, nothing was counted.
    pub(crate) fn restore(kept: &Kept, clock: &Clock) -> Self {
        let now = clock.now();
        let since = clock.moment(&kept.stamp).map(|then| now.since(then));
        let ago = |milliseconds: u64| {
            now.before(Duration::from_millis(milliseconds).saturating_add(since.unwrap_or_default()))
        };
        let looked = if since.is_some() { ago(kept.looked_ms) } else { now };
        Self {
            phase: kept.phase,
            born: ago(kept.age_ms),
            looked,
            idle_from: kept.idle_ms.map(|idle| ago(idle).min(looked)),
            marks: kept.marks.clone(),
            cpu: None,
            reasons: Vec::new(),
        }
    }
}

/// What is stored of a [`Tracker`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    stamp: Stamp,
    phase: Phase,
    age_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_ms: Option<u64>,
    looked_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    marks: Option<Marks>,
}

impl Marks {
    fn of(policy: &IdlePolicy, activity: &ActivityResponse) -> Self {
        let counted = activity.ended.iter().filter(|ended| policy.counts(ended.source));
        let mut ended: BTreeMap<_, _> = counted.map(|ended| (ended.source, ended.at)).collect();
        // An agent that doesn't tell what ended tells at least when; and one in which nothing has, when it began.
        if let Some(since) = activity.idle_since.filter(|_| activity.ended.is_empty()) {
            ended.insert(ActivitySource::Call, since);
        }
        Self { ended, now: activity.now }
    }

    /// Whether the agent's clock went as ours did since `before`. Where it was set, even the same marks may be of something new.
    fn went_alike(&self, before: &Self, window: Duration) -> bool {
        self.now.since(before.now).abs_diff(window) <= CLOCK_SLACK + window / 1000
    }

    /// How long ago the last of it ended, within the time since `before`; nothing, where the agent's clock was set meanwhile.
    fn ago(&self, before: &Self, window: Duration) -> Duration {
        if !self.went_alike(before, window) {
            return Duration::ZERO;
        }
        self.ended.values().max().map_or(Duration::ZERO, |last| self.now.since(*last)).min(window)
    }
}

/// What the agent tells of that counts.
fn active(policy: &IdlePolicy, seen: &Seen<'_>) -> Vec<AwakeReason> {
    let of = |source: &corehold_types::tools::ActiveSource| {
        let uncounted = match source.source {
            ActivitySource::Command if !policy.dev_server => source.labels.get(DEV).copied().unwrap_or(0),
            // They are counted here, or aren't to be counted.
            ActivitySource::Tunnel => seen.previews.open,
            _ => 0,
        };
        let count = source.count.saturating_sub(uncounted);
        (count > 0).then(|| AwakeReason {
            source: source.source.into(),
            count,
            lasting: seen.activity.now.since(source.since),
            reason: source.reason.clone(),
        })
    };
    seen.activity.sources.iter().filter(|source| policy.counts(source.source)).filter_map(of).collect()
}

fn previews(policy: &IdlePolicy, now: Moment, seen: &Seen<'_>) -> Option<AwakeReason> {
    let (count, quiet) = (seen.previews.open, now.since(seen.previews.used?));
    (policy.previews && count > 0 && quiet < PREVIEW_QUIET).then(|| AwakeReason {
        source: AwakeSource::Preview,
        count,
        lasting: quiet,
        reason: match count {
            1 => format!("1 connection to its preview is open, used {} s ago", quiet.as_secs()),
            _ => format!("{count} connections to its preview are open, used {} s ago", quiet.as_secs()),
        },
    })
}
