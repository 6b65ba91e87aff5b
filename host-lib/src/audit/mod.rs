//! Who did what, kept by the host: the records of all agents of a home, and the host's own in the same shape.
//!
//! An agent keeps its records in memory, bounded, and they end with it. So the host follows each of them, and asks once more before
//! it stops or removes a workspace; what was dropped before it came is told as a gap. Nothing here judges what was done.

mod collect;
mod store;

use std::{path::PathBuf, time::Duration};

use corehold_types::{
    Timestamp,
    tools::{AuditGap, AuditOutcome, AuditRecord},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::collect::{AuditSeat, Auditor};
use self::store::Store;
use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    host::Host,
    workspace::WorkspaceId,
};

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum AuditEntry {
    /// A call, as the agent of a workspace recorded it.
    Agent {
        /// Whose agent.
        workspace: WorkspaceId,
        /// Which start of it: `seq` counts within one.
        boot_id: String,
        /// The call.
        #[serde(flatten)]
        record: Box<AuditRecord>,
    },
    /// Something that a host did, or that befell a workspace.
    Host {
        /// Which workspace; absent for what concerns none or all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workspace: Option<WorkspaceId>,
        /// When it was done.
        time: Timestamp,
        /// In whose name; absent for what befell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// What: the `event` of an [`Event`](crate::Event), such as `created`, `removed`, `vanished`.
        tool: String,
        /// How it ended.
        outcome: AuditOutcome,
        /// The event's own fields.
        #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
        detail: serde_json::Map<String, serde_json::Value>,
    },
    /// Records of an agent that were gone before the host came to them.
    Gap {
        /// Whose agent.
        workspace: WorkspaceId,
        /// Which start of it.
        boot_id: String,
        /// When it was noticed.
        time: Timestamp,
        /// Which.
        gap: AuditGap,
    },
}

impl AuditEntry {
    /// Whose it is.
    #[must_use]
    pub fn workspace(&self) -> Option<&WorkspaceId> {
        match self {
            Self::Agent { workspace, .. } | Self::Gap { workspace, .. } => Some(workspace),
            Self::Host { workspace, .. } => workspace.as_ref(),
        }
    }

    /// When it happened, or was noticed.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Agent { record, .. } => record.time,
            Self::Host { time, .. } | Self::Gap { time, .. } => *time,
        }
    }

    /// In whose name; gaps have no subject.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Agent { record, .. } => record.subject.as_deref(),
            Self::Host { subject, .. } => subject.as_deref(),
            Self::Gap { .. } => None,
        }
    }

    /// What was done; gaps have no tool.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::Agent { record, .. } => Some(&record.tool),
            Self::Host { tool, .. } => Some(tool),
            Self::Gap { .. } => None,
        }
    }
}

/// Which entries to read: all that meet every condition given.
#[derive(Debug, Clone)]
#[must_use = "it is read by `Host::audit`"]
pub struct AuditQuery {
    workspace: Option<WorkspaceId>,
    subject: Option<String>,
    tool: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: usize,
}

impl Default for AuditQuery {
    fn default() -> Self {
        Self { workspace: None, subject: None, tool: None, since: None, until: None, limit: 1000 }
    }
}

impl AuditQuery {
    /// Only those of a workspace.
    pub fn workspace(mut self, id: &WorkspaceId) -> Self {
        self.workspace = Some(id.clone());
        self
    }

    /// Only those in somebody's name. Gaps are told nevertheless: nobody knows whose records are missing.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Only calls of a tool or route, or what a host did. Gaps are told nevertheless.
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.tool = Some(tool.into());
        self
    }

    /// Only from a moment on.
    pub fn since(mut self, from: Timestamp) -> Self {
        self.since = Some(from);
        self
    }

    /// Only up to a moment: with the time of the oldest entry of an answer, the next older ones follow.
    pub fn until(mut self, to: Timestamp) -> Self {
        self.until = Some(to);
        self
    }

    /// The newest of them, at most as many. Default: 1,000.
    pub fn limit(mut self, entries: usize) -> Self {
        self.limit = entries;
        self
    }

    fn meets(&self, entry: &AuditEntry) -> bool {
        let is_gap = matches!(entry, AuditEntry::Gap { .. });
        let same = |wanted: &Option<String>, value: Option<&str>| {
            is_gap || wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        self.workspace.as_ref().is_none_or(|wanted| entry.workspace() == Some(wanted))
            && same(&self.subject, entry.subject())
            && same(&self.tool, entry.tool())
            && self.since.is_none_or(|since| entry.time() >= since)
            && self.until.is_none_or(|until| entry.time() <= until)
    }
}

/// Entries of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditAnswer {
    /// The newest that were asked for, in the order in which they were written down.
    pub entries: Vec<AuditEntry>,
    /// Lines that could not be read: damaged, or of a later version.
    pub damaged: u64,
}

impl Host {
    /// Who did what in the workspaces of this home, those that are gone included, as far as a host of it kept it (see
    /// [`HostBuilder::audit`](crate::HostBuilder::audit)): at most 128 MiB, the oldest go first. Cancel-safe.
    ///
    /// # Errors
    /// `Io` when the log can't be read.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditAnswer> {
        let folder = folder(self.home().to_owned());
        let answer = blocking("reading the audit log", move || Store::new(folder).read(&query)).await?;
        answer.map_err(|error| {
            let folder = self.home().join("audit");
            Error::new(ErrorKind::Io, format!("the audit log in {} can't be read: {error}", folder.display()))
                .hint("look at its permissions")
                .caused_by(error)
        })
    }
}

fn folder(home: PathBuf) -> PathBuf {
    home.join("audit")
}

/// How long a workspace that is about to end may take to tell its last records.
const LAST_WORDS: Duration = Duration::from_secs(2);
