//! The network that core containers are put into: a bridge whose members can't reach each other, made on demand.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc};

use bollard::{
    models::{NetworkConnectRequest, NetworkCreateRequest, NetworkInspect},
    query_parameters::{InspectNetworkOptions, ListContainersOptions, ListNetworksOptions},
};
use tokio::sync::Mutex;

use super::{DockerOptions, ROLE_LABEL, connection::Connection};
use crate::error::{Error, ErrorKind, Result};

/// Docker's option for traffic between the containers of a bridge.
const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";

/// How often the network is looked for while other processes make and remove some of its name.
const LOOKS: u32 = 10;

/// What is known of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// Its id.
    pub(super) id: String,
    /// Whether this host reaches its members at their own addresses.
    pub(super) direct: bool,
    /// Why the engine, without a word, publishes no port of its members; absent where it does.
    pub(super) publishes_nothing: Option<String>,
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
            Some(network) => check(network, &connection.options)?,
            None => make(connection).await?,
        };
        *known = Some(network.clone());
        Ok(network)
    }

    /// Gives a container that doesn't run the network that is there now. One that ran before asks for the one it had, by id.
    pub(super) async fn reconnect(&self, connection: &Connection, container: &str) -> Result<()> {
        let network = self.ensure(connection).await?;
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: None };
        let call = connection.client.connect_network(&network.id, request);
        connection.call("giving the container its network back", call).await
    }
}

/// Whether a start failed for want of its network: "network … not found" when it was removed while the container didn't run
/// (`docker network prune` does that), "network … is ambiguous" when it is there twice.
pub(super) fn is_lost(error: &Error) -> bool {
    let message = error.to_string();
    message.contains("network ") && (message.contains(" not found") || message.contains("is ambiguous"))
}

/// Removes the network if no container belongs to it, running or not, and says which it was.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Option<String>> {
    let Some(network) = inspect(connection, &connection.options.network).await? else { return Ok(None) };
    let ours = network.labels.as_ref().is_some_and(|labels| labels.contains_key(ROLE_LABEL));
    let Some(id) = network.id.filter(|_| ours) else { return Ok(None) };
    // The engine itself only minds containers that run. Those it lists under the id, the others under the name.
    let name = &connection.options.network;
    let filters = HashMap::from([("network".to_owned(), vec![id.clone(), name.clone()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    if !connection.call("looking who is in the network", call).await?.is_empty() {
        return Ok(None);
    }
    match connection.call("removing the network", connection.client.remove_network(&id)).await {
        Ok(()) => Ok(Some(name.clone())),
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
/// oldest stays.
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
    let made = match connection.call(&what, connection.client.create_network(request)).await {
        Ok(made) => Some(made.id),
        // Newer engines refuse the second of a name.
        Err(error) if error.kind() == ErrorKind::Conflict => None,
        Err(error) => return Err(error),
    };
    match oldest(connection).await? {
        Some(oldest) if oldest.id == made && !connection.options.containers_may_meet && !keeps_apart(&oldest) => {
            // It would only be in the way of whoever asks next.
            let unused = oldest.id.unwrap_or_default();
            connection.call("removing the network", connection.client.remove_network(&unused)).await?;
            let message = "the engine makes no network whose containers are kept apart, and workspaces must be";
            Err(Error::new(ErrorKind::Unsupported, message).hint(
                "Docker does; where all workspaces are one person's, DockerOptions::containers_may_meet takes what there is",
            ))
        }
        Some(oldest) => check(oldest, &connection.options),
        None => {
            let message = format!("{what}: it was removed in the same moment");
            Err(Error::new(ErrorKind::Conflict, message).hint("try again"))
        }
    }
}

/// Of the networks with the name, the one that was made first.
///
/// A process can see its own network alone, while one that began earlier is still being made: that one's maker then
/// removes ours. Whoever finds its choice gone looks again; each time fewer are left.
async fn oldest(connection: &Connection) -> Result<Option<NetworkInspect>> {
    for _ in 0..LOOKS {
        let Some(id) = keep_oldest(connection).await? else { return Ok(None) };
        let call = connection.client.inspect_network(&id, None::<InspectNetworkOptions>);
        match connection.call("looking at the network", call).await {
            Ok(network) => return Ok(Some(network)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The id of the oldest network with the name; the others are removed, whoever made them and was killed before it could.
async fn keep_oldest(connection: &Connection) -> Result<Option<String>> {
    let name = &connection.options.network;
    let filters = HashMap::from([("name".to_owned(), vec![name.clone()])]);
    let options = ListNetworksOptions { filters: Some(filters) };
    let listed = connection.call("listing networks", connection.client.list_networks(Some(options))).await?;
    // The engine's filter takes parts of names too.
    let mut named: Vec<_> = listed.into_iter().filter(|network| network.name.as_deref() == Some(name)).collect();
    named.sort_by_key(|network| (network.created.clone(), network.id.clone()));
    let mut ids = named.into_iter().filter_map(|network| {
        let ours = network.labels.is_some_and(|labels| labels.contains_key(ROLE_LABEL));
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

fn keeps_apart(network: &NetworkInspect) -> bool {
    let between = network.options.as_ref().and_then(|options| options.get(INTER_CONTAINER));
    between.is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// Takes a network only if it keeps its members apart, unless it need not.
fn check(network: NetworkInspect, options: &DockerOptions) -> Result<Network> {
    let name = &options.network;
    if network.driver.as_deref() == Some("null") {
        let message = format!("the network {name:?} has no way in: not even the agent of a container could be reached");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("configure another name; it is made on demand"));
    }
    if !options.containers_may_meet && !keeps_apart(&network) {
        let message = format!("the network {name:?} exists, but lets its containers reach each other");
        return Err(Error::new(ErrorKind::Conflict, message).hint(format!(
            "remove it (`docker network rm {name}`), so that it is made anew, or configure another name"
        )));
    }
    let id = network.id.unwrap_or_default();
    let gateway =
        network.ipam.and_then(|ipam| ipam.config).into_iter().flatten().find_map(|config| config.gateway?.parse().ok());
    let direct = gateway.is_some_and(|gateway| reached_directly(&id, gateway));
    let internal = network.internal == Some(true);
    let publishes_nothing = internal.then(|| format!("the network {name:?} is internal"));
    Ok(Network { id, direct, publishes_nothing })
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
            let error = check(network(open), &DockerOptions::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.hint_text().unwrap().contains("docker network rm corehold"));
            let configured = DockerOptions { containers_may_meet: true, ..DockerOptions::default() };
            assert!(check(network(open), &configured).is_ok(), "unless the configuration says so");
        }
    }

    #[test]
    fn networks_that_publish_nothing_are_known() {
        assert_eq!(check(network(Some("false")), &DockerOptions::default()).unwrap().publishes_nothing, None);
        let internal = NetworkInspect { internal: Some(true), ..network(Some("false")) };
        let closed = DockerOptions { network: "closed".to_owned(), ..DockerOptions::default() };
        let why = check(internal, &closed).unwrap().publishes_nothing.unwrap();
        assert!(why.contains("\"closed\" is internal"), "{why}");
        let none = NetworkInspect { driver: Some("null".to_owned()), ..network(None) };
        assert_eq!(check(none, &DockerOptions::default()).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_address_of_this_host_alone_does_not_make_a_network_its_own() {
        // 127.0.0.1 can be bound, but there is no such bridge.
        assert!(!check(network(Some("false")), &DockerOptions::default()).unwrap().direct);
    }
}
