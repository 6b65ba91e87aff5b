//! Measures what this library adds to the engine's own creation and start: the same container made over the bare API and
//! through the runtime, in turns. `cargo run --release -p corehold-e2e --example create_start [rounds]`

use std::time::{Duration, Instant};

use corehold_e2e::engine::Engine;
use corehold_host::runtime::{ContainerId, ContainerSpec, Resources, Runtime as _};

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(15, |rounds| rounds.parse().expect("a number of rounds"));
    let engine = Engine::start().await;
    let resources = Resources::default().memory_bytes(1 << 30).cpu_millis(1000).pids(512);
    let spec = |name: String| ContainerSpec {
        name,
        image: engine.image.clone(),
        labels: engine.labels(),
        publish: vec![4321],
        agent_port: 3001,
        resources,
        ..ContainerSpec::default()
    };
    // The network is there in both cases.
    let warm = engine.docker.create(&spec(engine.name("warm"))).await.expect("it is created");
    engine.docker.start(&warm).await.expect("it starts");
    engine.docker.remove(&warm).await.expect("it is removed");

    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..2 * rounds {
        // Each goes first as often as second: a removal leaves the engine something to do.
        if (round / 2 + round) % 2 == 0 {
            let spec = spec(engine.name(&format!("bare-{round}")));
            bare.push(create_bare(&engine, &spec).await);
        } else {
            let spec = spec(engine.name(&format!("ours-{round}")));
            ours.push(create_ours(&engine, &spec).await);
        }
    }
    let (bare_create, bare_all) = medians(bare);
    let (our_create, our_all) = medians(ours);
    println!("median of {rounds}      create    create and start");
    println!("the engine's own  {:>7.1?}    {:>7.1?}", bare_create, bare_all);
    println!("through runtime   {:>7.1?}    {:>7.1?}", our_create, our_all);
    println!("ratio             {:>7.2}      {:>7.2}", ratio(our_create, bare_create), ratio(our_all, bare_all));
}

/// Times until it was created, and until it was started.
async fn create_bare(engine: &Engine, spec: &ContainerSpec) -> (Duration, Duration) {
    let (name, body) = (&spec.name, bare_body(engine, spec));
    let began = Instant::now();
    let answer = engine.request("POST", &format!("/containers/create?name={name}"), &body).await;
    let created = began.elapsed();
    let started = engine.request("POST", &format!("/containers/{name}/start"), "").await;
    let all = began.elapsed();
    assert_eq!((answer.0, started.0), (201, 204), "{answer:?} {started:?}");
    engine.docker.remove(&ContainerId(name.clone())).await.expect("it is removed");
    (created, all)
}

async fn create_ours(engine: &Engine, spec: &ContainerSpec) -> (Duration, Duration) {
    let began = Instant::now();
    let id = engine.docker.create(spec).await.expect("it is created");
    let created = began.elapsed();
    engine.docker.start(&id).await.expect("it starts");
    let all = began.elapsed();
    engine.docker.remove(&id).await.expect("it is removed");
    (created, all)
}

fn ratio(ours: Duration, bare: Duration) -> f64 {
    ours.as_secs_f64() / bare.as_secs_f64()
}

fn medians(measured: Vec<(Duration, Duration)>) -> (Duration, Duration) {
    let (mut created, mut all): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    created.sort_unstable();
    all.sort_unstable();
    (created[created.len() / 2], all[all.len() / 2])
}

/// The same container as the runtime asks for.
fn bare_body(engine: &Engine, spec: &ContainerSpec) -> String {
    let labels: Vec<_> = spec.labels.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
    format!(
        r#"{{"Image":{image:?},"Labels":{{{labels}}},"ExposedPorts":{{"4321/tcp":{{}}}},"HostConfig":{{
            "NetworkMode":{network:?},"PortBindings":{{"4321/tcp":[{{"HostIp":"127.0.0.1","HostPort":""}}]}},
            "Memory":1073741824,"MemorySwap":1073741824,"CpuPeriod":10000,"CpuQuota":10000,"PidsLimit":512,"CapDrop":["ALL"],
            "SecurityOpt":["no-new-privileges"],"Init":false,
            "LogConfig":{{"Type":"json-file","Config":{{"max-size":"10m","max-file":"2"}}}}}}}}"#,
        image = spec.image,
        labels = labels.join(","),
        network = engine.options().network,
    )
}
