//! What a round of looking after the disk costs, over workspaces with some thousand files each, beside the engine's own measuring of the same
//! containers (`docker ps --size`): CPU time of this process and of the engine, and how long it takes.
//!
//! Usage: `disk [WORKSPACES] [FILES] [ROUNDS]` (default 100, 2,000 and 20). Needs root, an engine at /var/run/docker.sock whose data lie on
//! this machine, and the core image.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples, remove_all};
use corehold_host::{
    CreateWorkspace, Host,
    runtime::{
        ContainerId, Runtime as _,
        docker::{Docker, DockerAddress},
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

/// Workspaces that are made at a time.
const AT_ONCE: usize = 4;
/// Of the kernel's clock for the times of processes (`sysconf(_SC_CLK_TCK)`): 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let (count, files, rounds) = (number(0, 100), number(1, 2_000), number(2, 20));
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(Arc::new(docker.clone())).home(home.path()).build().await?;
    let measured = measure(&host, &docker, count, files, rounds).await;
    remove_all(&host, AT_ONCE).await?;
    measured
}

async fn measure(host: &Host, docker: &Docker, count: usize, files: usize, rounds: usize) -> Result<()> {
    let made = stream::iter(0..count).map(|_| filled(host, files));
    let containers: Vec<ContainerId> = made.buffer_unordered(AT_ONCE).try_collect().await?;
    let data = docker_processes()?;
    let (mut ours, mut theirs) = (Round::default(), Round::default());
    for _ in 0..rounds {
        let round = Began::now(&data)?;
        for container in &containers {
            let used = docker.disk_use(container).await?;
            let seen = used.files.context("this engine's data don't lie on this machine")?;
            ensure!(seen >= files as u64, "{seen} files of {files}");
        }
        round.ended(&mut ours)?;
        let round = Began::now(&data)?;
        let listed = tokio::task::spawn_blocking(|| engine::request("GET", "/containers/json?size=1", &Value::Null));
        ensure!(listed.await??.as_array().is_some_and(|listed| listed.len() >= count), "all are listed");
        round.ended(&mut theirs)?;
    }
    println!(
        "{count} workspaces of {files} files, {rounds} rounds, load {}",
        fs::read_to_string("/proc/loadavg")?.trim()
    );
    for (what, round) in [("a round", &ours), ("the engine's `ps --size`", &theirs)] {
        println!(
            "{what}: {:.0} ms of CPU in this process and {:.0} in the engine's; takes {:.0} ms, {:.0} at the 95th percentile",
            milliseconds(round.own.median()),
            milliseconds(round.engine.median()),
            milliseconds(round.wall.median()),
            milliseconds(round.wall.quantile(0.95)),
        );
    }
    Ok(())
}

/// A workspace with that many files, and its container.
async fn filled(host: &Host, files: usize) -> Result<ContainerId> {
    let workspace = host.create(CreateWorkspace::empty()).await?;
    let line = format!("mkdir -p many && cd many && i=0; while [ $i -lt {files} ]; do : >$i; i=$((i+1)); done");
    ensure!(workspace.command(&line).run().await?.success(), "the files are made");
    Ok(ContainerId(workspace.info().await?.container.context("it has a container")?))
}

/// The engine's daemons.
fn docker_processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name().to_string_lossy().into_owned();
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        if matches!(name.trim(), "dockerd" | "containerd") {
            found.push(process);
        }
    }
    ensure!(!found.is_empty(), "no dockerd runs on this machine");
    Ok(found)
}

/// What each round took.
#[derive(Default)]
struct Round {
    own: Samples,
    engine: Samples,
    wall: Samples,
}

struct Began<'a> {
    processes: &'a [String],
    own: Duration,
    engine: Duration,
    at: Instant,
}

impl<'a> Began<'a> {
    fn now(processes: &'a [String]) -> Result<Self> {
        Ok(Self { processes, own: cpu_time("self")?, engine: cpu_time_of(processes)?, at: Instant::now() })
    }

    fn ended(self, round: &mut Round) -> Result<()> {
        round.wall.add(self.at.elapsed());
        round.own.add(cpu_time("self")?.saturating_sub(self.own));
        round.engine.add(cpu_time_of(self.processes)?.saturating_sub(self.engine));
        Ok(())
    }
}

fn cpu_time_of(processes: &[String]) -> Result<Duration> {
    processes.iter().map(|process| cpu_time(process)).sum()
}

/// What a process has used, in user and in system mode.
fn cpu_time(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Its name may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("it has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
