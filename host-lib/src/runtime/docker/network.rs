//! The network that core containers are put into: a bridge whose members can't reach each other, made on demand.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc};

use bollard::{
    models::{NetworkCreateRequest, NetworkInspect},
    query_parameters::{InspectNetworkOptions, ListNetworksOptions},
};
use tokio::sync::Mutex;

use super::{ROLE_LABEL, connection::Connection};
use crate::error::{Error, ErrorKind, Result};

/// Docker's option for traffic between the containers of a bridge.
const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";

/// What is known of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// Its id. Containers are created with it, since names of networks are not unique.
    pub(super) id: String,
    /// Whether this host reaches its members at their own addresses.
    pub(super) direct: bool,
}

/// Keeps one network in being.
#[derive(Clone, Default)]
pub(super) struct Networks {
    /// The network as it was last seen. The lock is held while one is made, on purpose: of 50 creations at once one
    /// makes the network and the others wait for it; else each would, and the engine's address pools end at 30.
    known: Arc<Mutex<Option<Network>>>,
}

impl Networks {
    /// The network, made if it isn't there.
    pub(super) async fn ensure(&self, connection: &Connection) -> Result<Network> {
        let mut known = self.known.lock().await;
        // Somebody may have removed it since (`docker network prune` does); asking costs 0.4 ms.
        let reference = known.as_ref().map_or(connection.options.network.as_str(), |network| network.id.as_str());
        let found = match inspect(connection, reference).await? {
            None if known.is_some() => inspect(connection, &connection.options.network).await?,
            found => found,
        };
        let network = match found {
            Some(network) => check(network, &connection.options.network)?,
            None => make(connection).await?,
        };
        *known = Some(network.clone());
        Ok(network)
    }
}

/// Removes the network if no container is in it, and says which it was.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Option<String>> {
    let Some(network) = inspect(connection, &connection.options.network).await? else { return Ok(None) };
    let ours = network.labels.as_ref().is_some_and(|labels| labels.contains_key(ROLE_LABEL));
    let Some(id) = network.id.filter(|_| ours) else { return Ok(None) };
    match connection.call("removing the network", connection.client.remove_network(&id)).await {
        Ok(()) => Ok(Some(connection.options.network.clone())),
        // In use (403, "has active endpoints"), or somebody else was faster.
        Err(error) if error.kind() == ErrorKind::NotFound || error.to_string().contains("active endpoints") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn inspect(connection: &Connection, reference: &str) -> Result<Option<NetworkInspect>> {
    let call = connection.client.inspect_network(reference, None::<InspectNetworkOptions>);
    match connection.call("looking at the network", call).await {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Two have the name (see `make`); the engine wants an id.
        Err(error) if error.to_string().contains("is ambiguous") => Ok(oldest(connection).await?),
        Err(error) => Err(error),
    }
}

/// Makes the network. Docker lets two processes make two networks of one name, so whoever makes one looks again: the
/// oldest stays, the others are removed by those who made them.
async fn make(connection: &Connection) -> Result<Network> {
    let name = &connection.options.network;
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        options: Some(HashMap::from([(INTER_CONTAINER.to_owned(), "false".to_owned())])),
        labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), "network".to_owned())])),
        ..NetworkCreateRequest::default()
    };
    let what = format!("making the network {name:?}");
    let mine = match connection.call(&what, connection.client.create_network(request)).await {
        Ok(created) => Some(created.id),
        // Newer engines refuse the second of a name.
        Err(error) if error.kind() == ErrorKind::Conflict => None,
        Err(error) => return Err(error),
    };
    let Some(oldest) = oldest(connection).await? else {
        let message = format!("{what}: it was removed in the same moment");
        return Err(Error::new(ErrorKind::Conflict, message).hint("try again"));
    };
    if let Some(mine) = mine.filter(|mine| Some(mine) != oldest.id.as_ref()) {
        // Nobody uses it: its id was known to this call alone.
        connection.call("removing a doubled network", connection.client.remove_network(&mine)).await?;
    }
    check(oldest, name)
}

/// Of the networks with the name, the one that was made first.
async fn oldest(connection: &Connection) -> Result<Option<NetworkInspect>> {
    let name = &connection.options.network;
    let filters = HashMap::from([("name".to_owned(), vec![name.clone()])]);
    let options = ListNetworksOptions { filters: Some(filters) };
    let listed = connection.call("listing networks", connection.client.list_networks(Some(options))).await?;
    let oldest = listed
        .into_iter()
        // The engine's filter takes parts of names too.
        .filter(|network| network.name.as_deref() == Some(name))
        .min_by_key(|network| (network.created.clone(), network.id.clone()))
        .and_then(|network| network.id);
    match oldest {
        Some(id) => {
            let call = connection.client.inspect_network(&id, None::<InspectNetworkOptions>);
            connection.call("looking at the network", call).await.map(Some)
        }
        None => Ok(None),
    }
}

/// Takes a network only if it keeps its members apart.
fn check(network: NetworkInspect, name: &str) -> Result<Network> {
    let apart = network
        .options
        .as_ref()
        .and_then(|options| options.get(INTER_CONTAINER))
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    if !apart {
        let message = format!("the network {name:?} exists, but lets its containers reach each other");
        return Err(Error::new(ErrorKind::Conflict, message).hint(format!(
            "remove it (`docker network rm {name}`), so that it is made anew, or configure another name"
        )));
    }
    let id = network.id.unwrap_or_default();
    let gateway =
        network.ipam.and_then(|ipam| ipam.config).into_iter().flatten().find_map(|config| config.gateway?.parse().ok());
    let direct = gateway.is_some_and(|gateway| reached_directly(&id, gateway));
    Ok(Network { id, direct })
}

/// Whether a bridge network is one of this host's own, so that its members are reached at their own addresses.
///
/// Its gateway must be an address that this process can bind, and its interface (`br-` and the id's first twelve digits)
/// must be here too: another machine's engine, behind a forwarded socket, may well use the same subnet.
pub(super) fn reached_directly(network_id: &str, gateway: IpAddr) -> bool {
    let interface = format!("/sys/class/net/br-{}", network_id.get(..12).unwrap_or(network_id));
    std::net::UdpSocket::bind((gateway, 0)).is_ok() && Path::new(&interface).exists()
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    fn network(icc: Option<&str>) -> NetworkInspect {
        NetworkInspect {
            id: Some("0123456789abcdef".to_owned()),
            options: icc.map(|value| HashMap::from([(INTER_CONTAINER.to_owned(), value.to_owned())])),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { gateway: Some("127.0.0.1".to_owned()), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            ..NetworkInspect::default()
        }
    }

    #[test]
    fn a_network_that_does_not_isolate_is_refused() {
        for open in [None, Some("true")] {
            let error = check(network(open), "corehold").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.hint_text().unwrap().contains("docker network rm corehold"));
        }
    }

    #[test]
    fn an_address_of_this_host_alone_does_not_make_a_network_its_own() {
        // 127.0.0.1 can be bound, but there is no such bridge.
        assert!(!check(network(Some("false")), "corehold").unwrap().direct);
    }
}
