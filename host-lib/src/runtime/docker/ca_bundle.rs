//! The host's CA bundle as a volume that containers mount read-only: seeded once, through a container that never starts.
//!
//! A volume's labels can't change after its creation, so a second, empty volume says that the first one is complete. The
//! seeding container's name is the lock: the engine gives a name to one container only. Whoever is killed half-way leaves
//! the lock behind, with labels; the next one waits for it for a while, then takes it away and begins anew.

use std::{
    collections::{BTreeSet, HashMap},
    io::Read as _,
};

use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{
        CreateContainerOptions, DownloadFromContainerOptions, ListContainersOptions, ListVolumesOptions,
        RemoveContainerOptions, RemoveVolumeOptions, UploadToContainerOptions, WaitContainerOptions,
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use super::{ROLE_LABEL, connection::Connection, specification::checked_reference};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::CaBundle,
};

/// Where the volume is mounted while it is seeded.
const SEED_FOLDER: &str = "/corehold-ca";

const VOLUME_ROLE: &str = "ca-bundle";
const MARKER_ROLE: &str = "ca-bundle-complete";
const MARKER_SUFFIX: &str = "-complete";

/// A bundle's place among the engine's volumes, and inside a container.
struct Plan<'a> {
    volume: String,
    marker: String,
    lock: String,
    folder: &'a str,
    file: &'a str,
    pem: &'a Bytes,
}

impl<'a> Plan<'a> {
    fn of(bundle: &'a CaBundle) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "the CA bundle's path {:?} must be absolute and in a folder of its own, which the bundle's volume covers",
                    bundle.path
                ),
            )
        };
        let (folder, file) = bundle.path.rsplit_once('/').ok_or_else(invalid)?;
        let plain = folder.starts_with('/') && folder.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !plain || matches!(file, "" | "." | "..") {
            return Err(invalid());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.as_bytes()).update(b"\0").update(&bundle.pem);
        let volume = format!("corehold-ca-{}", &hasher.finalize().to_hex()[..12]);
        let (marker, lock) = (format!("{volume}{MARKER_SUFFIX}"), format!("{volume}-seed"));
        Ok(Self { volume, marker, lock, folder, file, pem: &bundle.pem })
    }

    fn mount(&self, target: &str, read_only: bool) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.volume.clone()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            // What the image has in that folder must not be copied into the volume.
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..Mount::default()
        }
    }

    fn tar(&self) -> Result<Bytes> {
        let mut header = tar::Header::new_gnu();
        header.set_size(self.pem.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::with_capacity(self.pem.len() + 2048));
        builder.append_data(&mut header, self.file, &self.pem[..])?;
        Ok(builder.into_inner()?.into())
    }
}

/// The mount by which a container gets the bundle; its volume is seeded if need be. The image is only needed since the
/// engine makes no container without one.
///
/// # Errors
/// `Invalid` for a path that isn't absolute or not in a folder, `NotFound` when the image isn't there.
pub(super) async fn mount(connection: &Connection, image: &str, bundle: &CaBundle) -> Result<Mount> {
    let plan = Plan::of(bundle)?;
    let (volume, marker) =
        tokio::try_join!(volume_exists(connection, &plan.volume), volume_exists(connection, &plan.marker))?;
    if !(volume && marker) {
        seed(connection, image, &plan).await?;
    }
    Ok(plan.mount(plan.folder, true))
}

/// Makes sure that a container that was just created with [`mount`] has the bundle: between the two, somebody may have
/// removed the unused volume (`docker volume prune` does), and the engine puts an empty one in its place.
///
/// The marker is always removed before the volume, and a volume that a container has can't be removed; so a marker that
/// is still there says that the volume is.
pub(super) async fn verify(connection: &Connection, image: &str, bundle: &CaBundle) -> Result<()> {
    let plan = Plan::of(bundle)?;
    if volume_exists(connection, &plan.marker).await? { Ok(()) } else { seed(connection, image, &plan).await }
}

/// Removes the bundles that no container has, and says which.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Vec<String>> {
    let filters = HashMap::from([("label".to_owned(), vec![ROLE_LABEL.to_owned()])]);
    let call = connection.client.list_volumes(Some(ListVolumesOptions { filters: Some(filters) }));
    let listed = connection.call("listing volumes", call).await?.volumes.unwrap_or_default();
    // A marker may have lost its volume, so both kinds lead to a bundle.
    let bundles: BTreeSet<_> = listed
        .iter()
        .filter(|volume| {
            volume.labels.get(ROLE_LABEL).is_some_and(|role| [VOLUME_ROLE, MARKER_ROLE].contains(&&**role))
        })
        .map(|volume| volume.name.strip_suffix(MARKER_SUFFIX).unwrap_or(&volume.name).to_owned())
        .collect();
    let mut removed = Vec::new();
    for bundle in bundles {
        // A bundle in use keeps its marker too, else the next creation would have to look into it again.
        if is_used(connection, &bundle).await? {
            continue;
        }
        // The marker first, see `verify`.
        for volume in [format!("{bundle}{MARKER_SUFFIX}"), bundle] {
            let call = connection.client.remove_volume(&volume, None::<RemoveVolumeOptions>);
            match connection.call("removing a CA bundle", call).await {
                Ok(()) => removed.push(volume),
                // Somebody took it into use meanwhile, or was faster.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

async fn is_used(connection: &Connection, volume: &str) -> Result<bool> {
    let filters = HashMap::from([("volume".to_owned(), vec![volume.to_owned()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    Ok(!connection.call("looking who uses a CA bundle", call).await?.is_empty())
}

async fn volume_exists(connection: &Connection, name: &str) -> Result<bool> {
    match connection.call("looking for the CA bundle", connection.client.inspect_volume(name)).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn seed(connection: &Connection, image: &str, plan: &Plan<'_>) -> Result<()> {
    loop {
        make_volume(connection, &plan.volume, VOLUME_ROLE).await?;
        match lock(connection, image, plan).await {
            Ok(()) => {
                let filled = fill(connection, plan).await;
                let unlocked = unlock(connection, plan).await;
                return match filled {
                    // Another process lost its patience with this one and took the lock away.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    filled => filled.and(unlocked),
                };
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if !wait_for_unlock(connection, plan).await? {
                    tracing::warn!(container = %plan.lock, "taking away a CA seeding that somebody left behind");
                    unlock(connection, plan).await?;
                }
                if volume_exists(connection, &plan.marker).await? {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn make_volume(connection: &Connection, name: &str, role: &str) -> Result<()> {
    let request = VolumeCreateRequest {
        name: Some(name.to_owned()),
        labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), role.to_owned())])),
        ..VolumeCreateRequest::default()
    };
    match connection.call("making the CA bundle's volume", connection.client.create_volume(request)).await {
        // Of two who make it at once, Podman refuses one; Docker gives it to both.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        result => result.map(drop),
    }
}

/// Creates the seeding container, which is the lock.
async fn lock(connection: &Connection, image: &str, plan: &Plan<'_>) -> Result<()> {
    let body = ContainerCreateBody {
        image: Some(checked_reference(image)?.to_owned()),
        // It never starts, but the engine wants a command.
        entrypoint: Some(vec!["never-started".to_owned()]),
        labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), "ca-seed".to_owned())])),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![plan.mount(SEED_FOLDER, false)]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions { name: Some(plan.lock.clone()), platform: String::new() };
    let call = connection.client.create_container(Some(options), body);
    connection.call("seeding the CA bundle", call).await.map(drop)
}

async fn unlock(connection: &Connection, plan: &Plan<'_>) -> Result<()> {
    let options = RemoveContainerOptions { v: false, force: true, link: false };
    match connection.call("seeding the CA bundle", connection.client.remove_container(&plan.lock, Some(options))).await
    {
        // Gone, or going.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
        result => result,
    }
}

/// Waits until the lock is given back; false when nobody gives it back.
async fn wait_for_unlock(connection: &Connection, plan: &Plan<'_>) -> Result<bool> {
    let options = WaitContainerOptions { condition: "removed".to_owned() };
    let mut waiting = connection.client.wait_container(&plan.lock, Some(options));
    match tokio::time::timeout(connection.options.lock_timeout, waiting.next()).await {
        // It ended somehow, or was gone already: the next try to lock tells.
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Puts the bundle into the volume and says that it is complete. What lies there complete is left alone: containers may be
/// reading it, and the engine replaces a file by removing it first.
async fn fill(connection: &Connection, plan: &Plan<'_>) -> Result<()> {
    if !holds_bundle(connection, plan).await? {
        let options = UploadToContainerOptions { path: SEED_FOLDER.to_owned(), ..UploadToContainerOptions::default() };
        let tar = plan.tar()?;
        connection
            .upload("seeding the CA bundle", stream::iter([Ok(tar)]), |body| {
                connection.client.upload_to_container(&plan.lock, Some(options), body)
            })
            .await?;
    }
    make_volume(connection, &plan.marker, MARKER_ROLE).await
}

async fn holds_bundle(connection: &Connection, plan: &Plan<'_>) -> Result<bool> {
    let options = DownloadFromContainerOptions { path: format!("{SEED_FOLDER}/{}", plan.file) };
    let mut download = connection.client.download_from_container(&plan.lock, Some(options));
    let bound = plan.pem.len() + 8 * 1024;
    let mut bytes = BytesMut::new();
    loop {
        match connection.next("seeding the CA bundle", &mut download).await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= bound => bytes.extend_from_slice(&chunk),
            // Longer than it should be.
            Ok(Some(_)) => return Ok(false),
            Ok(None) => break,
            // The file isn't there yet; if it is the container that is gone, the upload says so.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    let mut archive = tar::Archive::new(&bytes[..]);
    let Some(Ok(mut entry)) = archive.entries()?.next() else { return Ok(false) };
    let mut content = Vec::with_capacity(plan.pem.len());
    Ok(entry.read_to_end(&mut content).is_ok() && content == plan.pem[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(pem: &'static str, path: &str) -> CaBundle {
        CaBundle { pem: Bytes::from_static(pem.as_bytes()), path: path.to_owned() }
    }

    #[test]
    fn a_volume_is_named_by_what_it_holds() {
        let name = |pem, path: &str| Plan::of(&bundle(pem, path)).unwrap().volume;
        assert_eq!(name("a", "/tools/ca/bundle.pem"), name("a", "/etc/other/bundle.pem"));
        assert_ne!(name("a", "/tools/ca/bundle.pem"), name("b", "/tools/ca/bundle.pem"));
        assert_ne!(name("a", "/tools/ca/bundle.pem"), name("a", "/tools/ca/other.pem"));
        assert_eq!(name("a", "/x/y").len(), "corehold-ca-".len() + 12);
    }

    #[test]
    fn a_bundle_must_lie_in_a_folder_that_can_be_covered() {
        for path in ["", "bundle.pem", "/bundle.pem", "ca/bundle.pem", "/ca/", "/ca/..", "/../ca/x", "/a//b", "/a/./b"]
        {
            assert_eq!(Plan::of(&bundle("a", path)).err().unwrap().kind(), ErrorKind::Invalid, "{path}");
        }
    }
}
