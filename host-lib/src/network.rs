//! Which network a workspace is in, and with which addresses: decided here, held by the runtime.
//!
//! A network's name is a hash of whose it is and what it holds, so hosts of one home find the same one without asking each other. Its
//! addresses are cut from a pool of our own, since an engine's default pools end at the 30th network, and stay its own in the state
//! store for as long as a workspace of it is there, asleep or not. What the engine or its machine has already is left out.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
    labels,
    policy::{Isolation, Meet, Policy},
    runtime::{ContainerSpec, Network, NetworkMade, NetworkSpec, Runtime, Subnet, With},
    state::{Recipe, Store},
};

/// From which addresses the networks of owners and teams are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subnets {
    /// All of them. Default: 10.213.0.0/16.
    pub pool: Subnet,
    /// How many leading bits the addresses of one network share. Default: 26, which is 1,024 networks of 61 workspaces each: as many
    /// bridges as a machine bears, and more workspaces than an owner runs on one.
    pub prefix: u8,
}

impl Default for Subnets {
    fn default() -> Self {
        Self { pool: Subnet::of([10, 213, 0, 0].into(), 16), prefix: 26 }
    }
}

impl Subnets {
    /// Networks of that many leading bits, cut from this pool.
    #[must_use]
    pub fn of(pool: Subnet, prefix: u8) -> Self {
        Self { pool, prefix }
    }

    /// Refuses what no network could be cut from.
    ///
    /// # Errors
    /// `Invalid`, with what may be.
    pub fn check(&self) -> Result<()> {
        if (8..=29).contains(&self.pool.prefix()) && (self.pool.prefix()..=29).contains(&self.prefix) {
            return Ok(());
        }
        let message = format!("networks of /{} can't be cut from {}", self.prefix, self.pool);
        Err(Error::new(ErrorKind::Invalid, message)
            .hint("a pool has 8 to 29 leading bits, and its networks as many or more, 29 at most"))
    }
}

/// The network of a workspace's next container, in its team's isolation mode; none where it is the runtime's own.
///
/// # Errors
/// `Invalid` when it is to be in its owner's or team's network, and has none.
pub(crate) fn of(host: &HostInner, recipe: &Recipe, isolation: Option<&Isolation>) -> Result<Option<NetworkSpec>> {
    named(&host.fingerprint, recipe, isolation, host.policy.meeting(isolation))
}

fn named(home: &str, recipe: &Recipe, isolation: Option<&Isolation>, meet: Meet) -> Result<Option<NetworkSpec>> {
    let asked = recipe.network.clone().unwrap_or_default();
    let network = meet.hold(&isolation.map_or(asked.clone(), |isolation| isolation.hold(&asked)));
    asked.check()?;
    network.check()?;
    let whose = match network.with {
        With::All => None,
        With::Owner => Some(recipe.owner.as_deref().ok_or_else(|| nobodys("owner"))?),
        With::Team => Some(recipe.team.as_deref().ok_or_else(|| nobodys("team"))?),
    };
    Ok((!network.is_shared()).then(|| spec(home, &network, whose)))
}

/// The names of all networks that a workspace may be in or come into: which mode its team had when its container was made, and will have
/// with the next, isn't written down, nor what the policy was then.
fn possible(home: &str, policy: &Policy, recipe: &Recipe) -> BTreeSet<String> {
    let modes = std::iter::once(None).chain(policy.isolations().iter().map(Some));
    let ways = modes.flat_map(|mode| [Meet::Nobody, Meet::Owner, Meet::Team].map(|meet| (mode, meet)));
    ways.filter_map(|(mode, meet)| Some(named(home, recipe, mode, meet).ok()??.name)).collect()
}

/// The same for one that isn't anybody's.
pub(crate) fn of_all(host: &HostInner, network: &Network) -> Option<NetworkSpec> {
    (!network.is_shared()).then(|| spec(&host.fingerprint, network, None))
}

fn nobodys(whom: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("a workspace without {whom} can't be in its {whom}'s network"))
        .hint(format!("say whose it is (`CreateWorkspace::{whom}`), or ask for `Network::shared()`"))
}

/// Characters of a hash that stand in a network's name.
const NAME_CHARACTERS: usize = 16;

fn spec(home: &str, network: &Network, whose: Option<&str>) -> NetworkSpec {
    let mut hasher = blake3::Hasher::new();
    let reach = network.reach();
    let egress = serde_json::to_string(&reach).unwrap_or_default();
    // With lengths, so that no two different lists of parts run together to the same bytes.
    for part in [home, &format!("{:?} {}", network.with, network.meet), whose.unwrap_or_default(), &egress] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    NetworkSpec {
        name: format!("corehold-{}", &hasher.finalize().to_hex()[..NAME_CHARACTERS]),
        subnet: None,
        meet: network.meet,
        egress: reach,
    }
}

/// What it takes to give networks their addresses.
#[derive(Clone)]
pub(crate) struct Allotment {
    runtime: Arc<dyn Runtime>,
    store: Store,
    subnets: Subnets,
    fingerprint: String,
    policy: Arc<Policy>,
}

impl Allotment {
    pub(crate) fn of(host: &HostInner) -> Self {
        Self {
            runtime: host.runtime.clone(),
            store: host.store.clone(),
            subnets: host.subnets,
            fingerprint: host.fingerprint.clone(),
            policy: host.policy.clone(),
        }
    }

    /// Sees to it that the network of a container is there, with addresses of its own. Nothing to do where that is the runtime's.
    ///
    /// # Errors
    /// `Conflict` when no addresses are left.
    pub(crate) async fn ready(&self, spec: &mut ContainerSpec) -> Result<()> {
        let Some(network) = &mut spec.network else { return Ok(()) };
        let mut refused = BTreeSet::new();
        loop {
            let subnet = self.subnet(&network.name, &refused).await?;
            network.subnet = Some(subnet);
            match self.runtime.ensure_network(network).await? {
                NetworkMade::There => return Ok(()),
                NetworkMade::SubnetTaken(whose) => {
                    let name = &network.name;
                    tracing::info!(network = name, %subnet, whose, "a subnet is somebody else's; the next one is tried");
                    refused.insert(subnet);
                }
            }
        }
    }

    async fn subnet(&self, network: &str, refused: &BTreeSet<Subnet>) -> Result<Subnet> {
        if let Some(subnet) = self.store.subnet(network, self.subnets, refused.clone()).await? {
            return Ok(subnet);
        }
        // Those of networks that nobody has any more.
        self.store.forget_subnets(self.in_use().await?).await?;
        let subnet = self.store.subnet(network, self.subnets, refused.clone()).await?;
        subnet.ok_or_else(|| used_up(self.subnets, refused.len()))
    }

    /// The names of the networks that workspaces are in, those asleep too.
    async fn in_use(&self) -> Result<BTreeSet<String>> {
        let entries = self.store.all().await?;
        Ok(entries.iter().flat_map(|entry| possible(&self.fingerprint, &self.policy, &entry.recipe)).collect())
    }
}

fn used_up(subnets: Subnets, refused: usize) -> Error {
    let all = subnets.pool.parts(subnets.prefix).count();
    let message = format!(
        "no subnet is left for another network: of the {all} of {} {refused} are others' of the engine's machine, and the rest in use",
        subnets.pool
    );
    Error::new(ErrorKind::Conflict, message).hint("give the host another or a larger pool: HostBuilder::subnets")
}

/// Between two looks whether networks are still closed. One costs the engine a list and an inspection of each network in use.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Sees to it that the networks in which workspaces of the home run, and those that wait in pools, stay closed: what closes them may be
/// removed by others, and a claim doesn't look. Never ends by itself.
pub(crate) async fn watch(host: Arc<HostInner>) {
    let labels = labels::of_home(&host.fingerprint);
    let mut ticks = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match host.runtime.close_networks_again(&labels).await {
            Ok(networks) => {
                for network in networks {
                    tracing::warn!(
                        network,
                        "somebody had removed a network's firewall rules while workspaces ran in it; they are set again"
                    );
                }
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tracing::error!(%error, "a network in which workspaces run is open, and could not be closed again");
            }
            Err(error) => tracing::debug!(%error, "it could not be looked whether networks are closed"),
        }
    }
}

/// Has a network removed, beside what is done, when the last of its containers may have gone.
pub(crate) fn release(host: &HostInner, recipe: &Recipe) {
    let networks = possible(&host.fingerprint, &host.policy, recipe);
    if networks.is_empty() {
        return;
    }
    let runtime = host.runtime.clone();
    host.cleanups.spawn(async move {
        for network in networks {
            if let Err(error) = runtime.release_network(&network).await {
                tracing::warn!(network, %error, "a network that may be of no more use could not be removed");
            }
        }
    });
}
