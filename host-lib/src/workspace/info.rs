//! What a listing says about a workspace: what the engine's labels and the store know.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use corehold_types::Timestamp;
use serde::Serialize;

use super::WorkspaceId;
use crate::{
    archive::ArchiveRef,
    error::{Error, ErrorKind, Result},
    host::HostInner,
    labels,
    life::{self, WorkspaceState},
    pool::Record,
    runtime::{ContainerState, ContainerStatus, Mount, Network, Resources},
    state::{Entry, Recipe},
};

/// What is known about a workspace at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorkspaceInfo {
    /// Its name.
    pub id: WorkspaceId,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is doing.
    pub state: WorkspaceState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose it is, as who asked for it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The owner's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The template it was made from; absent for an empty workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// In whose name the host was that made it ([`HostBuilder::subject`](crate::HostBuilder::subject)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creator: Option<String>,
    /// When its creation began.
    pub created: Timestamp,
    /// When its container was started last. [`Workspace::info`](crate::Workspace::info) says so; [`Host::list`](crate::Host::list) only of
    /// those that don't run, since an engine's listing doesn't have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When its container ended, if it has and wasn't started since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Its address in its network. As of [`started`](Self::started).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The names of the variables that template and request gave it. Their values may be secrets, and aren't told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// The labels that its request gave it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its network; absent where the state store doesn't know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What is mounted in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
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
    /// What it may use at most; absent where the state store doesn't know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The archive that has the files of one that sleeps; absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveRef>,
    /// Name of its container in the engine; absent for one that sleeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
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

    /// What the store knows of a workspace.
    pub(crate) fn of_entry(host: &HostInner, entry: &Entry) -> Self {
        Self {
            id: entry.id.clone(),
            instance: entry.instance.clone(),
            template: entry.recipe.template.clone(),
            created: entry.created,
            preview_port: entry.recipe.preview_port,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: host.fingerprint.clone(),
        }
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

/// What is known of a workspace from either side.
pub(crate) struct Described {
    pub(crate) entry: Option<Entry>,
    pub(crate) state: Option<ContainerState>,
    pub(crate) labelled: Labelled,
}

/// None when it is no more, though the store doesn't know yet.
pub(crate) fn describe(host: &HostInner, described: Described) -> Option<WorkspaceInfo> {
    let Described { entry, state, labelled } = described;
    let (now, reason) = life::seen(host, entry.as_ref(), state.as_ref().map(|state| state.status))?;
    let running = state.as_ref().filter(|state| state.status == ContainerStatus::Running);
    let preview_url = labelled.preview_port.zip(running).and_then(|(port, state)| match state.published.get(&port) {
        Some(address) => Some(format!("http://{address}")),
        None => host.previews.url(&labelled.id, port),
    });
    let archive = entry.as_ref().and_then(|entry| entry.archive.as_ref()).filter(|_| now == WorkspaceState::Asleep);
    // One that can't be read is told of by who wakes it.
    let archive = archive.and_then(|archive| archive.parse().ok());
    let key = entry.as_ref().and_then(|entry| entry.owner.clone());
    let recipe = entry.map(|entry| entry.recipe);
    let resources = recipe.as_ref().map(Recipe::resources);
    let network = recipe.as_ref().map(|recipe| recipe.network.clone().unwrap_or_default());
    let configured = recipe.as_ref().map(|recipe| recipe.image.clone().unwrap_or_else(|| host.image.clone()));
    let recipe = recipe.unwrap_or_default();
    let ended = state.as_ref().filter(|state| state.exit_code.is_some());
    Some(WorkspaceInfo {
        archive,
        resources,
        network,
        name: recipe.name,
        creator: recipe.creator,
        variables: recipe.env.into_keys().collect(),
        labels: recipe.labels,
        mounts: recipe.mounts,
        started: state.as_ref().and_then(|state| state.started),
        finished: ended.and_then(|state| state.finished),
        address: state.as_ref().and_then(|state| state.address),
        image: state.as_ref().and_then(|state| state.image.clone()).or(configured),
        own: labelled.home == host.fingerprint,
        id: labelled.id,
        state: now,
        reason,
        owner: recipe.owner.or(key),
        team: recipe.team,
        template: labelled.template,
        created: labelled.created,
        preview_port: labelled.preview_port,
        preview_url,
        published: state.as_ref().map(|state| state.published.clone()).unwrap_or_default(),
        exit_code: state.as_ref().and_then(|state| state.exit_code),
        oom_killed: state.as_ref().is_some_and(|state| state.oom_killed),
        container: state.map(|state| state.name),
        version: labelled.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateWorkspace,
        testing::{AgentScript, EngineScript, Fixture},
    };

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

    /// K1: what people are shown of a workspace, awake and asleep, and no value of a variable.
    #[tokio::test]
    async fn what_it_was_asked_for_with_is_told_but_for_secrets() {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let host = fixture.builder().subject("billing").build().await.unwrap();
        let request = CreateWorkspace::empty().id("w").name("Ada's first \u{1f980}").owner("ada");
        let request =
            request.env("API_KEY", "hunter2").label("plan", "pro").mount(Mount::memory(1 << 20).at("/scratch"));
        let workspace = host.create(request).await.unwrap();
        let awake = workspace.info().await.unwrap();
        let address: IpAddr = [127, 0, 0, 1].into();
        assert_eq!((awake.started.is_some(), awake.finished, awake.address), (true, None, Some(address)));
        assert_eq!(awake.image.as_deref(), Some(host.image()));
        workspace.stop(std::time::Duration::ZERO).await.unwrap();
        let stopped = workspace.info().await.unwrap();
        assert!(stopped.finished > stopped.started, "{stopped:?}");
        workspace.sleep(std::time::Duration::ZERO).await.unwrap();
        let asleep = workspace.info().await.unwrap();
        assert_eq!((asleep.started, asleep.address, asleep.image.as_deref()), (None, None, Some(host.image())));
        workspace.wake().await.unwrap();
        let copy = workspace.fork(1).await.unwrap().remove(0).info().await.unwrap();
        for info in [awake, stopped, asleep, workspace.info().await.unwrap(), copy] {
            assert_eq!((info.name.as_deref(), info.owner.as_deref()), (Some("Ada's first \u{1f980}"), Some("ada")));
            assert_eq!((info.creator.as_deref(), info.labels["plan"].as_str()), (Some("billing"), "pro"));
            assert_eq!(
                (info.variables.as_slice(), info.network.clone()),
                (&["API_KEY".to_owned()][..], Some(Network::shared()))
            );
            assert_eq!(info.mounts[0].target, "/scratch");
            let shown = serde_json::to_string(&info).unwrap();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for wrong in [String::new(), "x".repeat(101), "two\nlines".to_owned(), "\u{1b}[2J".to_owned()] {
            let error = host.create(CreateWorkspace::empty().name(&wrong)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        host.create(CreateWorkspace::empty().name("\u{e9}".repeat(100))).await.expect("characters, not bytes");
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
