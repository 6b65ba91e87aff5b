//! What holds those inside: the kernel's means against one of them, and the network's against all of them together.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corehold_host::{
    ErrorKind,
    runtime::{ContainerId, ContainerSpec, Egress, NetworkSpec},
};
use tokio::net::{TcpListener, TcpStream};

use super::{AGENT_PORT, Feature, Subject, address, patiently};

/// A port that nothing listens on (nobody assigned it): where it is reached, it is refused.
const NOBODYS_PORT: u16 = 4;

/// What runs inside is nobody in particular: no capability, no way to gain one, not root, and itself the first process.
pub async fn hardening_seen_from_inside(subject: &Subject) {
    let id = subject.started(&subject.spec("hardening")).await;
    let status = subject.ask_text(&id, "read /proc/self/status").await;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {status}"));
        line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Pid:"), "1");
    assert_eq!(field("Uid:"), "1000 1000 1000 1000");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a seccomp filter is in force");
}

/// The subject with nothing weaker than by default, if the runtime makes such a container; if it says that it can't, nothing may be left,
/// and it must say so of itself too.
async fn strictly(subject: &Subject, feature: Feature, spec: &ContainerSpec) -> Option<Subject> {
    let strict = Subject { runtime: Arc::clone(&subject.strict), ..subject.clone() };
    let refused = match strict.runtime.create(spec).await {
        Ok(id) => {
            strict.runtime.remove(&id).await.unwrap();
            false
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(error.hint_text().is_some(), "{error}");
            let info = strict.runtime.describe().await.unwrap();
            assert!(!info.lacks.is_empty(), "it says that it lacks nothing: {info:?}");
            true
        }
        Err(error) => panic!("{error}"),
    };
    subject.saw(feature, !refused).await;
    if refused {
        assert!(subject.runtime.list(&subject.labels).await.unwrap().is_empty(), "nothing is left");
        return None;
    }
    Some(strict)
}

/// Containers don't reach each other; a runtime that can't see to it makes none, unless it is told that they may.
pub async fn containers_are_kept_apart(subject: &Subject) {
    let Some(subject) = &strictly(subject, Feature::KeptApart, &subject.spec("apart-0")).await else { return };
    let (one, two) = (subject.started(&subject.spec("apart-1")).await, subject.started(&subject.spec("apart-2")).await);
    let endpoint = subject.runtime.endpoint(&two, AGENT_PORT).await.unwrap();
    let answer = subject.ask_text(&one, &format!("connect {}", address(&endpoint))).await;
    assert!(answer.starts_with("error"), "one container reached another: {answer}");
    // By the addresses that every interface gives itself, where it does.
    for own in ipv6_addresses(subject, &two).await.into_iter().filter(Ipv6Addr::is_unicast_link_local) {
        let index = subject.ask_text(&one, "read /sys/class/net/eth0/ifindex").await;
        let answer = subject.ask_text(&one, &format!("connect [{own}%{}]:{AGENT_PORT}", index.trim())).await;
        // Nobody listens by IPv6 there: who is refused has reached it.
        assert!(answer.starts_with("error") && !answer.contains("refused"), "one container reached another: {answer}");
    }
    assert_eq!(subject.ask_text(&two, "connect 127.0.0.1:3001").await, "connected", "the question itself works");
}

/// The addresses of IPv6 that a container's interfaces have, as soon as it is seen that nobody else has them.
///
/// # Panics
/// When it can't be reached.
pub async fn ipv6_addresses(subject: &Subject, id: &ContainerId) -> Vec<Ipv6Addr> {
    // There is nothing in the table then, and nothing is no answer.
    if subject.ask_text(id, "read /proc/sys/net/ipv6/conf/eth0/disable_ipv6").await.trim() != "0" {
        return Vec::new();
    }
    patiently("addresses of IPv6", async {
        loop {
            let table = subject.ask_text(id, "read /proc/net/if_inet6").await;
            let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
            let outward: Vec<_> = lines.iter().filter(|columns| columns.len() == 6 && columns[5] != "lo").collect();
            // IFA_F_TENTATIVE.
            if !outward.iter().any(|columns| u8::from_str_radix(columns[4], 16).is_ok_and(|flags| flags & 0x40 != 0)) {
                let address = |text: &str| Ipv6Addr::from_bits(u128::from_str_radix(text, 16).expect("hexadecimal"));
                return outward.iter().map(|columns| address(columns[0])).collect();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// The gateway that a container has, as its kernel says.
async fn gateway(subject: &Subject, id: &ContainerId) -> Option<Ipv4Addr> {
    let routes = subject.ask_text(id, "read /proc/net/route").await;
    routes.lines().find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let number = u32::from_str_radix(columns.get(2)?, 16).ok()?;
        (columns[1] == "00000000" && number != 0).then(|| Ipv4Addr::from(number.to_ne_bytes()))
    })
}

/// What listens on the runtime's machine isn't reached by its containers, by the address that they know of it.
pub async fn the_machine_is_closed(subject: &Subject) {
    let Some(subject) = &strictly(subject, Feature::MachineClosed, &subject.spec("machine-0")).await else { return };
    let id = subject.started(&subject.spec("machine")).await;
    // Without a way out there is nothing that it could reach.
    let Some(gateway) = gateway(subject, &id).await else { return };
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let machine = SocketAddr::from((gateway, listener.local_addr().unwrap().port()));
    let here = TcpStream::connect(machine).await.is_ok();
    let direct = !address(&subject.runtime.endpoint(&id, AGENT_PORT).await.unwrap()).ip().is_loopback();
    assert!(here || !direct, "there is something to be reached");
    for target in [machine, (gateway, NOBODYS_PORT).into()] {
        let answer = subject.ask_text(&id, &format!("connect {target}")).await;
        assert!(answer.starts_with("error") && !answer.contains("refused"), "{target} was reached: {answer}");
    }
}

/// Without an egress nothing outside is reached, and the host still reaches the container.
pub async fn nothing_leaves_where_nothing_may(subject: &Subject) {
    let network = NetworkSpec::named(format!("{}nothing", subject.prefix)).egress(Egress::None);
    let spec = ContainerSpec { network: Some(network.clone()), ..subject.spec("nothing-0") };
    let Some(subject) = &strictly(subject, Feature::Egress, &spec).await else { return };
    let question = format!("connect {}", subject.outside);
    let closed = subject.started(&ContainerSpec { network: Some(network.clone()), ..subject.spec("nothing") }).await;
    let open = subject.started(&subject.spec("open")).await;
    let answer = subject.ask_text(&open, &question).await;
    assert!(answer == "connected" || answer.contains("refused"), "somebody is there: {answer}");
    let answer = subject.ask_text(&closed, &question).await;
    assert!(answer.starts_with("error") && !answer.contains("refused"), "{answer}");
    for id in [closed, open] {
        subject.runtime.remove(&id).await.unwrap();
    }
    assert!(subject.runtime.release_network(&network.name).await.unwrap(), "nobody is in it any more");
}
