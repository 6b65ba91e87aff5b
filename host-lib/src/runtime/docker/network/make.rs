//! The making of a network, by any number of processes at once.

use std::{collections::HashMap, time::Duration};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};

use super::{
    Ensured, OF_LABEL,
    bridge::{self, Traits, check, keeps_apart},
    inspect_by_id, routes,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{
        NetworkSpec,
        docker::{ROLE_LABEL, connection::Connection},
    },
};

/// How often the network is looked for while other processes make and remove some of its name.
const LOOKS: u32 = 10;
/// Between two looks at what somebody else is making; it takes a tenth of a second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Makes the network. Docker lets two processes make two networks of one name, so whoever makes one looks again: the
/// oldest stays.
pub(super) async fn make(connection: &Connection, spec: &NetworkSpec) -> Result<Ensured> {
    let name = &spec.name;
    if let Some(subnet) = spec.subnet.filter(|_| connection.is_local_socket())
        && let Some(whose) = routes::taken_here(subnet)
    {
        return Ok(Ensured::SubnetTaken(whose));
    }
    let what = format!("making the network {name:?}");
    let traits = Traits::of(connection, name).await?;
    for _ in 0..LOOKS {
        let call = connection.client.create_network(request(connection, spec, &traits));
        let made = match connection.call(&what, call).await {
            Ok(made) => Some(made.id),
            Err(error) if overlaps(&error) => {
                return Ok(Ensured::SubnetTaken("another network's of the engine".to_owned()));
            }
            // Somebody else is making it; newer engines refuse the second of a name, older ones the second of a bridge.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists || error.to_string().contains("same bridge name") =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        match oldest(connection, name).await? {
            Some(oldest) if oldest.id == made && !spec.meet && !keeps_apart(&oldest, &traits) => {
                // It would only be in the way of whoever asks next.
                let unused = oldest.id.unwrap_or_default();
                connection.call("removing the network", connection.client.remove_network(&unused)).await?;
                let message = "the engine makes no network whose containers are kept apart, and workspaces must be";
                return Err(Error::new(ErrorKind::Unsupported, message).hint(
                    "Docker does, and so do this host's own firewall rules, unless DockerOptions::host_may_be_reached leaves them out; \
                     where all workspaces are one person's, DockerOptions::containers_may_meet takes what there is",
                ));
            }
            Some(oldest) => return check(oldest, spec, &traits).map(Ensured::There),
            // The other one isn't listed yet, or is gone again.
            None => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
    let message = format!("{what}: others make and remove it all the time");
    Err(Error::new(ErrorKind::Conflict, message).hint("try again"))
}

fn request(connection: &Connection, spec: &NetworkSpec, traits: &Traits) -> NetworkCreateRequest {
    let ipam = spec.subnet.map(|subnet| Ipam {
        config: Some(vec![IpamConfig {
            subnet: Some(subnet.to_string()),
            gateway: Some(subnet.gateway().to_string()),
            ..IpamConfig::default()
        }]),
        ..Ipam::default()
    });
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        options: Some(HashMap::from([
            (bridge::INTER_CONTAINER.to_owned(), spec.meet.to_string()),
            (bridge::NAME.to_owned(), traits.bridge.clone()),
        ])),
        labels: Some(HashMap::from([
            (ROLE_LABEL.to_owned(), "network".to_owned()),
            (OF_LABEL.to_owned(), connection.options.network.clone()),
        ])),
        ipam,
        ..NetworkCreateRequest::default()
    }
}

/// Whether the engine has given the addresses to another network: "Pool overlaps with other one on this address space", or, as Podman
/// says it, "subnet … is already used on the host or by another config".
fn overlaps(error: &Error) -> bool {
    let said = error.to_string();
    said.contains("Pool overlaps") || said.contains("is already used")
}

/// Of the networks with the name, the one that was made first.
///
/// A process can see its own network alone, while one that began earlier is still being made: that one's maker then
/// removes ours. Whoever finds its choice gone looks again; each time fewer are left.
pub(super) async fn oldest(connection: &Connection, name: &str) -> Result<Option<NetworkInspect>> {
    for _ in 0..LOOKS {
        let Some(id) = keep_oldest(connection, name).await? else { return Ok(None) };
        if let Some(network) = inspect_by_id(connection, &id).await? {
            return Ok(Some(network));
        }
    }
    Ok(None)
}

/// The id of the oldest network with the name; the others are removed, whoever made them and was killed before it could.
async fn keep_oldest(connection: &Connection, name: &str) -> Result<Option<String>> {
    let listed = bridge::list(connection, "name", name).await?;
    // The engine's filter takes parts of names too.
    let mut named: Vec<_> = listed.into_iter().filter(|network| network.name.as_deref() == Some(name)).collect();
    named.sort_by_key(|network| (network.created.clone(), network.id.clone()));
    let mut ids = named.into_iter().filter_map(|network| {
        let ours = bridge::is_ours(network.labels.as_ref());
        Some((network.id?, ours))
    });
    let Some((oldest, _)) = ids.next() else { return Ok(None) };
    for (doubled, _) in ids.filter(|(_, ours)| *ours) {
        let removed = connection.call("removing a doubled network", connection.client.remove_network(&doubled)).await;
        if let Err(error) = removed
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(network = doubled, %error, "a doubled network could not be removed");
        }
    }
    Ok(Some(oldest))
}
