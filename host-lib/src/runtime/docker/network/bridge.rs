//! What a network is on the engine's machine: its bridge, the addresses of that, and whether its members are kept apart.

use std::{collections::HashMap, net::IpAddr};

use bollard::{
    models::{self, NetworkInspect},
    query_parameters::ListNetworksOptions,
};

use super::{
    super::{ROLE_LABEL, connection::Connection, engine::Engine},
    Network,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::NetworkSpec,
};

/// Docker's option for traffic between the containers of a bridge.
pub(super) const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";
/// Docker's option for the bridge's name.
pub(super) const NAME: &str = "com.docker.network.bridge.name";

/// What is known of a network beyond what its engine says of it: Podman 4.3 takes a name for the bridge, and doesn't show it; it takes
/// no word on traffic between members, which are kept apart by our own rules then.
#[derive(Debug, Clone)]
pub(super) struct Traits {
    engine: Engine,
    /// The name that the bridge has, or is given, if the network is ours.
    pub(super) bridge: String,
    /// Whether our own rules are set.
    rules: bool,
}

impl Traits {
    /// Those of a network of this name.
    pub(super) async fn of(connection: &Connection, network: &str) -> Result<Self> {
        let facts = connection.facts().await?;
        let mut hasher = blake3::Hasher::new();
        for part in [facts.name.as_deref(), facts.docker_root_dir.as_deref(), Some(network)] {
            hasher.update(part.unwrap_or_default().as_bytes()).update(b"\0");
        }
        // Of at most 15 characters, as the kernel has it, and another one for each network of each engine, since an engine takes a bridge
        // that is there already, whosever it is.
        let bridge = format!("{}{}", prefix(connection.engine), &hasher.finalize().to_hex()[..12]);
        Ok(Self { engine: connection.engine, bridge, rules: !connection.options.host_may_be_reached })
    }

    /// The bridge's name: as it was chosen, else as the engine chooses; empty, where that isn't known.
    pub(super) fn bridge_of(&self, network: &NetworkInspect) -> String {
        let chosen = network.options.as_ref().and_then(|options| options.get(NAME)).cloned();
        let id = network.id.as_deref().unwrap_or_default();
        match self.engine {
            Engine::Podman if is_ours(network.labels.as_ref()) => self.bridge.clone(),
            Engine::Podman => String::new(),
            Engine::Docker => chosen.unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(id))),
        }
    }
}

/// How the names of bridges begin that we choose. Not alike, so that whoever removes the rules of bridges that are gone leaves those
/// of the other engine alone, whose bridges may be gone and come again.
pub(super) fn prefix(engine: Engine) -> &'static str {
    match engine {
        Engine::Docker => "ch",
        Engine::Podman => "chp",
    }
}

/// Whether a network of these labels is ours.
pub(super) fn is_ours(labels: Option<&HashMap<String, String>>) -> bool {
    labels.is_some_and(|labels| labels.contains_key(ROLE_LABEL))
}

/// The networks of ours that the engine has.
pub(super) async fn ours(connection: &Connection) -> Result<Vec<models::Network>> {
    list(connection, "label", &format!("{ROLE_LABEL}=network")).await
}

/// The networks for which something is so, by one of the engine's filters.
pub(super) async fn list(connection: &Connection, what: &str, is: &str) -> Result<Vec<models::Network>> {
    let filters = Some(HashMap::from([(what.to_owned(), vec![is.to_owned()])]));
    let options = Some(ListNetworksOptions { filters });
    connection.call("listing networks", connection.client.list_networks(options)).await
}

/// The bridges of all networks of ours that the engine has.
pub(super) async fn all(connection: &Connection) -> Result<Vec<String>> {
    let mut bridges = Vec::new();
    for network in ours(connection).await? {
        let name = network.name.unwrap_or_default();
        bridges.push(Traits::of(connection, &name).await?.bridge);
    }
    Ok(bridges)
}

/// Whether the members of a network don't reach each other, or won't when it is closed.
pub(super) fn keeps_apart(network: &NetworkInspect, traits: &Traits) -> bool {
    let between = network.options.as_ref().and_then(|options| options.get(INTER_CONTAINER));
    let by_rules = traits.engine == Engine::Podman && traits.rules && is_ours(network.labels.as_ref());
    by_rules || between.is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// Takes a network only if it keeps its members apart, unless it need not.
pub(super) fn check(network: NetworkInspect, spec: &NetworkSpec, traits: &Traits) -> Result<Network> {
    let name = &spec.name;
    if network.driver.as_deref() == Some("null") {
        let message = format!("the network {name:?} has no way in: not even the agent of a container could be reached");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("configure another name; it is made on demand"));
    }
    if !spec.meet && !keeps_apart(&network, traits) {
        let message = format!("the network {name:?} exists, but lets its containers reach each other");
        return Err(Error::new(ErrorKind::Conflict, message).hint(format!(
            "remove it (`docker network rm {name}`), so that it is made anew, or configure another name"
        )));
    }
    let bridge = traits.bridge_of(&network);
    let id = network.id.unwrap_or_default();
    let addresses = network.ipam.and_then(|ipam| ipam.config).into_iter().flatten();
    let gateways: Vec<IpAddr> = addresses.filter_map(|config| config.gateway?.parse().ok()).collect();
    if !gateways.is_empty() && !gateways.iter().any(IpAddr::is_ipv4) {
        let message = format!("the network {name:?} has no IPv4 addresses, and workspaces are reached by them");
        return Err(Error::new(ErrorKind::Unsupported, message).hint(format!(
            "remove it (`docker network rm {name}`), so that it is made anew, or configure another name"
        )));
    }
    let direct = reached_directly(&bridge, &gateways);
    let internal = network.internal == Some(true);
    let publishes_nothing = internal.then(|| format!("the network {name:?} is internal"));
    Ok(Network { id, bridge, gateways, direct, publishes_nothing, set: None, resolver: false })
}

/// Whether a bridge network is one of this host's own, so that its members are reached at their own addresses.
///
/// Its gateway must be an address that this process can bind, and its bridge must be here too: another machine's engine, behind a
/// forwarded socket, may well use the same subnet.
pub(super) fn reached_directly(bridge: &str, gateways: &[IpAddr]) -> bool {
    let gateway = gateways.iter().find(|gateway| gateway.is_ipv4());
    gateway.is_some_and(|gateway| std::net::UdpSocket::bind((*gateway, 0)).is_ok())
        && !bridge.is_empty()
        && is_here(bridge)
}

/// Whether this process' network namespace has an interface of this name. Asked of the kernel, since `/sys` may show another one's.
fn is_here(interface: &str) -> bool {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, interface).is_ok())
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;
    use crate::runtime::docker::{DockerOptions, network::default_spec};

    const DOCKER: Traits = Traits { engine: Engine::Docker, bridge: String::new(), rules: true };

    /// One of ours, as Podman shows it.
    fn of_podman() -> (NetworkInspect, Traits) {
        let labels = Some(HashMap::from([(ROLE_LABEL.to_owned(), "network".to_owned())]));
        let traits = Traits { engine: Engine::Podman, bridge: "chp0123456789ab".to_owned(), rules: true };
        (NetworkInspect { labels, ..network(None) }, traits)
    }

    #[test]
    fn an_engine_that_keeps_nobody_apart_is_taken_with_rules_that_do() {
        let (ours, traits) = of_podman();
        assert_eq!(check(ours.clone(), &spec("corehold"), &traits).unwrap().bridge, traits.bridge);
        let open = Traits { rules: false, ..traits.clone() };
        assert_eq!(check(ours, &spec("corehold"), &open).unwrap_err().kind(), ErrorKind::Conflict, "no rules are set");
        let others = check(network(None), &spec("corehold"), &traits);
        assert_eq!(others.unwrap_err().kind(), ErrorKind::Conflict, "nobody knows its bridge, so nothing can close it");
        let meet = NetworkSpec { meet: true, ..spec("corehold") };
        assert_eq!(check(network(None), &meet, &traits).unwrap().bridge, "");
    }

    #[test]
    fn an_interface_is_here_by_its_name() {
        assert!(is_here("lo"));
        for other in ["", "no-such-if", "a name that is longer than any"] {
            assert!(!is_here(other), "{other}");
        }
    }

    #[test]
    fn an_engine_that_can_keep_apart_must() {
        let ours = of_podman().0;
        assert_eq!(check(ours, &spec("corehold"), &DOCKER).unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_network_of_ipv6_alone_is_refused_and_beside_ipv4_it_is_known() {
        let with = |gateways: &[&str]| {
            let config = gateways
                .iter()
                .map(|gateway| IpamConfig { gateway: Some((*gateway).to_owned()), ..IpamConfig::default() });
            NetworkInspect {
                ipam: Some(Ipam { config: Some(config.collect()), ..Ipam::default() }),
                ..network(Some("false"))
            }
        };
        let error = check(with(&["fd00::1"]), &spec("six"), &DOCKER).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("docker network rm six"));
        assert_eq!(check(with(&["fd00::1", "10.9.0.1"]), &spec("both"), &DOCKER).unwrap().gateways.len(), 2);
    }

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

    fn spec(name: &str) -> NetworkSpec {
        NetworkSpec { name: name.to_owned(), ..default_spec(&DockerOptions::default()) }
    }

    #[test]
    fn a_network_that_does_not_isolate_is_refused() {
        for open in [None, Some("true")] {
            let error = check(network(open), &spec("corehold"), &DOCKER).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.hint_text().unwrap().contains("docker network rm corehold"));
            let configured = DockerOptions { containers_may_meet: true, ..DockerOptions::default() };
            assert!(
                check(network(open), &default_spec(&configured), &DOCKER).is_ok(),
                "unless the configuration says so"
            );
        }
    }

    #[test]
    fn networks_that_publish_nothing_are_known() {
        assert_eq!(check(network(Some("false")), &spec("corehold"), &DOCKER).unwrap().publishes_nothing, None);
        let internal = NetworkInspect { internal: Some(true), ..network(Some("false")) };
        let why = check(internal, &spec("closed"), &DOCKER).unwrap().publishes_nothing.unwrap();
        assert!(why.contains("\"closed\" is internal"), "{why}");
        let none = NetworkInspect { driver: Some("null".to_owned()), ..network(None) };
        assert_eq!(check(none, &spec("corehold"), &DOCKER).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_address_of_this_host_alone_does_not_make_a_network_its_own() {
        // 127.0.0.1 can be bound, but there is no such bridge.
        assert!(!check(network(Some("false")), &spec("corehold"), &DOCKER).unwrap().direct);
    }
}
