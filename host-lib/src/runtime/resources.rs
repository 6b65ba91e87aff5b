//! What a place may use at most.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Limits of a place. Absent: none.
///
/// ```
/// use corehold_host::runtime::Resources;
///
/// let limits = Resources::default().memory_bytes(512 << 20).cpu_millis(500);
/// assert_eq!((limits.memory_bytes, limits.pids), (Some(512 << 20), None));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Resources {
    /// Memory in bytes, swap included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPUs, in thousandths of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes on the engine's disk that it may have besides its image: by a quota where the engine has one, else the host looks
    /// ([`DiskPolicy`](crate::DiskPolicy)). Named volumes and folders don't count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// What a machine may have at most: a limit beyond it is a mistake.
const MOST_MEMORY: u64 = 1 << 46;
/// The least that an engine takes: its own start needs that much.
const LEAST_MEMORY: u64 = 6 << 20;
const MOST_CPU_MILLIS: u64 = 10_000_000;
/// The kernel has no more ids.
const MOST_PIDS: u64 = 1 << 22;
/// An agent's own files take that much.
const LEAST_DISK: u64 = 1 << 20;
const MOST_DISK: u64 = 1 << 50;

impl Resources {
    /// Sets [`memory_bytes`](field@Self::memory_bytes); none: no limit.
    pub fn memory_bytes(mut self, most: impl Into<Option<u64>>) -> Self {
        self.memory_bytes = most.into();
        self
    }

    /// Sets [`cpu_millis`](field@Self::cpu_millis); none: no limit.
    pub fn cpu_millis(mut self, most: impl Into<Option<u64>>) -> Self {
        self.cpu_millis = most.into();
        self
    }

    /// Sets [`pids`](field@Self::pids); none: no limit.
    pub fn pids(mut self, most: impl Into<Option<u64>>) -> Self {
        self.pids = most.into();
        self
    }

    /// Sets [`disk_bytes`](field@Self::disk_bytes); none: no limit of its own.
    pub fn disk_bytes(mut self, most: impl Into<Option<u64>>) -> Self {
        self.disk_bytes = most.into();
        self
    }

    /// Refuses limits that no workspace could live with, and absurd ones.
    ///
    /// # Errors
    /// `Invalid`, naming the limit and what it may be.
    pub fn check(&self) -> Result<()> {
        let within = |what: &str, value: Option<u64>, least: u64, most: u64| match value {
            Some(value) if !(least..=most).contains(&value) => Err(Error::new(
                ErrorKind::Invalid,
                format!("a limit of {value} {what} can't be: it is {least} to {most}"),
            )),
            _ => Ok(()),
        };
        within("bytes of memory", self.memory_bytes, LEAST_MEMORY, MOST_MEMORY)?;
        within("thousandths of a CPU", self.cpu_millis, 1, MOST_CPU_MILLIS)?;
        within("processes", self.pids, 1, MOST_PIDS)?;
        within("bytes on disk", self.disk_bytes, LEAST_DISK, MOST_DISK)
    }
}
