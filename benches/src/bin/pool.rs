//! Many workspaces from a small pool: all at once, and one after the other while the pool is filled again, beside the engine's own create
//! and start of as many containers with the same options. Nothing may fail, and nothing may be left.
//!
//! Usage: `pool [AT_ONCE [IN_TURN]]` (defaults 50 and 200). Needs an engine at /var/run/docker.sock and the core image.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    Class, CreateWorkspace, Host, PoolOptions,
    runtime::docker::{Docker, DockerAddress},
};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

const POOL: usize = 10;
/// One side and then the other, this often.
const ROUNDS: usize = 3;
/// Workspaces in turn of one side, before it is the other's turn.
const STRETCH: usize = 10;
const LABEL: &str = "corehold-bench-pool";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let (at_once, in_turn) = (arguments.next().unwrap_or(Ok(50))?, arguments.next().unwrap_or(Ok(200))?);
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let mark = home.path().display().to_string();
    let host = Host::builder()
        .runtime(Arc::new(docker))
        .home(home.path())
        .label(LABEL, &mark)
        .pool(Class::default(), PoolOptions::default().min(POOL).max(POOL))
        .build()
        .await?;
    host.pools_filled().await?;
    let files = open_files()?;
    let measured = async {
        let specification = model(&host).await?;
        all_at_once(&host, &specification, at_once).await?;
        one_after_the_other(&host, &specification, in_turn).await
    };
    let measured = measured.await;
    host.drain_pools().await?;
    host.settled().await;
    measured?;
    let filter = format!(r#"{{"label":["{LABEL}={mark}"]}}"#);
    let encoded: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let left = engine::request("GET", &format!("/containers/json?all=1&filters={encoded}"), &Value::Null)?;
    ensure!(left.as_array().is_some_and(Vec::is_empty), "containers are left: {left}");
    ensure!(entries(&home.path().join("claims"))? == 0, "records of claims are left");
    println!("left: no container, no record of a claim; {} open files, {files} before", open_files()?);
    Ok(())
}

/// What the engine is asked for by a creation without a pool.
async fn model(host: &Host) -> Result<Value> {
    let workspace = host.create(CreateWorkspace::empty()).await?;
    let specification = engine::specification_like(&workspace.info().await?.container.context("it has a container")?)?;
    workspace.remove().await?;
    Ok(specification)
}

async fn all_at_once(host: &Host, specification: &Value, count: usize) -> Result<()> {
    let [mut ours, mut theirs] = [Samples::default(), Samples::default()];
    for _ in 0..ROUNDS {
        host.pools_filled().await?;
        let began = Instant::now();
        let made = try_join_all((0..count).map(|_| async { host.create(CreateWorkspace::empty()).await })).await?;
        ours.add(began.elapsed());
        for removed in join_all(made.iter().map(|workspace| workspace.remove())).await {
            removed?;
        }
        host.pools_filled().await?;

        let began = Instant::now();
        let started: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..count).map(|_| scope.spawn(|| engine::Container::start(specification))).collect();
            starts.into_iter().map(|start| start.join().map_err(|_| anyhow::anyhow!("a start panicked"))).collect()
        });
        theirs.add(began.elapsed());
        for container in started {
            drop(container??);
        }
    }
    println!("{count} at once, a pool of {POOL}:             {ours}, {:.1} a second", rate(count, ours.median()));
    println!("{count} at once, the engine's create, start: {theirs}, {:.1} a second", rate(count, theirs.median()));
    Ok(())
}

async fn one_after_the_other(host: &Host, specification: &Value, count: usize) -> Result<()> {
    let before = host.pools().remove(0);
    let [mut ours, mut theirs] = [Samples::default(), Samples::default()];
    let [mut our_time, mut their_time] = [Duration::ZERO; 2];
    let mut made = 0;
    while made < count {
        host.pools_filled().await?;
        let stretch = STRETCH.min(count - made);
        let whole = Instant::now();
        for _ in 0..stretch {
            let began = Instant::now();
            let workspace = host.create(CreateWorkspace::empty()).await?;
            ours.add(began.elapsed());
            workspace.remove().await?;
        }
        our_time += whole.elapsed();
        made += stretch;
        host.pools_filled().await?;
        let whole = Instant::now();
        for _ in 0..stretch {
            let began = Instant::now();
            let container = engine::Container::start(specification)?;
            theirs.add(began.elapsed());
            drop(container);
        }
        their_time += whole.elapsed();
    }
    let after = host.pools().remove(0);
    let (claimed, missed) = (after.claimed - before.claimed, after.missed - before.missed);
    ensure!(claimed + missed == count as u64, "{claimed} claimed and {missed} made, of {count}");
    println!(
        "{count} in turn, made and removed: {ours}, {:.1} a second; {claimed} claimed, {missed} made",
        rate(count, our_time)
    );
    println!("{count} in turn, the engine's:     {theirs}, {:.1} a second", rate(count, their_time));
    Ok(())
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn open_files() -> Result<usize> {
    entries(Path::new("/proc/self/fd"))
}

fn entries(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}
