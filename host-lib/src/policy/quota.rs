//! Who has how much, and what it is called when that is not enough.

use std::fmt;

use serde::Serialize;

use super::Totals;
use crate::{
    create::plan::check_name,
    error::{Error, ErrorKind, Result},
};

/// Whose workspaces are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "name")]
#[non_exhaustive]
pub enum Account {
    /// An owner's: [`CreateWorkspace::owner`](crate::CreateWorkspace::owner).
    Owner(String),
    /// A team's: [`CreateWorkspace::team`](crate::CreateWorkspace::team).
    Team(String),
    /// All of this home, also those of nobody.
    Host,
}

impl Account {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Owner(name) => check_name("an owner", name),
            Self::Team(name) => check_name("a team", name),
            Self::Host => Ok(()),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(name) => write!(formatter, "the owner {name:?}"),
            Self::Team(name) => write!(formatter, "the team {name:?}"),
            Self::Host => formatter.write_str("this host"),
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Measure {
    /// Workspaces.
    Workspaces,
    /// Bytes of memory.
    Memory,
    /// Thousandths of a CPU.
    Cpu,
    /// Processes and threads.
    Processes,
    /// Bytes on disk.
    Disk,
    /// Named volumes.
    Volumes,
}

/// What would be exceeded, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Quota {
    /// Whose it is.
    pub account: Account,
    /// Of what.
    pub measure: Measure,
    /// The most that there may be.
    pub limit: u64,
    /// What there is already; 0 where the limit is that of each workspace.
    pub used: u64,
    /// What was asked for besides. 0 stands for what has no limit.
    pub asked: u64,
    /// Whether it is the limit of each workspace, not of all together.
    pub of_each: bool,
    /// The owner's plan, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

impl Quota {
    fn amount(&self, amount: u64) -> String {
        match self.measure {
            Measure::Workspaces | Measure::Processes | Measure::Volumes => amount.to_string(),
            Measure::Memory | Measure::Disk if amount.is_multiple_of(1 << 20) => format!("{} MiB", amount >> 20),
            Measure::Memory | Measure::Disk => format!("{amount} bytes"),
            Measure::Cpu => {
                format!("{}.{:03}", amount / 1000, amount % 1000).trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.measure {
            Measure::Workspaces => "workspaces",
            Measure::Memory => "memory",
            Measure::Cpu => "CPU",
            Measure::Processes => "processes",
            Measure::Disk => "disk",
            Measure::Volumes => "volumes",
        };
        let (limit, used, asked) = (self.amount(self.limit), self.amount(self.used), self.amount(self.asked));
        match (self.measure, self.of_each) {
            (_, true) => {
                write!(formatter, "{asked} of {what} is more than a workspace of {} may have: {limit}", self.account)?
            }
            (Measure::Workspaces | Measure::Volumes, false) => {
                write!(formatter, "{} has {used} of at most {limit} {what}", self.account)?
            }
            (_, false) if self.asked == 0 => {
                write!(
                    formatter,
                    "{} may have {limit} of {what} together, and no workspace without a limit of it",
                    self.account
                )?;
            }
            (_, false) => {
                write!(
                    formatter,
                    "{} has {used} of at most {limit} of {what}; {asked} more is too much",
                    self.account
                )?;
            }
        }
        match &self.plan {
            Some(plan) => write!(formatter, " (plan {plan})"),
            None => Ok(()),
        }
    }
}

impl From<Quota> for Error {
    fn from(quota: Quota) -> Self {
        let hint = match (quota.measure, quota.of_each) {
            (_, true) => "ask for less, or for another plan",
            (Measure::Workspaces | Measure::Volumes, false) => "remove one that isn't needed, or ask for another plan",
            (_, false) if quota.asked == 0 => "give the workspace a limit",
            (Measure::Disk, false) => "remove one that isn't needed, or let it sleep; or ask for less",
            (_, false) => "stop one that isn't needed now, or let it sleep; or ask for less",
        };
        Self::new(ErrorKind::Quota, quota.to_string()).hint(hint).with_quota(quota)
    }
}

/// What an account has, and may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AccountUsage {
    /// An owner's plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What it has; each is given.
    pub used: Totals,
    /// What it may have.
    pub limits: Totals,
}

/// What one workspace adds to its accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) workspaces: u64,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_millis: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
}

impl Totals {
    /// Whether there is room beside what is used.
    pub(crate) fn admit(&self, account: &Account, used: &Totals, asked: &Asked) -> Result<(), Quota> {
        let room = |measure, limit, used: Option<u64>, asked| room(account, measure, limit, used.unwrap_or(0), asked);
        if asked.workspaces > 0 {
            room(Measure::Workspaces, self.workspaces, used.workspaces, Some(asked.workspaces))?;
        }
        room(Measure::Memory, self.memory_bytes, used.memory_bytes, asked.memory_bytes)?;
        room(Measure::Cpu, self.cpu_millis, used.cpu_millis, asked.cpu_millis)?;
        room(Measure::Disk, self.disk_bytes, used.disk_bytes, asked.disk_bytes)
    }

    /// Whether there is room for one more volume.
    pub(crate) fn admit_volume(&self, account: &Account, used: u64) -> Result<(), Quota> {
        room(account, Measure::Volumes, self.volumes, used, Some(1))
    }
}

/// Whether there is room for what is asked for, beside what is used. What is asked for without a limit has none.
fn room(account: &Account, measure: Measure, limit: Option<u64>, used: u64, asked: Option<u64>) -> Result<(), Quota> {
    let Some(limit) = limit else { return Ok(()) };
    match asked {
        Some(asked) if used.checked_add(asked).is_some_and(|sum| sum <= limit) => Ok(()),
        asked => {
            let (account, asked) = (account.clone(), asked.unwrap_or(0));
            Err(Quota { account, measure, limit, used, asked, of_each: false, plan: None })
        }
    }
}
