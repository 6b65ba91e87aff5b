//! An engine of the tests' own, beside the machine's: in a network namespace and folders of its own, so that neither upsets the other's
//! firewall rules or storage. It ends with its value, and its folders go; nothing is installed in the system and no service enabled.

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
/// Between two looks at what tells nobody of its change: a socket, a process that ends.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long it may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs its arguments in a namespace whose loopback is up: one that was just made has it down.
const WITH_LOOPBACK: &str = "ip link set lo up && exec \"$@\"";

/// An engine that runs.
pub(crate) struct Beside {
    pub(crate) address: Address,
    /// What its tests are told besides its address.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
    folder: PathBuf,
    /// The engine first: it ends first.
    processes: Vec<Child>,
}

impl Beside {
    /// A folder for an engine of this name and process, empty. In the folder for temporary files, since a socket's path is short.
    pub(crate) fn folder(name: &str) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("corehold-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts `command` in a network namespace of its own, and waits until it answers at `engine.sock` in its folder. `helpers` are
    /// processes that it needs and that run already.
    pub(crate) fn start(folder: PathBuf, command: &Command, helpers: Vec<Child>) -> Result<Self> {
        let mut process = Command::new("unshare");
        process.args(["--net", "sh", "-c", WITH_LOOPBACK, "sh"]).arg(command.get_program()).args(command.get_args());
        process.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let address = Address(format!("unix://{}", folder.join("engine.sock").display()));
        let mut engine = Self { address, variables: Vec::new(), folder, processes: helpers };
        // Conmon writes a file named `oom` into the folder that it is started in.
        process.current_dir(&engine.folder);
        let log = engine.folder.join("engine.log");
        engine.processes.insert(0, logged(&mut process, &log)?);
        let start = Instant::now();
        while ping(&engine.address).is_err() {
            if engine.processes[0].try_wait()?.is_some() || start.elapsed() > START_TIMEOUT {
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

    /// A command that runs where the engine's containers are reached.
    pub(crate) fn within(&self, command: &Command) -> Command {
        let mut within = Command::new("nsenter");
        within.arg(format!("--net=/proc/{}/ns/net", self.processes[0].id()));
        within.arg(command.get_program()).args(command.get_args());
        within.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            within.current_dir(folder);
        }
        within
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if let Err(error) = end(process) {
                eprintln!("    process {} could not be ended: {error:#}", process.id());
            }
        }
        // What the engine left mounted when it was killed.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts_beneath(&mounts, &self.folder) {
            let _ = Command::new("umount").args(["--lazy", mount]).status();
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("    {} could not be removed: {error}", self.folder.display());
        }
    }
}

/// Starts a process whose words go into a file.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("can't run {}", Path::new(command.get_program()).display()))
}

/// TERM, then KILL.
fn end(process: &mut Child) -> Result<()> {
    if process.try_wait()?.is_some() {
        return Ok(());
    }
    // The standard library sends no TERM.
    Command::new("kill").arg(process.id().to_string()).status()?;
    let start = Instant::now();
    while process.try_wait()?.is_none() {
        if start.elapsed() > END_TIMEOUT {
            process.kill()?;
            process.wait()?;
            break;
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Mount points beneath a folder, the last mounted first.
fn mounts_beneath<'a>(mounts: &'a str, folder: &Path) -> Vec<&'a str> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut beneath: Vec<_> = points.filter(|point| Path::new(point).starts_with(folder)).collect();
    beneath.reverse();
    beneath
}

/// The path with folders before it.
pub(crate) fn path_with(first: &[PathBuf], path: &[PathBuf]) -> Result<std::ffi::OsString> {
    Ok(std::env::join_paths(first.iter().chain(path).map(|folder| -> &OsStr { folder.as_os_str() }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_beneath_a_folder_is_found_last_first() {
        let mounts = "/dev/a / ext4 rw 0 0\noverlay /tmp/x/overlay overlay rw 0 0\nshm /tmp/x/shm tmpfs rw 0 0\nnone /tmp/xy tmpfs rw 0 0\n";
        assert_eq!(mounts_beneath(mounts, Path::new("/tmp/x")), ["/tmp/x/shm", "/tmp/x/overlay"]);
    }

    #[test]
    fn a_process_that_does_not_end_is_killed_only_then() {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        end(&mut process).unwrap();
        assert!(process.try_wait().unwrap().is_some());
        end(&mut process).expect("what has ended is no error");
    }
}
