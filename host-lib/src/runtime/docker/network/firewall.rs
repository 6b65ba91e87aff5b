//! What members of a network may reach, held by nftables in the engine's own network namespace.
//!
//! An engine keeps the members of a bridge apart and its bridges from each other, but its machine is open to them: whatever listens
//! there on all addresses, they reach by their gateway's. So there is one table of ours, `inet corehold`, whose chains come before
//! the engine's (priority `mangle`) and only ever refuse: what they let pass, the engine's own rules see as before. A packet finds
//! its network's rules by the name of the bridge that it comes from, in a map, so that a thousand networks cost it no more than one.
//! Answers pass, so this host reaches members as before.
//!
//! What goes from one member to another doesn't pass there, since a bridge carries it, but where the kernel shows it (`br_netfilter`, which
//! Docker sees to). So a second table, `bridge corehold`, keeps them apart on the bridge itself, where the kernel knows a bridge's name in
//! there (`nft_meta_bridge`); of the two one is enough, and which there is, [who looks from inside](super::probe) needn't know.
//!
//! A [helper](super::helper) sets them, in one transaction, and may do so any number of times. Whether they still stand (a restart of
//! the machine, `nft flush ruleset`) is told without one: among the rules is a **mark**, which refuses this machine's own attempts to
//! connect to one port of the network's gateway, in a way that nothing else does. The port is a hash of the rules, so the mark says
//! that these rules stand, not others. Where this process isn't on the engine's machine, they are set anew now and then.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use tokio::net::TcpStream;

use super::{
    super::{connection::Connection, engine::Engine},
    bridge,
    helper::{self, Ended, Program, Task},
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Destination, Egress, PRIVATE, PRIVATE6},
};

/// Marks are ports that neither the kernel gives to who asks for any (up to 60,999) nor services use.
const MARKS: RangeInclusive<u16> = 61_000..=65_535;

/// How long an attempt at a mark may take: it is answered by this machine's own kernel.
const MARK_PATIENCE: Duration = Duration::from_secs(1);

/// How everything is refused: at once, and as no closed port is, so that a probe can tell the two apart.
const REFUSE: &str = "reject with icmpx admin-prohibited";

/// Addresses at which clouds answer a machine about itself, credentials included: the link-local ones, and those of clouds that use
/// others (Alibaba, Azure, Oracle; AWS by IPv6).
const METADATA: &str = "169.254.0.0/16, 100.100.100.200, 168.63.129.16, 192.0.0.192";
const METADATA6: &str = "fe80::/10, fd00:ec2::254";

/// The parts that all networks share. Every line may be said again.
const TABLE: &str = "\
add table inet corehold
add set inet corehold bridges { type ifname; }
add set inet corehold uplinks { type ifname; }
add set inet corehold resolvers { type ipv4_addr; flags interval; }
add set inet corehold resolvers6 { type ipv6_addr; flags interval; }
add map inet corehold to_host { type ifname : verdict; }
add map inet corehold to_others { type ifname : verdict; }
add map inet corehold gateways { type ipv4_addr : verdict; }
add chain inet corehold input { type filter hook input priority mangle; policy accept; }
flush chain inet corehold input
add rule inet corehold input ct state established,related accept
add rule inet corehold input iifname vmap @to_host
add chain inet corehold forward { type filter hook forward priority mangle; policy accept; }
flush chain inet corehold forward
add rule inet corehold forward ct state established,related accept
add rule inet corehold forward iifname vmap @to_others
add rule inet corehold forward oifname @bridges reject with icmpx admin-prohibited
add chain inet corehold output { type filter hook output priority mangle; policy accept; }
flush chain inet corehold output
add rule inet corehold output ip daddr vmap @gateways
flush set inet corehold uplinks
flush set inet corehold resolvers
flush set inet corehold resolvers6
";

/// The same on the bridges themselves. Nothing is answered, since that can't be there: who asks learns after three seconds that nobody
/// says that he has the address.
const BETWEEN: &str = "\
add table bridge corehold
add map bridge corehold between { type ifname : verdict; }
add chain bridge corehold forward { type filter hook forward priority filter; policy accept; }
flush chain bridge corehold forward
add rule bridge corehold forward meta ibrname vmap @between
";

/// Whether the kernel shows these rules what a bridge carries; read for the mark, so that they count as fallen when that ends.
const SHOWN: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Sets the rules it is given, and what only the engine's machine knows: the interfaces that lead out of it, which may be bridges
/// themselves, and its resolvers, each by its one address. `$4` is read in place of the machine's `resolv.conf`, in tests.
///
/// Resolvers of its own loopback (systemd-resolved) need no rule: no packet from a member gets to them, and Docker's resolver inside each
/// container asks them from the machine's own network namespace, as newer ones do with all that the machine names. Where that names none,
/// older ones ask public ones (8.8.8.8) from the container, and Podman without a resolver at the gateway tells members of others
/// than the loopback's: those are outside like any other address, and an egress lets them be asked or doesn't.
///
/// The gateway that is named after the rules may still lead to those of a network that had the address before and whose rules nobody has
/// swept yet. A map takes no other value for what it has, so that is forgotten in the same transaction; if somebody else changes it in
/// between, it is tried once more.
const SET: &str = r#"set -eu
between=
if printf '%s\n' "$3" | nft -c -f - >/dev/null 2>&1; then between=$3; fi
rules() {
  if [ -n "$2" ] && nft get element inet corehold gateways "{ $2 }" >/dev/null 2>&1; then
    printf 'delete element inet corehold gateways { %s }\n' "$2"
  fi
  printf '%s\n' "$1" "$between"
  uplinks=$(awk '$2 == "00000000" && $8 == "00000000" { print $1 }' /proc/net/route
            awk '$1 ~ /^0+$/ && $2 == "00" && $10 != "lo" { print $10 }' /proc/net/ipv6_route 2>/dev/null || true)
  for uplink in $uplinks; do printf 'add element inet corehold uplinks { "%s" }\n' "$uplink"; done
  awk '$1 != "nameserver" { next }
       $2 ~ /^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$/ && $2 !~ /^(127|0)[.]/ { print "add element inet corehold resolvers { " $2 " }" }
       $2 ~ /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$/ && $2 !~ /^::1?$/ { print "add element inet corehold resolvers6 { " $2 " }" }' \
    "${4:-/etc/resolv.conf}"
}
rules "$@" | nft -f - || rules "$@" | nft -f -
cat /proc/net/route
"#;

/// Removes the rules of bridges that aren't there any more, of those that begin with `$1`, not with `$2`, and aren't named after that.
/// Each by itself, and what there is of them: one whose rules somebody else removed in part must not be in the way of the others.
const SWEEP: &str = r#"set -u
prefix=$1 others=$2 failed=0; shift 2
has() { nft "$@" >/dev/null 2>&1; }
has list table inet corehold || exit 0
for bridge in $(nft list set inet corehold bridges | grep -o '"[^"]*"' | tr -d '"'); do
  case "$bridge" in "$others"*) continue ;; "$prefix"*) ;; *) continue ;; esac
  case " $* " in *" $bridge "*) continue ;; esac
  grep -q "^ *$bridge:" /proc/net/dev && continue
  {
    nft list map inet corehold gateways | grep -Eo "[0-9.]+ : jump mark_$bridge( |,|\$)" |
      sed 's/^\([0-9.]*\) .*/delete element inet corehold gateways { \1 }/'
    for place in "inet corehold bridges" "inet corehold to_host" "inet corehold to_others" "bridge corehold between"; do
      has get element $place "{ \"$bridge\" }" && printf 'delete element %s { "%s" }\n' "$place" "$bridge"
    done
    for chain in "inet corehold host" "inet corehold others" "inet corehold mark" "bridge corehold between"; do
      has list chain ${chain}_$bridge && printf 'delete chain %s_%s\n' "$chain" "$bridge"
    done
  } | nft -f - || failed=1
done
exit $failed
"#;

/// The exit code of [`TRY`] where members of a network couldn't be kept apart.
const NOT_SHOWN: i64 = 3;

/// What members of one network may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// The bridge's name.
    pub(super) bridge: String,
    /// The bridge's own addresses.
    pub(super) gateways: Vec<IpAddr>,
    /// Whether members may reach each other.
    pub(super) meet: bool,
    /// What they may reach outside.
    pub(super) egress: Egress,
    /// TCP ports of the engine's machine that they may reach.
    pub(super) host_ports: Vec<u16>,
    /// Whether the engine's own resolver listens at the gateway, and they may ask it.
    pub(super) resolver: bool,
}

impl Rules {
    /// Rules for a bridge whose name is safe to be written into them.
    ///
    /// # Errors
    /// `Unsupported` for others.
    pub(super) fn check(self, network: &str) -> Result<Self> {
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
        if !self.bridge.is_empty() && self.bridge.len() <= 15 && self.bridge.chars().all(plain) {
            return Ok(self);
        }
        let message =
            format!("the network {network:?} can't be closed: no firewall rule can name its bridge {:?}", self.bridge);
        Err(Error::new(ErrorKind::Unsupported, message).hint("remove its network, so that it is made anew"))
    }

    /// What nft reads, in one transaction.
    fn script(&self, mark: u16) -> String {
        let bridge = &self.bridge;
        let mut script = TABLE.to_owned();
        for chain in ["host", "others", "mark"] {
            let _ = writeln!(script, "add chain inet corehold {chain}_{bridge}");
            let _ = writeln!(script, "flush chain inet corehold {chain}_{bridge}");
        }
        for (chain, rule) in self.rules() {
            let _ = writeln!(script, "add rule inet corehold {chain}_{bridge} {rule}");
        }
        let _ = writeln!(script, "add rule inet corehold mark_{bridge} tcp dport {mark} {REFUSE}");
        let _ = writeln!(script, "add element inet corehold bridges {{ \"{bridge}\" }}");
        let _ = writeln!(script, "add element inet corehold to_host {{ \"{bridge}\" : jump host_{bridge} }}");
        let _ = writeln!(script, "add element inet corehold to_others {{ \"{bridge}\" : jump others_{bridge} }}");
        if let Some(gateway) = self.gateway_v4() {
            let _ = writeln!(script, "add element inet corehold gateways {{ {gateway} : jump mark_{bridge} }}");
        }
        script
    }

    /// What keeps members apart on the bridge, if they are.
    fn between(&self) -> String {
        let bridge = &self.bridge;
        let mut script = BETWEEN.to_owned();
        let _ = writeln!(script, "add chain bridge corehold between_{bridge}");
        let _ = writeln!(script, "flush chain bridge corehold between_{bridge}");
        if !self.meet {
            let _ = writeln!(script, "add rule bridge corehold between_{bridge} drop");
        }
        let _ = writeln!(script, "add element bridge corehold between {{ \"{bridge}\" : jump between_{bridge} }}");
        script
    }

    fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.gateways.iter().find_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(*gateway),
            IpAddr::V6(_) => None,
        })
    }

    fn rules(&self) -> Vec<(&'static str, String)> {
        let bridge = &self.bridge;
        let mut rules = Vec::new();
        if !self.host_ports.is_empty() {
            let ports: Vec<_> = self.host_ports.iter().map(u16::to_string).collect();
            rules.push(("host", format!("tcp dport {{ {} }} accept", ports.join(", "))));
        }
        if self.resolver {
            for gateway in &self.gateways {
                let family = if gateway.is_ipv4() { "ip" } else { "ip6" };
                rules
                    .push(("host", format!("{family} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept")));
            }
        }
        // Without these, this host couldn't find a member by IPv6.
        rules.push(("host", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned()));
        rules.push(("host", REFUSE.to_owned()));
        rules.push(("others", format!("oifname \"{bridge}\" {}", if self.meet { "accept" } else { REFUSE })));
        rules.push(("others", format!("oifname @bridges {REFUSE}")));
        // Whose else it may be: another engine's, virtual machines'. A machine's own way out can be one, too.
        rules.push(("others", format!("meta oifkind \"bridge\" oifname != @uplinks {REFUSE}")));
        if self.egress == Egress::None {
            rules.push(("others", REFUSE.to_owned()));
            return rules;
        }
        // Before the metadata: some clouds' resolver has such an address. Nothing else may be let out before that is refused.
        rules.push(("others", "meta l4proto { tcp, udp } th dport 53 ip daddr @resolvers accept".to_owned()));
        rules.push(("others", "meta l4proto { tcp, udp } th dport 53 ip6 daddr @resolvers6 accept".to_owned()));
        rules.push(("others", format!("ip daddr {{ {METADATA} }} {REFUSE}")));
        rules.push(("others", format!("ip6 daddr {{ {METADATA6} }} {REFUSE}")));
        match &self.egress {
            Egress::Open | Egress::None => {}
            Egress::Internet => {
                rules.push(("others", format!("ip daddr {{ {} }} {REFUSE}", PRIVATE.join(", "))));
                rules.push(("others", format!("ip6 daddr {{ {} }} {REFUSE}", PRIVATE6.join(", "))));
            }
            Egress::Only(named) => {
                rules.extend(named.iter().map(|destination| ("others", accept(destination))));
                rules.push(("others", REFUSE.to_owned()));
            }
        }
        rules
    }

    /// The mark of these rules on this machine: with its resolvers, which are part of them.
    fn mark(&self) -> u16 {
        let mut hasher = blake3::Hasher::new();
        for part in [self.script(0), self.between()] {
            hasher.update(part.as_bytes());
        }
        for file in ["/etc/resolv.conf", SHOWN] {
            hasher.update(&std::fs::read(file).unwrap_or_default());
        }
        let hash = hasher.finalize();
        let number = u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], 0]);
        let (first, count) = (u32::from(*MARKS.start()), u32::from(MARKS.end() - MARKS.start()) + 1);
        u16::try_from(first + number % count).unwrap_or(*MARKS.end())
    }

    /// Whether they stand, asked of this machine's kernel: only where this process is on the engine's machine.
    pub(super) async fn stand(&self) -> bool {
        let Some(gateway) = self.gateway_v4() else { return false };
        let attempt = TcpStream::connect(SocketAddr::new(gateway.into(), self.mark()));
        let outcome = tokio::time::timeout(MARK_PATIENCE, attempt).await;
        matches!(outcome, Ok(Err(error)) if error.kind() == io::ErrorKind::HostUnreachable)
    }

    /// The same, and of an engine that may have a resolver at the gateway also with leave to ask it: that was seen when they were set.
    pub(super) async fn find_standing(&mut self, engine: Engine) -> bool {
        if self.stand().await {
            return true;
        }
        self.resolver = engine.has_resolver_at_gateway() && self.egress != Egress::None;
        if self.resolver && self.stand().await {
            return true;
        }
        self.resolver = false;
        false
    }

    /// Sets them, in place of those that the bridge had. Returns the routes of the engine's machine, as its kernel shows them.
    ///
    /// # Errors
    /// `Unsupported` where no firewall can be set through the engine, with why.
    pub(super) async fn set(&self, connection: &Connection, network: &str) -> Result<String> {
        let what = format!("closing the network {network:?} to the engine's machine");
        let gateway = self.gateway_v4().map_or_else(String::new, |gateway| gateway.to_string());
        let arguments = vec![self.script(self.mark()), gateway, self.between()];
        let task = Task {
            what: what.clone(),
            program: Program::Script(SET, arguments),
            network: "host".to_owned(),
            administers: true,
        };
        let ended = helper::run(connection, task).await.map_err(or_open)?;
        if ended.code == 0 { Ok(ended.output) } else { Err(refused(&what, &ended)) }
    }
}

fn accept(destination: &Destination) -> String {
    let family = if destination.address().is_ipv4() { "ip" } else { "ip6" };
    let network = format!("{family} daddr {}/{}", destination.address(), destination.prefix());
    match destination.port() {
        Some(port) => format!("{network} meta l4proto {{ tcp, udp }} th dport {port} accept"),
        None => format!("{network} accept"),
    }
}

/// Tries rules of all kinds without keeping them, and whether what keeps members apart on a bridge is there, if `$3` wants it.
const TRY: &str = r#"
printf '%s\n' "$1" | nft -c -f - || exit
[ -n "$3" ] || exit 0
printf '%s\n' "$2" | nft -c -f - >/dev/null 2>&1 || grep -qs 1 /proc/sys/net/bridge/bridge-nf-call-iptables || exit 3
"#;

/// Looks whether rules could be set, and sets none.
///
/// # Errors
/// `Unsupported` where they can't be, with why.
pub(super) async fn try_out(connection: &Connection) -> Result<()> {
    let rules = Rules {
        bridge: format!("{}try", bridge::prefix(connection.engine)),
        gateways: vec![Ipv4Addr::LOCALHOST.into()],
        meet: false,
        egress: Egress::Internet,
        host_ports: vec![1],
        resolver: false,
    };
    let what = "closing networks to the engine's machine";
    let apart = if connection.engine == Engine::Podman { "apart" } else { "" };
    let task = Task {
        what: what.to_owned(),
        program: Program::Script(TRY, vec![rules.script(*MARKS.start()), rules.between(), apart.to_owned()]),
        network: "host".to_owned(),
        administers: true,
    };
    let ended = helper::run(connection, task).await.map_err(or_open)?;
    match ended.code {
        0 => Ok(()),
        NOT_SHOWN => Err(Error::new(
            ErrorKind::Unsupported,
            "keeping workspaces apart: the engine doesn't, and its machine's kernel shows no rule what a bridge carries",
        )
        .hint("load a module there: `modprobe br_netfilter`, or `modprobe nft_meta_bridge`")),
        _ => Err(refused(what, &ended)),
    }
}

/// Removes the rules of networks that are gone, if there are rules at all. Not being able to is no error: they match nothing.
pub(super) async fn sweep(connection: &Connection) {
    // Podman's bridges are gone while nobody is in them, and come again.
    let (prefix, others, keep) = match connection.engine {
        Engine::Docker => ("", bridge::prefix(Engine::Podman), Ok(Vec::new())),
        Engine::Podman => (bridge::prefix(Engine::Podman), "-", bridge::all(connection).await),
    };
    let keep = match keep {
        Ok(keep) => keep,
        Err(error) => return tracing::warn!(%error, "firewall rules of networks that are gone could not be removed"),
    };
    let arguments = [prefix, others].map(str::to_owned).into_iter().chain(keep).collect();
    let task = Task {
        what: "removing firewall rules of networks that are gone".to_owned(),
        program: Program::Script(SWEEP, arguments),
        network: "host".to_owned(),
        administers: true,
    };
    match helper::run(connection, task).await {
        Ok(ended) if ended.code != 0 => {
            tracing::warn!(output = ended.output, "firewall rules of networks that are gone could not be removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "firewall rules of networks that are gone could not be removed"),
    }
}

const OPEN: &str =
    "where the engine's machine may be reached by workspaces, DockerOptions::host_may_be_reached leaves it open";

fn or_open(error: Error) -> Error {
    match error.kind() {
        ErrorKind::EngineUnavailable | ErrorKind::Timeout => error,
        _ => error.also_hint(OPEN),
    }
}

/// Why nft, which did run or should have, failed.
fn refused(what: &str, ended: &Ended) -> Error {
    let said = ended.output.trim();
    let why = match ended.code {
        127 => "the helper's image has no nft; build the core image anew (`corehold image build`)",
        _ if said.contains("Operation not permitted") => {
            "the engine gives its containers no say in its machine's firewall (a rootless engine on its user's network?)"
        }
        _ => "its machine's kernel or nft refuses the rules",
    };
    Error::new(ErrorKind::Unsupported, format!("{what}: {why}")).hint(OPEN).with_output(said)
}

#[cfg(test)]
mod tests;
