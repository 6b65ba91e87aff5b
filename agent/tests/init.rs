//! The agent as it is in a container: PID 1 of a pid namespace, as user 1000, with no capability. What its commands, which are
//! the same user, can't do to it, and what it does as init. Needs root, `unshare` and `setpriv` (util-linux), and perl.

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
struct Agent {
    unshare: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        // A copy where user 1000 can run it, since cargo's folder may be closed to others.
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let (binary, root) = (folder.path().join("corehold-agent"), folder.path().join("root"));
        fs::copy(env!("CARGO_BIN_EXE_corehold-agent"), &binary).unwrap();
        fs::create_dir(&root).unwrap();
        chown(&root, Some(1000), Some(1000)).unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "setpriv", "--reuid=1000", "--regid=1000"])
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
        Self { unshare, address, log, _folder: folder }
    }

    /// Its process id out here, while it lives.
    fn pid(&self) -> Option<Pid> {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        Pid::from_raw(fs::read_to_string(children).ok()?.trim().parse().ok()?)
    }

    fn send(&self, tool: &str, accept: &str, body: &Value) -> TcpStream {
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

    fn call(&self, tool: &str, body: Value) -> Value {
        let mut answer = String::new();
        self.send(tool, "application/json", &body).read_to_string(&mut answer).unwrap();
        let json = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(json).unwrap_or_else(|_| panic!("{answer}\n{}", self.evidence()))
    }

    /// Exit code, standard output, standard error of a shell line.
    fn run(&self, line: &str) -> (i64, String, String) {
        let answer = self.call("command", json!({"line": line}));
        let text = |stream: &str| answer[stream]["text"].as_str().unwrap_or("not text").to_owned();
        let code = answer["exit"]["code"].as_i64().unwrap_or_else(|| panic!("{line}: {answer}\n{}", self.evidence()));
        (code, text("stdout"), text("stderr"))
    }

    fn still_works(&self) {
        assert_eq!(self.run("id -u; grep -c . /proc/1/comm"), (0, "1000\n1\n".into(), String::new()));
    }

    fn has_guard(&self, guard: &str) -> bool {
        self.call("info", json!({}))["guards"].as_array().unwrap().contains(&guard.into())
    }

    fn evidence(&self) -> String {
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

#[test]
fn signals_from_inside_do_nothing() {
    let agent = Agent::start();
    // With Landlock they don't even arrive; without, PID 1 doesn't heed them.
    let refused = i64::from(agent.has_guard("landlock-signal"));
    for signal in ["KILL", "STOP", "TERM", "INT", "SEGV", "ABRT", "HUP", "CHLD"] {
        let (code, _, stderr) = agent.run(&format!("kill -{signal} 1"));
        assert_eq!(code, refused, "{signal}: {stderr}");
    }
    agent.run("kill -KILL -1; :");
    agent.still_works();
}

#[test]
fn limits_of_the_agent_can_not_be_set() {
    let agent = Agent::start();
    assert!(agent.has_guard("seccomp-prlimit"));
    for limit in ["--cpu=1:1", "--nofile=3:3", "--as=1:1", "--nproc=1:1"] {
        // Through its pid, and through each of its threads.
        let (code, _, stderr) = agent.run(&format!(
            "for thread in $(ls /proc/1/task); do prlimit --pid $thread {limit} && exit 9; done; exit 1"
        ));
        assert_eq!(code, 1, "{limit}");
        assert!(stderr.contains("Operation not permitted"), "{limit}: {stderr}");
    }
    // The other door into the same kernel function: 32-bit system calls, and a pid with dirt in its upper half.
    let (code, _, stderr) = agent.run(
        "perl -e 'my $limit = pack(\"QQ\", 3, 3); $! = 0; my $r = syscall(302, 0x100000001, 7, $limit, 0); exit($r == -1 && $!{EPERM} ? 0 : 1)'",
    );
    assert!(code == 0 || !cfg!(target_arch = "x86_64"), "{stderr}");
    let (_, own, stderr) = agent.run("prlimit --nofile=100:100 sh -c 'ulimit -n'; ulimit -n 50; ulimit -n; prlimit --pid 1 --nofile >/dev/null && echo read");
    assert_eq!(own, "100\n50\nread\n", "a command's own limits are its own: {stderr}");
    agent.still_works();
}

#[test]
fn nobody_looks_into_the_agent() {
    let agent = Agent::start();
    for look in [
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "cat /proc/1/maps",
        "ls -l /proc/1/exe",
        "ls /proc/1/task/1/fd",
        "echo 1000 > /proc/1/oom_score_adj",
    ] {
        let (code, stdout, stderr) = agent.run(look);
        assert_ne!(code, 0, "{look}: {stdout}");
        assert!(stderr.to_lowercase().contains("permission denied"), "{look}: {stderr}");
    }
    // PTRACE_ATTACH is 16, PTRACE_SEIZE 0x4206; ptrace is system call 101 (x86-64) or 117 (aarch64).
    let number = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    let attach = format!("for my $how (16, 0x4206) {{ exit 1 if syscall({number}, $how, 1, 0, 0) == 0 }}");
    assert_eq!(agent.run(&format!("perl -e '{attach}'")).0, 0, "ptrace must be refused");
    assert_eq!(agent.run("env").1.matches("COREHOLD_").count(), 1, "nothing of the agent's but the command's own name");
}

#[test]
fn a_thousand_orphans_are_reaped() {
    let agent = Agent::start();
    let made = agent.run("i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i+1)); done; echo made");
    assert_eq!((made.0, made.1.as_str()), (0, "made\n"));
    // Those that were made last may still sleep for a hundredth of a second: wait for them by their own ends.
    let left = "ls -d /proc/[0-9]*/stat | xargs cat 2>/dev/null | grep -E '\\((sleep|sh)\\) (Z|S)' | grep -v ' S 1 ' ";
    let wait = "while grep -qs '(sleep)' /proc/[0-9]*/stat; do :; done";
    let (_, zombies, stderr) = agent.run(&format!("{wait}; {left}"));
    assert_eq!(zombies.lines().filter(|line| line.contains(") Z ")).count(), 0, "{zombies}{stderr}");
    agent.still_works();
}

#[test]
fn a_caller_who_goes_away_does_not_end_the_command() {
    let agent = Agent::start();
    let body = json!({"line": "echo begun; read line < go; echo \"$line\"", "label": "left"});
    agent.run("mkfifo go");
    let mut stream = BufReader::new(agent.send("command", "text/event-stream", &body));
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "{}", agent.evidence());
    }
    drop(stream);
    let listed = agent.call("commandList", json!({"label": "left"}));
    let id = listed["commands"][0]["id"].as_str().unwrap().to_owned();
    assert!(listed["commands"][0].get("exit").is_none(), "{listed}");
    agent.run("echo gone on > go");
    let output = agent.call("commandOutput", json!({"id": id, "follow": true}));
    assert_eq!(output["stdout"]["text"], "begun\ngone on\n");
    assert_eq!(output["exit"]["code"], 0);
}

#[test]
fn term_from_outside_ends_the_agent_and_its_commands() {
    let mut agent = Agent::start();
    let body = json!({"line": "trap 'echo saw TERM; exit 0' TERM; echo up; while :; do sleep 0.02; done"});
    let mut stream = BufReader::new(agent.send("command", "application/x-ndjson", &body));
    let mut line = String::new();
    while !line.contains("up") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "{}", agent.evidence());
    }
    rustix::process::kill_process(agent.pid().unwrap(), Signal::TERM).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("saw TERM") && rest.contains(r#""type":"end""#), "{rest}\n{}", agent.evidence());
    assert!(agent.unshare.wait().unwrap().success(), "{}", agent.evidence());
}
