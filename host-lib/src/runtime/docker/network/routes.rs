//! Whose addresses they are already: a network that took a subnet which the machine reaches elsewhere would cut it off from there.

use std::{fs, net::Ipv4Addr};

use crate::runtime::Subnet;

/// The kernel's table of routes, as text; a process sees that of its own network namespace.
const ROUTES: &str = "/proc/net/route";

/// Whose they are, as this process' machine knows.
pub(super) fn taken_here(subnet: Subnet) -> Option<String> {
    taken(&fs::read_to_string(ROUTES).ok()?, subnet, "")
}

/// Whose they are by a table of routes, but for those to the network's own bridge. Default routes are nobody's.
pub(super) fn taken(routes: &str, subnet: Subnet, bridge: &str) -> Option<String> {
    routes.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let interface = columns.next()?;
        let first = address(columns.next()?)?;
        let mask = address(columns.nth(5)?)?;
        let route = Subnet::of(first, u8::try_from(mask.to_bits().leading_ones()).ok()?);
        let others = interface != bridge && route.prefix() > 0 && route.overlaps(&subnet);
        others.then(|| format!("reached by {interface} of the engine's machine ({route})"))
    })
}

/// An address as the kernel writes it: its bytes as a number of this machine's byte order.
fn address(hex: &str) -> Option<Ipv4Addr> {
    (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok())?.map(|number| Ipv4Addr::from(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_route_elsewhere_takes_its_addresses_and_what_is_around_and_in_them() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t0001D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            ch12\t0002D50A\t00000000\t0001\t0\t0\t0\tC0FFFFFF\t0\t0\t0\n";
        let whose = |subnet: &str, bridge: &str| taken(routes, subnet.parse().unwrap(), bridge);
        for subnet in ["10.213.1.0/24", "10.213.1.64/26", "10.213.0.0/16"] {
            assert!(whose(subnet, "").unwrap().contains("tun0"), "{subnet}");
        }
        assert_eq!(whose("10.213.3.0/26", ""), None);
        assert_eq!(whose("10.213.2.0/26", "ch12"), None, "its own");
        assert!(whose("10.213.2.0/26", "ch13").unwrap().contains("10.213.2.0/26"));
        assert_eq!(taken("nonsense\n\n1 2 3", "10.213.0.0/16".parse().unwrap(), ""), None);
    }
}
