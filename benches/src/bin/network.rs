//! A network made, closed and looked at from inside, beside the engine's own network create of one with the same options; and a claim from
//! a pool in a network of its own beside one in the runtime's, which shows what networks cost a claim.
//!
//! Usage: `network [ROUNDS] [CLAIMS]` (default 7 and 60). Needs an engine at /var/run/docker.sock and the core image.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    Class, CreateWorkspace, Egress, Host, Network, PoolOptions,
    runtime::{
        NetworkMade, NetworkSpec, Runtime as _, Subnet,
        docker::{Docker, DockerAddress},
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |number| number.parse());
    let (rounds, claims) = (number(7)?, number(60)?);
    let docker = Docker::connect(DockerAddress::Auto).await?;
    making(&docker, rounds).await?;
    claiming(docker, claims).await
}

/// Of a pool that nobody else uses: 10.212.0.0/16.
fn subnet(number: u32) -> Subnet {
    Subnet::of([10, 212, (number % 256) as u8, 0].into(), 26)
}

async fn making(docker: &Docker, rounds: u32) -> Result<()> {
    let (mut ours, mut engines, mut again) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..rounds {
        let spec = NetworkSpec::named(format!("corehold-bench-{}", std::process::id())).subnet(subnet(2 * round));
        let began = Instant::now();
        let made = docker.ensure_network(&spec).await?;
        ours.add(began.elapsed());
        ensure!(made == NetworkMade::There, "{made:?}");
        let began = Instant::now();
        docker.ensure_network(&spec).await?;
        again.add(began.elapsed());
        ensure!(docker.release_network(&spec.name).await?, "it was used");

        let subnet = subnet(2 * round + 1);
        let name = format!("{}-engine", spec.name);
        let body = json!({
            "Name": name, "Driver": "bridge", "Options": { "com.docker.network.bridge.enable_icc": "false" },
            "IPAM": { "Config": [{ "Subnet": subnet.to_string(), "Gateway": subnet.gateway().to_string() }] },
        });
        let began = Instant::now();
        engine::request("POST", "/networks/create", &body)?;
        engines.add(began.elapsed());
        engine::request("DELETE", &format!("/networks/{name}"), &Value::Null)?;
    }
    println!("network made, closed and probed: {ours}");
    println!("engine's network create:         {engines}");
    println!("ratio of the medians:            {:.2}", ours.ratio_to(&engines));
    println!("looked whether it still stands:  {again}");
    Ok(())
}

async fn claiming(docker: Docker, claims: u32) -> Result<()> {
    let home = tempfile::tempdir()?;
    let class = Class::default().network(Network::shared().egress(Egress::Internet));
    let options = || PoolOptions::default().min(2).max(2);
    let builder = Host::builder().runtime(Arc::new(docker.clone())).home(home.path());
    let host = builder.pool(Class::default(), options()).pool(class, options()).build().await?;
    let (mut own, mut shared) = (Samples::default(), Samples::default());
    for _ in 0..claims {
        for (network, samples) in
            [(Network::shared(), &mut shared), (Network::shared().egress(Egress::Internet), &mut own)]
        {
            host.pools_filled().await?;
            let began = Instant::now();
            let workspace = host.create(CreateWorkspace::empty().network(network)).await?;
            samples.add(began.elapsed());
            workspace.remove().await?;
        }
    }
    let claimed: u64 = host.pools().iter().map(|pool| pool.claimed).sum();
    ensure!(claimed == 2 * u64::from(claims), "{claimed} of {} were claimed", 2 * claims);
    host.drain_pools().await?;
    host.settled().await;
    docker.remove_unused().await?;
    println!("claim, a network of its own:     {own}");
    println!("claim, the shared network:       {shared}");
    println!("ratio of the medians:            {:.2}", own.ratio_to(&shared));
    Ok(())
}
