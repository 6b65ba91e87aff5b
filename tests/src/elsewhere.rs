//! A Docker engine of a test's own that this process reaches by its socket alone: its containers, and what it publishes, are in a network
//! namespace of their own, as those of another machine are. And a way to it over TCP that can be cut.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use corehold_host::config::DEFAULT_IMAGE;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    command_line::docker,
    own_engine::{answers, begin, thaw},
};

/// The engine, with the core image of the tests' own. It ends with this, and all that runs in it.
pub struct Elsewhere {
    /// `unshare`, whose one child is the engine, the first process of its namespace.
    process: Child,
    folder: TempDir,
}

impl Elsewhere {
    /// Starts it.
    ///
    /// # Panics
    /// Without root, dockerd, ip and unshare, and without the core image.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let image = folder.path().join("image.tar");
        docker(&["save", "--output", text(&image), DEFAULT_IMAGE]);
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc"]);
        command.args(["sh", "-c", "ip link set lo up && exec dockerd \"$@\"", "sh"]);
        let address = address_in(folder.path());
        let process = begin(command, folder.path(), &address);
        let mut engine = Self { process, folder };
        let needs = "this needs root, dockerd and ip; `-- --skip elsewhere` leaves it out";
        answers(&mut engine.process, engine.folder.path(), &address, needs).await;
        docker(&["--host", &address, "load", "--quiet", "--input", text(&image)]);
        engine
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        address_in(self.folder.path())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// What runs in a container, whoever started it: the command lines.
    #[must_use]
    pub fn processes(&self, container: &str) -> Vec<String> {
        let listed = docker(&["--host", &self.address(), "top", container, "-eo", "pid,args"]);
        listed.lines().skip(1).map(ToOwned::to_owned).collect()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        // With the first process of a namespace all of them go, and it is waited for until they have.
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        thaw(&self.folder.path().join("data"));
        let _ = self.process.wait();
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("docker.sock")
}

fn address_in(folder: &Path) -> String {
    format!("unix://{}", socket_in(folder).display())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names in UTF-8")
}

/// A TCP port that leads to an engine's socket, until it is cut.
pub struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<JoinSet<()>>>,
    serving: JoinHandle<()>,
}

impl Wire {
    /// Listens.
    ///
    /// # Panics
    /// When nothing can be listened on.
    pub async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be listened on");
        let address = listener.local_addr().expect("it has an address");
        let (cut, open) = (Arc::<AtomicBool>::default(), Arc::<Mutex<JoinSet<()>>>::default());
        let (is_cut, opened) = (cut.clone(), open.clone());
        let serving = tokio::spawn(async move {
            while let Ok((mut outer, _)) = listener.accept().await {
                let socket = socket.clone();
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                while opened.try_join_next().is_some() {}
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                opened.spawn(async move {
                    if let Ok(mut inner) = UnixStream::connect(socket).await {
                        let _ = copy_bidirectional(&mut outer, &mut inner).await;
                    }
                });
            }
        });
        Self { address, cut, open, serving }
    }

    /// As an engine on another machine is named. This machine has the address 0.0.0.0 too, which nothing but a connection tells.
    #[must_use]
    pub fn address(&self) -> String {
        format!("tcp://0.0.0.0:{}", self.address.port())
    }

    /// Breaks all connections off, and takes no more.
    pub fn cut(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut.store(true, Ordering::SeqCst);
        open.abort_all();
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
