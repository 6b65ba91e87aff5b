//! An engine of the tests' own, beside the machine's: in namespaces and folders of its own, so that neither upsets the other's firewall
//! rules or storage. It ends with its value, and its folders go; nothing is installed in the system and no service enabled.
//!
//! Whoever runs the tests may interrupt or kill them. So all of it, containers and what watches over them included, is in one namespace
//! of process ids: when the first process there ends, which it does with this one, the kernel ends the others.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Address, ping};

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at what tells nobody of its change: a socket.
const INTERVAL: Duration = Duration::from_millis(50);

/// Makes namespaces that end with this process, whatever ends it.
const NAMESPACES: [&str; 10] = [
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
    "sh",
];

/// Runs its arguments where the loopback is up, which it isn't in a namespace that was just made. There is a way out, as machines
/// have one, which leads nowhere: a container that reaches nothing then is kept from it by a firewall, and not by the want of a route.
/// It stays the first process, which is everybody's parent in the end, and ends with what it runs.
const WITH_ROUTES: &str = "ip link set lo up && ip link add outside type veth peer name beyond && ip link set beyond up && \
                           ip address add 192.0.2.2/24 dev outside && \
                           ip link set outside up && ip route add default dev outside && { \"$@\" & wait $!; }";

/// An engine that runs.
pub(crate) struct Beside {
    pub(crate) address: Address,
    folder: PathBuf,
    process: Child,
}

impl Beside {
    /// A folder for an engine of this name and process, empty. In the folder for temporary files, since a socket's path is short. Those of
    /// processes that were killed go.
    pub(crate) fn folder(name: &str) -> Result<PathBuf> {
        Self::folder_in(&std::env::temp_dir(), name)
    }

    fn folder_in(parent: &Path, name: &str) -> Result<PathBuf> {
        let prefix = format!("corehold-{name}-");
        for entry in fs::read_dir(parent).with_context(|| format!("can't list {}", parent.display()))?.flatten() {
            let whose = entry.file_name().to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
            if whose.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
                eprintln!("    removing {}, which a killed run left", entry.path().display());
                fs::remove_dir_all(entry.path()).with_context(|| format!("can't remove {}", entry.path().display()))?;
            }
        }
        let folder = parent.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts `command` in namespaces of its own, and waits until it answers at `engine.sock` in its folder.
    pub(crate) fn start(folder: PathBuf, command: &Command) -> Result<Self> {
        let mut process = Command::new("setpriv");
        process.args(NAMESPACES).args(["-c", WITH_ROUTES, "sh"]).arg(command.get_program()).args(command.get_args());
        process.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let address = Address(format!("unix://{}", folder.join("engine.sock").display()));
        // Conmon writes a file named `oom` into the folder that it is started in.
        process.current_dir(&folder);
        let log = folder.join("engine.log");
        let process = logged(&mut process, &log)?;
        let mut engine = Self { address, folder, process };
        let start = Instant::now();
        while ping(&engine.address).is_err() {
            if engine.process.try_wait()?.is_some() || start.elapsed() > START_TIMEOUT {
                let written = fs::read(&log).unwrap_or_default();
                let written = String::from_utf8_lossy(&written);
                let end: Vec<_> = written.lines().rev().take(20).collect();
                bail!(
                    "it does not answer; its log ends with:\n{}",
                    end.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            thread::sleep(INTERVAL);
        }
        Ok(engine)
    }

    /// The first process in its namespaces, by the id that it has here.
    fn first(&self) -> Result<String> {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = fs::read_to_string(&children).with_context(|| format!("can't read {children}"))?;
        Ok(children.split_whitespace().next().context("the engine has ended")?.to_owned())
    }

    /// A command that runs where the engine's containers are reached, and where its process ids and mounts mean what they mean to it.
    pub(crate) fn within(&self, command: &Command) -> Result<Command> {
        let mut within = Command::new("nsenter");
        within.args(["--target", &self.first()?, "--net", "--mount", "--pid"]);
        if let Some(folder) = command.get_current_dir() {
            // It would start in the first process' folder.
            within.arg(format!("--wd={}", folder.display()));
        }
        within.arg(command.get_program()).args(command.get_args());
        within.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(within)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // The kernel ends the others before the first one is gone, which `unshare` waits for.
        let ended = self.first().and_then(|first| {
            Command::new("kill").args(["-KILL", &first]).status()?;
            Ok(())
        });
        if ended.is_err() {
            let _ = self.process.kill();
        }
        if let Err(error) = self.process.wait() {
            eprintln!("    process {} could not be waited for: {error}", self.process.id());
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("    {} could not be removed: {error}", self.folder.display());
        }
    }
}

/// Starts a process whose words go into a file.
fn logged(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("can't run {}", Path::new(command.get_program()).display()))
}

/// The path with folders before it.
pub(crate) fn path_with(first: &[PathBuf], path: &[PathBuf]) -> Result<std::ffi::OsString> {
    Ok(std::env::join_paths(first.iter().chain(path).map(|folder| -> &OsStr { folder.as_os_str() }))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pretend::Folder;

    #[test]
    fn what_killed_runs_left_goes_and_nothing_else() {
        let parent = Folder::new("beside");
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (gone, running) = (ended.id(), std::os::unix::process::parent_id());
        let name = |name: &str| parent.0.join(name);
        for folder in [format!("corehold-x-{gone}"), format!("corehold-x-{running}"), format!("corehold-y-{gone}")] {
            fs::create_dir_all(name(&folder).join("within")).unwrap();
        }
        fs::create_dir_all(name("corehold-x-")).unwrap();
        let own = Beside::folder_in(&parent.0, "x").unwrap();
        assert_eq!(own, name(&format!("corehold-x-{}", std::process::id())));
        assert!(own.is_dir() && !name(&format!("corehold-x-{gone}")).exists());
        for stays in [format!("corehold-x-{running}"), format!("corehold-y-{gone}"), "corehold-x-".to_owned()] {
            assert!(name(&stays).exists(), "{stays}");
        }
    }
}
