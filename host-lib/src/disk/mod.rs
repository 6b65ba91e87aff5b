//! How much workspaces write to the engine's disk: measured, and acted upon, where no engine limits it.
//!
//! Few engines have a quota for a container (`ENGINES.md`), and none counts files. So a host looks itself, in rounds: at all that run, and
//! at the named volumes if those have a limit. A round costs as much as a walk through their files, so it is left out while the disk as
//! a whole has hardly become fuller: by a sixteenth of what each may have, for those that nobody gave a limit. What is written between two rounds is over the limit before anybody sees it:
//! a limit here bounds what stays, not what is written at once. What holds against that is the floor, below which nothing more is
//! made.

mod watch;

use std::{sync::Arc, time::Duration};

use serde::Serialize;

pub(crate) use self::watch::watch;
use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
};

/// What is done with a workspace that has more on disk than it may.
///
/// None of it leaves any grace, other than the end of an idle or old workspace ([`Expiry`](crate::Expiry)): what writes too much would go on with that
/// until it is killed, and fill the disk of all. Nor is any needed: what is paused loses nothing, and whoever wants commands killed has
/// chosen that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DiskAction {
    /// It is told: [`EventKind::DiskExceeded`](crate::EventKind::DiskExceeded).
    Tell,
    /// Besides, all its commands are killed by KILL, the dev server too, in each round in which it is so.
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
    /// Bytes that each workspace may have to which nobody gave a [limit of its own](crate::runtime::Resources::disk_bytes), where this
    /// machine sees the engine's disk. It isn't counted in totals, and no engine is asked for a quota of it. Default: 16 GiB. Absent: any
    /// number.
    pub bytes: Option<u64>,
    /// Files and folders that each workspace may have besides its image's, where this machine sees the engine's disk. Default: 1,000,000.
    /// Absent: any number.
    pub files: Option<u64>,
    /// Bytes that each named volume may hold. What holds more is told ([`EventKind::VolumeExceeded`](crate::EventKind::VolumeExceeded)) and
    /// nothing else: several may have it, and nobody knows who wrote. Seen only where the engine's data lie on this machine. Absent, the
    /// default: any number, and nobody looks.
    pub volume_bytes: Option<u64>,
    /// Time between two rounds. Default: 10 seconds.
    pub every: Duration,
    /// Bytes that must be left on the engine's disk for a workspace to be made or woken, besides room for 1,000 files. Default: 1 GiB, where
    /// the disk is seen from here; given here, it must be seen. 0: none.
    pub floor_bytes: Option<u64>,
}

impl Default for DiskPolicy {
    fn default() -> Self {
        let (bytes, files) = (Some(BYTES), Some(FILES));
        Self { action: DiskAction::default(), bytes, files, volume_bytes: None, every: EVERY, floor_bytes: None }
    }
}

/// Bytes of a workspace that nobody gave a limit: what a large project's builds leave is less, and a disk holds some of them.
const BYTES: u64 = 16 << 30;
/// Files of a workspace: three times a large front end's `node_modules`, and few of them fill no disk's table of files.
const FILES: u64 = 1_000_000;
const EVERY: Duration = Duration::from_secs(10);
const LEAST_EVERY: Duration = Duration::from_millis(100);
const FLOOR: u64 = 1 << 30;
/// Files that must be left, wherever there is a floor: a container takes some 60 before anything is in it.
const FLOOR_FILES: u64 = 1_000;

impl DiskPolicy {
    /// What is done with who has more than they may.
    pub fn action(mut self, action: DiskAction) -> Self {
        self.action = action;
        self
    }

    /// Bytes that each workspace may have to which nobody gave a limit of its own; none: any number.
    pub fn bytes(mut self, most: impl Into<Option<u64>>) -> Self {
        self.bytes = most.into();
        self
    }

    /// Files and folders that each workspace may have besides its image's; none: any number.
    pub fn files(mut self, most: impl Into<Option<u64>>) -> Self {
        self.files = most.into();
        self
    }

    /// Bytes that each named volume may hold.
    pub fn volume_bytes(mut self, most: u64) -> Self {
        self.volume_bytes = Some(most);
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
        let few_files = space.free_files.filter(|files| *files < FLOOR_FILES);
        if space.free_bytes >= floor && few_files.is_none() {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        let message = match few_files {
            Some(files) => format!(
                "the engine's disk has room for {files} more files, however large; for {FLOOR_FILES} must be left for a workspace to \
                 be made or woken"
            ),
            None => format!(
                "the engine's disk has {} MiB left of {} MiB; {} MiB must be left for a workspace to be made or woken",
                mib(space.free_bytes),
                mib(space.total_bytes),
                mib(floor)
            ),
        };
        Err(Error::new(ErrorKind::DiskFull, message).hint(MAKE_ROOM))
    }

    /// Says of what failed inside of a workspace for want of room whose room that is: an agent and a command see only that there is none.
    pub(crate) async fn whose_disk(&self, error: Error) -> Error {
        let told_by_agent = error.kind() == ErrorKind::DiskFull && error.problem().is_some();
        let told_by_command = error.kind() == ErrorKind::CommandFailed && error.output().is_some_and(speaks_of_room);
        if !told_by_agent && !told_by_command {
            return error;
        }
        let Ok(space) = self.runtime.disk_space().await else { return error };
        // What failed may have removed some of what it had written.
        if space.free_bytes < NEARLY_NOTHING || space.free_files.is_some_and(|files| files < FLOOR_FILES) {
            let left = format!("{} of {} MiB", space.free_bytes >> 20, space.total_bytes >> 20);
            let files = space.free_files.map(|files| format!(" and room for {files} files")).unwrap_or_default();
            return error.also_hint(&format!("the engine's disk has {left} left{files}: {MAKE_ROOM}"));
        }
        error.also_hint(
            "the engine's disk has room: it is the workspace's own limit of disk (`corehold limits`), or a folder in memory",
        )
    }
}

const MAKE_ROOM: &str = "remove workspaces or volumes that aren't needed, or what else lies there (`docker system df`)";
/// Less than this is too little for what a workspace is filled with.
const NEARLY_NOTHING: u64 = 64 << 20;

/// What the C library, and Node, say of `ENOSPC` and `EDQUOT`.
fn speaks_of_room(output: &str) -> bool {
    ["No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT"].iter().any(|words| output.contains(words))
}

#[cfg(test)]
mod tests;
