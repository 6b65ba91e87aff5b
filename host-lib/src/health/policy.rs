//! How a workspace's health is watched, and what becomes of one that isn't well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How a workspace is watched. It is kept with the workspace, so it holds whichever host process is there.
///
/// Default: asked every 30 seconds, with 5 seconds for the answer; three failures in a row, and it is restarted, three times at most before
/// an alert. What is paused, asleep or stopped isn't asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct HealthPolicy {
    /// From one check to the next. Default: 30 seconds.
    #[serde(rename = "everyMs", with = "millis")]
    pub every: Duration,
    /// How long a check may take. Default: 5 seconds.
    #[serde(rename = "timeoutMs", with = "millis")]
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy. Default: 3.
    pub failures: u32,
    /// Restarts, without its being well for as long as it takes to be found unhealthy, after which there is an alert instead of one
    /// more. Default: 3.
    pub restarts: u32,
    /// A shell line that is run in it, and must exit with 0. Default: only its agent is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Whether it is restarted. Default: unless it was stopped.
    pub restart: RestartPolicy,
}

/// Whether a workspace is started again when it has ended, or is unhealthy.
///
/// The host does it, not the engine: the dev server must be started again too, a container of a pool that was restarted is
/// nobody's, and what was stopped on purpose must stay so whoever restarts the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    No,
    /// Whenever it has ended; what was stopped on purpose, when a host begins.
    Always,
    /// Whenever it has ended, unless it was stopped on purpose.
    #[default]
    UnlessStopped,
    /// When its container ended with another exit code than 0 or for want of memory, or it is unhealthy.
    OnFailure,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            failures: 3,
            restarts: 3,
            command: None,
            restart: RestartPolicy::UnlessStopped,
        }
    }
}

impl HealthPolicy {
    /// Sets [`every`](field@Self::every).
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets [`timeout`](field@Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`failures`](field@Self::failures).
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// Sets [`restarts`](field@Self::restarts).
    #[must_use]
    pub fn restarts(mut self, restarts: u32) -> Self {
        self.restarts = restarts;
        self
    }

    /// Sets [`command`](field@Self::command).
    #[must_use]
    pub fn command(mut self, line: impl Into<String>) -> Self {
        self.command = Some(line.into());
        self
    }

    /// Sets [`restart`](field@Self::restart).
    #[must_use]
    pub fn restart(mut self, restart: RestartPolicy) -> Self {
        self.restart = restart;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("the health policy {what}")));
        match self {
            _ if self.every < Duration::from_millis(100) => wrong("asks more often than ten times a second"),
            _ if self.timeout.is_zero() => wrong("leaves no time for an answer"),
            _ if self.failures == 0 => wrong("takes what never failed for unhealthy"),
            Self { command: Some(line), .. } if line.trim().is_empty() || line.contains('\0') => {
                wrong("has a command that can't be run")
            }
            _ => Ok(()),
        }
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
