//! Where an engine may be: which addresses are tried, in which order, and why. No connection is made here.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// Which engine to use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DockerAddress {
    /// The one that the `docker` command would use, else the first of the usual sockets that answers.
    #[default]
    Auto,
    /// This one and no other: `unix:///path`, a socket's path, `tcp://host:port` or `http://host:port`.
    At(String),
}

/// The facts of this process that decide which engine is meant. Injectable, so that tests need no real environment.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `CONTAINER_HOST`, as Podman's own command has it.
    pub container_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// Folder of the docker command's configuration: `DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`: where rootless engines have their sockets; else the folder that systemd makes for this user, if it is there.
    pub runtime_dir: Option<PathBuf>,
    /// Folder of the system's sockets. `/var/run`.
    pub system_dir: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            docker_host: variable("DOCKER_HOST"),
            docker_context: variable("DOCKER_CONTEXT"),
            docker_config: variable("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| std::env::home_dir().map(|home| home.join(".docker"))),
            container_host: variable("CONTAINER_HOST"),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from).or_else(|| {
                // Unset in services, cron and after `su`.
                let folder = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
                folder.is_dir().then_some(folder)
            }),
            system_dir: "/var/run".into(),
        }
    }
}

/// An address that may lead to an engine, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lead {
    /// Who names it: `DOCKER_HOST`, `docker context "colima"`, `system socket`.
    pub(super) origin: String,
    /// The address, or why what names it can't be used.
    pub(super) address: Result<Address, String>,
    /// The address as it was written.
    pub(super) written: String,
}

/// An address in a form that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A unix socket.
    Socket(PathBuf),
    /// HTTP without TLS: `host:port`.
    Http(String),
}

impl Address {
    /// Reads an address as `DOCKER_HOST` has it.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        if let Some(path) = written.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err("a socket needs an absolute path: unix:///path".to_owned())
            };
        }
        if written.starts_with('/') {
            return Ok(Self::Socket(written.into()));
        }
        if let Some(authority) = written.strip_prefix("tcp://").or_else(|| written.strip_prefix("http://")) {
            let authority = authority.trim_end_matches('/');
            let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            return match port {
                Some(Ok(_)) if !authority.contains(['/', '@', '?', '#']) => Ok(Self::Http(authority.to_owned())),
                _ => Err("a TCP address needs host and port: tcp://127.0.0.1:2375".to_owned()),
            };
        }
        match written.split_once("://") {
            Some(("ssh", _)) => Err("ssh is not supported; forward the socket with `ssh -N -L \
                 /tmp/docker.sock:/var/run/docker.sock HOST` and name unix:///tmp/docker.sock"
                .to_owned()),
            Some(("https", _)) => Err("TLS is not supported; forward the engine's socket instead".to_owned()),
            Some((scheme, _)) => Err(format!("{scheme}:// is not supported; use unix:// or tcp://")),
            None => Err("not an address; write unix:///path or tcp://host:port".to_owned()),
        }
    }
}

impl Address {
    /// Whether the engine is on this machine as far as its address tells, so that what it publishes on 127.0.0.1 is reached from here.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Http(authority) => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "unix://{}", path.display()),
            Self::Http(authority) => write!(formatter, "tcp://{authority}"),
        }
    }
}

/// Which addresses to try, in order. What somebody configured is the only lead: when it fails, no other engine is taken
/// in its place.
pub(super) fn leads(address: &DockerAddress, surroundings: &Surroundings) -> Result<Vec<Lead>> {
    let only = |origin: String, written: &str| {
        Ok(vec![Lead { origin, address: Address::parse(written), written: written.to_owned() }])
    };
    if let DockerAddress::At(written) = address {
        return only("configuration".to_owned(), written);
    }
    if let Some(written) = &surroundings.docker_host {
        return only("DOCKER_HOST".to_owned(), written);
    }
    if let Some((context, written)) = current_context(surroundings)? {
        return only(format!("docker context \"{context}\""), &written);
    }

    if let Some(written) = &surroundings.container_host {
        return only("CONTAINER_HOST".to_owned(), written);
    }

    let mut sockets = Vec::new();
    if let Some(runtime_dir) = &surroundings.runtime_dir {
        sockets.push(("rootless socket", runtime_dir.join("docker.sock")));
    }
    sockets.push(("system socket", surroundings.system_dir.join("docker.sock")));
    if let Some(runtime_dir) = &surroundings.runtime_dir {
        sockets.push(("rootless podman", runtime_dir.join("podman/podman.sock")));
    }
    sockets.push(("system podman", surroundings.system_dir.join("podman/podman.sock")));
    Ok(sockets
        .into_iter()
        .map(|(origin, path)| Lead {
            origin: origin.to_owned(),
            written: path.display().to_string(),
            address: Ok(Address::Socket(path)),
        })
        .collect())
}

/// The docker command's current context and its address; `None` for `default`, which means the usual sockets.
///
/// A context's metadata lies at `contexts/meta/<SHA-256 of its name>/meta.json` (docker/cli, `cli/context/store`); its
/// folder is found here by reading the names instead, since this is the only place that would need SHA-256.
fn current_context(surroundings: &Surroundings) -> Result<Option<(String, String)>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "currentContext")]
        current_context: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metadata {
        name: String,
        #[serde(default)]
        endpoints: Endpoints,
    }
    #[derive(Deserialize, Default)]
    struct Endpoints {
        docker: Option<DockerEndpoint>,
    }
    #[derive(Deserialize)]
    struct DockerEndpoint {
        #[serde(rename = "Host", default)]
        host: String,
    }

    let Some(folder) = &surroundings.docker_config else { return Ok(None) };
    let config_path = folder.join("config.json");
    let name = match (&surroundings.docker_context, std::fs::read(&config_path)) {
        (Some(name), _) => Some(name.clone()),
        (None, Err(_)) => None,
        (None, Ok(bytes)) => {
            serde_json::from_slice::<Config>(&bytes)
                .map_err(|source| {
                    Error::new(ErrorKind::Invalid, format!("{} is not valid: {source}", config_path.display()))
                        .hint("mend the file, or set DOCKER_HOST, which is asked first")
                })?
                .current_context
        }
    };
    let Some(name) = name.filter(|name| name != "default" && !name.is_empty()) else { return Ok(None) };

    let store = folder.join("contexts/meta");
    let found = std::fs::read_dir(&store)
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("meta.json")).ok())
        .filter_map(|bytes| serde_json::from_slice::<Metadata>(&bytes).ok())
        .find(|metadata| metadata.name == name);
    match found.and_then(|metadata| metadata.endpoints.docker).filter(|docker| !docker.host.is_empty()) {
        Some(docker) => Ok(Some((name, docker.host))),
        None => {
            let message = format!("docker's current context {name:?} names no engine in {}", store.display());
            Err(Error::new(ErrorKind::Invalid, message)
                .hint("run `docker context use default`, or set DOCKER_HOST, which is asked first"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(folder: &std::path::Path) -> Surroundings {
        Surroundings {
            docker_config: Some(folder.into()),
            runtime_dir: Some("/run/user/7".into()),
            system_dir: "/var/run".into(),
            ..Surroundings::default()
        }
    }

    fn write_context(folder: &std::path::Path, name: &str, host: &str) {
        let store = folder.join("contexts/meta/0123");
        std::fs::create_dir_all(&store).unwrap();
        let metadata = format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#);
        std::fs::write(store.join("meta.json"), metadata).unwrap();
        std::fs::write(folder.join("config.json"), format!(r#"{{"auths":{{}},"currentContext":"{name}"}}"#)).unwrap();
    }

    #[test]
    fn the_usual_sockets_are_tried_in_order_and_podman_last() {
        let folder = tempfile::tempdir().unwrap();
        let written: Vec<_> = leads(&DockerAddress::Auto, &surroundings(folder.path()))
            .unwrap()
            .into_iter()
            .map(|lead| lead.written)
            .collect();
        assert_eq!(
            written,
            [
                "/run/user/7/docker.sock",
                "/var/run/docker.sock",
                "/run/user/7/podman/podman.sock",
                "/var/run/podman/podman.sock"
            ]
        );
    }

    #[test]
    fn what_was_configured_is_the_only_lead_and_the_more_explicit_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        write_context(folder.path(), "colima", "unix:///home/me/.colima/docker.sock");
        let mut around = surroundings(folder.path());
        let origins = |address: &DockerAddress, around: &Surroundings| -> Vec<String> {
            leads(address, around).unwrap().into_iter().map(|lead| lead.origin).collect()
        };
        assert_eq!(origins(&DockerAddress::Auto, &around), ["docker context \"colima\""]);
        around.container_host = Some("unix:///run/podman/podman.sock".to_owned());
        assert_eq!(origins(&DockerAddress::Auto, &around), ["docker context \"colima\""], "a context is docker's own");
        let without_context = Surroundings { docker_config: None, ..around.clone() };
        assert_eq!(origins(&DockerAddress::Auto, &without_context), ["CONTAINER_HOST"]);
        around.docker_host = Some("tcp://10.0.0.1:2375".to_owned());
        assert_eq!(origins(&DockerAddress::Auto, &around), ["DOCKER_HOST"]);
        assert_eq!(origins(&DockerAddress::At("/run/d.sock".to_owned()), &around), ["configuration"]);
    }

    #[test]
    fn a_context_that_is_gone_is_an_error_and_not_another_engine() {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings { docker_context: Some("lost".to_owned()), ..surroundings(folder.path()) };
        let error = leads(&DockerAddress::Auto, &around).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("\"lost\"") && error.hint_text().is_some());

        std::fs::write(folder.path().join("config.json"), "{").unwrap();
        let error = leads(&DockerAddress::Auto, &surroundings(folder.path())).unwrap_err();
        assert!(error.to_string().contains("config.json is not valid"), "{error}");
    }

    #[test]
    fn an_engine_elsewhere_is_known_by_its_address() {
        for (written, here) in [
            ("unix:///a.sock", true),
            ("tcp://localhost:2375", true),
            ("tcp://127.0.0.1:2375", true),
            ("http://[::1]:2375", true),
            ("tcp://10.0.0.1:2375", false),
            ("tcp://localhost.example:2375", false),
            ("tcp://127.0.0.1.example:2375", false),
        ] {
            assert_eq!(Address::parse(written).unwrap().is_on_this_machine(), here, "{written}");
        }
    }

    #[test]
    fn addresses_are_read_as_docker_writes_them() {
        assert_eq!(Address::parse("unix:///a.sock"), Ok(Address::Socket("/a.sock".into())));
        assert_eq!(Address::parse("/a.sock"), Ok(Address::Socket("/a.sock".into())));
        assert_eq!(Address::parse("tcp://h:2375/"), Ok(Address::Http("h:2375".to_owned())));
        assert_eq!(Address::parse("http://[::1]:2375"), Ok(Address::Http("[::1]:2375".to_owned())));
        for (wrong, says) in [
            ("ssh://me@host", "forward the socket"),
            ("https://host:2376", "TLS"),
            ("npipe:////./pipe/docker_engine", "npipe"),
            ("tcp://host", "host and port"),
            ("tcp://user@host:1", "host and port"),
            ("tcp://host:99999", "host and port"),
            ("unix://relative", "absolute"),
            ("docker", "not an address"),
            ("", "not an address"),
        ] {
            let error = Address::parse(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
