//! Networks as they are from inside: what a workspace reaches of the engine's machine and of its neighbours, and what is refused.
//! Only addresses of this machine's own bridges are tried.

use std::{
    net::{IpAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use corehold_e2e::{
    conformance::{Subject, ipv6_addresses},
    corehold::Corehold,
    engine::{Engine, OUTSIDE, OUTSIDE_LINK_LOCAL, OUTSIDE_METADATA, OUTSIDE_METADATA6, OUTSIDE_PRIVATE, OUTSIDE6},
};
use corehold_host::{
    CreateWorkspace, ErrorKind, Network, Workspace,
    policy::{Isolation, Policy},
    runtime::{
        ContainerId, ContainerSpec, Egress, NetworkMade, NetworkSpec, Runtime as _, Subnet,
        docker::{Docker, DockerOptions},
    },
};

/// An engine whose networks are closed, as they are by default.
pub(crate) async fn closed(engine: &Engine, change: impl FnOnce(&mut DockerOptions)) -> (Docker, Subject) {
    let mut options = engine.options();
    options.host_may_be_reached = false;
    options.containers_may_meet = false;
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

/// The bridge's name, by its address: Podman doesn't tell it.
async fn bridge(engine: &Engine) -> String {
    let found = as_administrator(
        engine,
        &format!("grep -l . /sys/class/net/*/bridge/bridge_id | cut -d/ -f5 | while read -r bridge; do
            nft list map inet corehold gateways | grep -q \"{} : jump mark_$bridge\" && echo bridge=$bridge; done; true", gateway(engine).await),
    )
    .await;
    let name = found.1.split("bridge=").nth(1).unwrap_or_else(|| panic!("{found:?}"));
    name.chars().take_while(|character| character.is_ascii_alphanumeric()).collect()
}

/// Runs a script with the engine's own network and a say in its firewall, as an administrator of its machine would.
async fn as_administrator(engine: &Engine, script: &str) -> (i64, String) {
    let allowed = serde_json::json!({ "NetworkMode": "host", "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"] });
    let (id, code) = engine.run_script(script, allowed).await;
    (code, engine.request("GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), "").await.1)
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
    let address = other["IPAM"]["Config"][0]["Gateway"].as_str().unwrap_or_default();
    // Podman makes its bridge with the first container.
    if std::net::TcpStream::connect((address, port)).is_ok() {
        let said = subject.ask_text(&container, &format!("connect {address}:{port}")).await;
        assert!(said.starts_with("error: No route to host"), "{said}");
    }

    for id in [before, container] {
        open.remove(&id).await.unwrap();
    }
    let bridge = bridge(&engine).await;
    assert!(rules(&engine, &bridge).await.contains(&bridge));
    // What is left of one whose rules somebody else removed in part: it is in nobody's way.
    let part = format!("x{}", &bridge[1..]);
    let left = as_administrator(&engine, &format!("nft add element inet corehold bridges '{{ \"{part}\" }}'")).await;
    assert_eq!(left.0, 0, "{left:?}");
    docker.remove_unused().await.unwrap();
    assert_eq!(rules(&engine, &bridge).await, "", "its rules go with it");
    if bridge.starts_with("chp") {
        as_administrator(&engine, &format!("nft delete element inet corehold bridges '{{ \"{part}\" }}'")).await;
    } else {
        assert_eq!(rules(&engine, &part).await, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_somebody_removed_are_set_again_before_the_next_start() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (docker, subject) = closed(&engine, |_| ()).await;
    let first = subject.started(&subject.spec("first")).await;
    let (bridge, machine) = (bridge(&engine).await, format!("{}:{port}", gateway(&engine).await));
    docker.stop(&first, Duration::ZERO).await.unwrap();
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
async fn rules_that_somebody_removed_are_set_again_while_a_workspace_runs() {
    let engine = Engine::start().await;
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (docker, subject) = closed(&engine, |_| ()).await;
    let container = subject.started(&subject.spec("on")).await;
    let named = own(&engine, &docker, "named", false, Egress::Internet).await;
    member(&subject, "named", &named).await;
    let labels = engine.labels();
    assert_eq!(docker.close_networks_again(&labels).await.unwrap(), Vec::<String>::new(), "they stand");
    let (bridge, machine) = (bridge(&engine).await, format!("{}:{port}", gateway(&engine).await));
    let lines =
        ["to_host", "to_others"].map(|map| format!("nft delete element inet corehold {map} '{{ \"{bridge}\" }}'"));
    let removed =
        as_administrator(&engine, &format!("{} && nft flush chain inet corehold mark_{bridge}", lines.join(" && ")))
            .await;
    assert_eq!(removed.0, 0, "{removed:?}");
    assert_eq!(subject.ask_text(&container, &format!("connect {machine}")).await, "connected", "it is open");

    // As a host asks every ten seconds; by a process that knows nothing of the network.
    let (later, _) = closed(&engine, |_| ()).await;
    let closed_again = later.close_networks_again(&labels).await.unwrap();
    if docker.describe().await.unwrap().name == "podman" && closed_again.is_empty() {
        return;
    }
    assert_eq!(closed_again, [engine.options().network]);
    let said = subject.ask_text(&container, &format!("connect {machine}")).await;
    assert!(said.starts_with("error: No route to host"), "{said}");
    assert_eq!(later.close_networks_again(&labels).await.unwrap(), Vec::<String>::new());
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
pub(crate) async fn own(engine: &Engine, docker: &Docker, name: &str, meet: bool, egress: Egress) -> NetworkSpec {
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
pub(crate) async fn member(subject: &Subject, name: &str, network: &NetworkSpec) -> (ContainerId, String) {
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
    // What a bridge drops is not answered.
    let closed_ways = ["error: No route to host", "error: connection timed out"];
    for (from, to) in [(&first, &at_second), (&first, &at_one), (&one, &at_first), (&one, &at_second)] {
        let said = subject.ask_text(from, &format!("connect {to}")).await;
        assert!(closed_ways.iter().any(|way| said.starts_with(way)), "{to}: {said}");
    }
    assert!(!docker.release_network(&team.name).await.unwrap(), "somebody is in it");
    docker.stop(&one, Duration::ZERO).await.unwrap();

    // Another process knows it by the container alone.
    assert_eq!(engine.request("DELETE", &format!("/containers/{}?force=1", engine.name("team-2")), "").await.0, 204);
    let removed = engine.request("DELETE", &format!("/networks/{}", team.name), "").await;
    if docker.describe().await.unwrap().name == "podman" {
        // It keeps a network for those that don't run, too.
        return assert_eq!(removed.0, 500, "{removed:?}");
    }
    assert_eq!(removed.0, 204, "{removed:?}");
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
    // Nobody was ever in it, and who looked from inside leaves beside what is done.
    assert!(docker.release_network(&first.name).await.unwrap());
}

/// How far a member of a network gets towards what is answered for outside.
async fn way(subject: &Subject, from: &ContainerId, target: &str) -> &'static str {
    match subject.ask_text(from, &format!("connect {target}")).await {
        said if said.contains("refused") => "out",
        said if said.contains("No route to host") => "closed",
        said => panic!("{target}: {said}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_lets_out_what_it_names() {
    let engine = Engine::start().await;
    let (docker, subject) = closed(&engine, |_| ()).await;
    engine.answer_for_outside().await;
    let (public, private, link_local) = (OUTSIDE.ip(), OUTSIDE_PRIVATE, OUTSIDE_LINK_LOCAL);
    let named = vec![format!("{public}:443").parse().unwrap()];
    let mut seen = Vec::new();
    for (name, egress) in
        [("open", Egress::Open), ("internet", Egress::Internet), ("only", Egress::Only(named)), ("none", Egress::None)]
    {
        let network = own(&engine, &docker, name, false, egress).await;
        let (id, _) = member(&subject, name, &network).await;
        let reached = [(public, "443 80 53"), (private, "443 53"), (link_local, "443 53")];
        let metadata = OUTSIDE_METADATA.map(|address| (address, "80 53"));
        for (address, ports) in reached.into_iter().chain(metadata) {
            let mut ways = Vec::new();
            for port in ports.split(' ') {
                ways.push(format!("{port} {}", way(&subject, &id, &format!("{address}:{port}")).await));
            }
            seen.push(format!("{name} {address}: {}", ways.join(", ")));
        }
        let (_, container) = engine.request("GET", &format!("/containers/{}/json", id.0), "").await;
        let container: serde_json::Value = serde_json::from_str(&container).unwrap();
        let asks_nobody = container["HostConfig"]["Dns"].to_string().contains("192.0.2.1");
        assert_eq!(asks_nobody, name == "none", "{name}");
    }
    let wanted = "\
open 203.0.113.7: 443 out, 80 out, 53 out
open 10.210.9.9: 443 out, 53 out
open 169.254.7.7: 443 closed, 53 closed
open 100.100.100.200: 80 closed, 53 closed
open 168.63.129.16: 80 closed, 53 closed
open 192.0.0.192: 80 closed, 53 closed
internet 203.0.113.7: 443 out, 80 out, 53 out
internet 10.210.9.9: 443 closed, 53 closed
internet 169.254.7.7: 443 closed, 53 closed
internet 100.100.100.200: 80 closed, 53 closed
internet 168.63.129.16: 80 closed, 53 closed
internet 192.0.0.192: 80 closed, 53 closed
only 203.0.113.7: 443 out, 80 closed, 53 closed
only 10.210.9.9: 443 closed, 53 closed
only 169.254.7.7: 443 closed, 53 closed
only 100.100.100.200: 80 closed, 53 closed
only 168.63.129.16: 80 closed, 53 closed
only 192.0.0.192: 80 closed, 53 closed
none 203.0.113.7: 443 closed, 80 closed, 53 closed
none 10.210.9.9: 443 closed, 53 closed
none 169.254.7.7: 443 closed, 53 closed
none 100.100.100.200: 80 closed, 53 closed
none 168.63.129.16: 80 closed, 53 closed
none 192.0.0.192: 80 closed, 53 closed";
    assert_eq!(seen.join("\n"), wanted);
}

/// What systemd-resolved leaves, in place of the machine's own file: where its resolver can't be reached from a container, none is open.
const LOOPBACK_ALONE: &str = r#"echo nameserver 127.0.0.53 >/etc/loopback.conf
rm /usr/bin/awk && cat >/usr/bin/awk <<'END' && chmod 755 /usr/bin/awk
#!/bin/bash
machine=/etc/resolv.conf loopback=/etc/loopback.conf
exec mawk "${@/#$machine/$loopback}"
END"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_machines_resolver_is_its_own_loopbacks_nobody_elses_is_open() {
    let engine = Engine::start().await;
    let image = engine.helper_image("loopback", LOOPBACK_ALONE).await;
    let (docker, subject) = closed(&engine, |options| options.helper_image = image).await;
    engine.answer_for_outside().await;
    let named = vec![format!("{}:443", OUTSIDE.ip()).parse().unwrap()];
    for (name, egress) in
        [("open", Egress::Open), ("internet", Egress::Internet), ("only", Egress::Only(named.clone()))]
    {
        let network = own(&engine, &docker, name, false, egress.clone()).await;
        let (id, _) = member(&subject, name, &network).await;
        for metadata in OUTSIDE_METADATA.into_iter().chain([OUTSIDE_LINK_LOCAL]) {
            assert_eq!(way(&subject, &id, &format!("{metadata}:53")).await, "closed", "{name} {metadata}");
        }
        let private = if egress == Egress::Open { "out" } else { "closed" };
        assert_eq!(way(&subject, &id, &format!("{OUTSIDE_PRIVATE}:53")).await, private, "{name}");
        let public = if matches!(egress, Egress::Only(_)) { "closed" } else { "out" };
        assert_eq!(way(&subject, &id, &format!("{}:53", OUTSIDE.ip())).await, public, "{name}");
        assert_eq!(way(&subject, &id, &format!("{}:443", OUTSIDE.ip())).await, "out", "{name}");
    }
    // The machine's own resolvers are in the table again.
    let (docker, _) = closed(&engine, |_| ()).await;
    own(&engine, &docker, "after", false, Egress::Only(named)).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_ipv6_nothing_is_reached_either() {
    let engine = Engine::start().await;
    let (docker, subject) = closed(&engine, |_| ()).await;
    // Somebody has made it so before.
    let number = std::process::id() as u16;
    let (gateway, four) = (format!("fd00:c0de:{number:x}::1"), [10, 212, (number >> 8) as u8, number as u8 & 0xc0]);
    let four = Subnet::of(four.into(), 26);
    let network = serde_json::json!({
        "Name": engine.options().network, "Driver": "bridge", "EnableIPv6": true, "Labels": engine.labels(),
        "Options": { "com.docker.network.bridge.enable_icc": "false" },
        "IPAM": { "Config": [
            { "Subnet": format!("fd00:c0de:{number:x}::/64"), "Gateway": gateway },
            { "Subnet": four.to_string(), "Gateway": four.gateway().to_string() },
        ] },
    });
    let (status, made) = engine.request("POST", "/networks/create", &network.to_string()).await;
    assert!(status == 201 || status == 200, "{made}");
    if docker.describe().await.unwrap().name == "podman" {
        // Which doesn't tell its bridge's name.
        let error = docker.create(&subject.spec("six")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    } else {
        let (one, two) = (subject.started(&subject.spec("six-1")).await, subject.started(&subject.spec("six-2")).await);
        let own = ipv6_addresses(&subject, &one).await;
        assert!(own.iter().any(|address| !address.is_unicast_link_local()), "it has an address to ask from: {own:?}");
        let other = ipv6_addresses(&subject, &two).await.into_iter().find(|address| !address.is_unicast_link_local());
        let listener = TcpListener::bind(("::", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((gateway.as_str(), port)).expect("there is something to be reached");
        for target in [format!("[{gateway}]:{port}"), format!("[{gateway}]:4"), format!("[{}]:4", other.unwrap())] {
            let said = subject.ask_text(&one, &format!("connect {target}")).await;
            assert!(said.starts_with("error") && !said.contains("refused"), "{target}: {said}");
        }
        // A machine without a way out by IPv6 has none for its members.
        engine.answer_for_outside().await;
        let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap();
        let leads_out = |route: &str| {
            let columns: Vec<_> = route.split_whitespace().collect();
            columns[0].bytes().all(|digit| digit == b'0') && columns[1] == "00" && columns[9] != "lo"
        };
        let gets_out = subject.ask_text(&one, &format!("connect [{OUTSIDE6}]:80")).await;
        assert_eq!(gets_out.contains("refused"), routes.lines().any(leads_out), "{gets_out}");
        let said = subject.ask_text(&one, &format!("connect [{OUTSIDE_METADATA6}]:80")).await;
        assert!(said.starts_with("error") && !said.contains("refused"), "{said}");
        for id in [one, two] {
            docker.remove(&id).await.unwrap();
        }
    }
    assert_eq!(engine.request("DELETE", &format!("/networks/{}", engine.options().network), "").await.0, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_networks_can_be_closed_is_told_beforehand_and_leaves_nothing() {
    let engine = Engine::start().await;
    let (docker, _) = closed(&engine, |_| ()).await;
    docker.can_close_networks().await.unwrap();
    assert!(network(&engine).await.is_none());
    let tables =
        as_administrator(&engine, "nft list tables; nft list table inet corehold 2>&1 | grep -c try; true").await.1;
    assert!(tables.contains('0') && !tables.contains("try"), "{tables}");

    let error = engine.docker.can_close_networks().await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("host_may_be_reached"), "it is configured so: {error}");
    let without = engine.helper_image("none", "rm /usr/sbin/nft").await;
    let (docker, _) = closed(&engine, |options| options.helper_image = without).await;
    let error = docker.can_close_networks().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("has no nft"), "{error}");
}

/// Whether a workspace gets out to an address.
async fn gets_out(workspace: &Workspace, address: IpAddr) -> bool {
    let line = format!("bash -c 'exec 3<>/dev/tcp/{address}/443'");
    let said = workspace.command(line).run().await.unwrap().stderr_text();
    match said {
        said if said.contains("refused") => true,
        said if said.contains("No route to host") => false,
        said => panic!("{address}: {said}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_lets_its_team_out_no_further_than_it_says() {
    let (corehold, engine) = tokio::join!(Corehold::start(), Engine::start());
    engine.answer_for_outside().await;
    let (public, private) = (OUTSIDE.ip(), OUTSIDE_PRIVATE);
    let modes = Policy::new()
        .isolation(Isolation::new("closed").egress(Egress::None))
        .isolation(Isolation::new("internet").egress(Egress::Internet))
        .default_isolation("internet");
    let host = corehold.builder().policy(modes).build().await.unwrap();
    host.set_isolation("acme", Some("closed")).await.unwrap();
    let request = || CreateWorkspace::empty().team("acme");
    for weaker in [Egress::Open, Egress::Internet] {
        let error = host.create(request().network(Network::team().egress(weaker))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    }
    let workspace = host.create(request().network(Network::team())).await.unwrap();
    assert!(!gets_out(&workspace, public).await && !gets_out(&workspace, private).await);
    // Another mode is for the next container.
    host.set_isolation("acme", Some("internet")).await.unwrap();
    assert!(!gets_out(&workspace, public).await);
    workspace.sleep(Duration::ZERO).await.unwrap();
    workspace.wake().await.unwrap();
    assert!(gets_out(&workspace, public).await && !gets_out(&workspace, private).await);
    workspace.remove().await.unwrap();
    host.settled().await;
}
