//! What policy costs a claim: the time from a request to its first step, which is what is looked up, checked and counted beforehand, by a
//! host with plans, totals, allow-lists, isolation modes and a floor, beside one with none of them. Each claims from a pool of its own, in turn.
//!
//! Usage: `policy [ROUNDS]` (default 100). Needs an engine at /var/run/docker.sock and the core image.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::figures::Samples;
use corehold_host::{
    Class, CreateEventKind, CreateWorkspace, DiskPolicy, Host, HostBuilder, PoolOptions,
    policy::{Images, Isolation, Plan, Policy, Totals},
    runtime::{
        Resources,
        docker::{Docker, DockerAddress},
    },
};

const DISK: u64 = 10 << 30;

fn rules() -> Result<Policy> {
    let totals = Totals::unlimited().workspaces(1_000).memory_bytes(1 << 45).disk_bytes(1 << 45);
    let all = Resources::default().memory_bytes(256 << 20).disk_bytes(DISK);
    Ok(Policy::new()
        .plans(Plan::shipped())
        .plan(Plan::new("all").workspace(all).totals(totals))
        .each_team(totals)
        .host(totals)
        .images(Images::allow(["docker.io/library/*", "ghcr.io/acme/*"])?)
        .mount_root("/srv")
        .isolation(Isolation::new("standard"))
        .default_isolation("standard"))
}

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(100), |rounds| rounds.parse())?;
    // A home each: of one they would take each other's containers.
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let docker = Arc::new(Docker::connect(DockerAddress::Auto).await?);
    let builder = |home: &tempfile::TempDir| -> HostBuilder {
        Host::builder()
            .runtime(docker.clone())
            .home(home.path())
            .resources(Resources::default().memory_bytes(256 << 20).disk_bytes(DISK))
            .pool(Class::default(), PoolOptions::default().min(2).max(2))
    };
    let free = builder(&homes[0]).disk(DiskPolicy::default().floor_bytes(0)).build().await?;
    let ruled = builder(&homes[1]).policy(rules()?).disk(DiskPolicy::default().floor_bytes(1 << 20)).build().await?;
    ruled.set_plan("ada", Some("all")).await?;
    let measured = measure(&free, &ruled, rounds).await;
    free.drain_pools().await?;
    ruled.drain_pools().await?;
    let [without, with] = measured?;
    println!("from a request to its first step, without policy: {without}");
    println!("with it:                                          {with}");
    let more = with.median().as_secs_f64() - without.median().as_secs_f64();
    println!("more, by the medians: {:.3} ms", more * 1e3);
    Ok(())
}

async fn measure(free: &Host, ruled: &Host, rounds: u32) -> Result<[Samples; 2]> {
    let mut samples = [Samples::default(), Samples::default()];
    for round in 0..=rounds {
        for (host, samples) in [free, ruled].into_iter().zip(&mut samples) {
            host.pools_filled().await?;
            let claimed = host.pools()[0].claimed;
            let mut creation = host.create(CreateWorkspace::empty().owner("ada").team("acme"));
            let began = Instant::now();
            let mut first = None;
            while let Some(event) = creation.next_event().await {
                if matches!(event.kind, CreateEventKind::Started { .. }) {
                    first.get_or_insert_with(|| began.elapsed());
                }
            }
            let workspace = creation.await?;
            ensure!(host.pools()[0].claimed == claimed + 1, "it was made, not claimed");
            // The first of each makes statements and looks things up once.
            if round > 0 {
                samples.add(first.context("it has a first step")?);
            }
            workspace.remove().await?;
        }
    }
    Ok(samples)
}
