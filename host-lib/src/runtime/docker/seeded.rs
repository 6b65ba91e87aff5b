//! Read-only volumes that are seeded once, through a container that never starts: the host's CA bundle, the agent.
//!
//! A volume's labels can't change after its creation, so a second, empty volume says that the first one is complete. The
//! seeding container's name is the lock: the engine gives a name to one container only. Whoever is killed half-way leaves
//! the lock behind, with labels; the next one waits for it for a while, then takes it away and begins anew.

use std::{
    collections::{BTreeSet, HashMap},
    io::Read as _,
};

use bollard::{
    models::{HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{
        DownloadFromContainerOptions, ListContainersOptions, ListVolumesOptions, RemoveVolumeOptions,
        UploadToContainerOptions, WaitContainerOptions,
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use super::{ROLE_LABEL, auxiliary, connection::Connection};
use crate::error::{ErrorKind, Result};

const MARKER_SUFFIX: &str = "-complete";

/// What a tar adds to a file in it, with room to spare.
const TAR_OVERHEAD: usize = 8 * 1024;

/// What kind of thing is seeded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// For people: `the CA bundle`.
    pub(super) what: &'static str,
    /// Role label of the volume; the marker's has a suffix.
    pub(super) role: &'static str,
    /// Role label of the container that is the lock.
    pub(super) seed_role: &'static str,
    /// Where the volume is mounted while it is seeded: no folder that an image has.
    pub(super) seed_folder: &'static str,
}

/// What lies in a seeded volume.
pub(super) struct Content {
    /// Files by their names.
    pub(super) files: Vec<(String, Bytes)>,
    pub(super) mode: u32,
    /// Empty folders beside them, for what is mounted there.
    pub(super) folders: &'static [&'static str],
}

impl Content {
    fn tar(&self) -> Result<Bytes> {
        let bytes: usize = self.files.iter().map(|(_, bytes)| bytes.len() + TAR_OVERHEAD).sum();
        let mut builder = tar::Builder::new(Vec::with_capacity(bytes));
        for folder in self.folders {
            auxiliary::append_folder(&mut builder, folder, (0, 0), 0o755)?;
        }
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(self.mode);
            builder.append_data(&mut header, name, &bytes[..])?;
        }
        Ok(builder.into_inner()?.into())
    }
}

/// Where the content comes from.
pub(super) trait Source: Send + Sync {
    /// What is to lie in the volume. `container` is the one that never starts, made of the image that the volume is seeded through.
    ///
    /// # Errors
    /// `NotFound` only when that container is gone: then it is begun anew.
    fn content(&self, connection: &Connection, container: &str) -> impl Future<Output = Result<Content>> + Send;
}

/// A volume that is seeded.
pub(super) struct Seeded<S> {
    pub(super) kind: Kind,
    pub(super) volume: String,
    pub(super) source: S,
}

impl<S: Source> Seeded<S> {
    fn marker(&self) -> String {
        format!("{}{MARKER_SUFFIX}", self.volume)
    }

    fn lock_name(&self) -> String {
        format!("{}-seed", self.volume)
    }

    /// What is done, for errors.
    fn seeding(&self) -> String {
        format!("seeding {}", self.kind.what)
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

    /// The mount by which a container gets it; the volume is seeded if need be. The image is needed since the engine makes no
    /// container without one.
    ///
    /// # Errors
    /// `NotFound` when the image isn't there, and those of the source.
    pub(super) async fn ensure(&self, connection: &Connection, image: &str, target: &str) -> Result<Mount> {
        let marker = self.marker();
        let (volume, marker) =
            tokio::try_join!(self.exists(connection, &self.volume), self.exists(connection, &marker))?;
        if !(volume && marker) {
            self.seed(connection, image).await?;
        }
        Ok(self.mount(target, true))
    }

    /// Makes sure that a container that was just created with [`ensure`](Self::ensure) has the content: between the two, somebody
    /// may have removed the unused volume (`docker volume prune` does), and the engine puts an empty one in its place.
    ///
    /// The marker is always removed before the volume, and a volume that a container has can't be removed; so a marker that
    /// is still there says that the volume is.
    pub(super) async fn verify(&self, connection: &Connection, image: &str) -> Result<()> {
        if self.exists(connection, &self.marker()).await? { Ok(()) } else { self.seed(connection, image).await }
    }

    async fn exists(&self, connection: &Connection, name: &str) -> Result<bool> {
        let what = format!("looking for {}", self.kind.what);
        match connection.call(&what, connection.client.inspect_volume(name)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn seed(&self, connection: &Connection, image: &str) -> Result<()> {
        loop {
            self.make_volume(connection, &self.volume, self.kind.role).await?;
            match self.lock(connection, image).await {
                Ok(()) => {
                    let filled = self.fill(connection).await;
                    let unlocked = self.unlock(connection).await;
                    return match filled {
                        // Another process lost its patience with this one and took the lock away.
                        Err(error) if error.kind() == ErrorKind::NotFound => continue,
                        filled => filled.and(unlocked),
                    };
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !self.wait_for_unlock(connection).await? {
                        tracing::warn!(container = %self.lock_name(), "taking away a seeding that somebody left behind");
                        self.unlock(connection).await?;
                    }
                    if self.exists(connection, &self.marker()).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn make_volume(&self, connection: &Connection, name: &str, role: &str) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), role.to_owned())])),
            ..VolumeCreateRequest::default()
        };
        let what = format!("making the volume of {}", self.kind.what);
        match connection.call(&what, connection.client.create_volume(request)).await {
            // Of two who make it at once, Podman refuses one; Docker gives it to both.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop),
        }
    }

    /// Creates the seeding container, which is the lock.
    async fn lock(&self, connection: &Connection, image: &str) -> Result<()> {
        let mounts = Some(vec![self.mount(self.kind.seed_folder, false)]);
        let body =
            auxiliary::never_started(image, self.kind.seed_role, HostConfig { mounts, ..HostConfig::default() })?;
        auxiliary::create(connection, &self.seeding(), &self.lock_name(), body).await
    }

    /// The volume stays: it has a name.
    async fn unlock(&self, connection: &Connection) -> Result<()> {
        auxiliary::remove(connection, &self.seeding(), &self.lock_name()).await
    }

    /// Waits until the lock is given back; false when nobody gives it back.
    async fn wait_for_unlock(&self, connection: &Connection) -> Result<bool> {
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let name = self.lock_name();
        let mut waiting = connection.client.wait_container(&name, Some(options));
        match tokio::time::timeout(connection.options.lock_timeout, waiting.next()).await {
            // It ended somehow, or was gone already: the next try to lock tells.
            Ok(_) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// Puts the content into the volume and says that it is complete. What lies there complete is left alone: containers may be
    /// using it, and the engine replaces a file by removing it first.
    async fn fill(&self, connection: &Connection) -> Result<()> {
        let lock = self.lock_name();
        let content = self.source.content(connection, &lock).await?;
        if !self.holds(connection, &content).await? {
            let options = UploadToContainerOptions {
                path: self.kind.seed_folder.to_owned(),
                ..UploadToContainerOptions::default()
            };
            let tar = content.tar()?;
            connection
                .upload(&self.seeding(), stream::iter([Ok(tar)]), |body| {
                    connection.client.upload_to_container(&lock, Some(options), body)
                })
                .await?;
        }
        self.make_volume(connection, &self.marker(), &marker_role(self.kind)).await
    }

    async fn holds(&self, connection: &Connection, content: &Content) -> Result<bool> {
        for (name, bytes) in &content.files {
            let path = format!("{}/{name}", self.kind.seed_folder);
            match read_file(connection, &self.seeding(), &self.lock_name(), &path, bytes.len()).await {
                Ok(read) if read.as_deref() == Some(&bytes[..]) => {}
                Ok(_) => return Ok(false),
                // The file isn't there yet; if it is the container that is gone, the upload says so.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn marker_role(kind: Kind) -> String {
    format!("{}{MARKER_SUFFIX}", kind.role)
}

/// A file of a container, whether or not that runs; `None` when it is longer than it may be, or no file.
///
/// # Errors
/// `NotFound` when there is no such file or no such container.
pub(super) async fn read_file(
    connection: &Connection,
    what: &str,
    container: &str,
    path: &str,
    most: usize,
) -> Result<Option<Vec<u8>>> {
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut download = connection.client.download_from_container(container, Some(options));
    let mut bytes = BytesMut::new();
    while let Some(chunk) = connection.next(what, &mut download).await? {
        if bytes.len() + chunk.len() > most + TAR_OVERHEAD {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    let mut archive = tar::Archive::new(&bytes[..]);
    let Some(Ok(mut entry)) = archive.entries()?.next() else { return Ok(None) };
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(most).min(most));
    Ok(entry.read_to_end(&mut content).is_ok().then_some(content))
}

/// Removes the volumes of a kind that no container has, and says which.
pub(super) async fn remove_unused(connection: &Connection, kind: Kind) -> Result<Vec<String>> {
    let filters = HashMap::from([("label".to_owned(), vec![ROLE_LABEL.to_owned()])]);
    let call = connection.client.list_volumes(Some(ListVolumesOptions { filters: Some(filters) }));
    let listed = connection.call("listing volumes", call).await?.volumes.unwrap_or_default();
    let marker = marker_role(kind);
    // A marker may have lost its volume, so both lead to what was seeded.
    let seeded: BTreeSet<_> = listed
        .iter()
        .filter(|volume| volume.labels.get(ROLE_LABEL).is_some_and(|role| *role == kind.role || *role == marker))
        .map(|volume| volume.name.strip_suffix(MARKER_SUFFIX).unwrap_or(&volume.name).to_owned())
        .collect();
    let mut removed = Vec::new();
    for volume in seeded {
        // One in use keeps its marker too, else the next creation would have to look into it again.
        if is_used(connection, kind, &volume).await? {
            continue;
        }
        // The marker first, see `verify`.
        for volume in [format!("{volume}{MARKER_SUFFIX}"), volume] {
            let call = connection.client.remove_volume(&volume, None::<RemoveVolumeOptions>);
            match connection.call(&format!("removing {}", kind.what), call).await {
                Ok(()) => removed.push(volume),
                // Somebody took it into use meanwhile, or was faster.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

async fn is_used(connection: &Connection, kind: Kind, volume: &str) -> Result<bool> {
    let filters = HashMap::from([("volume".to_owned(), vec![volume.to_owned()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    Ok(!connection.call(&format!("looking who uses {}", kind.what), call).await?.is_empty())
}
