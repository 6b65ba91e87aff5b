//! What a core container is, as the engine wants it said. Made without asking the engine, so it is tested as a value.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HostConfig, HostConfigLogConfig, Mount, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::{network::SPEC_LABEL, ports};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{ContainerSpec, Resources},
};

/// What the engine contributes to a container besides its specification.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Name of the network it is put into.
    pub(super) network: String,
    /// Whether that has no way out: then names aren't asked for either.
    pub(super) closed: bool,
    /// Whether the agent's port is published, since the host can't reach the container's own address.
    pub(super) publish_agent: bool,
    /// CPUs that the engine has, if it says so.
    pub(super) cpus: Option<u64>,
    /// Whether the engine's log driver is `json-file`, whose logs grow without bound unless told.
    pub(super) bound_log: bool,
    /// The CA bundle's volume, and what else is mounted.
    pub(super) mounts: Vec<Mount>,
    /// Whether the engine may have a quota for what a container writes.
    pub(super) quota: bool,
    /// Those in memory: where, and how.
    pub(super) memory: HashMap<String, String>,
}

/// An address that is nobody's (TEST-NET-1, RFC 5737).
const NO_RESOLVER: &str = "192.0.2.1";

/// The shortest period in which CPU time is given out, in microseconds. The engine's own is 100 ms: what has used up its share
/// then stands still for most of it, the echo of a typed key too (measured by `benches/src/bin/echo.rs`).
const CPU_PERIOD_US: u64 = 10_000;
/// The longest, and the least share of one, as the kernel has them.
const LONGEST_CPU_PERIOD_US: u64 = 1_000_000;
const LEAST_CPU_QUOTA_US: u64 = 1_000;

/// The request that creates the container.
///
/// # Errors
/// `Invalid` for a limit that is out of range, or a name, label or variable that the engine would read otherwise.
pub(super) fn container(spec: &ContainerSpec, place: Place) -> Result<ContainerCreateBody> {
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(invalid(format!("{name:?} is not a name for an environment variable")));
        }
        if value.contains('\0') {
            return Err(invalid(format!("the environment variable {name:?} holds a NUL character")));
        }
    }
    let limits = Limits::of(&spec.resources, place.cpus)?;
    let mut bindings = ports::bindings(&spec.publish, spec.publish_on.as_ref());
    if place.publish_agent {
        // Nobody's business but this library's: it takes none of the ports that are meant for people.
        bindings.extend(ports::bindings(&[spec.agent_port], None));
    }
    let exposed = bindings.keys().cloned().collect();
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    if let Some(network) = &spec.network {
        let said = serde_json::to_string(network).map_err(|error| invalid(error.to_string()))?;
        labels.insert(SPEC_LABEL.to_owned(), said);
    }
    let host_config = HostConfig {
        network_mode: Some(place.network),
        port_bindings: Some(bindings),
        memory: limits.memory,
        // Memory and swap together: equal means no swap.
        memory_swap: limits.memory,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        pids_limit: limits.pids,
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(spec.hardening.capabilities.iter().map(ToString::to_string).collect()),
        readonly_rootfs: Some(spec.hardening.read_only_root),
        runtime: spec.hardening.sandbox.clone(),
        tmpfs: Some(place.memory),
        storage_opt: spec
            .resources
            .disk_bytes
            .filter(|_| place.quota)
            .map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        // The agent is PID 1 and does init's duties.
        init: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: place.bound_log.then(|| HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        mounts: Some(place.mounts),
        // An engine asks its machine's resolver itself where that is on loopback, past every firewall.
        dns: place.closed.then(|| vec![NO_RESOLVER.to_owned()]),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        labels: Some(labels),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        exposed_ports: Some(exposed),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

/// The request that changes a container's limits: those that are given.
///
/// # Errors
/// `Invalid` for a limit that is out of range.
pub(super) fn update(resources: &Resources, cpus: Option<u64>) -> Result<ContainerUpdateBody> {
    let limits = Limits::of(resources, cpus)?;
    Ok(ContainerUpdateBody {
        memory: limits.memory,
        memory_swap: limits.memory,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        pids_limit: limits.pids,
        ..ContainerUpdateBody::default()
    })
}

/// Limits in the engine's units.
struct Limits {
    memory: Option<i64>,
    cpu_period: Option<i64>,
    cpu_quota: Option<i64>,
    pids: Option<i64>,
}

impl Limits {
    fn of(resources: &Resources, cpus: Option<u64>) -> Result<Self> {
        // Podman takes less memory than a container can start with.
        resources.check()?;
        let cpu = resources.cpu_millis.map(|millis| cpu_share(millis, cpus)).transpose()?;
        Ok(Self {
            memory: limit("memory", resources.memory_bytes, 1)?,
            cpu_period: cpu.map(|(period, _)| period),
            cpu_quota: cpu.map(|(_, quota)| quota),
            pids: limit("pids", resources.pids, 1)?,
        })
    }
}

/// A period and the CPU time in it, in microseconds. More CPUs than there are would be no limit, and are refused.
fn cpu_share(millis: u64, cpus: Option<u64>) -> Result<(i64, i64)> {
    if millis == 0 || cpus.is_some_and(|cpus| millis > cpus.saturating_mul(1_000)) {
        let range = cpus.map(|cpus| format!("; the engine has {cpus}")).unwrap_or_default();
        return Err(invalid(format!("a limit of {} CPUs is out of range{range}", millis as f64 / 1_000.0)));
    }
    let period = (LEAST_CPU_QUOTA_US * 1_000).div_ceil(millis).clamp(CPU_PERIOD_US, LONGEST_CPU_PERIOD_US);
    let quota = limit("cpu", millis.checked_mul(period).map(|product| product / 1_000), 1)?;
    Ok((period as i64, quota.ok_or_else(|| invalid(format!("a cpu limit of {millis} thousandths is out of range")))?))
}

/// A limit in the engine's unit. Zero is refused: to the engine it means none.
fn limit(what: &str, value: Option<u64>, factor: u64) -> Result<Option<i64>> {
    let Some(value) = value else { return Ok(None) };
    value
        .checked_mul(factor)
        .and_then(|scaled| i64::try_from(scaled).ok())
        .filter(|scaled| *scaled > 0)
        .map(Some)
        .ok_or_else(|| invalid(format!("a {what} limit of {value} is out of range")))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// Takes a name or an id only if it can't be read as another path of the engine's API.
///
/// # Errors
/// `Invalid`, with the name.
pub(super) fn checked_name(name: &str) -> Result<&str> {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    if name.starts_with(|character: char| character.is_ascii_alphanumeric()) && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(invalid(format!("{name:?} is not a container's name: letters, digits, '_', '.' and '-' are allowed")))
    }
}

/// Takes an image's reference or id only if it can't be read as another path of the engine's API.
///
/// # Errors
/// `Invalid`, with the reference.
pub(super) fn checked_reference(reference: &str) -> Result<&str> {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-' | '/' | ':' | '@');
    let begins_well = reference.starts_with(|character: char| character.is_ascii_alphanumeric());
    if begins_well && reference.chars().all(plain) && !reference.contains("..") && !reference.contains("//") {
        Ok(reference)
    } else {
        Err(invalid(format!("{reference:?} is not an image's reference"))
            .hint("write it as `name:tag`, `host:port/name:tag` or `sha256:…`"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::runtime::{Capability, Hardening};

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "corehold-w1".to_owned(),
            image: "workspace-core:latest".to_owned(),
            env: BTreeMap::from([("A".to_owned(), "b=c".to_owned())]),
            publish: vec![4321],
            agent_port: 3001,
            resources: Resources {
                memory_bytes: Some(1 << 30),
                cpu_millis: Some(1500),
                pids: Some(512),
                ..Resources::default()
            },
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn hardening_is_always_on() {
        let body = container(&spec(), Place { network: "net".to_owned(), ..Place::default() }).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!((host.privileged, host.init), (Some(false), Some(false)));
        assert_eq!((host.cap_add, host.readonly_rootfs, host.runtime), (Some(Vec::new()), Some(false), None));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!((host.cpu_period, host.cpu_quota), (Some(10_000), Some(15_000)));
        assert_eq!((host.nano_cpus, host.pids_limit), (None, Some(512)));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(host.log_config, None);
        assert_eq!(body.env, Some(vec!["A=b=c".to_owned()]));
        assert_eq!(body.user, None);
    }

    #[test]
    fn what_is_asked_for_beyond_that_is_said() {
        let hardening = Hardening {
            read_only_root: true,
            capabilities: BTreeSet::from([Capability::Chown, Capability::NetBindService]),
            sandbox: Some("runsc".to_owned()),
        };
        let host = container(&ContainerSpec { hardening, ..spec() }, Place::default()).unwrap().host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.cap_add, Some(vec!["CHOWN".to_owned(), "NET_BIND_SERVICE".to_owned()]));
        assert_eq!((host.readonly_rootfs, host.runtime.as_deref()), (Some(true), Some("runsc")));
        let resources = Resources { disk_bytes: Some(1 << 30), ..Resources::default() };
        let quota = |quota| {
            let place = Place { quota, ..Place::default() };
            container(&ContainerSpec { resources, ..spec() }, place).unwrap().host_config.unwrap().storage_opt
        };
        assert_eq!((quota(true).unwrap()["size"].as_str(), quota(false)), ("1073741824", None));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    }

    proptest::proptest! {
        #[test]
        fn any_variable_and_label_is_refused_or_said_so_that_the_engine_reads_it_back(
            env in proptest::collection::btree_map("(?s).{0,6}", "(?s).{0,40}", 0..4),
            labels in proptest::collection::btree_map("(?s).{0,6}", "(?s).{0,40}", 0..4),
        ) {
            let fine = env.iter().all(|(name, value)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
            let spec = ContainerSpec { env: env.clone(), labels: labels.clone(), ..spec() };
            match container(&spec, Place::default()) {
                Ok(body) => {
                    proptest::prop_assert!(fine);
                    // As the engine takes it apart.
                    let read = body.env.unwrap().into_iter().map(|said| {
                        let (name, value) = said.split_once('=').unwrap();
                        (name.to_owned(), value.to_owned())
                    });
                    proptest::prop_assert_eq!(read.collect::<BTreeMap<_, _>>(), env);
                    proptest::prop_assert_eq!(body.labels.unwrap().into_iter().collect::<BTreeMap<_, _>>(), labels);
                }
                Err(error) => proptest::prop_assert!(!fine && error.kind() == ErrorKind::Invalid),
            }
        }
    }

    #[test]
    fn ports_are_published_on_the_loopback_and_the_agents_only_where_it_must() {
        let bindings = |publish_agent| {
            let place = Place { publish_agent, ..Place::default() };
            let ports = container(&spec(), place).unwrap().host_config.unwrap().port_bindings.unwrap();
            assert!(ports.values().flatten().flatten().all(|binding| {
                binding.host_ip.as_deref() == Some("127.0.0.1") && binding.host_port.as_deref() == Some("")
            }));
            let mut names: Vec<_> = ports.into_keys().collect();
            names.sort();
            names
        };
        assert_eq!(bindings(false), ["4321/tcp"]);
        assert_eq!(bindings(true), ["3001/tcp", "4321/tcp"]);
    }

    #[test]
    fn limits_that_the_engine_would_read_as_none_are_refused() {
        for resources in [
            Resources { memory_bytes: Some(0), ..Resources::default() },
            Resources { memory_bytes: Some(u64::MAX), ..Resources::default() },
            Resources { cpu_millis: Some(u64::MAX), ..Resources::default() },
            Resources { pids: Some(0), ..Resources::default() },
        ] {
            let error = container(&ContainerSpec { resources, ..spec() }, Place::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        let none = container(&ContainerSpec { resources: Resources::default(), ..spec() }, Place::default()).unwrap();
        assert_eq!(none.host_config.unwrap().memory, None);
    }

    #[test]
    fn cpu_time_is_given_out_in_short_periods_as_far_as_the_kernel_has_it() {
        for (millis, share) in [
            (1, (1_000_000, 1_000)),
            (7, (142_858, 1_000)),
            (50, (20_000, 1_000)),
            (100, (10_000, 1_000)),
            (500, (10_000, 5_000)),
            (4_000, (10_000, 40_000)),
        ] {
            assert_eq!(cpu_share(millis, Some(4)).unwrap(), share, "{millis}");
        }
        let error = cpu_share(4_001, Some(4)).unwrap_err();
        assert!(error.to_string().contains("4.001 CPUs is out of range; the engine has 4"), "{error}");
        assert!(cpu_share(0, None).is_err() && cpu_share(u64::MAX, None).is_err());
        assert!(cpu_share(4_001, None).is_ok(), "an engine that doesn't say decides itself");
    }

    #[test]
    fn an_update_says_only_what_is_to_change() {
        let update = |resources| update(&resources, Some(4)).unwrap();
        assert_eq!(update(Resources::default()), ContainerUpdateBody::default());
        let changed = update(Resources { memory_bytes: Some(1 << 30), cpu_millis: Some(500), ..Resources::default() });
        assert_eq!((changed.memory, changed.memory_swap, changed.pids_limit), (Some(1 << 30), Some(1 << 30), None));
        assert_eq!((changed.cpu_period, changed.cpu_quota), (Some(10_000), Some(5_000)));
    }

    #[test]
    fn names_cannot_lead_to_another_path_of_the_api() {
        for bad in ["", "..", "../networks/x", "a/b", "a?force=1", "a#b", "a b", "ä", ".a"] {
            assert_eq!(checked_name(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        for bad in ["", "/x", "a/../b", "a?x", "a//b", "a b", "-a", "a%2e"] {
            assert_eq!(checked_reference(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        for good in ["workspace-core:latest", "localhost:5000/a/b:1", "sha256:00ff", "a@sha256:00ff"] {
            assert_eq!(checked_reference(good).unwrap(), good);
        }
    }

    #[test]
    fn variables_that_would_be_read_otherwise_are_refused() {
        for name in ["", "A=B", "A\0"] {
            let env = BTreeMap::from([(name.to_owned(), String::new())]);
            assert!(container(&ContainerSpec { env, ..spec() }, Place::default()).is_err(), "{name:?}");
        }
    }
}
