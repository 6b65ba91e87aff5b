//! The agent alone: start to healthy, idle memory, size of its binary.
//!
//! Usage: `agent BINARY [ROUNDS]` (default 50), with the path that `cargo xtask agent` prints.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result};
use corehold_benches::{agent::Agent, figures::Samples};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let binary: PathBuf = arguments.next().context("usage: agent BINARY [ROUNDS]")?.into();
    let rounds: u32 = arguments.next().map_or(Ok(50), |rounds| rounds.parse())?;
    let root = tempfile::tempdir()?;

    let mut starts = Samples::default();
    let mut memory = Vec::new();
    for round in 0..rounds {
        let agent = Agent::start(&binary, root.path())?;
        starts.add(agent.start);
        // Memory is looked at a few times only: being idle takes a while.
        if round % 10 == 0 {
            thread::sleep(Duration::from_secs(1));
            memory.push(resident_kib(agent.pid())?);
        }
    }
    memory.sort_unstable();
    println!("start to healthy: {starts}");
    println!("idle memory:      {:.1} MB resident", memory[memory.len() / 2] as f64 * 1024.0 / 1e6);
    println!("binary:           {:.1} MB", fs::metadata(&binary)?.len() as f64 / 1e6);
    Ok(())
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is there")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
