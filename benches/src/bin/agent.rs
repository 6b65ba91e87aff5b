//! The agent alone: start to healthy, idle memory, size of its binary.
//!
//! Usage: `agent BINARY [ROUNDS]` (default 50), with the path that `cargo xtask agent` prints.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::figures::Samples;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments.next().context("usage: agent BINARY [ROUNDS]")?;
    let rounds: u32 = arguments.next().map_or(Ok(50), |rounds| rounds.parse())?;
    let root = tempfile::tempdir()?;

    let mut starts = Samples::default();
    let mut memory = Vec::new();
    for round in 0..rounds {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut agent = Agent(
            Command::new(&binary)
                .env("COREHOLD_PORT", port.to_string())
                .env("COREHOLD_ROOT", root.path())
                .env("COREHOLD_TOKEN_SHA256", "0".repeat(64))
                .stderr(Stdio::null())
                .spawn()?,
        );
        let began = Instant::now();
        while !healthy(port) {
            ensure!(began.elapsed() < Duration::from_secs(10), "the agent does not answer");
            ensure!(agent.0.try_wait()?.is_none(), "the agent has ended");
        }
        starts.add(began.elapsed());
        // Memory is looked at a few times only: being idle takes a while.
        if round % 10 == 0 {
            thread::sleep(Duration::from_secs(1));
            memory.push(resident_kib(agent.0.id())?);
        }
    }
    memory.sort_unstable();
    println!("start to healthy: {starts}");
    println!("idle memory:      {:.1} MB resident", memory[memory.len() / 2] as f64 * 1024.0 / 1e6);
    println!("binary:           {:.1} MB", fs::metadata(&binary)?.len() as f64 / 1e6);
    Ok(())
}

/// Ends with its owner.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"ok\""))
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is there")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
