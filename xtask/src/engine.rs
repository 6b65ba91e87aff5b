//! The Docker engine of this machine: whether one answers, and (in `daemon`) starting one.
//!
//! Asked over its socket by hand, since a library for it would be most of what a newcomer compiles before the first word
//! appears on the screen.

pub(crate) mod beside;
mod daemon;
pub(crate) mod newest;
pub(crate) mod podman;
#[cfg(test)]
pub(crate) mod pretend;

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader, Read, Seek as _, Write},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
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
/// How long an engine may be silent over an image: it says nothing while it unpacks one.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(300);
/// No line of an answer's head is longer.
const LONGEST_LINE: u64 = 64 * 1024;

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

/// A connection to an engine.
trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

/// Sends a GET and returns the answer's body.
fn ask(address: &Address, path: &str) -> Result<String> {
    let mut answer = exchange(connect(address, ANSWER_TIMEOUT)?, "GET", path, 0, io::empty())?;
    let mut body = Vec::new();
    answer.read_to_end(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Gives one engine an image of another, by way of a file. Neither needs its command line for it.
pub(crate) fn copy_image(from: &Address, to: &Address, reference: &str, by_way_of: &Path) -> Result<()> {
    let mut answer =
        exchange(connect(from, IMAGE_TIMEOUT)?, "GET", &format!("/images/{reference}/get"), 0, io::empty())?;
    let mut file = fs::File::options().read(true).write(true).create(true).truncate(true).open(by_way_of)?;
    let copied = io::copy(&mut answer, &mut file)?;
    file.rewind()?;
    let mut answer = exchange(connect(to, IMAGE_TIMEOUT)?, "POST", "/images/load", copied, file)?;
    let mut said = String::new();
    answer.read_to_string(&mut said)?;
    fs::remove_file(by_way_of)?;
    if said.contains("\"errorDetail\"") {
        bail!("{to} does not take the image: {said}");
    }
    Ok(())
}

fn connect(address: &Address, timeout: Duration) -> Result<Box<dyn Connection>> {
    if let Some(socket) = address.0.strip_prefix("unix://").or_else(|| address.0.starts_with('/').then_some(&address.0))
    {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        return Ok(Box::new(stream));
    }
    let authority = address.0.strip_prefix("tcp://").or_else(|| address.0.strip_prefix("http://"));
    let authority = authority.ok_or_else(|| anyhow!("only unix:// and tcp:// are supported"))?.trim_end_matches('/');
    let resolved = authority.to_socket_addrs()?.next().ok_or_else(|| anyhow!("{authority} has no address"))?;
    let stream = TcpStream::connect_timeout(&resolved, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(Box::new(stream))
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection. Returns what follows its head.
fn exchange(
    mut stream: Box<dyn Connection>,
    method: &str,
    path: &str,
    length: u64,
    mut body: impl Read,
) -> Result<BufReader<Box<dyn Connection>>> {
    let head = "Host: docker\r\nContent-Type: application/x-tar";
    stream.write_all(format!("{method} {path} HTTP/1.0\r\n{head}\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
    io::copy(&mut body, &mut stream)?;
    let mut stream = BufReader::new(stream);
    let mut status = String::new();
    let mut line = String::new();
    loop {
        line.clear();
        // An engine's heads are short; what isn't one may be without an end.
        if stream.by_ref().take(LONGEST_LINE).read_line(&mut line).unwrap_or(0) == 0 {
            bail!("it doesn't speak HTTP");
        }
        match line.trim_end() {
            "" => break,
            first if status.is_empty() => first.clone_into(&mut status),
            _ => {}
        }
    }
    if status.split(' ').nth(1) != Some("200") {
        bail!("it answers {path} with `{status}`");
    }
    Ok(stream)
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
    fn an_image_goes_from_one_engine_to_another() {
        let folder = Folder::new("copies");
        let (from, to) = (folder.0.join("from.sock"), folder.0.join("to.sock"));
        pretend::engine(&from, "HTTP/1.0 200 OK\r\n\r\nthe image");
        let taken = pretend::engine_that_takes(&to, "HTTP/1.0 200 OK\r\n\r\n{\"stream\": \"Loaded\"}");
        let address = |socket: &Path| Address(format!("unix://{}", socket.display()));
        let file = folder.0.join("image.tar");
        copy_image(&address(&from), &address(&to), "core:latest", &file).unwrap();
        assert_eq!(taken.recv().unwrap(), "the image");
        assert!(!file.exists());
        pretend::engine(&folder.0.join("c.sock"), "HTTP/1.0 200 OK\r\n\r\n{\"errorDetail\": {}}");
        assert!(copy_image(&address(&from), &address(&folder.0.join("c.sock")), "core:latest", &file).is_err());
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
