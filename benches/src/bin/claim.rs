//! Claim from a pool to ready, with a template of 100 files and 1 MB extracted and verified, beside what the engine itself needs for
//! a container with the same files: create, start, archive in.
//!
//! Usage: `claim [ROUNDS]` (default 200). Needs an engine at /var/run/docker.sock and the core image.

use std::{collections::BTreeMap, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples, files};
use corehold_host::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, EventKind, Host, PoolOptions, Template,
    runtime::docker::{Docker, DockerAddress},
    types::Timestamp,
};

const FILES: usize = 100;
const BYTES: usize = 10_000;

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(200), |rounds| rounds.parse())?;
    let (home, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let last = files::template(folder.path(), FILES, BYTES)?;
    let template = Template::load(folder.path())?;
    let tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "."]).output()?.stdout;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder()
        .runtime(std::sync::Arc::new(docker))
        .home(home.path())
        .pool(Class::default(), PoolOptions::default().min(2).max(2))
        .build()
        .await?;
    let measured = measure(&host, &template, &last, &tar, rounds).await;
    host.drain_pools().await?;
    let Measured { claims, engines, steps } = measured?;
    println!(
        "claim to ready:                        {claims}, p99 {:.1} ms",
        claims.quantile(0.99).as_secs_f64() * 1e3
    );
    for (what, samples) in steps {
        println!("  of it {what:>32} {samples}");
    }
    println!("engine's create, start and archive in: {engines}");
    println!("the engine takes as many times as long: {:.1}", engines.ratio_to(&claims));
    Ok(())
}

struct Measured {
    claims: Samples,
    engines: Samples,
    /// The steps, what comes before the first and after the last of them. Packing goes on beside the claim; the engine learns the
    /// workspace's name beside the shipping.
    steps: BTreeMap<String, Samples>,
}

async fn measure(
    host: &Host,
    template: &Template,
    (path, content): &(String, Vec<u8>),
    tar: &[u8],
    rounds: u32,
) -> Result<Measured> {
    // One beforehand: it packs the template, warms the engine's caches, and shows the options.
    host.pools_filled().await?;
    let model = host.create(CreateWorkspace::from_template(template)).await?;
    let container = model.info().await?.container.context("it has a container")?;
    let specification = engine::specification_like(&container)?;
    model.remove().await?;

    let (mut claims, mut engines, mut steps) = (Samples::default(), Samples::default(), BTreeMap::new());
    for round in 1..=u64::from(rounds) {
        // What is started for the next round must not be in this one's way.
        host.pools_filled().await?;
        let mut events = host.events();
        let (began, mut since) = (Instant::now(), Timestamp::now());
        let workspace = host.create(CreateWorkspace::from_template(template)).await?;
        claims.add(began.elapsed());
        let mut first = true;
        let mut add = |what: String, duration| steps.entry(what).or_insert_with(Samples::default).add(duration);
        loop {
            let event = events.next().await.context("the host tells what it does")?;
            match event.kind {
                EventKind::Creation(CreateEvent { kind: CreateEventKind::Started { .. }, .. }) if first => {
                    first = false;
                    add("before".to_owned(), event.at.since(since));
                }
                EventKind::Creation(CreateEvent { step, kind: CreateEventKind::Finished { duration, .. }, .. }) => {
                    since = event.at;
                    add(step.to_string(), duration);
                }
                EventKind::Created { .. } => {
                    add("after".to_owned(), event.at.since(since));
                    break;
                }
                _ => {}
            }
        }
        ensure!(host.pools()[0].claimed == round + 1, "it was made, not claimed");
        ensure!(workspace.read_file(path).await? == *content, "the files are not there");
        workspace.remove().await?;

        host.pools_filled().await?;
        let began = Instant::now();
        let container = engine::Container::start(&specification)?;
        container.put_archive("/app", tar)?;
        engines.add(began.elapsed());
    }
    Ok(Measured { claims, engines, steps })
}
