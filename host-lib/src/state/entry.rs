//! What the store knows of one workspace.

use std::collections::{BTreeMap, BTreeSet};

use corehold_types::Timestamp;
use rusqlite::{Row, ToSql, types::FromSqlError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    life::WorkspaceState,
    policy::Wanted,
    runtime::{Capability, Mount, Network, Resources},
    template::Template,
    workspace::WorkspaceId,
};

/// A workspace as it was written last. It changes by [`Store::put`](super::Store::put), if nobody has changed it since.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: WorkspaceId,
    /// By which key [`Host::get_or_create`](crate::Host::get_or_create) finds it.
    pub(crate) owner: Option<String>,
    pub(crate) state: WorkspaceState,
    /// Why it failed.
    pub(crate) reason: Option<String>,
    /// The engine that its container is in. What is asleep is in none.
    pub(crate) engine: String,
    pub(crate) container: Option<String>,
    /// The agent's name in tokens.
    pub(crate) instance: String,
    pub(crate) recipe: Recipe,
    /// Its newest archive. One that woke keeps it until the next, in case its container is lost.
    pub(crate) archive: Option<String>,
    pub(crate) created: Timestamp,
    /// When it came into its state, for people.
    pub(crate) entered_at: Timestamp,
    /// Counts its changes: each is made to the one that was read, or not at all.
    pub(crate) generation: i64,
    /// The host process that changes it now.
    pub(crate) actor: Option<String>,
    /// What decides when it is paused and archived. No transition writes it.
    pub(crate) policy: Option<serde_json::Value>,
}

/// What a new container for a workspace needs, and what is started in it. Secrets too: its environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Recipe {
    /// The template's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<String>,
    /// The image; absent: the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// Whether it runs as that image's own user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) image_user: bool,
    /// Variables of template and request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// In whose name the host was that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) creator: Option<String>,
    /// Whose it is. Not the key by which `get_or_create` finds it: an owner may have many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// The owner's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) team: Option<String>,
    /// Labels of the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_millis: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes: Option<u64>,
    /// Whether its container may have other limits yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) limits_pending: bool,
    /// What is mounted, its folders by the paths that were allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<Mount>,
    /// What was asked for of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only_root: Option<bool>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) capabilities: BTreeSet<Capability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preview_port: Option<u16>,
    /// Ports that the engine publishes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) publish: BTreeSet<u16>,
    /// Its network; absent: that of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    /// While it is removed: whether its archives go too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removes_archives: bool,
    /// The dev server, which ends with the container and is started again with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dev: Option<Dev>,
}

impl Recipe {
    /// Its limits.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            memory_bytes: self.memory_bytes,
            cpu_millis: self.cpu_millis,
            pids: self.pids,
            disk_bytes: self.disk_bytes,
        }
    }

    pub(crate) fn set_resources(&mut self, limits: Resources) {
        let Resources { memory_bytes, cpu_millis, pids, disk_bytes } = limits;
        (self.memory_bytes, self.cpu_millis, self.pids, self.disk_bytes) = (memory_bytes, cpu_millis, pids, disk_bytes);
    }

    /// How it is to be held.
    pub(crate) fn hardening(&self) -> Wanted {
        Wanted {
            read_only_root: self.read_only_root,
            capabilities: self.capabilities.clone(),
            sandbox: self.sandbox.clone(),
        }
    }
}

/// A dev server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dev {
    /// Its shell line.
    pub(crate) line: String,
    /// All variables that it gets beside the workspace's.
    pub(crate) env: BTreeMap<String, String>,
}

impl Dev {
    /// What a template starts. It is told where to listen, unless the template says that itself.
    pub(crate) fn of(template: &Template) -> Option<Self> {
        let line = template.dev.clone()?;
        let mut env =
            BTreeMap::from([("HOST".to_owned(), "0.0.0.0".to_owned()), ("PORT".to_owned(), template.port.to_string())]);
        env.retain(|name, _| !template.env.contains_key(name));
        env.extend(template.dev_env.clone());
        Some(Self { line, env })
    }
}

pub(super) const COLUMNS: &str = "id, owner, state, reason, engine, container, instance, recipe, archive, created, entered_at, \
                                  generation, actor, policy";

impl Entry {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            owner: row.get("owner")?,
            state: parsed(row, "state")?,
            reason: row.get("reason")?,
            engine: row.get("engine")?,
            container: row.get("container")?,
            instance: row.get("instance")?,
            recipe: from_json(row, "recipe")?.unwrap_or_default(),
            archive: row.get("archive")?,
            created: parsed(row, "created")?,
            entered_at: parsed(row, "entered_at")?,
            generation: row.get("generation")?,
            actor: row.get("actor")?,
            policy: from_json(row, "policy")?,
        })
    }

    /// What a change writes: all but the id, the owner, the generation and the policy.
    pub(super) fn write<T>(
        &self,
        run: impl FnOnce(&[(&str, &dyn ToSql)]) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        run(&[
            (":id", &self.id.as_str()),
            (":generation", &self.generation),
            (":state", &self.state.as_str()),
            (":reason", &self.reason),
            (":engine", &self.engine),
            (":container", &self.container),
            (":instance", &self.instance),
            (":recipe", &to_json(&self.recipe)?),
            (":archive", &self.archive),
            (":created", &self.created.to_string()),
            (":entered_at", &self.entered_at.to_string()),
            (":actor", &self.actor),
        ])
    }
}

pub(super) fn to_json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| damaged(row, column, format!("{column} is {text:?}").into()))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| damaged(row, column, error.into()))
}

fn damaged(row: &Row<'_>, column: &str, why: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, FromSqlError::Other(why).into())
}
