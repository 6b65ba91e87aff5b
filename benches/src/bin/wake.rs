//! Waking, beside what the engine itself needs for the same: a call to a paused workspace and the engine's unpause; a workspace that
//! sleeps in an archive of 2,000 files and the engine's create, start and archive in, both with a container that is made
//! and with one that waits in a pool.
//!
//! Usage: `wake [ROUNDS [ROUNDS FROM ARCHIVES]]` (default 50 and 20). Needs an engine at /var/run/docker.sock and the core image.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples, files};
use corehold_host::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, EventKind, Host, PoolOptions, Template, Workspace,
    WorkspaceState,
    runtime::docker::{Docker, DockerAddress},
};
use serde_json::Value;

const FILES: usize = 2_000;
const BYTES: usize = 5_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let rounds = arguments.next().unwrap_or(Ok(50))?;
    let from_archives = arguments.next().unwrap_or(Ok(20))?;
    let (home, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let docker = Arc::new(Docker::connect(DockerAddress::Auto).await?);
    let host = Host::builder().runtime(docker.clone()).home(home.path()).build().await?;

    let workspace = host.create(CreateWorkspace::empty()).await?;
    let measured = from_pause(&workspace, rounds).await;
    workspace.remove().await?;
    let (wakes, unpauses, calls) = measured?;
    println!("call to a paused workspace:            {wakes}");
    println!("engine's unpause:                      {unpauses}");
    println!("the same call, awake:                  {calls}");
    println!("ours takes of theirs:                  {:.2}\n", wakes.ratio_to(&unpauses));

    let file = files::template(folder.path(), FILES, BYTES)?;
    let options = PoolOptions::default().min(1).max(1);
    let pooled = Host::builder().runtime(docker).home(home.path()).pool(Class::default(), options).build().await?;
    for (what, host) in [("made anew", &host), ("from a pool", &pooled)] {
        let workspace = host.create(CreateWorkspace::from_template(&Template::load(folder.path())?)).await?;
        let measured = from_archive(host, &workspace, folder.path(), &file, from_archives).await;
        workspace.remove().await?;
        host.drain_pools().await?;
        let Measured { wakes, engines, steps } = measured?;
        println!("first call to who sleeps, {what:<12} {wakes}");
        for (step, samples) in steps {
            println!("  of it {step:>24}         {samples}");
        }
        println!("engine's create, start and archive in: {engines}");
        println!("ours takes of theirs:                  {:.2}\n", wakes.ratio_to(&engines));
    }
    Ok(())
}

async fn from_pause(workspace: &Workspace, rounds: u32) -> Result<(Samples, Samples, Samples)> {
    let (mut wakes, mut unpauses, mut calls) = (Samples::default(), Samples::default(), Samples::default());
    let container = workspace.info().await?.container.context("it runs, so it has a container")?;
    workspace.write_file("file", "content").await?;
    // The first of each warms what there is to warm.
    for round in 0..=rounds {
        workspace.pause().await?;
        let began = Instant::now();
        ensure!(workspace.read_file("file").await? == "content", "it is not what was written");
        let woken = began.elapsed();

        let began = Instant::now();
        workspace.read_file("file").await?;
        let called = began.elapsed();

        engine::request("POST", &format!("/containers/{container}/pause"), &Value::Null)?;
        // The host takes note of it, and is done with that before the clock runs.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        engine::request("POST", &format!("/containers/{container}/unpause"), &Value::Null)?;
        let unpaused = began.elapsed();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if round > 0 {
            wakes.add(woken);
            calls.add(called);
            unpauses.add(unpaused);
        }
    }
    Ok((wakes, unpauses, calls))
}

struct Measured {
    wakes: Samples,
    engines: Samples,
    steps: BTreeMap<String, Samples>,
}

async fn from_archive(
    host: &Host,
    workspace: &Workspace,
    folder: &Path,
    (path, content): &(String, Vec<u8>),
    rounds: u32,
) -> Result<Measured> {
    let container = workspace.info().await?.container.context("it runs, so it has a container")?;
    let specification = engine::specification_like(&container)?;
    let tar = Command::new("tar").arg("-C").arg(folder).args(["-cf", "-", "."]).output()?.stdout;
    let (mut wakes, mut engines, mut steps) = (Samples::default(), Samples::default(), BTreeMap::new());
    for _ in 0..rounds {
        workspace.sleep(Duration::ZERO).await?;
        host.pools_filled().await?;
        let mut events = host.events();
        let began = Instant::now();
        ensure!(workspace.read_file(path).await? == *content, "it is not what was there");
        wakes.add(began.elapsed());
        loop {
            match events.next().await.context("the host tells what it does")?.kind {
                EventKind::Creation(CreateEvent { step, kind: CreateEventKind::Finished { duration, .. }, .. }) => {
                    steps.entry(step.to_string()).or_insert_with(Samples::default).add(duration);
                }
                EventKind::Loaded { duration, .. } => {
                    steps.entry("load".to_owned()).or_insert_with(Samples::default).add(duration);
                }
                EventKind::Transition { to: WorkspaceState::Ready, .. } => break,
                _ => {}
            }
        }
        host.pools_filled().await?;
        let began = Instant::now();
        let container = engine::Container::start(&specification)?;
        container.put_archive("/app", &tar)?;
        engines.add(began.elapsed());
    }
    Ok(Measured { wakes, engines, steps })
}
