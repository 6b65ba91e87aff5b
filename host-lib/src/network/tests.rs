//! Which network a workspace gets, over an engine in memory.

use std::collections::BTreeSet;

use super::*;
use crate::{
    Class, CreateWorkspace, Egress, Host, PoolOptions,
    testing::{AgentScript, EngineScript, Fixture},
};

async fn fixture() -> Fixture {
    Fixture::new(EngineScript::default(), AgentScript::default()).await
}

/// The network of the container of a workspace that was just made.
fn network(fixture: &Fixture, workspace: &crate::Workspace) -> Option<NetworkSpec> {
    fixture.engine.spec(&format!("corehold-{}", workspace.id())).network
}

#[test]
fn a_network_is_named_by_whose_it_is_and_what_it_holds() {
    let name = |home: &str, network: &Network, whose: Option<&str>| spec(home, network, whose).name;
    let base = name("home", &Network::owner(), Some("anna"));
    assert_eq!(base, name("home", &Network::owner(), Some("anna")));
    for other in [
        name("other", &Network::owner(), Some("anna")),
        name("home", &Network::owner(), Some("bob")),
        name("home", &Network::team(), Some("anna")),
        name("home", &Network::owner().meet(), Some("anna")),
        name("home", &Network::owner().egress(Egress::Internet), Some("anna")),
    ] {
        assert_ne!(base, other);
    }
    // Whatever bytes a name has, the network's is one that an engine takes.
    for whose in ["../../x", "a b\n", "\u{1f600}", &"x".repeat(256)] {
        let name = name("home", &Network::team(), Some(whose));
        assert!(name.len() == 25 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
    }
}

#[test]
fn a_pool_that_holds_no_network_is_refused() {
    let subnets = |pool: &str, prefix| Subnets::of(pool.parse().unwrap(), prefix).check();
    subnets("10.213.0.0/16", 26).unwrap();
    subnets("10.213.0.0/29", 29).unwrap();
    for (pool, prefix) in [("10.213.0.0/16", 15), ("10.213.0.0/16", 30), ("10.213.0.0/30", 30), ("0.0.0.0/0", 16)] {
        assert_eq!(subnets(pool, prefix).unwrap_err().kind(), ErrorKind::Invalid, "{pool} {prefix}");
    }
}

#[tokio::test]
async fn workspaces_of_one_owner_share_a_network_and_keep_it() {
    let fixture = fixture().await;
    let host = fixture.builder().network(Network::owner()).build().await.unwrap();
    let create = |owner: &str| host.create(CreateWorkspace::empty().owner(owner));
    let (first, second, other) =
        (create("anna").await.unwrap(), create("anna").await.unwrap(), create("bob").await.unwrap());
    let of_anna = network(&fixture, &first).unwrap();
    assert_eq!(network(&fixture, &second).unwrap(), of_anna);
    let of_bob = network(&fixture, &other).unwrap();
    assert!(of_bob.name != of_anna.name && !of_bob.subnet.unwrap().overlaps(&of_anna.subnet.unwrap()));

    // Whatever the host's default becomes: it sleeps, and wakes by another host.
    first.sleep(std::time::Duration::ZERO).await.unwrap();
    let later = fixture.builder().network(Network::none()).build().await.unwrap();
    let woken = later.workspace(first.id().as_str()).await.unwrap();
    woken.wake().await.unwrap();
    assert_eq!(network(&fixture, &woken).unwrap(), of_anna);
    let copy = woken.fork(1).await.unwrap().remove(0);
    assert_eq!(network(&fixture, &copy).unwrap(), of_anna);

    let shared = later.create(CreateWorkspace::empty().network(Network::shared())).await.unwrap();
    assert_eq!(network(&fixture, &shared), None, "the runtime's own");
}

#[tokio::test]
async fn who_has_no_owner_is_in_no_owners_network() {
    let fixture = fixture().await;
    for (network, whom) in [(Network::owner(), "owner"), (Network::team(), "team")] {
        let error = fixture.host.create(CreateWorkspace::empty().network(network)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(whom) && error.hint_text().is_some(), "{error}");
    }
    let meet = fixture.host.create(CreateWorkspace::empty().network(Network::shared().meet())).await.unwrap_err();
    assert_eq!(meet.kind(), ErrorKind::Invalid);
    assert!(fixture.engine.names().is_empty());
}

#[tokio::test]
async fn addresses_that_are_somebody_elses_are_left_out_until_none_are_left() {
    let fixture = fixture().await;
    let subnets = Subnets::of("10.213.0.0/27".parse().unwrap(), 29);
    let host: Host = fixture.builder().subnets(subnets).network(Network::owner()).build().await.unwrap();
    let parts: Vec<_> = subnets.pool.parts(subnets.prefix).collect();
    *fixture.engine.taken_subnets.lock().unwrap() = BTreeSet::from([parts[0], parts[2]]);
    let create = |owner: &str| host.create(CreateWorkspace::empty().owner(owner));
    let anna = create("anna").await.unwrap();
    assert_eq!(network(&fixture, &anna).unwrap().subnet, Some(parts[1]));
    let bob = create("bob").await.unwrap();
    assert_eq!(network(&fixture, &bob).unwrap().subnet, Some(parts[3]));
    let error = create("carol").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("of the 4 of 10.213.0.0/27 2 are others'"), "{error}");
    assert!(error.hint_text().unwrap().contains("HostBuilder::subnets"));

    // Asleep, it keeps its own; removed, it gives them free.
    anna.sleep(std::time::Duration::ZERO).await.unwrap();
    create("carol").await.unwrap_err();
    anna.remove().await.unwrap();
    host.settled().await;
    let carol = create("carol").await.unwrap();
    assert_eq!(network(&fixture, &carol).unwrap().subnet, Some(parts[1]));
}

#[tokio::test]
async fn a_network_goes_with_its_last_container() {
    let fixture = fixture().await;
    let request = || CreateWorkspace::empty().owner("anna").network(Network::owner());
    let (first, second) =
        (fixture.host.create(request()).await.unwrap(), fixture.host.create(request()).await.unwrap());
    let name = network(&fixture, &first).unwrap().name;
    first.remove().await.unwrap();
    fixture.host.settled().await;
    assert!(fixture.engine.networks().contains_key(&name));
    second.sleep(std::time::Duration::ZERO).await.unwrap();
    fixture.host.settled().await;
    assert!(!fixture.engine.networks().contains_key(&name));
    second.wake().await.unwrap();
    assert!(fixture.engine.networks().contains_key(&name));
}

#[tokio::test]
async fn a_pool_serves_those_of_its_own_network_alone() {
    let fixture = fixture().await;
    let class = Class::default().network(Network::none());
    let host = fixture.pooled_class(class, PoolOptions::default().min(1).max(1)).await;
    host.pools_filled().await.unwrap();
    let cold = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!((network(&fixture, &cold), host.pools()[0].claimed), (None, 0));
    let warm = host.create(CreateWorkspace::empty().network(Network::none())).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1);
    assert_eq!(network(&fixture, &warm).unwrap().egress, Egress::None);

    let class = Class::default().network(Network::owner());
    let refused = fixture.builder().pool(class, PoolOptions::default()).build().await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn every_ten_seconds_a_host_looks_whether_networks_are_closed_whatever_it_found_before() {
    let fixture = fixture().await;
    let mut looks = fixture.engine.looks.subscribe();
    // Where nothing else is to be done, the clock goes on to the next moment for which somebody waits.
    tokio::time::pause();
    let mut last: Option<Instant> = None;
    for round in 1..=3 {
        tokio::time::timeout(3 * LOOK_EVERY, looks.changed()).await.expect("it looks").unwrap();
        let now = Instant::now();
        assert!(last.is_none_or(|last| now - last == LOOK_EVERY), "{:?}", last.map(|last| now - last));
        last = Some(now);
        let (count, labels) = looks.borrow_and_update().clone();
        assert_eq!((count, labels), (round, labels::of_home(&fixture.host.inner.fingerprint)));
    }
}
