//! What keeps a workspace awake, and what becomes of one that nothing does: when it is paused, put to sleep or removed by itself.
//!
//! [`policy`] is what the caller wants, [`tracker`] the decision as pure code over [`clock`], [`schedule`] the one task that waits for
//! what is due, [`supervision`] what is then asked and done. [`gate`] has whoever calls a workspace wake it first. How a
//! workspace is paused, put to sleep or woken is not known here: that is `life`'s.

mod clock;
mod gate;
#[cfg(test)]
mod host_tests;
mod policy;
mod schedule;
mod stored;
mod supervision;
#[cfg(test)]
mod tests;
mod tracker;
mod why;

use std::time::Duration;

use corehold_types::tools::ActivitySource;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    clock::Moment,
    gate::{Gate, Pass, Woken},
    stored::{Field, Stored},
    supervision::{Supervision, supervise, wake},
};
pub use self::{
    policy::{Expiry, IdlePolicy},
    supervision::ExpiredFiles,
    why::{NextTransition, WhyAwake},
};

/// What keeps a workspace awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AwakeReason {
    /// What kind of thing.
    pub source: AwakeSource,
    /// How many there are.
    pub count: u64,
    /// How long it has lasted.
    #[serde(rename = "lastingMs", serialize_with = "crate::create::milliseconds")]
    pub lasting: Duration,
    /// The same in words: `2 commands run: npm test, cargo build`.
    pub reason: String,
}

/// What can keep a workspace awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AwakeSource {
    /// A call, or a file or archive on its way.
    Request,
    /// A command that runs.
    Command,
    /// A command that runs on a terminal.
    Terminal,
    /// A subscription to changes of files or ports.
    Watch,
    /// A tunnel or a forwarded port.
    Tunnel,
    /// A WebSocket on which something was asked.
    Socket,
    /// A connection to its preview.
    Preview,
    /// CPU time.
    Cpu,
    /// Something of which only a newer agent knows.
    Other,
}

impl From<ActivitySource> for AwakeSource {
    fn from(source: ActivitySource) -> Self {
        match source {
            ActivitySource::Call | ActivitySource::Transfer => Self::Request,
            ActivitySource::Command => Self::Command,
            ActivitySource::Terminal => Self::Terminal,
            ActivitySource::Watch => Self::Watch,
            ActivitySource::Tunnel => Self::Tunnel,
            ActivitySource::Socket => Self::Socket,
            _ => Self::Other,
        }
    }
}

impl std::fmt::Display for TransitionTo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Paused => "paused",
            Self::Asleep => "asleep",
            Self::Removed => "removed",
        })
    }
}

/// What becomes of a workspace by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TransitionTo {
    /// It is frozen, and wakes within milliseconds.
    Paused,
    /// Its files are archived and its container goes; it wakes from the archive.
    Asleep,
    /// It is removed with its files.
    Removed,
}
