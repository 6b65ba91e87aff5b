//! The Docker engine of this machine: whether one answers, and starting one.
//!
//! Asked over its socket by hand, since a library for it would be most of what a newcomer compiles before the first word
//! appears on the screen.

use std::{
    fmt,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::config::Config;

/// Where the engine that we start listens.
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
/// How long an engine may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an engine may take to start. A first start on a slow disk takes some seconds.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Between two attempts to connect to an engine that starts: its socket tells nobody when it begins to listen.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

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

/// How an engine process is started: its program, its log, and where it will answer.
pub(crate) struct Daemon {
    /// `setsid`, the program and its arguments before the storage driver.
    pub(crate) command: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) address: Address,
}

impl Daemon {
    /// The machine's own engine.
    pub(crate) fn of_machine(config: &Config) -> Self {
        Self {
            command: vec!["setsid".to_owned(), "dockerd".to_owned()],
            log: config.state.join("dockerd.log"),
            address: Address(format!("unix://{SYSTEM_SOCKET}")),
        }
    }

    /// As one could type it.
    pub(crate) fn line(&self) -> String {
        let folder = self.log.parent().unwrap_or(Path::new("/")).display();
        let command = self.command.join(" ");
        format!("mkdir -p {folder} && {command} --storage-driver=overlay2 >{} 2>&1 &", self.log.display())
    }

    /// Starts it, detached, and waits until it answers. Where it doesn't get on with overlay2 it chooses for itself.
    pub(crate) fn start(&self, config: &Config) -> Result<()> {
        match self.attempt(config, &["--storage-driver=overlay2"])? {
            Attempt::Answers => return Ok(()),
            Attempt::Died { log } if blames_overlay(&log) => {
                eprintln!("    overlay2 does not work here; the engine chooses its storage driver itself");
            }
            Attempt::Died { log } => bail!(self.death(&log)),
        }
        match self.attempt(config, &[])? {
            Attempt::Answers => Ok(()),
            Attempt::Died { log } => bail!(self.death(&log)),
        }
    }

    fn attempt(&self, config: &Config, storage: &[&str]) -> Result<Attempt> {
        let folder = self.log.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let log = File::create(&self.log).with_context(|| format!("can't write {}", self.log.display()))?;
        let path = std::env::join_paths(&config.path)?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(storage).env("PATH", path);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().with_context(|| format!("can't run {}", self.command.join(" ")))?;
        self.wait(&mut process)
    }

    /// Until it answers, dies, or takes too long. It is our own child, so its death is seen.
    fn wait(&self, process: &mut Child) -> Result<Attempt> {
        let start = Instant::now();
        loop {
            if ping(&self.address).is_ok() {
                return Ok(Attempt::Answers);
            }
            if process.try_wait()?.is_some() {
                // Another engine may have been faster (Debian's own script starts one); then it is as good as ours.
                if ping(&self.address).is_ok() {
                    return Ok(Attempt::Answers);
                }
                return Ok(Attempt::Died { log: fs::read_to_string(&self.log).unwrap_or_default() });
            }
            if start.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!(
                    "the engine (process {}) does not answer at {} after {} s; its log {} ends with:\n{}",
                    process.id(),
                    self.address,
                    START_TIMEOUT.as_secs(),
                    self.log.display(),
                    tail(&log)
                );
            }
            thread::sleep(ATTEMPT_INTERVAL);
        }
    }

    fn death(&self, log: &str) -> String {
        format!("the engine ended while starting; its log {} ends with:\n{}", self.log.display(), tail(log))
    }
}

/// How an attempt to start ended.
enum Attempt {
    Answers,
    Died { log: String },
}

/// Whether the engine ended because of the storage driver it was told to use. The words are dockerd's own.
fn blames_overlay(log: &str) -> bool {
    let words = ["driver not supported", "error initializing graphdriver", "prior storage driver"];
    tail(log).lines().any(|line| words.iter().any(|word| line.contains(word)))
}

/// The last lines.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(20)..];
    shown.iter().map(|line| format!("      {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::net::UnixListener,
    };

    use super::*;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("corehold-xtask-{test}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn config(folder: &Folder) -> Config {
        Config {
            docker_host: None,
            docker_context: None,
            docker_config: folder.0.join("none"),
            runtime_folder: Some(folder.0.clone()),
            state: folder.0.join("state"),
            ..Config::of_this_process()
        }
    }

    /// An engine that gives each caller this answer.
    fn pretend_engine(socket: &Path, answer: &'static str) {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(&stream);
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
    }

    #[test]
    fn an_engine_that_answers_is_found_and_asked_for_images() {
        let folder = Folder::new("answers");
        let socket = folder.0.join("docker.sock");
        pretend_engine(&socket, "HTTP/1.0 200 OK\r\n\r\n[{\"RepoTags\":[\"corehold-base:abc\"]}]");
        let address = Address(format!("unix://{}", socket.display()));
        assert_eq!(find(&config(&folder)), Found::Answering(address.clone()));
        assert!(has_image(&address, &["node:24", "corehold-base:"]).unwrap());
        assert!(!has_image(&address, &["node:24", "base:"]).unwrap());
    }

    #[test]
    fn a_configured_engine_is_the_only_one_asked() {
        let folder = Folder::new("configured");
        pretend_engine(&folder.0.join("docker.sock"), "HTTP/1.0 200 OK\r\n\r\nOK");
        let elsewhere = format!("unix://{}/gone.sock", folder.0.display());
        let config = Config { docker_host: Some(elsewhere.clone()), ..config(&folder) };
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
            pretend_engine(&socket, answer);
            let error = ping(&Address(format!("unix://{}", socket.display()))).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert!(ping(&Address("ssh://somewhere".to_owned())).unwrap_err().to_string().contains("tcp://"));
    }

    /// A daemon made of a shell line.
    fn daemon(folder: &Folder, script: &str) -> Daemon {
        Daemon {
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned(), "pretended".to_owned()],
            log: folder.0.join("state/daemon.log"),
            address: Address(format!("unix://{}/daemon.sock", folder.0.display())),
        }
    }

    #[test]
    fn an_engine_that_dies_shows_the_end_of_its_log() {
        let folder = Folder::new("dies");
        let error = daemon(&folder, "echo starting; echo no iptables >&2; exit 1").start(&config(&folder)).unwrap_err();
        assert!(error.to_string().contains("no iptables") && error.to_string().contains("daemon.log"), "{error}");
    }

    #[test]
    fn without_overlay2_the_engine_chooses_its_storage() {
        let folder = Folder::new("storage");
        let script =
            "echo run \"$@\"; [ $# = 0 ] || { echo driver not supported: overlay2; exit 1; }; echo second; exit 1";
        let error = daemon(&folder, script).start(&config(&folder)).unwrap_err().to_string();
        assert!(error.contains("second") && !error.contains("overlay2"), "{error}");
    }

    #[test]
    fn an_engine_is_ready_when_its_socket_answers() {
        let folder = Folder::new("ready");
        let socket = folder.0.join("daemon.sock");
        let starter = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            pretend_engine(&socket, "HTTP/1.0 200 OK\r\n\r\nOK");
        });
        // Lives until its input ends or it is told: reading a pipe that nobody writes needs no clock.
        let daemon = daemon(&folder, "exec sleep 5");
        daemon.start(&config(&folder)).unwrap();
        starter.join().unwrap();
        assert!(daemon.log.exists());
    }
}
