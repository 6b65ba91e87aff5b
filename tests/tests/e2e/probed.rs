//! Networks in which something is reached although all rules stand are refused; and there are more networks than an engine makes by itself.

use std::net::TcpListener;

use corehold_e2e::engine::Engine;
use corehold_host::{
    ErrorKind,
    runtime::{Egress, NetworkMade, NetworkSpec, Runtime as _, Subnet, docker::Docker},
};
use futures_util::{StreamExt as _, stream};

use crate::networks::{closed, member, own};

/// The port at which who looks from inside tries other containers: nobody's.
const TRIED: u16 = 4;

/// Somebody's rule of the machine, as those of load balancers are: who goes from one of these to another of those arrives at a port of the
/// machine that stands open. It ends with what the test made in the engine.
async fn lead_astray(engine: &Engine, from: Subnet, to: Subnet, port: u16) {
    let table = format!("astray{}", engine.name("").replace('-', ""));
    let gateway = from.gateway();
    let script = format!(
        "{{ echo 'add table inet {table} {{ flags owner; }}'
        echo 'add chain inet {table} before {{ type nat hook prerouting priority -110; }}'
        echo 'add rule inet {table} before ip saddr {from} ip daddr {to} ip daddr != {gateway} tcp dport {TRIED} dnat ip to {gateway}:{port}'
        echo 'list table inet {table}'; exec sleep 600; }} | nft -i"
    );
    let allowed = serde_json::json!({ "NetworkMode": "host", "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"] });
    let id = engine.start_script(&script, allowed).await;
    let mut said = engine.docker.logs(&corehold_host::runtime::ContainerId(id), true);
    let mut text = String::new();
    while !text.contains("dport 4 dnat") {
        let more = said.next().await.unwrap_or_else(|| panic!("nft ended: {text}"));
        text += &String::from_utf8_lossy(&more.unwrap());
    }
}

/// A network that can be made here, and isn't there.
async fn free(engine: &Engine, docker: &Docker, name: &str) -> NetworkSpec {
    let spec = own(engine, docker, name, false, Egress::Open).await;
    assert!(docker.release_network(&spec.name).await.unwrap());
    spec
}

async fn refused(engine: &Engine, docker: &Docker, spec: &NetworkSpec) -> String {
    let error = docker.ensure_network(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint_text().unwrap().contains("nft list ruleset"), "{error}");
    let left = engine.request("GET", &format!("/networks/{}", spec.name), "").await.0;
    assert_eq!(left, 404, "nobody shall take it for a closed one");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_peer_is_reached_though_all_rules_stand_it_is_refused() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // That port is open, so that nothing but what is led astray is reached.
    let (docker, _) = closed(&engine, |options| options.host_ports = vec![port]).await;
    let peers = free(&engine, &docker, "peers").await;
    lead_astray(&engine, peers.subnet.unwrap(), peers.subnet.unwrap(), port).await;
    let said = refused(&engine, &docker, &peers).await;
    let (_, reached) = said.split_once("from inside, this is reached: ").unwrap_or_else(|| panic!("{said}"));
    assert!(reached.starts_with("another container of the network, at 10.211.") && !reached.contains(';'), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_another_network_is_reached_though_all_rules_stand_it_is_refused() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (docker, subject) = closed(&engine, |options| options.host_ports = vec![port]).await;
    let others = own(&engine, &docker, "others", false, Egress::Open).await;
    let (_member, at) = member(&subject, "other", &others).await;
    let at = at.split(':').next().unwrap();

    let ours = free(&engine, &docker, "ours").await;
    lead_astray(&engine, ours.subnet.unwrap(), others.subnet.unwrap(), port).await;
    let said = refused(&engine, &docker, &ours).await;
    assert!(
        said.ends_with(&format!("from inside, this is reached: a container of another network, at {at}")),
        "{said}"
    );
}

/// By itself Docker makes thirty or so, and then says that none of its addresses is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_more_networks_than_an_engine_has_addresses_for() {
    let engine = Engine::start().await;
    let part = (std::process::id() % 128) as u8;
    let parts = (0..32_u8).map(|number| Subnet::of([10, 214, part * 2 + number / 16, number % 16 * 16].into(), 28));
    let made = stream::iter(parts).map(|subnet| {
        let spec = NetworkSpec::named(engine.name(&format!("many-{}", subnet.gateway()))).subnet(subnet);
        let docker = engine.docker.clone();
        async move { (docker.ensure_network(&spec).await.unwrap() == NetworkMade::There).then_some(spec.name) }
    });
    let made: Vec<String> = made.buffer_unordered(4).filter_map(std::future::ready).collect().await;
    assert!(made.len() > 30, "{} were made", made.len());
    for name in &made {
        assert!(engine.docker.release_network(name).await.unwrap(), "{name}");
    }
}
