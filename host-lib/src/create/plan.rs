//! What is to be done, decided before anything is done: names, labels, environment, limits.

use std::time::Duration;

use corehold_types::{Timestamp, env_vars};

use super::CreateWorkspace;
use crate::{
    error::Result,
    host::{AGENT_PORT, HostInner, check_env, check_labels},
    labels,
    runtime::{CaBundle, ContainerSpec, Resources},
    template::{DEFAULT_PORT, Template},
    workspace::{Labelled, WorkspaceId, random_word},
};

/// Where the host's CA bundle lies inside.
const CA_PATH: &str = "/tools/ca/ca-certificates.crt";

pub(super) struct Plan {
    pub(super) template: Option<Template>,
    pub(super) labelled: Labelled,
    pub(super) spec: ContainerSpec,
    pub(super) port: u16,
    pub(super) agent_timeout: Duration,
    pub(super) keep_on_failure: bool,
}

impl Plan {
    pub(super) fn new(host: &HostInner, request: CreateWorkspace) -> Result<Self> {
        check_env(&request.env)?;
        check_labels(&request.labels)?;
        let template = request.template;
        let stem = template.as_ref().map_or("workspace", |template| template.name.as_str());
        let id = match request.id {
            Some(id) => id.parse()?,
            None => WorkspaceId::generate(stem)?,
        };
        let port = template.as_ref().map_or(DEFAULT_PORT, |template| template.port);
        let labelled = Labelled {
            instance: format!("{id}-{}", random_word(8)?),
            id,
            template: template.as_ref().map(|template| template.name.clone()),
            created: Timestamp::now(),
            preview_port: Some(port),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: host.fingerprint.clone(),
        };

        let mut env = std::collections::BTreeMap::new();
        let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        if host.ca_bundle.is_some() {
            set(env_vars::CA_BUNDLE, CA_PATH);
            for reader in env_vars::CA_BUNDLE_READERS {
                set(reader, CA_PATH);
            }
        }
        // Ours can't be overridden: no one else may use names that begin so.
        set(env_vars::PUBLIC_KEY, &host.key.public_base64());
        set(env_vars::INSTANCE, &labelled.instance);
        set(env_vars::WORKSPACE_ID, labelled.id.as_str());
        env.extend(host.env.clone());
        env.extend(template.iter().flat_map(|template| template.env.clone()));
        env.extend(request.env);

        let mut all_labels = host.labels.clone();
        all_labels.extend(request.labels);
        all_labels.extend(labelled.to_labels());

        let limits =
            [Some(request.resources), template.as_ref().map(|template| template.resources), Some(host.resources)];
        let first = |limit: fn(&Resources) -> Option<u64>| limits.iter().flatten().find_map(limit);
        let spec = ContainerSpec {
            name: format!("{}{}", labels::NAME_PREFIX, labelled.id),
            image: request
                .image
                .or_else(|| template.as_ref().and_then(|template| template.image.clone()))
                .unwrap_or_else(|| host.image.clone()),
            labels: all_labels,
            env,
            publish: vec![port],
            agent_port: AGENT_PORT,
            resources: Resources {
                memory_bytes: first(|limits| limits.memory_bytes),
                cpu_millis: first(|limits| limits.cpu_millis),
                pids: first(|limits| limits.pids),
            },
            ca_bundle: host.ca_bundle.clone().map(|pem| CaBundle { pem, path: CA_PATH.to_owned() }),
        };
        Ok(Self {
            template,
            labelled,
            spec,
            port,
            agent_timeout: request.agent_timeout,
            keep_on_failure: request.keep_on_failure,
        })
    }
}
