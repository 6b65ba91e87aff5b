//! Looks from inside a network that was just made whether it is as closed as it should be: engines say nothing when it isn't
//! (`com.docker.network.bridge.enable_icc` on one that doesn't know it, two engines on one machine whose rules undo each other's).
//!
//! What is looked at is connections, not rules. Refused by a closed port means that the way is open, so nothing need listen; one port of
//! this machine is opened all the same.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use super::{
    super::connection::Connection,
    bridge::reached_directly,
    helper::{Ended, Helper, Program, Task},
};
use crate::error::{Error, ErrorKind, Result};

/// A port that nothing listens on (nobody assigned it): where it is reached, it is refused.
const NOBODYS_PORT: u16 = 4;

const GATEWAY: &str = "gateway";
const PEER: &str = "peer";
const OTHER: &str = "other";

/// Something that must not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// What it is, in one word.
    name: &'static str,
    address: SocketAddr,
}

/// A container of another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its id.
    pub(super) container: String,
    /// Its address there.
    pub(super) address: IpAddr,
}

/// What is to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Probe<'a> {
    /// The network's id.
    pub(super) network: &'a str,
    /// Its bridge.
    pub(super) bridge: &'a str,
    /// Its gateways.
    pub(super) gateways: &'a [IpAddr],
    /// Whether its members may reach each other.
    pub(super) meet: bool,
    /// Containers of other networks.
    pub(super) others: Vec<Member>,
}

/// What was seen besides, in a network that is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whom its members are told to ask for names.
    pub(super) resolvers: Vec<IpAddr>,
}

impl Probe<'_> {
    /// Looks. `closing` is what must be done before, beside which who looks and a peer are started already.
    ///
    /// # Errors
    /// `Unsupported`, naming what was reached.
    pub(super) async fn look(
        &self,
        connection: &Connection,
        name: &str,
        closing: impl Future<Output = Result<()>>,
    ) -> Result<Seen> {
        let what = format!("looking whether the network {name:?} is closed");
        let helper = |program| {
            let network = self.network.to_owned();
            Helper::create(connection, Task { what: what.clone(), program, network, administers: false })
        };
        let waits = Program::Script("sleep 60", Vec::new());
        let (peer, looker) = tokio::try_join!(helper(waits), helper(Program::Agent(&["reach"])))?;
        let started = async {
            peer.start().await?;
            peer.addresses().await
        };
        let looked = async {
            let (peer, mut looking, ()) = tokio::try_join!(started, looker.begin(), closing)?;
            // A port of this machine, on all its addresses: where the engine is elsewhere, nobody's.
            let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
            let listening = listener.local_addr()?.port();
            let targets = self.targets(&peer, listening);
            let lines = targets
                .iter()
                .map(|target| format!("{} {} {}\n", target.name, target.address.ip(), target.address.port()));
            looking.tell(&(lines.collect::<String>() + ".\n")).await?;
            let ended = looking.ended().await?;
            if ended.output.contains("are not understood") {
                let message = format!("{what}: the agent of the helper's image looks at nothing");
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .hint("it is of an earlier version: build the core image anew (`corehold image build`)"));
            }
            let reached = peer.iter().find(|peer| peer.is_ipv4());
            if let Some(peer) = reached.filter(|_| reached_directly(self.bridge, self.gateways)) {
                reaches(*peer).await.map_err(|error| error.context(&what))?;
            }
            let mut open = open(&targets, &ended);
            if open.iter().any(|target| target.name == OTHER) {
                // Who has ended meanwhile, and whose network went with it, was somebody else's address then.
                let now = super::members_of_others(connection, self.network).await?;
                let still = |address| self.others.iter().any(|other| other.address == address && now.contains(other));
                open.retain(|target| target.name != OTHER || still(target.address.ip()));
            }
            verdict(&what, &open, &ended)?;
            Ok(Seen { resolvers: resolvers(&ended) })
        }
        .await;
        peer.leave();
        looker.leave();
        looked
    }

    fn targets(&self, peer: &[IpAddr], listening: u16) -> Vec<Target> {
        let gateway = self.gateways.iter().flat_map(|gateway| {
            // It listens by IPv4.
            let listening = Some(listening).filter(|_| gateway.is_ipv4());
            let ports = [listening, Some(NOBODYS_PORT)].into_iter().flatten();
            ports.map(move |port| Target { name: GATEWAY, address: SocketAddr::new(*gateway, port) })
        });
        let peer = peer.iter().filter(|_| !self.meet);
        let peer = peer.map(|peer| Target { name: PEER, address: (*peer, NOBODYS_PORT).into() });
        let others =
            self.others.iter().map(|other| Target { name: OTHER, address: (other.address, NOBODYS_PORT).into() });
        gateway.chain(peer).chain(others).collect()
    }
}

/// That the host isn't shut out too; a peer at which nothing could arrive would seem closed for another reason.
async fn reaches(peer: IpAddr) -> Result<()> {
    let attempt = TcpStream::connect((peer, NOBODYS_PORT));
    match tokio::time::timeout(std::time::Duration::from_secs(3), attempt).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(Error::new(ErrorKind::Unsupported, "this host doesn't reach a container in it")
            .hint("a firewall of the machine may be in the way; with DockerOptions::publish_agent it isn't gone by")),
    }
}

fn resolvers(ended: &Ended) -> Vec<IpAddr> {
    ended.output.lines().filter_map(|line| line.strip_prefix("resolver ")?.trim().parse().ok()).collect()
}

/// What may be open: whatever wasn't seen closed.
fn open(targets: &[Target], ended: &Ended) -> Vec<Target> {
    let seen_closed = |target: &Target| {
        let closed = format!("{} {} {}: closed", target.name, target.address.ip(), target.address.port());
        ended.output.lines().any(|line| line.trim_end() == closed)
    };
    targets.iter().filter(|target| !seen_closed(target)).cloned().collect()
}

fn verdict(what: &str, open: &[Target], ended: &Ended) -> Result<()> {
    if open.is_empty() {
        return Ok(());
    }
    let reached: Vec<String> = open
        .iter()
        .map(|target| match target.name {
            GATEWAY => format!("the engine's machine, at {}", target.address),
            PEER => format!("another container of the network, at {}", target.address.ip()),
            _ => format!("a container of another network, at {}", target.address.ip()),
        })
        .collect();
    let message = format!("{what}: from inside, this is reached: {}", reached.join("; "));
    Err(Error::new(ErrorKind::Unsupported, message)
        .hint(
            "something undoes the engine's rules or ours, such as a second engine or a firewall manager: `nft list ruleset` \
             on its machine shows the rules, and restarting the engine puts its own in place again; where it is another \
             container of the network, its machine's kernel may show no rule what a bridge carries: `modprobe br_netfilter`",
        )
        .with_output(ended.output.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Target> {
        let probe = Probe {
            network: "n",
            bridge: "b",
            gateways: &["10.213.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            meet: false,
            others: vec![Member { container: "c".to_owned(), address: "172.17.0.2".parse().unwrap() }],
        };
        probe.targets(&["10.213.0.2".parse().unwrap()], 40_000)
    }

    fn judge(output: &str) -> Result<()> {
        let ended = Ended { code: 0, output: output.to_owned() };
        verdict("x", &open(&targets(), &ended), &ended)
    }

    const CLOSED: &str = "gateway 10.213.0.1 40000: closed\ngateway 10.213.0.1 4: closed\ngateway fd00::1 4: closed\npeer 10.213.0.2 4: closed\nother 172.17.0.2 4: closed\n";

    #[test]
    fn only_what_was_seen_closed_is_closed() {
        judge(CLOSED).unwrap();
        for line in CLOSED.lines() {
            let missing = CLOSED.replace(line, "");
            assert_eq!(judge(&missing).unwrap_err().kind(), ErrorKind::Unsupported, "{line}");
            let reached = CLOSED.replace(line, &line.replace("closed", "reached"));
            let error = judge(&reached).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{line}");
            let address = line.split(' ').nth(1).unwrap();
            assert!(error.to_string().contains(address), "{error}");
        }
        assert!(judge("corehold-agent: command not found").is_err());
    }

    #[test]
    fn members_that_may_meet_are_not_kept_apart() {
        let probe = Probe { network: "n", bridge: "b", gateways: &[], meet: true, others: Vec::new() };
        assert!(probe.targets(&["10.213.0.2".parse().unwrap()], 1).is_empty());
    }

    #[test]
    fn whom_members_ask_for_names_is_seen() {
        let output = "resolver 10.213.0.1\nresolver fd00::1\nresolver x\ngateway 10.213.0.1 4: closed\n".to_owned();
        let named = ["10.213.0.1", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(resolvers(&Ended { code: 0, output }), named);
    }
}
