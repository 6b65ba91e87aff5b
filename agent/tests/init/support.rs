//! An agent in a pid namespace of its own, and calls to it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt as _, chown},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

/// SHA-256 of `token`.
const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// An agent in a pid namespace. Dropping it ends everything in there.
pub(crate) struct Agent {
    pub(crate) unshare: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    folder: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_as(1000)
    }

    /// As this user, of whom nothing else runs on the machine if that matters.
    pub(crate) fn start_as(user: u32) -> Self {
        // A copy where that user can run it, since cargo's folder may be closed to others.
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let (binary, root) = (folder.path().join("corehold-agent"), folder.path().join("root"));
        fs::copy(env!("CARGO_BIN_EXE_corehold-agent"), &binary).unwrap();
        fs::create_dir(&root).unwrap();
        chown(&root, Some(user), Some(user)).unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "setpriv"])
            .args([format!("--reuid={user}"), format!("--regid={user}")])
            .args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
            .arg(binary)
            .env("COREHOLD_LISTEN", "127.0.0.1")
            .env("COREHOLD_PORT", "0")
            .env("COREHOLD_ROOT", &root)
            .env("COREHOLD_TOKEN_SHA256", TOKEN_SHA256)
            .env("COREHOLD_SHUTDOWN_GRACE_MS", "500")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = mpsc::sync_channel(1);
        let lines = BufReader::new(unshare.stderr.take().unwrap()).lines();
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("address=\"") {
                    let _ = found.try_send(rest.split('"').next().unwrap().parse().unwrap());
                }
                copy.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address =
            address.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{}", log.lock().unwrap()));
        Self { unshare, address, log, folder }
    }

    /// The path of its binary.
    pub(crate) fn binary(&self) -> String {
        self.folder.path().join("corehold-agent").to_str().unwrap().to_owned()
    }

    /// Its process id out here, while it lives.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        Pid::from_raw(fs::read_to_string(children).ok()?.trim().parse().ok()?)
    }

    pub(crate) fn send(&self, tool: &str, accept: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream =
            TcpStream::connect(self.address).unwrap_or_else(|error| panic!("{error}\n{}", self.evidence()));
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "POST /v1/tools/{tool} HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer token\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    pub(crate) fn call(&self, tool: &str, body: Value) -> Value {
        let mut answer = String::new();
        self.send(tool, "application/json", &body)
            .read_to_string(&mut answer)
            .unwrap_or_else(|error| panic!("{body}: {error}\n{}", self.evidence()));
        let (_, json) =
            answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{body}: {answer}\n{}", self.evidence()));
        serde_json::from_str(json).unwrap_or_else(|_| panic!("{answer}\n{}", self.evidence()))
    }

    /// Exit code, standard output, standard error of a shell line.
    pub(crate) fn run(&self, line: &str) -> (i64, String, String) {
        let answer = self.call("command", json!({"line": line}));
        let text = |stream: &str| answer[stream]["text"].as_str().unwrap_or("not text").to_owned();
        let code = answer["exit"]["code"].as_i64().unwrap_or_else(|| panic!("{line}: {answer}\n{}", self.evidence()));
        (code, text("stdout"), text("stderr"))
    }

    pub(crate) fn still_works(&self) {
        assert_eq!(self.run("grep -c . /proc/1/comm"), (0, "1\n".into(), String::new()));
    }

    pub(crate) fn has_guard(&self, guard: &str) -> bool {
        self.call("info", json!({}))["guards"].as_array().unwrap().contains(&guard.into())
    }

    pub(crate) fn evidence(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // By itself: `--kill-child` is forgotten when `setpriv` changes the user. With it goes the whole namespace.
        if let Some(agent) = self.pid() {
            let _ = rustix::process::kill_process(agent, Signal::KILL);
        }
        let _ = self.unshare.wait();
    }
}
