//! Wake from pause: a call to a paused workspace, beside the engine's own unpause of the same container.
//!
//! Usage: `wake [ROUNDS]` (default 50). Needs an engine at /var/run/docker.sock and the core image.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    CreateWorkspace, Host, Workspace,
    runtime::docker::{Docker, DockerAddress},
};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(50), |rounds| rounds.parse())?;
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(std::sync::Arc::new(docker)).home(home.path()).build().await?;
    let workspace = host.create(CreateWorkspace::empty()).await?;
    let measured = measure(&workspace, rounds).await;
    workspace.remove().await?;
    let (wakes, unpauses, calls) = measured?;
    println!("call to a paused workspace:    {wakes}");
    println!("engine's unpause:              {unpauses}");
    println!("the same call, awake:          {calls}");
    println!("wake is as many times as long: {:.2}", wakes.ratio_to(&unpauses));
    Ok(())
}

async fn measure(workspace: &Workspace, rounds: u32) -> Result<(Samples, Samples, Samples)> {
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
