//! Checks a workspace, and does what the monitor says.

use std::{sync::Arc, time::Duration};

use corehold_types::{
    Timestamp,
    tools::{Command, CommandRequest, CommandResponse, HEALTH},
};
use serde::Serialize;

use super::{
    HealthPolicy, Monitor,
    monitor::{End, Verdict},
};
use crate::{
    create::milliseconds,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    host::HostInner,
    idle::{Field, Moment, Stored},
    life::{self, TransitionCause, Verb, WorkspaceState},
    runtime::{ContainerId, ContainerState},
    state::Entry,
    workspace::{Workspace, WorkspaceId},
};

/// What ends when it is restarted has so long for that.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of a failed check's output that are told.
const TOLD: usize = 200;

/// How a workspace is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Whether it is well: absent while nobody knows, since it doesn't run or wasn't asked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// When it was asked last, by this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check: Option<Timestamp>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Why the last check failed, or how its container ended; absent while it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Restarts since it was last well for long enough.
    pub restarts: u32,
    /// How long its agent has run; absent while it doesn't.
    #[serde(rename = "uptimeMs", skip_serializing_if = "Option::is_none", serialize_with = "some_milliseconds")]
    pub uptime: Option<Duration>,
}

#[allow(clippy::ref_option)]
fn some_milliseconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// A check's result: how long the agent has run, or why it failed.
type Checked = std::result::Result<Duration, String>;

/// Asks a workspace that runs.
async fn check(host: &Arc<HostInner>, entry: &Entry, policy: &HealthPolicy) -> Checked {
    let asked = async {
        let none = || Error::new(ErrorKind::NotFound, "it has no container");
        let workspace = Workspace::of_entry(host, entry).ok_or_else(none)?;
        let health = workspace.place().await?.client.health().await?;
        if let Some(line) = &policy.command {
            run(&workspace, line, policy.timeout).await?;
        }
        Ok::<_, Error>(Duration::from_millis(health.uptime_ms))
    };
    match tokio::time::timeout(policy.timeout, asked).await {
        Ok(Ok(uptime)) => Ok(uptime),
        Ok(Err(error)) => Err(match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        }),
        Err(_) => Err(format!("it did not answer within {} s", policy.timeout.as_secs_f64())),
    }
}

async fn run(workspace: &Workspace, line: &str, timeout: Duration) -> Result<()> {
    let request = CommandRequest {
        line: Some(line.to_owned()),
        // The caller's own time-out would leave it running.
        timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
        label: Some(HEALTH.to_owned()),
        max_output_bytes: Some(TOLD as u64),
        ..CommandRequest::default()
    };
    let response: CommandResponse = workspace.call::<Command>(&request).await?;
    let Some(exit) = response.exit else { return Ok(()) };
    let how = match (exit.code, exit.timed_out) {
        (Some(0), false) => return Ok(()),
        (_, true) => "took too long".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, _) => "was killed".to_owned(),
    };
    let memory = if exit.oom_killed == Some(true) { ", for want of memory" } else { "" };
    Err(Error::new(ErrorKind::CommandFailed, format!("its check `{line}` {how}{memory}")))
}

/// How a container ended, for people.
fn ended(state: &ContainerState) -> String {
    if state.oom_killed {
        return "its container was killed for want of memory: give it more (resources.memory of its template, or of the \
                request), or find what uses so much"
            .to_owned();
    }
    match state.exit_code {
        Some(code) => format!("its container ended with exit code {code}"),
        None => "its container ended".to_owned(),
    }
}

/// Attends to a workspace's health: says when it is to be attended to next.
pub(crate) async fn attend(host: &Arc<HostInner>, id: &WorkspaceId) -> Result<Option<Moment>> {
    let supervision = &host.supervision;
    let Some(entry) = host.store.get(id).await? else {
        supervision.monitors().remove(id);
        return Ok(None);
    };
    let stored = Stored::of(&entry);
    let Some(policy) = supervision.health_policy(&stored) else {
        supervision.monitors().remove(id);
        return Ok(None);
    };
    if entry.actor.is_some() {
        // The end of what it is in is told.
        return Ok(Some(supervision.clock.now().after(policy.every)));
    }
    let monitor = supervision.monitors().get(id).cloned();
    let (new, monitor) = (monitor.is_none(), monitor.unwrap_or_default());
    match entry.state {
        WorkspaceState::Ready => runs(host, &entry, &policy, monitor).await,
        WorkspaceState::Stopped => stopped(host, &entry, &policy, &stored, monitor, new).await,
        _ => {
            let mut monitor = monitor;
            monitor.down();
            supervision.monitors().insert(id.clone(), monitor);
            Ok(None)
        }
    }
}

async fn runs(
    host: &Arc<HostInner>,
    entry: &Entry,
    policy: &HealthPolicy,
    mut monitor: Monitor,
) -> Result<Option<Moment>> {
    let (supervision, id) = (&host.supervision, &entry.id);
    let now = supervision.clock.now();
    // Nudges come for many reasons.
    if let Some(due) = monitor.last().map(|(at, _)| at.after(policy.every)).filter(|due| *due > now)
        && monitor.is_of(entry.generation)
    {
        return Ok(Some(due));
    }
    // Another one has restarted it, or it slept meanwhile: what failed before is of the past.
    monitor.of(entry.generation);
    let checked = check(host, entry, policy).await;
    // Who paused or stopped it meanwhile meant it.
    let still = host.store.get(id).await?.is_some_and(|now| now.generation == entry.generation);
    if !still {
        return Ok(Some(supervision.clock.now()));
    }
    let now = supervision.clock.now();
    match &checked {
        Ok(uptime) => monitor.up(now.before(*uptime)),
        Err(reason) => tracing::debug!(workspace = %id, reason, "a health check failed"),
    }
    let verdict = monitor.checked(policy, now, checked.err());
    supervision.monitors().insert(id.clone(), monitor.clone());
    let reason = monitor.last().and_then(|(_, failure)| failure).unwrap_or_default().to_owned();
    match verdict {
        Verdict::Fine | Verdict::Failing => {}
        Verdict::Recovered => host.events.emit(Some(id), EventKind::Healthy),
        Verdict::Unhealthy => {
            let failures = monitor.failures();
            host.events.emit(Some(id), EventKind::Unhealthy { failures, reason });
        }
        Verdict::Alert => alert(host, id, &monitor, reason),
        Verdict::Restart(restart) => {
            let failures = policy.failures;
            host.events.emit(Some(id), EventKind::Unhealthy { failures, reason: reason.clone() });
            host.events.emit(Some(id), EventKind::Restarted { restart, reason });
            life::perform_unchanged(host, entry.clone(), Verb::Restart, GRACE, TransitionCause::Health).await?;
        }
    }
    Ok(Some(now.after(policy.every)))
}

async fn stopped(
    host: &Arc<HostInner>,
    entry: &Entry,
    policy: &HealthPolicy,
    stored: &Stored,
    mut monitor: Monitor,
    new: bool,
) -> Result<Option<Moment>> {
    let (supervision, id) = (&host.supervision, &entry.id);
    if monitor.is_of(entry.generation) {
        // Its end is dealt with; only what waits to be started is to be done.
        let Some(due) = monitor.start_due() else { return Ok(None) };
        if due > supervision.clock.now() {
            return Ok(Some(due));
        }
        monitor.started();
        supervision.monitors().insert(id.clone(), monitor);
        life::perform_unchanged(host, entry.clone(), Verb::Start, GRACE, TransitionCause::Health).await?;
        return Ok(Some(supervision.clock.now()));
    }
    let Some(container) = &entry.container else { return Ok(None) };
    let state = host.runtime.inspect(&ContainerId(container.clone())).await?;
    let end =
        End { exit_code: state.exit_code, oom_killed: state.oom_killed, on_purpose: stored.stopped, before_us: new };
    let reason = ended(&state);
    let verdict = monitor.ended(policy, end);
    monitor.of(entry.generation);
    let next = match verdict {
        Verdict::Restart(restart) => {
            let due = supervision.clock.now().after(monitor.pause());
            monitor.start_at(due);
            host.events.emit(Some(id), EventKind::Restarted { restart, reason: reason.clone() });
            Some(due)
        }
        Verdict::Alert => {
            alert(host, id, &monitor, reason.clone());
            None
        }
        _ => None,
    };
    monitor.ended_because((!stored.stopped).then_some(reason));
    supervision.monitors().insert(id.clone(), monitor);
    Ok(next)
}

fn alert(host: &HostInner, id: &WorkspaceId, monitor: &Monitor, reason: String) {
    let restarts = monitor.restarts();
    tracing::error!(workspace = %id, restarts, reason, "a workspace isn't well, however often it is restarted");
    host.events.emit(Some(id), EventKind::HealthAlert { restarts, reason });
}

impl Workspace {
    /// How it is doing, as this host found it when it last asked; a host that doesn't watch it asks now. It isn't woken for the
    /// question. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it is no more. That it isn't well is no error.
    pub async fn health(&self) -> Result<Health> {
        let host = self.host();
        let entry = life::existing(host, self.id()).await?;
        let stored = Stored::of(&entry);
        let watched = host.supervision.health_policy(&stored);
        let policy = watched.clone().unwrap_or_default();
        let known = host.supervision.monitors().get(self.id()).cloned();
        let mut monitor = known.clone().unwrap_or_default();
        let runs = entry.state == WorkspaceState::Ready;
        if runs && !(known.is_some() && monitor.last().is_some() && monitor.is_of(entry.generation)) {
            monitor.of(entry.generation);
            let checked = check(host, &entry, &policy).await;
            let now = host.supervision.clock.now();
            if let Ok(uptime) = &checked {
                monitor.up(now.before(*uptime));
            }
            monitor.checked(&policy, now, checked.err());
        }
        let now = host.supervision.clock.now();
        let last = monitor.last();
        let ago = |at: Moment| Timestamp::now().before(now.since(at));
        Ok(Health {
            healthy: runs.then(|| monitor.is_healthy(&policy)).flatten(),
            last_check: last.map(|(at, _)| ago(at)),
            consecutive_failures: monitor.failures(),
            reason: monitor.reason().map(str::to_owned),
            restarts: monitor.restarts(),
            uptime: monitor.uptime(now).filter(|_| runs),
        })
    }

    /// The health policy of its own; none where that of whichever host looks after it holds. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it is no more.
    pub async fn health_policy(&self) -> Result<Option<HealthPolicy>> {
        Ok(Stored::of(&life::existing(self.host(), self.id()).await?).health)
    }

    /// Has it watched by another policy from now on, whichever host process is there; with `None`, by the one of that host.
    /// Dropping the future leaves the policy written or not; calling it again sees to that.
    ///
    /// # Errors
    /// `Invalid` for a policy that can't be held, `NotFound` when it is no more.
    pub async fn set_health(&self, policy: impl Into<Option<HealthPolicy>>) -> Result<()> {
        let policy = policy.into();
        policy.as_ref().map_or(Ok(()), HealthPolicy::check)?;
        let host = self.host();
        life::existing(host, self.id()).await?;
        host.store.set_policy(self.id(), Field::Health, &policy).await?;
        host.supervision.nudge(self.id());
        Ok(())
    }
}
