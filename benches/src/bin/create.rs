//! Create to healthy, beside the engine's own create and start of a container with the same options.
//!
//! Usage: `create [ROUNDS]` (default 15). Needs an engine at /var/run/docker.sock and the core image.

use std::time::Instant;

use anyhow::{Context as _, Result};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    CreateWorkspace, Host,
    runtime::docker::{Docker, DockerAddress},
};

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(15), |rounds| rounds.parse())?;
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(std::sync::Arc::new(docker)).home(home.path()).build().await?;

    // One beforehand: it warms the engine's caches, and shows the options.
    let model = host.create(CreateWorkspace::empty()).await?;
    let container = model.info().await?.container.context("it has a container")?;
    let specification = engine::specification_like(&container)?;
    model.remove().await?;

    let (mut ours, mut engines) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let began = Instant::now();
        let workspace = host.create(CreateWorkspace::empty()).await?;
        ours.add(began.elapsed());
        workspace.remove().await?;

        let began = Instant::now();
        let id = engine::create_and_start(&specification)?;
        engines.add(began.elapsed());
        engine::remove(&id)?;
    }
    println!("create to healthy:         {ours}");
    println!("engine's create and start: {engines}");
    println!("ratio of the medians:      {:.2}", ours.ratio_to(&engines));
    Ok(())
}
