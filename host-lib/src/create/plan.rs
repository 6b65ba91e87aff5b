//! What is to be done, decided before anything is done: names, labels, environment, limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use corehold_types::{Timestamp, env_vars};

use super::{AGENT_TIMEOUT, CreateWorkspace};
use crate::{
    archive::Archive,
    config::DEFAULT_IMAGE,
    error::{Error, ErrorKind, Result},
    health::HealthPolicy,
    host::{AGENT_PORT, HostInner, check_env, check_labels},
    idle::{IdlePolicy, Stored},
    labels, network,
    policy::{CONFIG_PATH, Ceiling, Isolation},
    runtime::{ContainerSpec, Hardening, Injection, Mount, MountSource, Resources},
    state::{Dev, Entry, Recipe},
    template::{DEFAULT_PORT, ProjectType, Template, variable_bytes},
    volume,
    workspace::{Labelled, WorkspaceId, random_word},
};

/// Where the host's CA bundle lies inside.
pub(crate) const CA_PATH: &str = "/tools/ca/ca-certificates.crt";

pub(crate) struct Plan {
    pub(crate) template: Option<Template>,
    /// What it is filled with, instead of the template's files.
    pub(crate) archive: Option<Archive>,
    pub(crate) labelled: Labelled,
    /// What the store keeps, so that a container can be made for the workspace again.
    pub(crate) recipe: Recipe,
    /// The variables that a claim brings; see [`own_env`].
    pub(crate) own_env: BTreeMap<String, String>,
    pub(crate) spec: ContainerSpec,
    pub(crate) port: u16,
    pub(crate) agent_timeout: Duration,
    pub(crate) keep_on_failure: bool,
    /// What the store keeps beside the state.
    pub(crate) policy: Option<serde_json::Value>,
}

impl Plan {
    pub(crate) fn new(
        host: &HostInner,
        request: CreateWorkspace,
        ceiling: &Ceiling,
        isolation: Option<&Isolation>,
    ) -> Result<Self> {
        request.resources.check()?;
        check_env(&request.env)?;
        check_labels(&request.labels)?;
        check_published(&request.publish)?;
        request.name.as_deref().map_or(Ok(()), check_display_name)?;
        for (what, name) in [("an owner", &request.owner), ("a team", &request.team)] {
            name.as_deref().map_or(Ok(()), |name| check_name(what, name))?;
        }
        request.idle.as_ref().map_or(Ok(()), IdlePolicy::check)?;
        request.health.as_ref().map_or(Ok(()), HealthPolicy::check)?;
        let template = request.template;
        let stem = template.as_ref().map_or("workspace", |template| template.name.as_str());
        let id = match request.id {
            Some(id) => id.parse()?,
            None => WorkspaceId::generate(stem)?,
        };
        let original = request.original.as_deref();
        let of_original = original.and_then(|original| original.preview_port);
        let port = of_original.unwrap_or_else(|| template.as_ref().map_or(DEFAULT_PORT, |template| template.port));
        // What an original was asked for with has its template's, as that was then.
        let asks = template.as_ref().filter(|_| original.is_none());
        let of_template = asks.map(|template| template.resources).unwrap_or_default();
        let limits = ceiling.apply(resources(&[request.resources, of_template]))?;
        // What it is counted with stays with it, whatever the host's default becomes.
        let limits = resources(&[limits, host.resources]);
        // What a copy has was asked for once: it gets what is left of that, as what nobody asks for does.
        if let Some(asked) = request.network.as_ref().filter(|_| original.is_none()) {
            ceiling.check_network(asked)?;
            isolation.map_or(Ok(()), |isolation| isolation.check_network(asked))?;
            host.policy.check_meeting(asked, isolation)?;
        }
        let network = ceiling.hold(request.network.as_ref().unwrap_or(&host.network));
        let mut env = asks.map(|template| template.env.clone()).unwrap_or_default();
        env.extend(request.env);
        let recipe = Recipe {
            // Saved again, it is still of the template that it was made from.
            template: match (&template, original) {
                (_, Some(original)) => original.template.clone(),
                (Some(template), None) => Some(template.name.clone()),
                (None, None) => request.archive.as_ref().and_then(|archive| archive.template.clone()),
            },
            image_user: request.image_user,
            image: request
                .image
                .or_else(|| asks.and_then(|template| template.image.clone()))
                .or_else(|| asks.and_then(|template| project_image(host, template.project?))),
            env,
            name: request.name,
            creator: Some(host.subject.clone()),
            owner: request.owner,
            team: request.team,
            labels: request.labels,
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            limits_pending: false,
            mounts: request.mounts,
            read_only_root: request.hardening.read_only_root,
            capabilities: request.hardening.capabilities,
            sandbox: request.hardening.sandbox,
            preview_port: Some(port),
            publish: request.publish,
            removes_archives: false,
            network: Some(network).filter(|network| !network.is_shared()),
            dev: match original {
                Some(original) => original.dev.clone(),
                None => template.as_ref().and_then(Dev::of),
            },
        };
        let labelled = labelled(host, id, &recipe, Timestamp::now())?;
        let own_env = own_env(host, &recipe);
        let spec = container(host, &labelled, &recipe, &own_env, isolation)?;
        if spec.image != host.image {
            host.policy.check_image(&spec.image)?;
        }
        check_room(&spec.env)?;
        Ok(Self {
            template,
            archive: request.archive,
            spec,
            labelled,
            recipe,
            own_env,
            port,
            agent_timeout: request.agent_timeout,
            keep_on_failure: request.keep_on_failure,
            policy: Stored::of_request(request.idle.or_else(|| ceiling.idle()), request.health),
        })
    }

    /// One more container for a workspace that had one.
    pub(crate) fn again(
        host: &HostInner,
        entry: &Entry,
        mounts: Vec<Mount>,
        isolation: Option<&Isolation>,
    ) -> Result<Self> {
        let recipe = Recipe { mounts, ..entry.recipe.clone() };
        let labelled = labelled(host, entry.id.clone(), &recipe, entry.created)?;
        let own_env = own_env(host, &recipe);
        Ok(Self {
            template: None,
            archive: None,
            spec: container(host, &labelled, &recipe, &own_env, isolation)?,
            labelled,
            own_env,
            port: recipe.preview_port.unwrap_or(DEFAULT_PORT),
            recipe,
            agent_timeout: AGENT_TIMEOUT,
            keep_on_failure: false,
            policy: None,
        })
    }
}

fn labelled(host: &HostInner, id: WorkspaceId, recipe: &Recipe, created: Timestamp) -> Result<Labelled> {
    Ok(Labelled {
        instance: format!("{id}-{}", random_word(8)?),
        id,
        template: recipe.template.clone(),
        created,
        preview_port: recipe.preview_port,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        home: host.fingerprint.clone(),
    })
}

/// The container of a workspace: what its recipe says, and what the host adds to every one.
fn container(
    host: &HostInner,
    labelled: &Labelled,
    recipe: &Recipe,
    own_env: &BTreeMap<String, String>,
    isolation: Option<&Isolation>,
) -> Result<ContainerSpec> {
    let mut env = base_env(host);
    env.insert(env_vars::INSTANCE.to_owned(), labelled.instance.clone());
    env.insert(env_vars::WORKSPACE_ID.to_owned(), labelled.id.to_string());
    env.extend(own_env.clone());

    let mut all_labels = host.labels.clone();
    all_labels.extend(recipe.labels.clone());
    all_labels.extend(labelled.to_labels());
    all_labels.insert(labels::MAKER.to_owned(), host.process.name().to_owned());

    let asked = recipe.hardening();
    let wanted = isolation.map_or_else(|| Ok(asked.clone()), |isolation| isolation.apply(&asked))?;
    let hardening = host.policy.harden(&wanted)?;
    Ok(ContainerSpec {
        name: format!("{}{}", labels::NAME_PREFIX, labelled.id),
        image: recipe.image.clone().unwrap_or_else(|| host.image.clone()),
        labels: all_labels,
        env,
        publish: recipe.publish.iter().copied().collect(),
        publish_on: host.port_range.clone(),
        agent_port: AGENT_PORT,
        resources: resources(&[recipe.resources(), host.resources]),
        ca_bundle: host.ca_bundle.clone(),
        agent: Some(injection(host, recipe.image_user)),
        mounts: mounts(host, &recipe.mounts, &hardening),
        hardening,
        network: network::of(host, recipe, isolation)?,
    })
}

/// Memory of `/tmp` where nothing of the image can be written: 100 MB.
const TMP_BYTES: u64 = 100 << 20;
/// What stays writable then, besides `/tmp`: the workspace's root, its user's home, and where large temporary files go.
const WRITABLE: [&str; 3] = ["/app", "/home/workspace", "/var/tmp"];

/// What is mounted: what was asked for, the host's configuration, and what a root that can't be written needs, in the order of places.
pub(crate) fn mounts(host: &HostInner, asked: &[Mount], hardening: &Hardening) -> Vec<Mount> {
    let mut all = asked.to_vec();
    for mount in &mut all {
        if let MountSource::Volume(name) = &mut mount.source {
            *name = volume::engine_name(&host.fingerprint, name);
        }
    }
    if let Some(folder) = &host.config_folder {
        all.push(Mount::folder(folder).at(CONFIG_PATH).read_only(true));
    }
    if hardening.read_only_root {
        let writable = WRITABLE.map(|place| Mount::scratch().at(place));
        for mount in writable.into_iter().chain([Mount::memory(TMP_BYTES).at("/tmp")]) {
            // What was asked for at that place serves as well.
            if !all.iter().any(|other| other.target == mount.target) {
                all.push(mount);
            }
        }
    }
    all.sort_by(|one, other| one.target.cmp(&other.target));
    all
}

/// The image of a type of project; none, if the host's serves.
fn project_image(host: &HostInner, project: ProjectType) -> Option<String> {
    let configured = host.project_images.get(&project).cloned();
    configured.or_else(|| project.default_image().map(str::to_owned))
}

/// How an image without the agent gets it: from the host's image, or from the core image by its usual name where that has none.
pub(crate) fn injection(host: &HostInner, own_user: bool) -> Injection {
    let mut from = vec![host.image.clone()];
    if host.image != DEFAULT_IMAGE {
        from.push(DEFAULT_IMAGE.to_owned());
    }
    Injection { from, own_user }
}

/// The variables of one workspace's commands: its own, and whose it is. They come into a container of a pool by its claim.
pub(crate) fn own_env(host: &HostInner, recipe: &Recipe) -> BTreeMap<String, String> {
    let whose =
        [(env_vars::OWNER_ID, &recipe.owner), (env_vars::TEAM_ID, &recipe.team), (env_vars::API_URL, &host.api_url)];
    let whose = whose.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    recipe.env.clone().into_iter().chain(whose).collect()
}

/// Bytes that the name of an owner or a team may have.
const NAME_BYTES: usize = 256;
/// What people call a workspace is one line (K1).
const DISPLAY_NAME_CHARACTERS: usize = 100;

fn check_display_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if (1..=DISPLAY_NAME_CHARACTERS).contains(&length) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("{name:?} can't be what a workspace is called");
    Err(Error::new(ErrorKind::Invalid, message)
        .hint(format!("it has 1 to {DISPLAY_NAME_CHARACTERS} characters, none of them a control character")))
}

/// The name of an owner or a team: the backend's own, of any characters.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        let message = format!("the name of {what} has 1 to {NAME_BYTES} bytes, none of them NUL");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// Ports that a request or a class wants published.
pub(crate) fn check_published(ports: &BTreeSet<u16>) -> Result<()> {
    match ports.iter().find(|port| matches!(**port, 0 | AGENT_PORT)) {
        Some(&AGENT_PORT) => Err(Error::new(
            ErrorKind::Invalid,
            format!("port {AGENT_PORT} is the agent's, and is never published as another's"),
        )
        .hint("`Workspace::agent_endpoint` says how this machine reaches it")),
        Some(_) => Err(Error::new(ErrorKind::Invalid, "port 0 can't be published: nothing can listen on it")),
        None => Ok(()),
    }
}

/// Bytes that all variables together may take: half of what the kernel gives a program for its arguments and its variables where the
/// stack's limit is the usual 8 MiB. The other half is for a command's own, and without any nothing would start at all.
const ENVIRONMENT_BYTES: usize = 1 << 20;

fn check_room(env: &BTreeMap<String, String>) -> Result<()> {
    let bytes: usize = env.iter().map(|(name, value)| variable_bytes(name, value)).sum();
    if bytes > ENVIRONMENT_BYTES {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("the variables of host, template and request take {bytes} bytes together; at most {ENVIRONMENT_BYTES} may be"),
        )
        .hint("write what is large to a file, and name the file in a variable"));
    }
    Ok(())
}

/// The agent's own name for the time after which commands end.
const COMMAND_MS: &str = "COREHOLD_LIMIT_COMMAND_MS";

/// The variables of every container of a host, its agent's own included. Nobody else may use names that begin as ours do.
pub(crate) fn base_env(host: &HostInner) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    if let Some(bundle) = &host.ca_bundle {
        set(env_vars::CA_BUNDLE, CA_PATH);
        for reader in env_vars::CA_BUNDLE_READERS {
            set(reader, CA_PATH);
        }
        if bundle.java.is_some() {
            set(env_vars::JAVA_OPTIONS, &format!("-Djavax.net.ssl.trustStore={}", bundle.java_path()));
        }
    }
    set(env_vars::PUBLIC_KEY, &host.key.public_base64());
    if let Some(time) = host.command_time {
        set(COMMAND_MS, &time.as_millis().to_string());
    }
    env.extend(host.env.clone());
    env
}

/// Each limit as the first who gives it says.
pub(crate) fn resources(all: &[Resources]) -> Resources {
    let first = |limit: fn(&Resources) -> Option<u64>| all.iter().find_map(limit);
    Resources {
        memory_bytes: first(|limits| limits.memory_bytes),
        cpu_millis: first(|limits| limits.cpu_millis),
        pids: first(|limits| limits.pids),
        disk_bytes: first(|limits| limits.disk_bytes),
    }
}
