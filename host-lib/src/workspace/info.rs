//! What a listing says about a workspace, read from the engine's labels and nowhere else.

use std::{collections::BTreeMap, net::SocketAddr};

use corehold_types::Timestamp;
use serde::Serialize;

use super::WorkspaceId;
use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
    labels,
    pool::Record,
    runtime::{ContainerState, ContainerStatus},
};

/// What is known about a workspace at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkspaceInfo {
    /// Its name.
    pub id: WorkspaceId,
    /// What it is doing.
    pub status: WorkspaceStatus,
    /// The template it was made from; absent for an empty workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// When its creation began.
    pub created: Timestamp,
    /// Port inside on which its preview listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_port: Option<u16>,
    /// Where the preview is reached from this machine: its published port, else the address of
    /// [`Workspace::preview_url`](crate::Workspace::preview_url), once that was asked for in this process. Absent unless it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_url: Option<String>,
    /// The ports inside that are published on this machine, and where.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<u16, SocketAddr>,
    /// Name of its container in the engine.
    pub container: String,
    /// Exit code of the agent, once the container has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Version of the library that made it.
    pub version: String,
    /// Whether it was made from this home folder. Others can be listed and removed, but their agents don't trust us.
    pub own: bool,
}

/// What a workspace is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WorkspaceStatus {
    /// It was made and never started: its creation is under way, or was cut off.
    Created,
    /// Its container runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its container has ended.
    Stopped,
    /// The engine is removing it, or couldn't.
    Dead,
}

impl WorkspaceStatus {
    /// The word for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
        }
    }
}

impl From<ContainerStatus> for WorkspaceStatus {
    fn from(status: ContainerStatus) -> Self {
        match status {
            ContainerStatus::Created => Self::Created,
            ContainerStatus::Running => Self::Running,
            ContainerStatus::Paused => Self::Paused,
            ContainerStatus::Exited => Self::Stopped,
            ContainerStatus::Dead => Self::Dead,
        }
    }
}

/// What the labels of a workspace's container say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) id: WorkspaceId,
    pub(crate) instance: String,
    pub(crate) template: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) preview_port: Option<u16>,
    pub(crate) version: String,
    pub(crate) home: String,
}

impl Labelled {
    /// As labels of a container to be.
    pub(crate) fn to_labels(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut put = |name: &str, value: String| all.insert(name.to_owned(), value);
        put(labels::KIND, labels::KIND_WORKSPACE.to_owned());
        put(labels::WORKSPACE, self.id.to_string());
        put(labels::INSTANCE, self.instance.clone());
        put(labels::CREATED, self.created.to_string());
        put(labels::VERSION, self.version.clone());
        put(labels::HOME, self.home.clone());
        if let Some(template) = &self.template {
            put(labels::TEMPLATE, template.clone());
        }
        if let Some(port) = self.preview_port {
            put(labels::PREVIEW_PORT, port.to_string());
        }
        all
    }

    /// What is known of a container: by its labels, or, of one from a pool, by its name and the record of its claim. None
    /// while it belongs to nobody.
    pub(crate) fn of(state: &ContainerState, records: &[Record]) -> Result<Option<Self>> {
        if state.labels.get(labels::KIND).is_none_or(|kind| kind != labels::KIND_POOL) {
            return Self::from_labels(&state.labels).map(Some);
        }
        let name = state.name.strip_prefix(labels::NAME_PREFIX).unwrap_or_default();
        // A place in a pool has dots in its name, which no workspace has.
        let Ok(id) = name.parse::<WorkspaceId>() else { return Ok(None) };
        let mut all = state.labels.clone();
        all.insert(labels::WORKSPACE.to_owned(), id.to_string());
        let labelled = Self::from_labels(&all)?;
        let record = records.iter().find(|record| record.container == state.id.0 && record.workspace == id);
        Ok(Some(match record {
            Some(record) => Self {
                template: record.template.clone(),
                created: record.created,
                preview_port: record.preview_port,
                ..labelled
            },
            // Of another home, whose records are not here.
            None => labelled,
        }))
    }

    /// Back from labels, which anybody with access to the engine may have written.
    pub(crate) fn from_labels(all: &BTreeMap<String, String>) -> Result<Self> {
        let get = |name: &str| {
            all.get(name).ok_or_else(|| Error::new(ErrorKind::Invalid, format!("the container has no label {name}")))
        };
        let damaged = |name: &str| Error::new(ErrorKind::Invalid, format!("the container's label {name} is damaged"));
        Ok(Self {
            id: get(labels::WORKSPACE)?.parse()?,
            instance: get(labels::INSTANCE)?.clone(),
            template: all.get(labels::TEMPLATE).cloned(),
            created: get(labels::CREATED)?.parse().map_err(|_| damaged(labels::CREATED))?,
            preview_port: match all.get(labels::PREVIEW_PORT) {
                None => None,
                Some(port) => Some(port.parse().map_err(|_| damaged(labels::PREVIEW_PORT))?),
            },
            version: get(labels::VERSION)?.clone(),
            home: get(labels::HOME)?.clone(),
        })
    }
}

pub(crate) fn describe(host: &HostInner, state: &ContainerState, labelled: Labelled) -> WorkspaceInfo {
    let preview = labelled.preview_port.filter(|_| state.status == ContainerStatus::Running);
    let preview_url = preview.and_then(|port| match state.published.get(&port) {
        Some(address) => Some(format!("http://{address}")),
        None => host.previews.url(&labelled.id, port),
    });
    WorkspaceInfo {
        own: labelled.home == host.fingerprint,
        id: labelled.id,
        status: state.status.into(),
        template: labelled.template,
        created: labelled.created,
        preview_port: labelled.preview_port,
        preview_url,
        published: state.published.clone(),
        container: state.name.clone(),
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        version: labelled.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled() -> Labelled {
        Labelled {
            id: "web-1".parse().unwrap(),
            instance: "i".into(),
            template: Some("vite-react".into()),
            created: Timestamp::from_unix(1_700_000_000, 0),
            preview_port: Some(4321),
            version: "0.1.0".into(),
            home: "abc".into(),
        }
    }

    #[test]
    fn labels_hold_all_that_is_needed_to_find_a_workspace_again() {
        assert_eq!(Labelled::from_labels(&labelled().to_labels()).unwrap(), labelled());
        let bare = Labelled { template: None, preview_port: None, ..labelled() };
        assert_eq!(Labelled::from_labels(&bare.to_labels()).unwrap(), bare);
    }

    #[test]
    fn labels_that_somebody_damaged_are_named() {
        for name in [labels::WORKSPACE, labels::CREATED, labels::PREVIEW_PORT] {
            let mut all = labelled().to_labels();
            all.insert(name.to_owned(), "?".to_owned());
            assert!(Labelled::from_labels(&all).is_err(), "{name}");
        }
        for name in [labels::INSTANCE, labels::HOME] {
            let mut all = labelled().to_labels();
            all.remove(name);
            assert!(Labelled::from_labels(&all).unwrap_err().to_string().contains(name));
        }
    }
}
