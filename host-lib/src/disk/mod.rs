//! How much workspaces write to the engine's disk: measured, and acted upon, where no engine limits it.
//!
//! Few engines have a quota for a container (`ENGINES.md`), and none counts files. So a host looks itself, in rounds: at all that run and
//! have a limit. A round costs as much as a walk through their files, so it is left out while the disk as a whole has hardly become
//! fuller. What is written between two rounds is over the limit before anybody sees it: a limit here bounds what stays, not what is
//! written at once. What holds against that is the floor, below which nothing more is made.

mod watch;

use std::{sync::Arc, time::Duration};

use serde::Serialize;

pub(crate) use self::watch::watch;
use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
};

/// What is done with a workspace that has more on disk than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DiskAction {
    /// It is told: [`EventKind::DiskExceeded`](crate::EventKind::DiskExceeded).
    Tell,
    /// Besides, all its commands are killed, the dev server too, in each round in which it is so.
    EndCommands,
    /// Besides, it is paused, in each round in which it is so. Its next call wakes it, so that its owner can remove something. The default.
    #[default]
    Pause,
}

/// How the engine's disk is looked after. The limit of each workspace is its [`disk_bytes`](crate::runtime::Resources::disk_bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it holds for a host that is built with it"]
pub struct DiskPolicy {
    /// What is done with who has more than they may.
    pub action: DiskAction,
    /// Files and folders that each workspace may have besides its image's. Absent, the default: any number.
    pub files: Option<u64>,
    /// Time between two rounds. Default: 10 seconds.
    pub every: Duration,
    /// Bytes that must be left on the engine's disk for a workspace to be made or woken. Default: 1 GiB, where the disk is seen from
    /// here; given here, it must be seen. 0: none.
    pub floor_bytes: Option<u64>,
}

impl Default for DiskPolicy {
    fn default() -> Self {
        Self { action: DiskAction::default(), files: None, every: EVERY, floor_bytes: None }
    }
}

const EVERY: Duration = Duration::from_secs(10);
const LEAST_EVERY: Duration = Duration::from_millis(100);
const FLOOR: u64 = 1 << 30;

impl DiskPolicy {
    /// What is done with who has more than they may.
    pub fn action(mut self, action: DiskAction) -> Self {
        self.action = action;
        self
    }

    /// Files and folders that each workspace may have besides its image's.
    pub fn files(mut self, most: u64) -> Self {
        self.files = Some(most);
        self
    }

    /// Time between two rounds.
    pub fn every(mut self, time: Duration) -> Self {
        self.every = time;
        self
    }

    /// Bytes that must be left on the engine's disk for a workspace to be made or woken.
    pub fn floor_bytes(mut self, least: u64) -> Self {
        self.floor_bytes = Some(least);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.every < LEAST_EVERY {
            let message =
                format!("{:?} is too short between two looks at the disk: {LEAST_EVERY:?} is the least", self.every);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }
}

impl HostInner {
    /// Refuses to make anything while the engine's disk is nearly full.
    ///
    /// # Errors
    /// `DiskFull` with what is left, `Unsupported` when a floor was asked for and the disk isn't seen.
    pub(crate) async fn check_floor(self: &Arc<Self>) -> Result<()> {
        let floor = self.disk.floor_bytes.unwrap_or(FLOOR);
        if floor == 0 {
            return Ok(());
        }
        let space = match self.runtime.disk_space().await {
            Err(error) if error.kind() == ErrorKind::Unsupported && self.disk.floor_bytes.is_none() => return Ok(()),
            space => space?,
        };
        let files = space.free_files == Some(0);
        if space.free_bytes >= floor && !files {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        let message = if files {
            "the engine's disk has no room for one more file".to_owned()
        } else {
            format!(
                "the engine's disk has {} MiB left of {} MiB; {} MiB must be left for a workspace to be made or woken",
                mib(space.free_bytes),
                mib(space.total_bytes),
                mib(floor)
            )
        };
        Err(Error::new(ErrorKind::DiskFull, message)
            .hint("remove workspaces or volumes that aren't needed, or what else lies there (`docker system df`)"))
    }
}

#[cfg(test)]
mod tests;
