//! Plans and totals: how much.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    idle::IdlePolicy,
    runtime::{Egress, Resources},
};

/// What all workspaces of an owner, a team or a host may have together. Absent: no limit.
///
/// Memory and CPU are counted of all that have a container in which something may run, paused ones included, disk of those that are stopped
/// too; of those that are asleep only that they are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Totals {
    /// How many there may be, asleep ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<u64>,
    /// Bytes of memory: the sum of their limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPUs, in thousandths of one: the sum of their limits. A workspace without a limit of CPU isn't admitted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Bytes on the engine's disk: the sum of their limits. A workspace without a limit of it isn't admitted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Named volumes ([`Host::volumes`](crate::Host::volumes)): how many there may be. What one holds, [`DiskPolicy`](crate::DiskPolicy)
    /// has looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
}

impl Totals {
    /// Of workspaces.
    pub(crate) fn of(
        workspaces: Option<u64>,
        memory_bytes: Option<u64>,
        cpu_millis: Option<u64>,
        disk_bytes: Option<u64>,
    ) -> Self {
        Self { workspaces, memory_bytes, cpu_millis, disk_bytes, volumes: None }
    }

    /// No limit.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// At most so many workspaces.
    #[must_use]
    pub fn workspaces(mut self, most: u64) -> Self {
        self.workspaces = Some(most);
        self
    }

    /// At most so many bytes of memory together.
    #[must_use]
    pub fn memory_bytes(mut self, most: u64) -> Self {
        self.memory_bytes = Some(most);
        self
    }

    /// At most so many thousandths of a CPU together.
    #[must_use]
    pub fn cpu_millis(mut self, most: u64) -> Self {
        self.cpu_millis = Some(most);
        self
    }

    /// At most so many bytes of disk together.
    #[must_use]
    pub fn disk_bytes(mut self, most: u64) -> Self {
        self.disk_bytes = Some(most);
        self
    }

    /// At most so many named volumes.
    #[must_use]
    pub fn volumes(mut self, most: u64) -> Self {
        self.volumes = Some(most);
        self
    }
}

/// What an owner may have.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The most that one workspace may have, and what one has for which nothing is asked.
    pub workspace: Resources,
    /// What all of an owner's may have together.
    pub totals: Totals,
    /// When they are paused by themselves, unless the request says otherwise. Absent: as the host's policy says.
    pub idle: Option<IdlePolicy>,
    /// What they may reach outside at most: a request for more is refused. What a workspace was made with stays with it. Absent: anything.
    pub egress: Option<Egress>,
}

impl Plan {
    /// A plan that limits nothing yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), workspace: Resources::default(), totals: Totals::default(), idle: None, egress: None }
    }

    /// The most that one workspace may have.
    #[must_use]
    pub fn workspace(mut self, most: Resources) -> Self {
        self.workspace = most;
        self
    }

    /// What all of an owner's may have together.
    #[must_use]
    pub fn totals(mut self, totals: Totals) -> Self {
        self.totals = totals;
        self
    }

    /// When its workspaces are paused by themselves.
    #[must_use]
    pub fn idle(mut self, policy: IdlePolicy) -> Self {
        self.idle = Some(policy);
        self
    }

    /// What its workspaces may reach outside at most.
    #[must_use]
    pub fn egress(mut self, most: Egress) -> Self {
        self.egress = Some(most);
        self
    }

    /// Those that are shipped: `free` (128 MiB, 0.25 CPU, 1 workspace, paused after 60 s), `pro` (512 MiB, 1 CPU, 3, 300 s) and
    /// `enterprise` (2 GiB, 2 CPU, 10, 1,800 s).
    #[must_use]
    pub fn shipped() -> Vec<Self> {
        let all = [("free", 128, 250, 1, 60), ("pro", 512, 1000, 3, 300), ("enterprise", 2048, 2000, 10, 1800)];
        let plan = |(name, memory, cpu_millis, workspaces, idle): (&str, u64, u64, u64, u64)| Self {
            name: name.to_owned(),
            workspace: Resources {
                memory_bytes: Some(memory << 20),
                cpu_millis: Some(cpu_millis),
                ..Resources::default()
            },
            totals: Totals { workspaces: Some(workspaces), ..Totals::default() },
            idle: Some(IdlePolicy::default().pause_after(Duration::from_secs(idle))),
            egress: None,
        };
        all.into_iter().map(plan).collect()
    }

    /// The least first.
    pub(super) fn rank(&self) -> [u64; 3] {
        [self.workspace.memory_bytes, self.workspace.cpu_millis, self.totals.workspaces]
            .map(|most| most.unwrap_or(u64::MAX))
    }

    pub(super) fn check(&self) -> Result<()> {
        let named = |error: Error| error.context(format_args!("the plan {:?}", self.name));
        if self.name.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a plan has no name"));
        }
        self.workspace.check().map_err(named)?;
        self.egress.as_ref().map_or(Ok(()), Egress::check).map_err(named)?;
        self.idle.as_ref().map_or(Ok(()), IdlePolicy::check).map_err(named)
    }
}
