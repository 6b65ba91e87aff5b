//! What the containers of a pool have in common, and which requests they can meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use corehold_types::{Timestamp, env_vars};

use super::Member;
use crate::{
    client::AgentClient,
    create::plan::{Plan, base_env, injection, mounts, resources},
    error::{Error, ErrorKind, Result},
    host::{AGENT_PORT, HostInner},
    image::may_be_pulled,
    labels, network,
    runtime::{Capability, ContainerId, ContainerSpec, ContainerState, Hardening, Mount, Network, Resources, With},
    template::variable_bytes,
    workspace::random_word,
};

/// What a claim can't change about a container in time. A request that differs in any of it is made anew, not taken from a
/// pool of this class. What it doesn't say is the host's: image, limits, variables, labels, CA bundle.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Class {
    /// The image. Default: the host's. Another one that is missing is pulled, where a creation would
    /// ([`HostBuilder::pull_missing`](crate::HostBuilder::pull_missing)).
    pub image: Option<String>,
    /// The limits. Default: the host's. Where the runtime can change limits, requests with others are met too, and theirs are in
    /// force before any of their commands runs; what can't be taken away is a limit that a request doesn't have. A limit of disk is any
    /// request's own where the host looks after it; where the engine has a quota, requests must have the same.
    pub resources: Resources,
    /// TCP ports inside that are published, as [`CreateWorkspace::publish`](crate::CreateWorkspace::publish) does: a container
    /// of this class meets requests that want these or some of them. Default: none; previews need none.
    pub publish: BTreeSet<u16>,
    /// What is mounted, as by [`CreateWorkspace::mount`](crate::CreateWorkspace::mount): it meets requests that want exactly these. Default:
    /// nothing.
    pub mounts: Vec<Mount>,
    /// How it is held, beyond what holds every workspace: it meets requests that are held so. Default: no more than that.
    pub hardening: Hardening,
    /// The network, of all workspaces: nobody owns what waits. Default: the host's, if that is of all too, else [`Network::shared`].
    pub network: Option<Network>,
}

impl Class {
    /// Its image, instead of the host's.
    #[must_use]
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        self.image = Some(reference.into());
        self
    }

    /// Its limits; each that is given wins over the host's.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// What is mounted; it may be called for several.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Whether nothing of the image can be written: see [`CreateWorkspace::read_only_root`](crate::CreateWorkspace::read_only_root).
    #[must_use]
    pub fn read_only_root(mut self, read_only: bool) -> Self {
        self.hardening.read_only_root = read_only;
        self
    }

    /// A capability that it has; it may be called for several.
    #[must_use]
    pub fn capability(mut self, capability: Capability) -> Self {
        self.hardening.capabilities.insert(capability);
        self
    }

    /// The engine's runtime that it runs in.
    #[must_use]
    pub fn sandbox(mut self, name: impl Into<String>) -> Self {
        self.hardening.sandbox = Some(name.into());
        self
    }

    /// Its network, which must be one of all; see [`CreateWorkspace::network`](crate::CreateWorkspace::network).
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Refuses what can't wait.
    ///
    /// # Errors
    /// `Invalid`, with why.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(network) = &self.network else { return Ok(()) };
        if network.with != With::All {
            let message = "what waits in a pool is nobody's, so it can't be in an owner's or a team's network";
            return Err(Error::new(ErrorKind::Invalid, message)
                .hint("leave them without a pool: a container's network can't be changed in time"));
        }
        network.check()
    }

    /// A TCP port inside that is published; it may be called for several.
    #[must_use]
    pub fn publish(mut self, port: u16) -> Self {
        self.publish.insert(port);
        self
    }
}

/// A class with all that is its host's: what a container of it is, but for its name and its instance.
#[derive(Debug)]
pub(crate) struct Blank {
    /// The image as it is asked for. The specification has its id, as soon as it is known: when the name means another image,
    /// it is another class.
    reference: String,
    /// Whether it is pulled where it is missing.
    pub(super) pulled: bool,
    spec: ContainerSpec,
    /// Hash of all of it. Hosts that would make the same container share a pool.
    key: String,
}

/// Characters of the key that stand in names and labels.
const KEY_CHARACTERS: usize = 16;

impl Blank {
    pub(super) fn new(class: Class, host: &HostInner) -> Self {
        let reference = class.image.unwrap_or_else(|| host.image.clone());
        let mut spec = ContainerSpec {
            image: reference.clone(),
            env: base_env(host),
            labels: host.labels.clone(),
            publish: class.publish.into_iter().collect(),
            publish_on: host.port_range.clone(),
            agent_port: AGENT_PORT,
            resources: resources(&[class.resources, host.resources]),
            ca_bundle: host.ca_bundle.clone(),
            agent: Some(injection(host, false)),
            mounts: mounts(host, &class.mounts, &class.hardening),
            hardening: class.hardening,
            ..ContainerSpec::default()
        };
        let network = class.network.or_else(|| Some(host.network.clone()).filter(|network| network.with == With::All));
        spec.network = network::of_all(host, &network.unwrap_or_default());
        let mut put = |name: &str, value: &str| spec.labels.insert(name.to_owned(), value.to_owned());
        put(labels::KIND, labels::KIND_POOL);
        put(labels::HOME, &host.fingerprint);
        put(labels::VERSION, env!("CARGO_PKG_VERSION"));
        let pulled = may_be_pulled(host, &reference) && host.policy.check_image(&reference).is_ok();
        Self::keyed(reference, pulled, spec)
    }

    fn keyed(reference: String, pulled: bool, mut spec: ContainerSpec) -> Self {
        spec.labels.remove(labels::CLASS);
        let key = key(&spec);
        spec.labels.insert(labels::CLASS.to_owned(), key.clone());
        Self { reference, pulled, spec, key }
    }

    /// The same with an image that its reference means now; none if it is this one.
    pub(super) fn with_image(&self, id: String) -> Option<Self> {
        let reference = self.reference.clone();
        let spec = || ContainerSpec { image: id.clone(), ..self.spec.clone() };
        (self.spec.image != id).then(|| Self::keyed(reference, self.pulled, spec()))
    }

    /// The image, for people.
    pub(super) fn image(&self) -> &str {
        &self.reference
    }

    /// The image's id, once the pool has looked it up.
    pub(super) fn image_id(&self) -> &str {
        &self.spec.image
    }

    /// A container of this class that is ready.
    pub(super) fn member(&self, container: ContainerId, instance: String, client: Arc<AgentClient>) -> Member {
        Member { container, image: self.image_id().to_owned(), limits: *self.limits(), instance, client }
    }

    /// Whether a container is of this class.
    pub(super) fn is_of(&self, state: &ContainerState) -> bool {
        state.labels.get(labels::CLASS) == Some(&self.key)
    }

    /// By which the containers of all classes of its home are found.
    pub(super) fn home_labels(&self) -> BTreeMap<String, String> {
        let mut all = self.labels();
        all.remove(labels::CLASS);
        all
    }

    /// By which its containers are found.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let wanted = [labels::KIND, labels::HOME, labels::CLASS];
        let all = self.spec.labels.iter().filter(|(name, _)| wanted.contains(&name.as_str()));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The name of a place in the pool. The engine gives it to one container at a time, so that hosts which fill the same
    /// pool at once never make more of them than there are places.
    pub(super) fn slot(&self, number: usize) -> String {
        format!("{}{}.{number}", labels::POOL_NAME_PREFIX, self.key)
    }

    /// The container for a place, and the name of its agent in tokens.
    pub(super) fn container(&self, slot: String, max_age: Duration) -> Result<(ContainerSpec, String)> {
        let instance = format!("pool-{}", random_word(16)?);
        let mut spec = ContainerSpec { name: slot, ..self.spec.clone() };
        spec.env.insert(env_vars::INSTANCE.to_owned(), instance.clone());
        spec.labels.insert(labels::INSTANCE.to_owned(), instance.clone());
        let now = Timestamp::now();
        spec.labels.insert(labels::CREATED.to_owned(), now.to_string());
        let age = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        let expires = Timestamp::from_unix(now.as_unix_seconds().saturating_add(age), 0);
        spec.labels.insert(labels::EXPIRES.to_owned(), expires.to_string());
        Ok((spec, instance))
    }

    /// The limits of its containers.
    pub(super) fn limits(&self) -> &Resources {
        &self.spec.resources
    }

    /// Whether a container of this class is what a request needs, but for what a claim brings and for its limits.
    pub(super) fn meets(&self, plan: &Plan) -> bool {
        // As the agent counts them: more don't come in by a claim.
        let bytes: usize = plan.own_env.iter().map(|(name, value)| variable_bytes(name, value)).sum();
        plan.spec.image == self.reference
            && plan.spec.mounts == self.spec.mounts
            && plan.spec.hardening == self.spec.hardening
            && plan.spec.publish.iter().all(|port| self.spec.publish.contains(port))
            && plan.recipe.labels.is_empty()
            && !plan.recipe.image_user
            // Its addresses are found when it is made.
            && plan.spec.network.as_ref().map(|network| &network.name)
                == self.spec.network.as_ref().map(|network| &network.name)
            && bytes <= CLAIM_ENVIRONMENT_BYTES
    }
}

/// The agent's limit `claimEnvironmentBytes`.
const CLAIM_ENVIRONMENT_BYTES: usize = 64 << 10;

fn key(spec: &ContainerSpec) -> String {
    let mut hasher = blake3::Hasher::new();
    // With lengths, so that no two different lists of parts run together to the same bytes.
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(spec.image.as_bytes());
    for all in [&spec.env, &spec.labels] {
        part(&(all.len() as u64).to_le_bytes());
        all.iter().for_each(|(name, value)| {
            part(name.as_bytes());
            part(value.as_bytes());
        });
    }
    part(format!("{:?} {:?} {} {:?}", spec.publish, spec.publish_on, spec.agent_port, spec.resources).as_bytes());
    part(format!("{:?}", spec.agent).as_bytes());
    part(format!("{:?} {:?}", spec.mounts, spec.hardening).as_bytes());
    if let Some(network) = &spec.network {
        part(network.name.as_bytes());
    }
    part(spec.ca_bundle.as_ref().map_or(b"", |bundle| &bundle.pem));
    hasher.finalize().to_hex()[..KEY_CHARACTERS].to_owned()
}
