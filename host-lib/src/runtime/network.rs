//! Networks as they are asked for, and as a runtime is told to make them. What holds them is the runtime's business.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The network of a workspace: who else is in it, whether they may reach each other, and what it may reach outside.
///
/// Whatever it says, a workspace reaches neither the engine's machine nor any other network on it, and its host reaches it.
///
/// ```
/// use corehold_host::{Egress, Network};
///
/// // The workspaces of an owner reach each other, and the internet, but not the local network.
/// let network = Network::owner().meet().egress(Egress::Internet);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Network {
    /// Who is in it. Default: everybody.
    pub with: With,
    /// Whether its members may reach each other. Default: they may not, and in a network of everybody they never may.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub meet: bool,
    /// What its members may reach outside. Absent, the default: [`Egress::Open`], or what the owner's plan
    /// ([`Plan::egress`](crate::policy::Plan::egress)) and the team's isolation mode ([`Isolation::egress`](crate::policy::Isolation::egress))
    /// leave of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// Who is in a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum With {
    /// All workspaces of the host, kept apart.
    #[default]
    All,
    /// Those of the workspace's owner.
    Owner,
    /// Those of the workspace's team.
    Team,
}

/// What members of a network may reach outside. The resolvers that the engine's machine names in its `resolv.conf` answer them in any case
/// but [`None`](Self::None), those of its loopback through Docker. Others, which an engine may fall back to where there are none, must be
/// reached by the egress for names to be found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Egress {
    /// What the engine's machine reaches, but for link-local addresses and those at which clouds answer a machine about itself.
    #[default]
    Open,
    /// The internet: no private, shared (RFC 6598), reserved or multicast addresses either.
    Internet,
    /// These, and nothing else. What is never reached isn't reached by naming it here.
    Only(Vec<Destination>),
    /// Nothing, names included: there is no way out.
    None,
}

/// Addresses that aren't the internet's, but for those at which clouds answer a machine about itself: this network's, private, shared
/// (RFC 6598), loopback, special-purpose (RFC 6890), benchmarks', multicast, reserved.
pub(crate) const PRIVATE: [&str; 9] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];
/// What is mapped into IPv4, loopback, unique local, site-local, multicast.
pub(crate) const PRIVATE6: [&str; 4] = ["::/8", "fc00::/7", "fec0::/10", "ff00::/8"];

impl Network {
    /// One of all workspaces of the host, kept apart from each other.
    #[must_use]
    pub fn shared() -> Self {
        Self::default()
    }

    /// One of all workspaces of the owner.
    #[must_use]
    pub fn owner() -> Self {
        Self { with: With::Owner, ..Self::default() }
    }

    /// One of all workspaces of the team.
    #[must_use]
    pub fn team() -> Self {
        Self { with: With::Team, ..Self::default() }
    }

    /// One without a way out.
    #[must_use]
    pub fn none() -> Self {
        Self::default().egress(Egress::None)
    }

    /// Lets its members reach each other, if [`Policy::meet`](crate::policy::Policy::meet) or their team's mode does: an owner's own may by
    /// default, a team's may not.
    #[must_use]
    pub fn meet(mut self) -> Self {
        self.meet = true;
        self
    }

    /// What its members may reach outside.
    #[must_use]
    pub fn egress(mut self, egress: Egress) -> Self {
        self.egress = Some(egress);
        self
    }

    /// Whether it is the runtime's own, of all and open.
    pub(crate) fn is_shared(&self) -> bool {
        self.with == With::All && !self.meet && self.reach() == Egress::Open
    }

    /// What its members may reach outside, where nothing bounds that.
    pub(crate) fn reach(&self) -> Egress {
        self.egress.clone().unwrap_or_default()
    }

    /// Refuses what can't be.
    ///
    /// # Errors
    /// `Invalid`, with why.
    pub fn check(&self) -> Result<()> {
        if self.meet && self.with == With::All {
            let message = "workspaces of different owners never meet: a network of all keeps them apart";
            return Err(Error::new(ErrorKind::Invalid, message).hint("make it the owner's or the team's network"));
        }
        self.egress.as_ref().map_or(Ok(()), Egress::check)
    }
}

impl Egress {
    /// Refuses what can't be.
    ///
    /// # Errors
    /// `Invalid`, with why.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Only(named) if named.is_empty() => {
                Err(Error::new(ErrorKind::Invalid, "an egress of only some names none").hint("say Egress::None"))
            }
            Self::Only(named) if named.len() > DESTINATIONS => {
                let message = format!("an egress names {} destinations; at most {DESTINATIONS} may be", named.len());
                Err(Error::new(ErrorKind::Invalid, message).hint("name their networks"))
            }
            _ => Ok(()),
        }
    }
}

/// `open`, `internet`, `none`, or destinations with commas between them.
impl FromStr for Egress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "open" => Ok(Self::Open),
            "internet" => Ok(Self::Internet),
            "none" => Ok(Self::None),
            named => {
                named.split(',').map(|destination| destination.trim().parse()).collect::<Result<_>>().map(Self::Only)
            }
        }
    }
}

/// As it is read.
impl fmt::Display for Egress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => formatter.write_str("open"),
            Self::Internet => formatter.write_str("internet"),
            Self::None => formatter.write_str("none"),
            Self::Only(named) => named.iter().enumerate().try_for_each(|(number, destination)| {
                let comma = if number == 0 { "" } else { "," };
                write!(formatter, "{comma}{destination}")
            }),
        }
    }
}

/// Destinations that an egress may name: each is a rule that packets are compared with.
const DESTINATIONS: usize = 64;

/// Addresses outside, and perhaps a port: `10.20.0.0/16`, `203.0.113.7:443`, `[2001:db8::/32]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl Destination {
    /// The network's first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits of an address must be the same.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The port, of TCP and UDP; absent: all, of every protocol.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What is in both; none, if nothing is. Networks overlap only where one holds the other.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let (wider, narrower) = if self.prefix <= other.prefix { (self, other) } else { (other, self) };
        let held = narrower.address.is_ipv4() == wider.address.is_ipv4()
            && first(narrower.address, wider.prefix) == wider.address;
        let port = match (self.port, other.port) {
            (Some(one), Some(other)) if one != other => return None,
            (one, other) => one.or(other),
        };
        held.then_some(Self { port, ..narrower })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (address, None) => write!(formatter, "{address}/{}", self.prefix),
            (IpAddr::V4(address), Some(port)) => write!(formatter, "{address}/{}:{port}", self.prefix),
            (IpAddr::V6(address), Some(port)) => write!(formatter, "[{address}/{}]:{port}", self.prefix),
        }
    }
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::new(ErrorKind::Invalid, format!("{text:?} is no destination")).hint(
                "write an address or a network, and perhaps a port: 10.20.0.0/16, 203.0.113.7:443, [2001:db8::/32]:443",
            )
        };
        let (network, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (network, rest) = rest.split_once(']').ok_or_else(invalid)?;
                (network, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(invalid)?) })
            }
            // One colon is a port's; IPv6 has two at least.
            None => match text.split_once(':') {
                Some((network, port)) if !port.contains(':') => (network, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)).transpose()?;
        let (address, prefix) =
            network.split_once('/').map_or((network, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(invalid)?,
            None => bits,
        };
        Ok(Self { address: first(address, prefix), prefix, port })
    }
}

impl TryFrom<String> for Destination {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

/// The first address of its network.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Subnet::of(address, prefix).first.into(),
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// A network's addresses: `10.213.4.0/26`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of that many leading bits that an address is in.
    #[must_use]
    pub fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self { first: Ipv4Addr::from_bits(address.to_bits() & mask), prefix }
    }

    /// How many leading bits its addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address that can be somebody's: the gateway's.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | 1)
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        Self::of(self.first, prefix) == Self::of(other.first, prefix)
    }

    /// The subnets of that many leading bits that it is made of.
    pub(crate) fn parts(self, prefix: u8) -> impl Iterator<Item = Self> {
        let count = 1_u64 << u32::from(prefix.saturating_sub(self.prefix));
        let step = 1_u64 << (32 - u32::from(prefix.min(32)));
        let first = u64::from(self.first.to_bits());
        (0..count).filter_map(move |number| {
            let address = u32::try_from(first + number * step).ok()?;
            Some(Self { first: Ipv4Addr::from_bits(address), prefix })
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(first, prefix)| {
            let subnet = Self { first: first.parse().ok()?, prefix: prefix.parse().ok()? };
            (subnet.prefix <= 32 && Self::of(subnet.first, subnet.prefix) == subnet).then_some(subnet)
        });
        parsed.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{text:?} is no subnet"))
                .hint("write its first address and how many bits are the same: 10.213.0.0/16")
        })
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// A network as a runtime is told to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NetworkSpec {
    /// Its name, which no other network has.
    pub name: String,
    /// Its addresses, if it is made; one that is there keeps those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// Whether its members may reach each other.
    pub meet: bool,
    /// What they may reach outside.
    pub egress: Egress,
}

impl NetworkSpec {
    /// One of this name whose members are kept apart, with any addresses and an open egress.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), subnet: None, meet: false, egress: Egress::Open }
    }

    /// Its addresses.
    #[must_use]
    pub fn subnet(mut self, subnet: Subnet) -> Self {
        self.subnet = Some(subnet);
        self
    }

    /// Whether its members may reach each other.
    #[must_use]
    pub fn meet(mut self, meet: bool) -> Self {
        self.meet = meet;
        self
    }

    /// What they may reach outside.
    #[must_use]
    pub fn egress(mut self, egress: Egress) -> Self {
        self.egress = egress;
        self
    }
}

/// What came of making a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkMade {
    /// It is there, and as closed as it is to be.
    There,
    /// Its addresses are somebody else's, as told; nothing was made.
    SubnetTaken(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_as_they_are_written() {
        for (text, shown) in [
            ("10.20.30.40", "10.20.30.40/32"),
            ("10.20.30.40/16", "10.20.0.0/16"),
            ("203.0.113.7:443", "203.0.113.7/32:443"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("0.0.0.0/0:53", "0.0.0.0/0:53"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8:ffff::/33", "2001:db8:8000::/33"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("[::]", "::/128"),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), shown);
            assert_eq!(shown.parse::<Destination>().unwrap(), destination);
        }
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/8:0",
            "10.0.0.0/8:65536",
            "10.0.0.0:",
            "[::1",
            "[::1]443",
            "::/129",
            "10.0.0.0/8 ; flush ruleset",
            "localhost:80",
            "10.0.0.0/8:80:90",
        ] {
            assert_eq!(bad.parse::<Destination>().unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn an_egress_is_read_as_a_person_writes_it() {
        let egress = |text: &str| text.parse::<Egress>();
        assert_eq!(egress("open").unwrap(), Egress::Open);
        assert_eq!(egress("internet").unwrap(), Egress::Internet);
        assert_eq!(egress("none").unwrap(), Egress::None);
        let named = ["10.0.0.0/8", "203.0.113.7:443"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(egress("10.0.0.0/8, 203.0.113.7:443").unwrap(), Egress::Only(named));
        for written in ["open", "internet", "none", "10.0.0.0/8,203.0.113.7/32:443,[2001:db8::/32]:443"] {
            assert_eq!(egress(written).unwrap().to_string(), written);
        }
        for bad in ["", "None", "host", "bridge", "container:x", "10.0.0.0/8,", ","] {
            assert_eq!(egress(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_subnet_is_cut_into_parts_that_do_not_overlap() {
        let pool: Subnet = "10.213.0.0/16".parse().unwrap();
        let parts: Vec<_> = pool.parts(26).collect();
        assert_eq!(parts.len(), 1024);
        assert_eq!(
            (parts[1].to_string(), parts[1].gateway().to_string()),
            ("10.213.0.64/26".into(), "10.213.0.65".into())
        );
        assert!(parts.iter().all(|part| part.overlaps(&pool)));
        assert!(parts.windows(2).all(|pair| !pair[0].overlaps(&pair[1])));
        assert_eq!(pool.parts(16).collect::<Vec<_>>(), [pool]);
        let end: Subnet = "255.255.255.0/24".parse().unwrap();
        assert_eq!(end.parts(26).last().unwrap().to_string(), "255.255.255.192/26");
        for bad in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::/64"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        assert!(Network::shared().meet().check().is_err());
        assert!(Network::team().meet().check().is_ok());
        assert!(Network::shared().egress(Egress::Only(Vec::new())).check().is_err());
        let one: Destination = "10.0.0.1".parse().unwrap();
        assert!(Network::shared().egress(Egress::Only(vec![one])).check().is_ok());
        assert!(Network::shared().egress(Egress::Only(vec![one; 65])).check().is_err());
    }

    #[test]
    fn it_is_kept_as_it_was_said() {
        let network = Network::team().meet().egress(Egress::Only(vec!["10.0.0.0/8:443".parse().unwrap()]));
        let kept = serde_json::to_string(&network).unwrap();
        assert_eq!(kept, r#"{"with":"team","meet":true,"egress":{"only":["10.0.0.0/8:443"]}}"#);
        assert_eq!(serde_json::from_str::<Network>(&kept).unwrap(), network);
        assert_eq!(serde_json::from_str::<Network>("{}").unwrap(), Network::shared());
    }
}
