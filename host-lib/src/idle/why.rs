//! What a workspace's user may ask: why is it awake, and what becomes of it next.

use std::time::Duration;

use corehold_types::Timestamp;
use serde::Serialize;

use super::{
    AwakeReason, IdlePolicy, TransitionTo,
    stored::{Field, Stored},
    supervision::{look, phase, words},
    tracker::Phase,
};
use crate::{
    create::milliseconds,
    error::Result,
    life::{self, WorkspaceState},
    workspace::Workspace,
};

/// What keeps a workspace awake, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WhyAwake {
    /// What it is doing.
    pub state: WorkspaceState,
    /// What keeps it awake, of what its policy counts. Empty when nothing does, and while it doesn't run.
    pub reasons: Vec<AwakeReason>,
    /// How long nothing has; absent while something does.
    #[serde(rename = "idleMs", skip_serializing_if = "Option::is_none", serialize_with = "some_milliseconds")]
    pub idle: Option<Duration>,
}

/// What becomes of a workspace by itself, unless something counts as activity before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NextTransition {
    /// What.
    pub to: TransitionTo,
    /// From now on until then; nothing when it is due.
    #[serde(rename = "afterMs", serialize_with = "milliseconds")]
    pub after: Duration,
    /// When that is, by this machine's clock as it is now.
    pub at: Timestamp,
    /// Why then, for people.
    pub because: String,
}

#[allow(clippy::ref_option)]
fn some_milliseconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

impl Workspace {
    /// What keeps it awake, and since when; or how long nothing has. It isn't woken for the question, and the question doesn't
    /// count as activity. Without a policy of its own or the host's, everything counts that counts by default. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it is no more, `AgentUnavailable` when its agent can't be asked.
    pub async fn why_awake(&self) -> Result<WhyAwake> {
        let host = self.host();
        let entry = life::existing(host, self.id()).await?;
        let stored = Stored::of(&entry);
        let policy = host.supervision.idle_policy(&stored);
        let mut why = WhyAwake { state: entry.state, reasons: Vec::new(), idle: None };
        let Some(phase) = phase(entry.state) else { return Ok(why) };
        let mut tracker = host.supervision.tracker(&entry, &stored, phase);
        if phase == Phase::Awake {
            look(host, &entry, &policy, &mut tracker).await?;
        }
        why.reasons = tracker.reasons().to_vec();
        why.idle = tracker.idle(host.supervision.clock.now());
        Ok(why)
    }

    /// What becomes of it next by itself, when, and why; none when nothing does. While something keeps it awake that is what
    /// would happen if it ended now. It isn't woken for the question. Cancel-safe.
    ///
    /// # Errors
    /// As [`why_awake`](Self::why_awake).
    pub async fn next_transition(&self) -> Result<Option<NextTransition>> {
        let host = self.host();
        let entry = life::existing(host, self.id()).await?;
        let stored = Stored::of(&entry);
        let policy = host.supervision.idle_policy(&stored);
        let Some(phase) = phase(entry.state).filter(|_| !policy.is_off()) else { return Ok(None) };
        let mut tracker = host.supervision.tracker(&entry, &stored, phase);
        if phase == Phase::Awake {
            look(host, &entry, &policy, &mut tracker).await?;
        }
        let now = host.supervision.clock.now();
        let Some(outlook) = tracker.outlook_if_idle(&policy, now) else { return Ok(None) };
        let after = outlook.due.since(now);
        let because = match tracker.reasons() {
            [] => outlook.because.to_string(),
            reasons if outlook.is_by_idleness() => {
                let reasons: Vec<&str> = reasons.iter().map(|reason| reason.reason.as_str()).collect();
                format!("{} after nothing keeps it awake any more; now: {}", words(after), reasons.join("; "))
            }
            _ => outlook.because.to_string(),
        };
        Ok(Some(NextTransition { to: outlook.to, after, at: Timestamp::now().after(after), because }))
    }

    /// The idle policy of its own; none where that of whichever host looks after it holds. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it is no more.
    pub async fn idle_policy(&self) -> Result<Option<IdlePolicy>> {
        Ok(Stored::of(&life::existing(self.host(), self.id()).await?).idle)
    }

    /// Gives it another idle policy from now on, whichever host process is there; with `None`, the one of that host.
    /// Dropping the future leaves the policy written or not; calling it again sees to that.
    ///
    /// # Errors
    /// `Invalid` for a time that is too short, `NotFound` when it is no more.
    pub async fn set_idle(&self, policy: impl Into<Option<IdlePolicy>>) -> Result<()> {
        let policy = policy.into();
        policy.as_ref().map_or(Ok(()), IdlePolicy::check)?;
        let host = self.host();
        life::existing(host, self.id()).await?;
        host.store.set_policy(self.id(), Field::Idle, &policy).await?;
        host.supervision.nudge(self.id());
        Ok(())
    }
}
