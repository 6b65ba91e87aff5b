//! The networks that core containers are put into: bridges whose members reach neither the engine's machine nor each other, unless they
//! may, made on demand.

mod bridge;
mod firewall;
mod helper;
mod make;
mod probe;
mod routes;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{
    models::{ContainerInspectResponse, NetworkConnectRequest, NetworkInspect},
    query_parameters::{InspectNetworkOptions, ListContainersOptions},
};
use tokio::sync::Mutex;

pub(super) use self::helper::Leaving;
use self::{
    bridge::{Traits, check, reached_directly},
    firewall::Rules,
    make::{make, oldest},
    probe::{Member, Probe},
    routes::taken,
};
use super::{DockerOptions, connection::Connection, engine::Engine};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Egress, NetworkMade, NetworkSpec},
};

/// The label of networks that says for whom they are made: the name of the default one ([`DockerOptions::network`]).
const OF_LABEL: &str = "dev.corehold.networks-of";
/// The label of containers that says which network they are in, as it was specified: so that it can be made anew, and closed anew,
/// by who knows nothing of it.
pub(super) const SPEC_LABEL: &str = "dev.corehold.network";

/// After how long rules are set anew that can't be looked at from here.
const SET_AGAIN: Duration = Duration::from_secs(60);
/// How many networks' bridges are remembered.
const BRIDGES_KNOWN: usize = 1024;
/// How many members of other networks a new one's probe tries to reach.
const OTHERS: usize = 3;

/// What is known of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// Its id.
    pub(super) id: String,
    /// Its bridge's name on the engine's machine.
    pub(super) bridge: String,
    /// Its bridge's addresses.
    gateways: Vec<IpAddr>,
    /// Whether this host reaches its members at their own addresses.
    pub(super) direct: bool,
    /// Why the engine, without a word, publishes no port of its members; absent where it does.
    pub(super) publishes_nothing: Option<String>,
    /// When this process set its rules, where it can't see whether they stand.
    set: Option<Instant>,
    /// Whether it saw the engine's own resolver at the gateway then.
    resolver: bool,
}

/// Keeps networks in being.
#[derive(Clone, Default)]
pub(super) struct Networks {
    /// Each network as it was last seen. Its lock is held while it is made, on purpose: of 50 creations at once one makes the network and
    /// the others wait for it.
    known: Arc<std::sync::Mutex<HashMap<String, Known>>>,
    /// Bridges of networks, by the networks' ids: whoever only wants to know how to reach a container waits for nobody who makes one.
    bridges: Arc<std::sync::Mutex<HashMap<String, String>>>,
}

type Known = Arc<Mutex<Option<Network>>>;

/// What came of asking for a network.
pub(super) enum Ensured {
    /// It is there.
    There(Network),
    /// Its addresses are somebody else's, as told.
    SubnetTaken(String),
}

impl From<Ensured> for NetworkMade {
    fn from(ensured: Ensured) -> Self {
        match ensured {
            Ensured::There(_) => Self::There,
            Ensured::SubnetTaken(whose) => Self::SubnetTaken(whose),
        }
    }
}

/// The network of containers that ask for none.
pub(super) fn default_spec(options: &DockerOptions) -> NetworkSpec {
    NetworkSpec { name: options.network.clone(), subnet: None, meet: options.containers_may_meet, egress: Egress::Open }
}

/// The network of a container that was made before; none when it isn't one of ours.
pub(super) fn spec_of(container: &ContainerInspectResponse, options: &DockerOptions) -> Option<NetworkSpec> {
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_ref());
    // Podman calls the mode `bridge` whatever network it is.
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let names = networks.into_iter().flat_map(HashMap::keys).chain(mode);
    spec_in(labels, names, options)
}

/// The same of one that has these labels and is in these networks.
fn spec_in<'a>(
    labels: Option<&HashMap<String, String>>,
    mut networks: impl Iterator<Item = &'a String>,
    options: &DockerOptions,
) -> Option<NetworkSpec> {
    match labels.and_then(|labels| labels.get(SPEC_LABEL)) {
        Some(spec) => serde_json::from_str(spec).ok(),
        None => networks.any(|name| *name == options.network).then(|| default_spec(options)),
    }
}

impl Networks {
    /// The network, made if it isn't there, and closed if it isn't.
    pub(super) async fn ensure(&self, connection: &Connection, spec: &NetworkSpec) -> Result<Ensured> {
        let known = self.known().entry(spec.name.clone()).or_default().clone();
        let mut known = known.lock().await;
        // Somebody may have removed it since (`docker network prune` does); asking costs 0.4 ms.
        let reference = known.as_ref().map_or(spec.name.as_str(), |network| network.id.as_str());
        let found = match inspect(connection, &spec.name, reference).await? {
            None if known.is_some() => inspect(connection, &spec.name, &spec.name).await?,
            found => found,
        };
        let (mut network, made) = match found {
            Some(network) => (check(network, spec, &Traits::of(connection, &spec.name).await?)?, false),
            None => match Box::pin(make(connection, spec)).await? {
                Ensured::There(network) => (network, true),
                taken => return Ok(taken),
            },
        };
        if let Some(before) = known.as_ref().filter(|before| before.id == network.id) {
            (network.set, network.resolver) = (before.set, before.resolver);
        }
        let id = network.id.clone();
        let closed = network.close(connection, spec, made).await;
        if made && !matches!(closed, Ok(Ensured::There(_))) {
            connection.leaving.gone().await;
            // It would only be in the way of whoever asks next. Where somebody is in it already, their own look tells.
            if let Err(error) = connection.call("removing the network", connection.client.remove_network(&id)).await {
                tracing::warn!(network = id, %error, "a network that isn't closed could not be removed");
            }
        }
        let ensured = closed?;
        if let Ensured::There(network) = &ensured {
            self.note(&network.id, network.bridge.clone());
            *known = Some(network.clone());
        }
        Ok(ensured)
    }

    /// Closes those networks again whose rules somebody removed while containers with these labels run in them, and says which. Looked
    /// at are those whose rules can be seen from here, at the cost of an inspection and an attempt to connect to this machine.
    pub(super) async fn close_again(&self, connection: &Connection, labels: Vec<String>) -> Result<Vec<String>> {
        if connection.options.host_may_be_reached {
            return Ok(Vec::new());
        }
        let filters = Some(HashMap::from([("label".to_owned(), labels)]));
        let options = ListContainersOptions { filters, ..ListContainersOptions::default() };
        let call = connection.client.list_containers(Some(options));
        let running = connection.call("looking which networks are in use", call).await?;
        let specs: HashMap<String, NetworkSpec> = running
            .into_iter()
            .filter_map(|container| {
                let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
                spec_in(container.labels.as_ref(), networks.keys(), &connection.options)
            })
            .map(|spec| (spec.name.clone(), spec))
            .collect();
        let mut closed = Vec::new();
        for (name, spec) in specs {
            if !self.are_rules_gone(connection, &spec).await? {
                continue;
            }
            // Of the network as it was made, whatever addresses it has.
            self.ensure(connection, &spec).await?;
            closed.push(name);
        }
        closed.sort();
        Ok(closed)
    }

    /// Whether it is seen that the rules of a network don't stand.
    async fn are_rules_gone(&self, connection: &Connection, spec: &NetworkSpec) -> Result<bool> {
        let known = self.known().entry(spec.name.clone()).or_default().clone();
        // Not while somebody is setting them.
        let _known = known.lock().await;
        let Some(network) = inspect(connection, &spec.name, &spec.name).await? else { return Ok(false) };
        let network = check(network, spec, &Traits::of(connection, &spec.name).await?)?;
        if !network.direct {
            return Ok(false);
        }
        Ok(!network.rules(connection, spec)?.find_standing(connection.engine).await)
    }

    /// The network for a container that is about to be in it.
    ///
    /// # Errors
    /// `Conflict` too when its addresses are somebody else's.
    pub(super) async fn there(&self, connection: &Connection, spec: &NetworkSpec) -> Result<Network> {
        match self.ensure(connection, spec).await? {
            Ensured::There(network) => Ok(network),
            Ensured::SubnetTaken(whose) => {
                let message = format!("the network {:?} can't be made: its addresses are {whose}", spec.name);
                Err(Error::new(ErrorKind::Conflict, message).hint("a new start of the workspace gives it others"))
            }
        }
    }

    /// Removes a network that no container is in.
    pub(super) async fn release(&self, connection: &Connection, name: &str) -> Result<bool> {
        let known = self.known().entry(name.to_owned()).or_default().clone();
        let mut known = known.lock().await;
        let removed = remove_if_unused(connection, name).await?;
        if removed {
            *known = None;
            self.known().remove(name);
            if !connection.options.host_may_be_reached {
                Box::pin(firewall::sweep(connection)).await;
            }
        }
        Ok(removed)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether this host reaches the members of a network at their own addresses.
    pub(super) async fn reached_directly(&self, connection: &Connection, id: &str, gateway: IpAddr) -> Result<bool> {
        let known = self.bridges().get(id).cloned();
        let bridge = match known {
            Some(bridge) => bridge,
            None => match inspect_by_id(connection, id).await? {
                Some(network) => {
                    let name = network.name.as_deref().unwrap_or_default();
                    self.note(id, Traits::of(connection, name).await?.bridge_of(&network))
                }
                None => return Ok(false),
            },
        };
        Ok(reached_directly(&bridge, &[gateway]))
    }

    fn note(&self, id: &str, bridge: String) -> String {
        let mut bridges = self.bridges();
        // Networks come and go; what is forgotten is asked for again.
        if bridges.len() >= BRIDGES_KNOWN {
            bridges.clear();
        }
        bridges.insert(id.to_owned(), bridge.clone());
        bridge
    }

    fn bridges(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        // Nothing panics while it is held.
        self.bridges.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gives a container that doesn't run the network that is there now. One that ran before asks for the one it had, by id.
    pub(super) async fn reconnect(&self, connection: &Connection, container: &str, spec: &NetworkSpec) -> Result<()> {
        let network = self.there(connection, spec).await?;
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: None };
        let call = connection.client.connect_network(&network.id, request);
        connection.call("giving the container its network back", call).await
    }
}

impl Network {
    /// What its members may reach, but for a resolver at the gateway, which is seen from inside.
    fn rules(&self, connection: &Connection, spec: &NetworkSpec) -> Result<Rules> {
        let rules = Rules {
            bridge: self.bridge.clone(),
            gateways: self.gateways.clone(),
            meet: spec.meet,
            egress: spec.egress.clone(),
            host_ports: connection.options.host_ports.clone(),
            resolver: false,
        };
        rules.check(&spec.name)
    }

    /// Closes it to the engine's machine and to other networks, and looks from inside whether it is; if its rules stand, that was done.
    async fn close(mut self, connection: &Connection, spec: &NetworkSpec, made: bool) -> Result<Ensured> {
        let options = &connection.options;
        if options.host_may_be_reached {
            // Without a firewall there is no other egress; better none of it than less than was asked for.
            if spec.egress != Egress::Open {
                let message = format!("the network {:?} can't be kept from what is outside", spec.name);
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .hint("this host is configured to set no firewall (DockerOptions::host_may_be_reached)"));
            }
            return Ok(Ensured::There(self));
        }
        let mut rules = self.rules(connection, spec)?;
        if self.direct {
            if rules.find_standing(connection.engine).await {
                return Ok(Ensured::There(self));
            }
        } else if let Some(set) = self.set {
            // Podman's bridge is gone while nobody is in the network, and nothing tells then whether the rules stand.
            let may_be_here = connection.engine == Engine::Podman && connection.is_local_socket();
            if may_be_here || set.elapsed() >= SET_AGAIN {
                rules.resolver = self.resolver;
                Box::pin(rules.set(connection, &spec.name)).await?;
                self.set = Some(Instant::now());
            }
            return Ok(Ensured::There(self));
        }
        let probe = Probe {
            network: &self.id,
            bridge: &self.bridge,
            gateways: &self.gateways,
            meet: spec.meet,
            others: Box::pin(members_of_others(connection, &self.id)).await?,
        };
        let mut routes = String::new();
        let closing = async {
            routes = rules.set(connection, &spec.name).await?;
            Ok(())
        };
        // On the heap, as what is seldom done: else every creation's future would be as large.
        let seen = Box::pin(probe.look(connection, &spec.name, closing)).await?;
        if let Some(whose) = spec.subnet.filter(|_| made).and_then(|subnet| taken(&routes, subnet, &self.bridge)) {
            return Ok(Ensured::SubnetTaken(whose));
        }
        self.resolver = connection.engine.has_resolver_at_gateway()
            && spec.egress != Egress::None
            && seen.resolvers.iter().any(|resolver| self.gateways.contains(resolver));
        if self.resolver {
            rules.resolver = true;
            Box::pin(rules.set(connection, &spec.name)).await?;
        }
        // Podman makes the bridge with its first member.
        self.direct = reached_directly(&self.bridge, &self.gateways);
        if self.direct && !rules.stand().await {
            let message = format!("the network {:?} was closed, and its firewall rules don't stand", spec.name);
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("something on this machine removes rules that aren't its own: `nft list table inet corehold`"));
        }
        self.set = Some(Instant::now());
        Ok(Ensured::There(self))
    }
}

/// Looks whether networks could be closed, and changes nothing that stays.
///
/// # Errors
/// `Unsupported` where they can't be, with why.
pub(super) async fn can_be_closed(connection: &Connection) -> Result<()> {
    if connection.options.host_may_be_reached {
        let message = "networks are left open: this host is configured to set no firewall";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .hint("leave DockerOptions::host_may_be_reached as it is by default"));
    }
    firewall::try_out(connection).await
}

/// Some containers that run in other networks of ours, with their addresses. Not in any network: what is somebody else's may come and go
/// as it likes, and its address mean another machine then.
async fn members_of_others(connection: &Connection, network: &str) -> Result<Vec<Member>> {
    let others = bridge::ours(connection).await?.into_iter().filter(|other| other.id.as_deref() != Some(network));
    // Podman names them where Docker has their ids.
    let ours: Vec<_> = others.flat_map(|other| [other.id, other.name]).flatten().collect();
    let call = connection.client.list_containers(None::<ListContainersOptions>);
    let running = connection.call("looking who is in other networks", call).await?;
    let members = running.into_iter().flat_map(|container| {
        let id = container.id.unwrap_or_default();
        let endpoints = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        endpoints.into_values().map(move |endpoint| (id.clone(), endpoint))
    });
    let others = members.filter(|(_, endpoint)| endpoint.network_id.as_ref().is_some_and(|id| ours.contains(id)));
    let addressed = others.flat_map(|(container, endpoint)| {
        let addresses = helper::addresses_of(&endpoint).into_iter();
        addresses.map(move |address| Member { container: container.clone(), address })
    });
    Ok(addressed.take(OTHERS).collect())
}

/// Whether a start failed for want of its network: "network … not found" when it was removed while the container didn't run
/// (`docker network prune` does that), "network … is ambiguous" when it is there twice.
pub(super) fn is_lost(error: &Error) -> bool {
    let message = error.to_string();
    message.contains("network ") && (message.contains(" not found") || message.contains("is ambiguous"))
}

/// Removes the networks of this configuration that no container is in, running or not, and says which they were.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Vec<String>> {
    helper::remove_ended(connection).await?;
    let of = format!("{OF_LABEL}={}", connection.options.network);
    let listed = bridge::list(connection, "label", &of).await?;
    let mut names: Vec<_> = listed.into_iter().filter_map(|network| network.name).collect();
    // One of before has no label.
    names.push(connection.options.network.clone());
    names.sort();
    names.dedup();
    let mut removed = Vec::new();
    for name in names {
        if remove_if_unused(connection, &name).await? {
            removed.push(name);
        }
    }
    if !removed.is_empty() && !connection.options.host_may_be_reached {
        firewall::sweep(connection).await;
    }
    Ok(removed)
}

async fn remove_if_unused(connection: &Connection, name: &str) -> Result<bool> {
    let Some(network) = inspect(connection, name, name).await? else { return Ok(false) };
    let ours = bridge::is_ours(network.labels.as_ref());
    let Some(id) = network.id.filter(|_| ours) else { return Ok(false) };
    connection.leaving.gone().await;
    // The engine itself only minds containers that run. Those it lists under the id, the others under the name.
    let filters = HashMap::from([("network".to_owned(), vec![id.clone(), name.to_owned()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    if !connection.call("looking who is in the network", call).await?.is_empty() {
        return Ok(false);
    }
    match connection.call("removing the network", connection.client.remove_network(&id)).await {
        Ok(()) => Ok(true),
        // In use (403, "has active endpoints"), or somebody else was faster.
        Err(error) if error.kind() == ErrorKind::NotFound || error.to_string().contains("active endpoints") => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn inspect_by_id(connection: &Connection, id: &str) -> Result<Option<NetworkInspect>> {
    let call = connection.client.inspect_network(id, None::<InspectNetworkOptions>);
    match connection.call("looking at the network", call).await {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The network of that name, by a reference that may be the name too.
async fn inspect(connection: &Connection, name: &str, reference: &str) -> Result<Option<NetworkInspect>> {
    match inspect_by_id(connection, reference).await {
        // Two have the name (see `make`); the engine wants an id.
        Err(error) if error.to_string().contains("is ambiguous") => oldest(connection, name).await,
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{EndpointSettings, HostConfig, NetworkSettings};

    use super::*;

    #[test]
    fn a_container_of_the_default_network_is_known_on_each_engine() {
        let container = |mode: &str, network: &str| ContainerInspectResponse {
            host_config: Some(HostConfig { network_mode: Some(mode.to_owned()), ..HostConfig::default() }),
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from([(network.to_owned(), EndpointSettings::default())])),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let options = DockerOptions::default();
        for ours in [container("corehold", "corehold"), container("bridge", "corehold"), container("corehold", "lost")]
        {
            assert_eq!(spec_of(&ours, &options), Some(default_spec(&options)));
        }
        assert_eq!(spec_of(&container("bridge", "podman"), &options), None);
    }
}
