//! The agent's binary in a process of its own: what the kernel counts, and what a client in another language needs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// SHA-256 of `token`, the bearer of which may do everything.
const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// An agent, ended with this.
pub(crate) struct AgentProcess {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl AgentProcess {
    /// On this folder, with these variables besides; returns when it listens.
    pub(crate) fn start(root: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_corehold-agent"))
            .env("COREHOLD_LISTEN", "127.0.0.1")
            .env("COREHOLD_PORT", "0")
            .env("COREHOLD_ROOT", root)
            .env("COREHOLD_TOKEN_SHA256", TOKEN_SHA256)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| Some(line.split_once("address=\"")?.1.split('"').next()?.to_owned()))
            .expect("the agent says where it listens");
        // What it still says is read, so that it never waits.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// A line of its `/proc/<pid>/status`, in bytes.
    #[allow(dead_code, reason = "not every test that starts one looks at its memory")]
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Sets its highest memory (`VmHWM`) back to what it has now (proc(5)).
    #[allow(dead_code, reason = "not every test that starts one looks at its memory")]
    pub(crate) fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
