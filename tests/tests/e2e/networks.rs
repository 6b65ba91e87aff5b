//! Networks as they are from inside: what a workspace reaches of the engine's machine and of its neighbours, and what is refused.
//! Only addresses of this machine's own bridges are tried.

use std::{net::TcpListener, sync::Arc};

use corehold_e2e::{conformance::Subject, engine::Engine};
use corehold_host::{
    ErrorKind,
    runtime::{
        ContainerId, ContainerSpec, Egress, NetworkMade, NetworkSpec, Runtime as _, Subnet,
        docker::{Docker, DockerOptions},
    },
};

/// An engine whose networks are closed, as they are by default.
async fn closed(engine: &Engine, change: impl FnOnce(&mut DockerOptions)) -> (Docker, Subject) {
    let mut options = engine.options();
    options.host_may_be_reached = false;
    change(&mut options);
    let docker = Docker::connect_with(options).await.unwrap();
    let subject = Subject { runtime: Arc::new(docker.clone()), ..engine.subject() };
    (docker, subject)
}

/// What the engine says of this test's network.
async fn network(engine: &Engine) -> Option<serde_json::Value> {
    let (status, body) = engine.request("GET", &format!("/networks/{}", engine.options().network), "").await;
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

async fn gateway(engine: &Engine) -> String {
    network(engine).await.unwrap()["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned()
}

async fn bridge(engine: &Engine) -> String {
    network(engine).await.unwrap()["Options"]["com.docker.network.bridge.name"].as_str().unwrap().to_owned()
}

/// Runs a script with the engine's own network and a say in its firewall, as an administrator of its machine would.
async fn as_administrator(engine: &Engine, script: &str) -> (i64, String) {
    let body = serde_json::json!({
        "Image": corehold_host::config::DEFAULT_IMAGE, "User": "0", "Entrypoint": ["sh", "-c", script], "Labels": engine.labels(),
        "Tty": true, "HostConfig": { "NetworkMode": "host", "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"] },
    });
    let (_, created) = engine.request("POST", "/containers/create", &body.to_string()).await;
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    let id = created["Id"].as_str().unwrap_or_else(|| panic!("{created}"));
    engine.request("POST", &format!("/containers/{id}/start"), "").await;
    let ended = engine.request("POST", &format!("/containers/{id}/wait"), "").await.1;
    let ended: serde_json::Value = serde_json::from_str(ended.trim()).unwrap();
    let said = engine.request("GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), "").await.1;
    (ended["StatusCode"].as_i64().unwrap(), said)
}

/// Of this test's own bridge alone: other tests' are on the same machine.
async fn rules(engine: &Engine, bridge: &str) -> String {
    as_administrator(engine, &format!("nft list table inet corehold | grep {bridge}")).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_machine_is_closed_and_this_host_still_reaches_its_workspaces() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, open_subject) = (engine.docker.clone(), engine.subject());
    let (docker, subject) = closed(&engine, |_| ()).await;

    let before = open_subject.started(&open_subject.spec("before")).await;
    let machine = format!("{}:{port}", gateway(&engine).await);
    assert_eq!(
        open_subject.ask_text(&before, &format!("connect {machine}")).await,
        "connected",
        "that is how engines are"
    );

    // The network is there already: it is closed all the same, and its members with it.
    let container = subject.started(&subject.spec("after")).await;
    for id in [&container, &before] {
        let said = subject.ask_text(id, &format!("connect {machine}")).await;
        assert!(said.starts_with("error: No route to host"), "{said}");
    }
    // By any of the machine's addresses.
    let other = engine.request("GET", "/networks/bridge", "").await.1;
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    if let Some(address) = other["IPAM"]["Config"][0]["Gateway"].as_str() {
        let said = subject.ask_text(&container, &format!("connect {address}:{port}")).await;
        assert!(said.starts_with("error: No route to host"), "{said}");
    }

    for id in [before, container] {
        open.remove(&id).await.unwrap();
    }
    let bridge = bridge(&engine).await;
    assert!(rules(&engine, &bridge).await.contains(&bridge));
    docker.remove_unused().await.unwrap();
    assert_eq!(rules(&engine, &bridge).await, "", "its rules go with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_somebody_removed_are_set_again_before_the_next_start() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (docker, subject) = closed(&engine, |_| ()).await;
    let first = subject.started(&subject.spec("first")).await;
    let (bridge, machine) = (bridge(&engine).await, format!("{}:{port}", gateway(&engine).await));
    docker.stop(&first, std::time::Duration::ZERO).await.unwrap();
    // What a restart of the machine or `nft flush ruleset` would do, for this network alone.
    let lines =
        ["to_host", "to_others"].map(|map| format!("nft delete element inet corehold {map} '{{ \"{bridge}\" }}'"));
    let removed =
        as_administrator(&engine, &format!("{} && nft flush chain inet corehold mark_{bridge}", lines.join(" && ")))
            .await;
    assert_eq!(removed.0, 0, "{removed:?}");
    // A network that had the address before, whose rules nobody has swept.
    let gateway = gateway(&engine).await;
    let stale = format!(
        "nft -f - <<'END'
add chain inet corehold mark_x{bridge}
delete element inet corehold gateways {{ {gateway} }}
add element inet corehold gateways {{ {gateway} : jump mark_x{bridge} }}
END"
    );
    let changed = as_administrator(&engine, &stale).await;
    assert_eq!(changed.0, 0, "{changed:?}");

    docker.start(&first).await.unwrap();
    let said = subject.ask_text(&first, &format!("connect {machine}")).await;
    assert!(said.starts_with("error: No route to host"), "{said}");
    // Nothing leads to it any more.
    let removed = as_administrator(&engine, &format!("nft delete chain inet corehold mark_x{bridge}")).await;
    assert_eq!(removed.0, 0, "{removed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_the_machine_that_are_named_stay_open() {
    let engine = Engine::start().await;
    let listeners = [(); 2].map(|()| TcpListener::bind(("0.0.0.0", 0)).unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let (_docker, subject) = closed(&engine, |options| options.host_ports = vec![ports[0]]).await;
    let container = subject.started(&subject.spec("named")).await;
    let gateway = gateway(&engine).await;
    assert_eq!(subject.ask_text(&container, &format!("connect {gateway}:{}", ports[0])).await, "connected");
    let said = subject.ask_text(&container, &format!("connect {gateway}:{}", ports[1])).await;
    assert!(said.starts_with("error: No route to host"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_not_closed_though_rules_were_set_is_refused_and_removed() {
    let engine = Engine::start().await;
    // Says that it has set the rules, and has not.
    let idle = engine.helper_image("idle", "ln -sf /bin/true /usr/sbin/nft").await;
    let (docker, subject) = closed(&engine, |options| options.helper_image = idle).await;
    let error = docker.create(&subject.spec("open")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("from inside, this is reached: the engine's machine, at "), "{error}");
    assert!(network(&engine).await.is_none(), "nobody shall take it for a closed one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_firewall_can_be_set_it_is_told_why_and_what_would_do_without() {
    let engine = Engine::start().await;
    for (image, why) in [
        ("corehold-test/nowhere:1".to_owned(), "which is not there"),
        (engine.helper_image("without", "rm /usr/sbin/nft").await, "has no nft"),
        (
            engine
                .helper_image("denied", "printf '#!/bin/sh\\necho Operation not permitted; exit 1' >/usr/sbin/nft")
                .await,
            "no say",
        ),
    ] {
        let (docker, subject) = closed(&engine, |options| options.helper_image = image).await;
        let error = docker.create(&subject.spec("none")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.hint_text().unwrap().contains("host_may_be_reached"), "{error:?}");
        assert!(network(&engine).await.is_none());
    }
    let subject = engine.subject();
    subject.started(&subject.spec("by-configuration")).await;
}

/// A network of its own, with addresses that nobody has: other tests look for some at the same time.
async fn own(engine: &Engine, docker: &Docker, name: &str, meet: bool, egress: Egress) -> NetworkSpec {
    let name = engine.name(name);
    let first =
        name.bytes().fold(u32::from(std::process::id() as u16), |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    for number in 0..256 {
        let subnet = Subnet::of([10, 211, (first.wrapping_add(number) % 256) as u8, 0].into(), 26);
        let spec = NetworkSpec::named(&name).subnet(subnet).meet(meet).egress(egress.clone());
        if docker.ensure_network(&spec).await.unwrap() == NetworkMade::There {
            return spec;
        }
    }
    panic!("no subnet is left for {name}");
}

/// A container in a network, and where others would reach it.
async fn member(subject: &Subject, name: &str, network: &NetworkSpec) -> (ContainerId, String) {
    let id = subject.started(&ContainerSpec { network: Some(network.clone()), ..subject.spec(name) }).await;
    let table = subject.ask_text(&id, "read /proc/net/fib_trie").await;
    // Of the last line that has no name: its own.
    let lines: Vec<_> = table.lines().map(|line| line.trim().trim_start_matches("|-- ")).collect();
    let own = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host") && !pair[0].starts_with("127."));
    let own = own.map(|pair| pair[0]).next().unwrap_or_else(|| panic!("{table}"));
    (id, format!("{own}:3001"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_meet_where_they_may_and_nobody_reaches_another_network() {
    let engine = Engine::start().await;
    let (docker, subject) = closed(&engine, |_| ()).await;
    let (apart, team) = tokio::join!(
        own(&engine, &docker, "apart", false, Egress::Open),
        own(&engine, &docker, "team", true, Egress::Open)
    );
    let (first, at_first) = member(&subject, "apart-1", &apart).await;
    let (_, at_second) = member(&subject, "apart-2", &apart).await;
    let (one, at_one) = member(&subject, "team-1", &team).await;
    let (_, at_other) = member(&subject, "team-2", &team).await;
    assert!(at_first.starts_with("10.211."), "its addresses are those that were asked for: {at_first}");
    assert_eq!(subject.ask_text(&one, &format!("connect {at_other}")).await, "connected");
    for (from, to) in [(&first, &at_second), (&first, &at_one), (&one, &at_first), (&one, &at_second)] {
        let said = subject.ask_text(from, &format!("connect {to}")).await;
        assert!(said.starts_with("error: No route to host"), "{to}: {said}");
    }
    assert!(!docker.release_network(&team.name).await.unwrap(), "somebody is in it");
    docker.stop(&one, std::time::Duration::ZERO).await.unwrap();

    // Another process knows it by the container alone.
    assert_eq!(engine.request("DELETE", &format!("/containers/{}?force=1", engine.name("team-2")), "").await.0, 204);
    assert_eq!(engine.request("DELETE", &format!("/networks/{}", team.name), "").await.0, 204);
    let (later, _) = closed(&engine, |_| ()).await;
    later.start(&one).await.unwrap();
    let body = engine.request("GET", &format!("/networks/{}", team.name), "").await.1;
    assert!(body.contains(&team.subnet.unwrap().to_string()), "made anew with the same addresses: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subnet_that_is_somebody_elses_is_told_and_nothing_is_made() {
    let engine = Engine::start().await;
    let (docker, _) = closed(&engine, |_| ()).await;
    let first = own(&engine, &docker, "first", false, Egress::Open).await;
    // The whole, a part, and one that a route of the machine leads to: its own way out is one.
    let taken = first.subnet.unwrap();
    let machine = std::fs::read_to_string("/proc/net/route").unwrap();
    let routed = machine.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let number = |column: usize| u32::from_str_radix(columns[column], 16).unwrap().to_le_bytes();
        let prefix = u32::from_be_bytes(number(7)).leading_ones() as u8;
        (prefix > 0 && prefix <= 29 && !columns[0].starts_with("ch")).then(|| Subnet::of(number(1).into(), prefix))
    });
    let parts = [Some(taken), Some(Subnet::of(taken.gateway(), 28)), Some(Subnet::of(taken.gateway(), 20)), routed];
    for subnet in parts.into_iter().flatten() {
        let spec = NetworkSpec::named(engine.name("second")).subnet(subnet);
        let made = docker.ensure_network(&spec).await.unwrap();
        assert!(matches!(made, NetworkMade::SubnetTaken(_)), "{subnet}: {made:?}");
        assert_eq!(engine.request("GET", &format!("/networks/{}", spec.name), "").await.0, 404, "{subnet}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_lets_out_what_it_names() {
    let engine = Engine::start().await;
    let (docker, subject) = closed(&engine, |_| ()).await;
    // Behind our rules, another table answers for what is outside (TEST-NET-3, and some of the rest), so that no packet leaves this machine:
    // what gets so far is refused.
    let (public, private, link_local) = ("203.0.113.7", "10.210.9.9", "169.254.7.7");
    let table = format!("test{}", engine.name("").replace('-', ""));
    let outside = format!("ip daddr '{{ {public}, {private}, {link_local} }}' meta l4proto tcp reject with tcp reset");
    let lines = [
        format!("nft add table inet {table}"),
        format!("nft add chain inet {table} forward '{{ type filter hook forward priority -50; }}'"),
        format!("nft add rule inet {table} forward {outside}"),
    ];
    assert_eq!(as_administrator(&engine, &lines.join(" && ")).await.0, 0);

    let named = vec![format!("{public}:443").parse().unwrap()];
    let mut seen = Vec::new();
    for (name, egress) in
        [("open", Egress::Open), ("internet", Egress::Internet), ("only", Egress::Only(named)), ("none", Egress::None)]
    {
        let network = own(&engine, &docker, name, false, egress).await;
        let (id, _) = member(&subject, name, &network).await;
        for target in
            [format!("{public}:443"), format!("{public}:80"), format!("{private}:443"), format!("{link_local}:443")]
        {
            let said = subject.ask_text(&id, &format!("connect {target}")).await;
            let how = match said {
                said if said.contains("refused") => "out",
                said if said.contains("No route to host") => "closed",
                said => panic!("{name} {target}: {said}"),
            };
            seen.push(format!("{name} {target} {how}"));
        }
        let (_, container) = engine.request("GET", &format!("/containers/{}/json", id.0), "").await;
        let container: serde_json::Value = serde_json::from_str(&container).unwrap();
        let asks_nobody = container["HostConfig"]["Dns"].to_string().contains("192.0.2.1");
        assert_eq!(asks_nobody, name == "none", "{name}");
    }
    assert_eq!(as_administrator(&engine, &format!("nft delete table inet {table}")).await.0, 0);
    let wanted = "\
open 203.0.113.7:443 out
open 203.0.113.7:80 out
open 10.210.9.9:443 out
open 169.254.7.7:443 closed
internet 203.0.113.7:443 out
internet 203.0.113.7:80 out
internet 10.210.9.9:443 closed
internet 169.254.7.7:443 closed
only 203.0.113.7:443 out
only 203.0.113.7:80 closed
only 10.210.9.9:443 closed
only 169.254.7.7:443 closed
none 203.0.113.7:443 closed
none 203.0.113.7:80 closed
none 10.210.9.9:443 closed
none 169.254.7.7:443 closed";
    assert_eq!(seen.join("\n"), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn less_than_was_asked_for_is_never_given() {
    let engine = Engine::start().await;
    // Configured to set no firewall.
    let spec = NetworkSpec::named(engine.name("none")).egress(Egress::None);
    let error = engine.docker.ensure_network(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.hint_text().unwrap().contains("host_may_be_reached"));
    assert_eq!(engine.request("GET", &format!("/networks/{}", spec.name), "").await.0, 404);
}
