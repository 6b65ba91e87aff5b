//! Starting an engine of our own, detached from the terminal, and waiting until it answers.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Address, SYSTEM_SOCKET, ping};
use crate::config::Config;

/// How long an engine may take to start. A first start on a slow disk takes some seconds.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Between two attempts to connect to an engine that starts: its socket tells nobody when it begins to listen.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

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
        let mut ended = false;
        while start.elapsed() < START_TIMEOUT {
            if ping(&self.address).is_ok() {
                return Ok(Attempt::Answers);
            }
            if !ended && process.try_wait()?.is_some() {
                // Where another engine was faster (Debian's package starts one by itself), that one is waited for.
                if !another_is_starting(&self.written()) {
                    return Ok(Attempt::Died { log: self.written() });
                }
                ended = true;
            }
            thread::sleep(ATTEMPT_INTERVAL);
        }
        bail!(
            "no engine answers at {} after {} s; its log {} ends with:\n{}",
            self.address,
            START_TIMEOUT.as_secs(),
            self.log.display(),
            tail(&self.written())
        )
    }

    /// What is in its log. Unreadable is as good as empty: the log is for showing, nothing depends on it.
    fn written(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
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

/// Whether the engine ended because another one is at work. The words are those of dockerd 20.10 and of newer ones.
fn another_is_starting(log: &str) -> bool {
    let words = ["pid file found, ensure docker is not running", "is still running"];
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
    use super::*;
    use crate::engine::pretend::{self, Folder};

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
        let error = daemon(&folder, "echo starting; echo no iptables >&2; exit 1")
            .start(&pretend::config(&folder))
            .unwrap_err();
        assert!(error.to_string().contains("no iptables") && error.to_string().contains("daemon.log"), "{error}");
    }

    #[test]
    fn without_overlay2_the_engine_chooses_its_storage() {
        let folder = Folder::new("storage");
        let script =
            "echo run \"$@\"; [ $# = 0 ] || { echo driver not supported: overlay2; exit 1; }; echo second; exit 1";
        let error = daemon(&folder, script).start(&pretend::config(&folder)).unwrap_err().to_string();
        assert!(error.contains("second") && !error.contains("overlay2"), "{error}");
    }

    #[test]
    fn an_engine_that_was_started_meanwhile_is_waited_for() {
        let folder = Folder::new("meanwhile");
        let (socket, log) = (folder.0.join("daemon.sock"), folder.0.join("state/daemon.log"));
        let other = thread::spawn(move || {
            // Only once ours has ended, so that it is not simply ours that answers.
            while !fs::read_to_string(&log).is_ok_and(|log| log.contains("still running")) {
                thread::sleep(ATTEMPT_INTERVAL);
            }
            pretend::engine(&socket, "HTTP/1.0 200 OK\r\n\r\nOK");
        });
        daemon(&folder, "echo process with PID 7 is still running; exit 1").start(&pretend::config(&folder)).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn an_engine_is_ready_when_its_socket_answers() {
        let folder = Folder::new("ready");
        let socket = folder.0.join("daemon.sock");
        let starter = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            pretend::engine(&socket, "HTTP/1.0 200 OK\r\n\r\nOK");
        });
        let daemon = daemon(&folder, "exec sleep 5");
        daemon.start(&pretend::config(&folder)).unwrap();
        starter.join().unwrap();
        assert!(daemon.log.exists());
    }
}
