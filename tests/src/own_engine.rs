//! An engine of a test's own, for what the machine's can't be used for, since it has other users: one that is started anew, or that
//! has no room.
//!
//! What is done with it is done by a program of its own (`src/bin/`), in namespaces of its own (network, mounts, processes), so that
//! neither engine upsets the other and nothing of it outlives the program: see [`run_apart`].

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use corehold_host::{
    config::DEFAULT_IMAGE,
    runtime::docker::{Docker, DockerAddress},
};

use crate::command_line::{err, out};

/// For an engine on a busy machine to start, or to end.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs one of this crate's programs with what it needs for an engine of its own: a folder as its first argument, `DOCKER_HOST` for where
/// its engine is to listen, and the core image as its input ([`OwnEngine::load_core_image`]).
///
/// # Panics
/// When the program fails, or doesn't end with that line. `test` is the filter by which this is left out.
pub fn run_apart(program: &str, arguments: &[&Path], last_line: &str, test: &str) {
    let folder = tempfile::tempdir().expect("a folder for the engine");
    let path = |name: &str| folder.path().join(name);
    let mut save = Command::new("docker")
        .args(["save", DEFAULT_IMAGE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the docker command is there");
    let mut command = Command::new("unshare");
    // With the first of its processes all of them end, and with the last its networks and mounts go.
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The engine tries its containers' agents by ports that it publishes on the loopback.
    command.args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    command.arg(program).arg(folder.path()).args(arguments);
    command.env("DOCKER_HOST", format!("unix://{}", path("docker.sock").display()));
    command.stdin(save.stdout.take().expect("it is piped"));
    let mut running =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare (of Debian's util-linux) starts");
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let stderr = std::thread::spawn(move || read_all(stderr));
    let (stdout, stderr) = (read_all(stdout), stderr.join().expect("it is only read"));
    thaw(&path("data"));
    let output = Output { status: running.wait().expect("it is ours"), stdout, stderr };
    let saved = save.wait().expect("it is ours");
    let log = || {
        let log = said(folder.path());
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(50)..].join("\n")
    };
    assert!(
        output.status.success() && out(&output).ends_with(&format!("{last_line}\n")),
        "this needs root, dockerd and ip; `-- --skip {test}` leaves it out: {}{}\n`docker save` ended with {saved}; its engine's log \
         ends with:\n{}",
        out(&output),
        err(&output),
        log()
    );
    print!("{}", out(&output));
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    bytes
}

/// Thaws what is paused of an engine that ends: with control groups of version 1 a frozen process can't be killed, and the first process of
/// its namespace waits for it for ever. `data` is the engine's folder.
pub(crate) fn thaw(data: &Path) {
    for container in std::fs::read_dir(data.join("containers")).into_iter().flatten().flatten() {
        let group = Path::new("/sys/fs/cgroup/freezer/docker").join(container.file_name());
        // Most are gone, or aren't frozen; other versions have no such file.
        let _ = std::fs::write(group.join("freezer.state"), "THAWED");
    }
}

/// Starts a dockerd that listens at an address, by a command that its options are added to. What it has is in a folder: `data`, and its `log`.
pub(crate) fn begin(mut command: Command, folder: &Path, address: &str) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    command.arg("--host").arg(address).args(["--storage-driver", "overlay2"]);
    for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(option).arg(folder.join(name));
    }
    let errors = log.try_clone().expect("the log twice");
    let started = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    started.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits until it answers. `needs` is told when it ends instead.
pub(crate) async fn answers(engine: &mut Child, folder: &Path, address: &str, needs: &str) {
    let answers = async {
        while Docker::connect(DockerAddress::At(address.to_owned())).await.is_err() {
            let ended = engine.try_wait().expect("it is ours");
            assert!(ended.is_none(), "{needs}. The engine has ended:\n{}", said(folder));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answers).await.expect("the engine answers");
}

/// A dockerd, ended with this.
pub struct OwnEngine(Child);

impl OwnEngine {
    /// Starts one with its data in `<folder>/data`, and waits until it answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub async fn start(folder: &Path, address: &str, options: &[&str]) -> Self {
        Self::start_in(folder, address, options, None).await
    }

    /// The same, all of its processes in a control group. Its containers' are in others.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub async fn start_in(folder: &Path, address: &str, options: &[&str], group: Option<&Path>) -> Self {
        let enter = group.map_or_else(String::new, |group| format!("echo $$ >'{}/cgroup.procs' && ", group.display()));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{enter}exec dockerd \"$@\""), "dockerd"]);
        command.args(options);
        let mut engine = Self(begin(command, folder, address));
        answers(&mut engine.0, folder, address, "dockerd of Debian's docker.io is needed").await;
        engine
    }

    /// Takes the core image from this program's input.
    ///
    /// # Panics
    /// When the engine doesn't take it.
    pub fn load_core_image(&self) {
        let load = Command::new("docker").args(["load", "--quiet"]).status();
        assert!(load.expect("the docker command is there").success(), "the core image can't be loaded");
    }

    /// Whether it hasn't ended.
    ///
    /// # Panics
    /// Never: it is ours.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("it is ours").is_none()
    }

    /// Ends it, and waits for that.
    ///
    /// # Panics
    /// When it doesn't end.
    pub async fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
        let ending = tokio::task::spawn_blocking(move || {
            let _ = self.0.wait();
        });
        tokio::time::timeout(PATIENCE, ending).await.expect("the engine ends").expect("it was waited for");
    }
}

fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A file system in memory, as large as a test wants it from one moment to the next.
///
/// A small file system on a loop device would need a tool that makes it, and can't be changed in size while it is in use.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one with that many bytes of room. It goes with the namespace of this program's mounts.
    ///
    /// # Panics
    /// When it can't be mounted.
    #[must_use]
    pub fn mount(at: PathBuf, bytes: u64) -> Self {
        std::fs::create_dir_all(&at).expect("its folder");
        let disk = Self(at);
        disk.run(&["-t", "tmpfs", "-o", &format!("size={bytes},nr_inodes=1000000"), "tmpfs"]);
        disk
    }

    /// Leaves that many bytes, and files, besides what is there.
    ///
    /// # Panics
    /// When it can't be asked or changed.
    pub fn leave(&self, bytes: u64, files: u64) {
        let stat = rustix::fs::statvfs(&self.0).expect("it is mounted");
        let size = (stat.f_blocks - stat.f_bfree) * stat.f_frsize + bytes;
        let inodes = stat.f_files - stat.f_ffree + files;
        self.run(&["-o", &format!("remount,size={size},nr_inodes={inodes}")]);
    }

    /// How many files are there.
    ///
    /// # Panics
    /// When it can't be asked.
    #[must_use]
    pub fn files(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("it is mounted");
        stat.f_files - stat.f_ffree
    }

    fn run(&self, arguments: &[&str]) {
        let done = Command::new("mount").args(arguments).arg(&self.0).output().expect("mount is there");
        assert!(done.status.success(), "{arguments:?}: {}", err(&done));
    }
}
