//! Containers that are no workspaces: they never start, or do one thing and end.

use std::{collections::HashMap, io::Write};

use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};

use super::{ROLE_LABEL, connection::Connection, specification::checked_reference};
use crate::error::{ErrorKind, Result};

/// What creates a container that never starts.
///
/// # Errors
/// `Invalid` when `image` is no reference.
pub(super) fn never_started(image: &str, role: &str, host_config: HostConfig) -> Result<ContainerCreateBody> {
    Ok(ContainerCreateBody {
        image: Some(checked_reference(image)?.to_owned()),
        // The engine wants a command.
        entrypoint: Some(vec!["never-started".to_owned()]),
        labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), role.to_owned())])),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..host_config }),
        ..ContainerCreateBody::default()
    })
}

/// Creates a container by that name.
///
/// # Errors
/// `AlreadyExists` when there is one of that name: so a name is a lock.
pub(super) async fn create(connection: &Connection, what: &str, name: &str, body: ContainerCreateBody) -> Result<()> {
    let options = CreateContainerOptions { name: Some(name.to_owned()), platform: String::new() };
    connection.call(what, connection.client.create_container(Some(options), body)).await.map(drop)
}

/// Removes one, running or not, with the volumes that its image asked for. It is fine if it is gone, or going.
pub(super) async fn remove(connection: &Connection, what: &str, container: &str) -> Result<()> {
    let options = RemoveContainerOptions { v: true, force: true, link: false };
    match connection.call(what, connection.client.remove_container(container, Some(options))).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
        result => result,
    }
}

/// Adds an empty folder to a tar that is laid into a container.
pub(super) fn append_folder(
    builder: &mut tar::Builder<impl Write>,
    path: &str,
    (uid, gid): (u32, u32),
    mode: u32,
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    Ok(builder.append_data(&mut header, format!("{path}/"), std::io::empty())?)
}
