//! What a workspace is doing.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{
    error::{Error, ErrorKind, Result},
    runtime::ContainerStatus,
};

/// What a workspace is doing. Those whose names end in `-ing` last as long as somebody is at it; the others stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WorkspaceState {
    /// It is being made.
    Creating,
    /// It runs, and its agent can be called.
    Ready,
    /// Its container has ended; its files are in it.
    Stopped,
    /// It is frozen where it was; its memory is kept.
    Paused,
    /// Its files are in an archive, and it has no container.
    Asleep,
    /// Nothing else is true: its container was kept after a creation that failed, or the engine couldn't remove it.
    Failed,
    /// It is no more.
    Removed,
    /// From [`Ready`](Self::Ready) or [`Paused`](Self::Paused) to [`Stopped`](Self::Stopped).
    Stopping,
    /// From [`Stopped`](Self::Stopped) to [`Ready`](Self::Ready).
    Starting,
    /// From [`Ready`](Self::Ready) to [`Paused`](Self::Paused).
    Pausing,
    /// From [`Paused`](Self::Paused) to [`Ready`](Self::Ready).
    Resuming,
    /// From whatever has a container to [`Asleep`](Self::Asleep).
    Archiving,
    /// From [`Asleep`](Self::Asleep) to [`Ready`](Self::Ready).
    Waking,
    /// On its way to [`Removed`](Self::Removed).
    Removing,
}

impl WorkspaceState {
    const ALL: [Self; 14] = [
        Self::Creating,
        Self::Ready,
        Self::Stopped,
        Self::Paused,
        Self::Asleep,
        Self::Failed,
        Self::Removed,
        Self::Stopping,
        Self::Starting,
        Self::Pausing,
        Self::Resuming,
        Self::Archiving,
        Self::Waking,
        Self::Removing,
    ];

    /// Whether nothing of it can run: it takes no memory and no CPU.
    pub(crate) const fn is_at_rest(self) -> bool {
        matches!(self, Self::Stopped | Self::Asleep | Self::Failed | Self::Removed)
    }

    /// The word for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Asleep => "asleep",
            Self::Failed => "failed",
            Self::Removed => "removed",
            Self::Stopping => "stopping",
            Self::Starting => "starting",
            Self::Pausing => "pausing",
            Self::Resuming => "resuming",
            Self::Archiving => "archiving",
            Self::Waking => "waking",
            Self::Removing => "removing",
        }
    }

    /// Whether it lasts only while somebody is at it.
    #[must_use]
    pub const fn is_transitional(self) -> bool {
        matches!(
            self,
            Self::Creating
                | Self::Stopping
                | Self::Starting
                | Self::Pausing
                | Self::Resuming
                | Self::Archiving
                | Self::Waking
                | Self::Removing
        )
    }

    /// What a container's status says of the workspace in it, when nobody is changing that.
    pub(crate) const fn of(status: ContainerStatus) -> Self {
        match status {
            ContainerStatus::Running => Self::Ready,
            ContainerStatus::Paused => Self::Paused,
            ContainerStatus::Created | ContainerStatus::Exited => Self::Stopped,
            ContainerStatus::Dead => Self::Failed,
        }
    }
}

impl fmt::Display for WorkspaceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for WorkspaceState {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let unknown = || Error::new(ErrorKind::Invalid, format!("{word:?} is no state of a workspace"));
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_one_word_here_and_on_the_wire() {
        for state in WorkspaceState::ALL {
            assert_eq!(state.as_str().parse::<WorkspaceState>().unwrap(), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.is_transitional(), state.as_str().ends_with("ing"));
        }
        assert!("running".parse::<WorkspaceState>().is_err());
    }
}
