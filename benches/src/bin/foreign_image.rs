//! A workspace of an image that knows nothing of Corehold, create to healthy, beside the engine's own create and start of that image; and
//! the first of all, for which the agent's volume is seeded.
//!
//! Usage: `foreign_image [ROUNDS] [IMAGE]` (default 15, the core image's base). Needs an engine at /var/run/docker.sock and the core image.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    CreateWorkspace, Host,
    image::BASE_LABEL,
    runtime::docker::{Docker, DockerAddress},
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: u32 = arguments.next().map_or(Ok(15), |rounds| rounds.parse())?;
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(Arc::new(docker.clone())).home(home.path()).build().await?;
    let core = docker.image(host.image()).await?.context("the core image is there")?;
    let base = || core.labels.get(BASE_LABEL).cloned().context("the core image says its base");
    let image = arguments.next().map_or_else(base, Ok)?;

    let seeded = seed(&host, &docker, &image).await?;
    // One beforehand: it warms the engine's caches, and shows the options.
    let model = host.create(CreateWorkspace::empty().image(&image)).await?;
    let container = model.info().await?.container.context("it has a container")?;
    let mut specification = engine::specification_like(&container)?;
    model.remove().await?;
    // As the image is without us: a program of its own, no volumes.
    for of_ours in ["Entrypoint", "Healthcheck", "Env", "User", "WorkingDir"] {
        specification.as_object_mut().context("it is an object")?.remove(of_ours);
    }
    specification["Cmd"] = json!(["sleep", "1000"]);
    for of_ours in ["Mounts", "VolumesFrom"] {
        specification["HostConfig"].as_object_mut().context("it is an object")?.remove(of_ours);
    }

    let (mut ours, mut engines) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let began = Instant::now();
        let workspace = host.create(CreateWorkspace::empty().image(&image)).await?;
        ours.add(began.elapsed());
        workspace.remove().await?;

        let began = Instant::now();
        let id = engine::create_and_start(&specification)?;
        engines.add(began.elapsed());
        engine::remove(&id)?;
    }
    println!("image:                       {image}");
    println!("create to healthy:           {ours}");
    println!("engine's create and start:   {engines}");
    println!("ratio of the medians:        {:.2}", ours.ratio_to(&engines));
    match seeded {
        Some(seeded) => println!("the very first, with seeding: {:.1} ms", seeded.as_secs_f64() * 1e3),
        None => println!("the very first, with seeding: not measured, the agent's volume is in use"),
    }
    Ok(())
}

/// The first creation after the agent's volume was removed, if nobody uses that.
async fn seed(host: &Host, docker: &Docker, image: &str) -> Result<Option<Duration>> {
    let removed = docker.remove_unused().await?;
    if !removed.iter().any(|name| name.starts_with("corehold-agent-")) {
        return Ok(None);
    }
    let began = Instant::now();
    let workspace = host.create(CreateWorkspace::empty().image(image)).await?;
    let took = began.elapsed();
    workspace.remove().await?;
    Ok(Some(took))
}
