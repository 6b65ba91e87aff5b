//! The Docker engine of this machine: whether one answers, and (in `daemon`) starting one.
//!
//! Asked over its socket by hand, since a library for it would be most of what a newcomer compiles before the first word
//! appears on the screen.

mod daemon;
#[cfg(test)]
mod pretend;

use std::{
    fmt, fs,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};

use crate::config::Config;

pub(crate) use daemon::Daemon;

/// Where the engine that we start listens.
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
/// How long an engine may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The address of an engine, as `DOCKER_HOST` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) String);

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What was found when looking for an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// One answers.
    Answering(Address),
    /// The one that somebody configured doesn't answer; no other is taken in its place.
    ConfiguredOneSilent {
        /// Who names it.
        origin: &'static str,
        address: Address,
        why: String,
    },
    /// None of the usual sockets answers.
    None {
        /// Whether one is there but refuses this user.
        refused: bool,
        /// The addresses tried, and why each is none.
        tried: Vec<(Address, String)>,
    },
}

/// Looks for an engine as the docker command does, then at the usual sockets.
pub(crate) fn find(config: &Config) -> Found {
    if let Some((origin, address)) = configured(config) {
        return match ping(&address) {
            Ok(()) => Found::Answering(address),
            Err(error) => Found::ConfiguredOneSilent { origin, address, why: error.to_string() },
        };
    }
    let rootless = config.runtime_folder.iter().map(|folder| folder.join("docker.sock"));
    let mut tried = Vec::new();
    let mut refused = false;
    for socket in rootless.chain([PathBuf::from(SYSTEM_SOCKET)]) {
        let address = Address(format!("unix://{}", socket.display()));
        match ping(&address) {
            Ok(()) => return Found::Answering(address),
            Err(error) => {
                let cause = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                refused |= cause == Some(std::io::ErrorKind::PermissionDenied);
                tried.push((address, error.to_string()));
            }
        }
    }
    Found::None { refused, tried }
}

/// The engine that somebody chose.
fn configured(config: &Config) -> Option<(&'static str, Address)> {
    if let Some(host) = &config.docker_host {
        return Some(("DOCKER_HOST", Address(host.clone())));
    }
    let chosen_by_file = fs::read_to_string(config.docker_config.join("config.json"))
        .is_ok_and(|text| text.contains("\"currentContext\""));
    let origin = match &config.docker_context {
        Some(_) => "DOCKER_CONTEXT",
        None if chosen_by_file => "the docker command's context",
        None => return None,
    };
    // The docker command knows its own files best.
    let mut command = Command::new(config.program("docker")?);
    command.args(["context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (name, host) = text.trim().split_once(' ')?;
    (output.status.success() && name != "default").then(|| (origin, Address(host.to_owned())))
}

/// Whether an engine answers there.
pub(crate) fn ping(address: &Address) -> Result<()> {
    ask(address, "/_ping").map(drop)
}

/// Whether the engine has an image whose reference begins with one of these.
pub(crate) fn has_image(address: &Address, prefixes: &[&str]) -> Result<bool> {
    let images = ask(address, "/images/json")?;
    Ok(prefixes.iter().any(|prefix| images.contains(&format!("\"{prefix}"))))
}

/// Sends a GET and returns the answer's body.
fn ask(address: &Address, path: &str) -> Result<String> {
    if let Some(socket) = address.0.strip_prefix("unix://").or_else(|| address.0.starts_with('/').then_some(&address.0))
    {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        return exchange(stream, path);
    }
    let authority = address.0.strip_prefix("tcp://").or_else(|| address.0.strip_prefix("http://"));
    let authority = authority.ok_or_else(|| anyhow!("only unix:// and tcp:// are supported"))?.trim_end_matches('/');
    let resolved = authority.to_socket_addrs()?.next().ok_or_else(|| anyhow!("{authority} has no address"))?;
    let stream = TcpStream::connect_timeout(&resolved, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    exchange(stream, path)
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection.
fn exchange(mut stream: impl Read + Write, path: &str) -> Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("it doesn't speak HTTP"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("it answers {path} with `{status}`");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{pretend::Folder, *};

    #[test]
    fn an_engine_that_answers_is_found_and_asked_for_images() {
        let folder = Folder::new("answers");
        let socket = folder.0.join("docker.sock");
        pretend::engine(&socket, "HTTP/1.0 200 OK\r\n\r\n[{\"RepoTags\":[\"corehold-base:abc\"]}]");
        let address = Address(format!("unix://{}", socket.display()));
        assert_eq!(find(&pretend::config(&folder)), Found::Answering(address.clone()));
        assert!(has_image(&address, &["node:24", "corehold-base:"]).unwrap());
        assert!(!has_image(&address, &["node:24", "base:"]).unwrap());
    }

    #[test]
    fn a_configured_engine_is_the_only_one_asked() {
        let folder = Folder::new("configured");
        pretend::engine(&folder.0.join("docker.sock"), "HTTP/1.0 200 OK\r\n\r\nOK");
        let elsewhere = format!("unix://{}/gone.sock", folder.0.display());
        let config = Config { docker_host: Some(elsewhere.clone()), ..pretend::config(&folder) };
        match find(&config) {
            Found::ConfiguredOneSilent { origin, address, .. } => {
                assert_eq!((origin, address.0), ("DOCKER_HOST", elsewhere));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn something_else_on_the_socket_is_no_engine() {
        let folder = Folder::new("other");
        for (name, answer, complaint) in [
            ("a.sock", "SSH-2.0-OpenSSH\r\n", "HTTP"),
            ("b.sock", "HTTP/1.0 500 Internal Server Error\r\n\r\n{}", "500"),
        ] {
            let socket = folder.0.join(name);
            pretend::engine(&socket, answer);
            let error = ping(&Address(format!("unix://{}", socket.display()))).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert!(ping(&Address("ssh://somewhere".to_owned())).unwrap_err().to_string().contains("tcp://"));
    }
}
