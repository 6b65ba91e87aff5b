//! Named volumes: room on the engine's disk that outlives workspaces, and that several of them may mount.
//!
//! A volume is the engine's, and all that is known of it stands in its labels. Who uses one is counted in the state store too: who
//! sleeps has no container that would hold it. So are those that there are, where owners, teams and the host may have only so many.

use std::{collections::BTreeMap, sync::Arc};

use corehold_types::Timestamp;
use serde::Serialize;

use crate::{
    blocking::{blocking, cut_off},
    create::plan::check_name,
    error::{Error, ErrorKind, Result},
    host::{Host, HostInner},
    labels,
    life::WorkspaceState,
    runtime::{Mount, MountSource, VolumeSpec, VolumeState},
    state::{CountedVolume, VolumeChanges},
    workspace::WorkspaceId,
};

/// Characters that a name may have.
const NAME_CHARACTERS: usize = 63;

/// What a new volume should be.
#[derive(Debug, Clone)]
#[must_use = "it is made by `Volumes::create`"]
pub struct CreateVolume {
    name: String,
    owner: Option<String>,
    team: Option<String>,
}

impl CreateVolume {
    /// Of a name: at most 63 lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or a digit. A home has one of each.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), owner: None, team: None }
    }

    /// Only this owner's workspaces may mount it. Default: any of this home.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Only this team's workspaces may mount it. Default: any of this home.
    pub fn team(mut self, team: impl Into<String>) -> Self {
        self.team = Some(team.into());
        self
    }
}

/// A volume of this home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Whose workspaces may mount it; absent: any owner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Which team's may; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The workspaces that mount it, asleep ones included.
    pub workspaces: Vec<WorkspaceId>,
}

/// The named volumes of a home. Clones are cheap.
#[derive(Clone)]
pub struct Volumes {
    host: Arc<HostInner>,
}

impl Volumes {
    pub(crate) fn new(host: Arc<HostInner>) -> Self {
        Self { host }
    }

    /// Makes one, empty, in which the user of workspaces may write. How large it gets nobody limits but the engine's disk, and
    /// [`DiskPolicy::volume_bytes`](crate::DiskPolicy::volume_bytes) tells.
    /// Dropping the future doesn't stop it; [`list`](Self::list) says what became of it.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of that name, `Quota` when its owner, its team or the host has as many as they may, `Invalid` for a
    /// name that can't be, `NotFound` without the core image, with which it is made, `Unsupported` by the runtime.
    pub async fn create(&self, volume: CreateVolume) -> Result<()> {
        check_volume_name(&volume.name)?;
        let mut all = labels::of_home(&self.host.fingerprint);
        let mut put = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
        put(labels::VOLUME, &volume.name);
        put(labels::CREATED, &Timestamp::now().to_string());
        for (what, label, value) in [("an owner", labels::OWNER, &volume.owner), ("a team", labels::TEAM, &volume.team)]
        {
            if let Some(value) = value {
                check_name(what, value)?;
                put(label, value);
            }
        }
        let name = engine_name(&self.host.fingerprint, &volume.name);
        let spec = VolumeSpec { name, labels: all, image: self.host.image.clone() };
        // In a task of its own: what was counted must be told whether it was made.
        let host = self.host.clone();
        let making = self.host.cleanups.spawn(async move { make(&host, volume, &spec).await });
        making.await.map_err(|error| cut_off("making a volume", error))?
    }

    /// The volumes there are, by name. Cancel-safe.
    ///
    /// # Errors
    /// `EngineUnavailable` or `Engine`, `Unsupported` by the runtime.
    pub async fn list(&self) -> Result<Vec<VolumeInfo>> {
        let (listed, changes) = look(&self.host).await?;
        self.host.store.change_volumes(changes).await?;
        let mut users = self.users().await?;
        let mut all: Vec<VolumeInfo> = listed
            .iter()
            .filter_map(|state| Some((state, state.labels.get(labels::VOLUME)?.clone())))
            .map(|(state, name)| VolumeInfo {
                owner: state.labels.get(labels::OWNER).cloned(),
                team: state.labels.get(labels::TEAM).cloned(),
                created: state.labels.get(labels::CREATED).and_then(|created| created.parse().ok()),
                workspaces: users.remove(&name).unwrap_or_default(),
                name,
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Removes one, and all that is in it.
    /// Dropping the future leaves it removed or not; calling it again sees to that.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Conflict` while a workspace mounts it, one that sleeps too, or a pool.
    pub async fn remove(&self, name: &str) -> Result<()> {
        check_volume_name(name)?;
        let there = self.list().await?.into_iter().find(|volume| volume.name == name);
        let volume = there.ok_or_else(|| not_found(name))?;
        let in_use = |by: String| {
            Error::new(ErrorKind::Conflict, format!("the volume {name:?} is in use by {by}"))
                .hint("remove what mounts it first; what sleeps needs it when it wakes")
        };
        if !volume.workspaces.is_empty() {
            let names: Vec<&str> = volume.workspaces.iter().take(5).map(WorkspaceId::as_str).collect();
            return Err(in_use(names.join(", ")));
        }
        match self.host.runtime.remove_volume(&engine_name(&self.host.fingerprint, name)).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Err(in_use("a container of this engine".to_owned()).caused_by(error))
            }
            Err(error) => Err(error),
            // It doesn't count any more.
            Ok(()) => self.host.store.change_volumes(look(&self.host).await?.1).await,
        }
    }

    /// Which workspaces mount which.
    async fn users(&self) -> Result<BTreeMap<String, Vec<WorkspaceId>>> {
        let mut users: BTreeMap<String, Vec<WorkspaceId>> = BTreeMap::new();
        for entry in self.host.store.all().await? {
            if entry.state == WorkspaceState::Removed {
                continue;
            }
            for mount in &entry.recipe.mounts {
                if let MountSource::Volume(name) = &mount.source {
                    users.entry(name.clone()).or_default().push(entry.id.clone());
                }
            }
        }
        Ok(users)
    }
}

/// Makes a volume, if there is room for it.
async fn make(host: &HostInner, volume: CreateVolume, spec: &VolumeSpec) -> Result<()> {
    let taken = || {
        Error::new(ErrorKind::AlreadyExists, format!("there is a volume {:?} already", volume.name))
            .hint("choose another name, or mount that one")
    };
    let (_, changes) = look(host).await?;
    let counted = CountedVolume { name: volume.name.clone(), owner: volume.owner.clone(), team: volume.team.clone() };
    let added = host.store.add_volume(changes, counted, host.process.name().to_owned()).await?;
    let number = added.ok_or_else(taken)?;
    match host.runtime.create_volume(spec).await {
        Ok(()) => host.store.volume_made(number).await,
        Err(error) => {
            let forgotten = match error.kind() {
                ErrorKind::AlreadyExists => host.store.forget_volume(number).await,
                // It may be there all the same: from now on the engine's word counts.
                _ => host.store.volume_made(number).await,
            };
            if let Err(error) = forgotten {
                tracing::warn!(volume = volume.name, %error, "a volume that could not be made counts until this host ends");
            }
            Err(if error.kind() == ErrorKind::AlreadyExists { taken().caused_by(error) } else { error })
        }
    }
}

/// What the engine has, and in what the store's rows differ from it.
async fn look(host: &HostInner) -> Result<(Vec<VolumeState>, VolumeChanges)> {
    // The rows first: what was made by then, the engine has, unless it was removed.
    let rows = host.store.volumes().await?;
    let listed = host.runtime.volumes(&labels::of_home(&host.fingerprint)).await?;
    let of = |state: &VolumeState, label: &str| state.labels.get(label).cloned();
    let mut found: BTreeMap<String, CountedVolume> = listed
        .iter()
        .filter_map(|state| {
            let name = of(state, labels::VOLUME)?;
            let (owner, team) = (of(state, labels::OWNER), of(state, labels::TEAM));
            Some((name.clone(), CountedVolume { name, owner, team }))
        })
        .collect();
    let absent: Vec<_> = rows.into_iter().filter(|row| found.remove(&row.volume.name).is_none()).collect();
    let process = host.process.clone();
    let gone = blocking("looking who makes volumes", move || {
        // What somebody makes isn't there yet.
        let gone = absent.iter().filter(|row| row.maker.as_deref().is_none_or(|maker| !process.lives(maker)));
        gone.map(|row| row.number).collect()
    });
    Ok((listed, VolumeChanges { gone: gone.await?, found: found.into_values().collect() }))
}

impl Host {
    /// Named volumes: room on the engine's disk that outlives workspaces.
    #[must_use]
    pub fn volumes(&self) -> Volumes {
        Volumes::new(self.inner.clone())
    }
}

/// What a volume is called in the engine: names of different homes don't meet.
pub(crate) fn engine_name(fingerprint: &str, name: &str) -> String {
    format!("{}{fingerprint}-{name}", labels::VOLUME_NAME_PREFIX)
}

fn check_volume_name(name: &str) -> Result<()> {
    let letter = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let fine = name.starts_with(letter)
        && name.len() <= NAME_CHARACTERS
        && name.chars().all(|character| letter(character) || matches!(character, '-' | '_' | '.'));
    if fine {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("{name:?} is no name for a volume")).hint(format!(
        "at most {NAME_CHARACTERS} lower-case letters, digits, '-', '_' and '.', beginning with a letter or a digit"
    )))
}

fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no volume {name:?}"))
        .hint("`corehold volume ls` shows those there are, `corehold volume create` makes one")
}

impl HostInner {
    /// Makes sure that the volumes among these are there, and are to be mounted by whom they are for. What isn't theirs isn't there.
    pub(crate) async fn check_volumes(&self, mounts: &[Mount], owner: Option<&str>, team: Option<&str>) -> Result<()> {
        let wanted: Vec<&str> = mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Volume(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.iter().try_for_each(|name| check_volume_name(name))?;
        let home = labels::of_home(&self.fingerprint);
        let there = self.runtime.volumes(&home).await?;
        let is_theirs = |volume: &VolumeState| {
            let of = |label: &str, whose: Option<&str>| {
                volume.labels.get(label).is_none_or(|name| whose == Some(name.as_str()))
            };
            of(labels::OWNER, owner) && of(labels::TEAM, team)
        };
        for name in wanted {
            let found =
                there.iter().find(|volume| volume.labels.get(labels::VOLUME).is_some_and(|known| known == name));
            if !found.is_some_and(is_theirs) {
                return Err(not_found(name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_any_engine_takes() {
        for name in ["a", "0", "cargo-cache", "a.b_c-d", &"a".repeat(63)] {
            check_volume_name(name).unwrap();
        }
        for name in ["", "-a", ".a", "A", "a/b", "../a", "a b", "ä", "a\0", "a:ro", &"a".repeat(64)] {
            assert_eq!(check_volume_name(name).unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
        }
    }
}
