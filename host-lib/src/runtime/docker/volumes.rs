//! Named volumes of the engine.
//!
//! An engine makes a volume's folder root's, and whoever works in a container isn't root. So a volume is made through a container that
//! never starts, into which its folder is put with the owner that it is to have. That container's name is the lock: the engine gives a
//! name once. An engine also makes a volume that isn't there, silently, for a container that names it; ours are told by a label.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use bollard::{
    models::{
        ContainerCreateBody, HostConfig, Mount as EngineMount, MountType, MountVolumeOptions, VolumeCreateRequest,
    },
    query_parameters::{InspectContainerOptions, ListVolumesOptions, RemoveVolumeOptions, UploadToContainerOptions},
};
use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::stream;

use super::{
    ROLE_LABEL, auxiliary, connection::Connection, containers::label_filters, engine::Engine,
    specification::checked_name,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Mount, MountSource, VolumeSpec, VolumeState},
};

const ROLE: &str = "volume";
const SEED_ROLE: &str = "volume-seed";
/// Where the volume is mounted while it is made, and as what.
const SEED_FOLDER: &str = "/corehold-volume";
const SEED_NAME: &str = "root";
/// The user of workspaces. Others may write too: who may mount it may use it, whatever user its image has.
const OWNER: (u32, u32) = (1000, 1000);
const MODE: u32 = 0o777;
/// A seeding takes a tenth of a second: after this one is nobody's any more.
const SEED_AGE: Duration = Duration::from_secs(120);

pub(super) async fn create(connection: &Connection, volume: &VolumeSpec) -> Result<()> {
    let what = format!("making the volume {:?}", volume.name);
    let seed = format!("{}-seed", checked_name(&volume.name)?);
    let taken = || Error::new(ErrorKind::AlreadyExists, format!("{what}: there is one already"));
    if inspect(connection, &volume.name).await?.is_some() && !is_left(connection, &seed).await? {
        return Err(taken());
    }
    let body = seeding(volume)?;
    if connection.engine == Engine::Podman {
        // A volume that it makes for a container gets no labels. One that is there already it gives to whoever makes it again.
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            labels: Some(labels(volume)),
            ..VolumeCreateRequest::default()
        };
        connection.call(&what, connection.client.create_volume(request)).await?;
    }
    let lock = || auxiliary::create(connection, &what, &seed, body.clone());
    match lock().await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if !is_left(connection, &seed).await? {
                return Err(taken().caused_by(error));
            }
            unlock(connection, &seed).await?;
            lock().await?;
        }
        locked => locked?,
    }
    let options = UploadToContainerOptions { path: SEED_FOLDER.to_owned(), ..UploadToContainerOptions::default() };
    let filled = connection
        .upload(&what, stream::iter([Ok(folder()?)]), |body| {
            connection.client.upload_to_container(&seed, Some(options), body)
        })
        .await;
    let unlocked = unlock(connection, &seed).await;
    match filled {
        Ok(()) => unlocked,
        Err(error) => {
            // What is half made is nobody's.
            let _ = remove(connection, &volume.name).await;
            Err(error)
        }
    }
}

fn labels(volume: &VolumeSpec) -> HashMap<String, String> {
    let role = (ROLE_LABEL.to_owned(), ROLE.to_owned());
    volume.labels.clone().into_iter().chain([role]).collect()
}

/// The container that never starts; with it the engine makes the volume, with its labels.
fn seeding(volume: &VolumeSpec) -> Result<ContainerCreateBody> {
    let mount = EngineMount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(format!("{SEED_FOLDER}/{SEED_NAME}")),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            labels: Some(labels(volume)),
            ..MountVolumeOptions::default()
        }),
        ..EngineMount::default()
    };
    let host_config = HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() };
    auxiliary::never_started(&volume.image, SEED_ROLE, host_config)
}

/// The volume's folder as a tar: what it is put over gets its owner and mode.
fn folder() -> Result<Bytes> {
    let mut builder = tar::Builder::new(Vec::new());
    auxiliary::append_folder(&mut builder, SEED_NAME, OWNER, MODE)?;
    Ok(builder.into_inner()?.into())
}

/// Whether a seeding container is there that nobody is at any more.
async fn is_left(connection: &Connection, seed: &str) -> Result<bool> {
    let call = connection.client.inspect_container(seed, None::<InspectContainerOptions>);
    match connection.call("looking for a volume in the making", call).await {
        Ok(container) => {
            let made = container.created.and_then(|created| created.to_string().parse::<Timestamp>().ok());
            let age = made.map(|made| Timestamp::now().as_unix_seconds() - made.as_unix_seconds());
            Ok(age.is_some_and(|age| age > SEED_AGE.as_secs() as i64))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn unlock(connection: &Connection, seed: &str) -> Result<()> {
    // The volume stays: it has a name.
    auxiliary::remove(connection, "finishing a volume", seed).await
}

async fn inspect(connection: &Connection, name: &str) -> Result<Option<bollard::models::Volume>> {
    match connection.call("looking for a volume", connection.client.inspect_volume(checked_name(name)?)).await {
        Ok(volume) => Ok(Some(volume)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folder of the engine's machine in which all of it lies.
pub(super) async fn folder_of(connection: &Connection, name: &str) -> Result<PathBuf> {
    let gone = || Error::new(ErrorKind::NotFound, format!("there is no volume {name:?} any more"));
    Ok(inspect(connection, name).await?.ok_or_else(gone)?.mountpoint.into())
}

pub(super) async fn list(
    connection: &Connection,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<VolumeState>> {
    let mut filters = label_filters(labels);
    filters.push(format!("{ROLE_LABEL}={ROLE}"));
    let options = ListVolumesOptions { filters: Some(HashMap::from([("label".to_owned(), filters)])) };
    let listed = connection.call("listing volumes", connection.client.list_volumes(Some(options))).await?;
    // Podman lists those that have any of the labels.
    let has_all = |volume: &bollard::models::Volume| {
        volume.labels.get(ROLE_LABEL).is_some_and(|role| role == ROLE)
            && labels.iter().all(|(name, value)| volume.labels.get(name) == Some(value))
    };
    let state = |volume: bollard::models::Volume| VolumeState {
        name: volume.name,
        labels: volume.labels.into_iter().collect(),
        created: volume.created_at.map(|created| created.to_string()),
    };
    Ok(listed.volumes.unwrap_or_default().into_iter().filter(has_all).map(state).collect())
}

pub(super) async fn remove(connection: &Connection, name: &str) -> Result<()> {
    let seed = format!("{}-seed", checked_name(name)?);
    if is_left(connection, &seed).await? {
        unlock(connection, &seed).await?;
    }
    let call = connection.client.remove_volume(name, None::<RemoveVolumeOptions>);
    match connection.call(&format!("removing the volume {name:?}"), call).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes sure that the volumes of a container that was just created are ours: one that was removed right before it, the engine has
/// made anew, empty and root's. What a container has can't be removed, so from now on they stay.
pub(super) async fn verify(connection: &Connection, mounts: &[Mount]) -> Result<()> {
    for mount in mounts {
        let MountSource::Volume(name) = &mount.source else { continue };
        let volume = inspect(connection, name).await?;
        if volume.is_none_or(|volume| volume.labels.get(ROLE_LABEL).is_none_or(|role| role != ROLE)) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no volume {name:?} any more")));
        }
    }
    Ok(())
}

/// Removes volumes that an engine made for a container that named them, and that are gone with it.
pub(super) async fn remove_unasked(connection: &Connection, mounts: &[Mount]) {
    for mount in mounts {
        let MountSource::Volume(name) = &mount.source else { continue };
        let unasked = inspect(connection, name).await;
        if unasked.is_ok_and(|volume| volume.is_some_and(|volume| !volume.labels.contains_key(ROLE_LABEL)))
            && let Err(error) = remove(connection, name).await
        {
            tracing::warn!(volume = %name, %error, "a volume that nobody asked for could not be removed");
        }
    }
}
