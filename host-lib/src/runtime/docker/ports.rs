//! Published ports, as the engine wants them said and says them itself.
//!
//! Who decides which port of this machine it is is the engine, each time a container starts: it knows what its other
//! containers have, whichever host made them. It doesn't know what else listens on this machine. Engines before 28 try one
//! port of a range for each start, fail when somebody else has it, and go on with the next one at the next start. Newer ones
//! try all of them; where none is free they fail too, and take the container out of its network: asked again, they start it with
//! neither ports nor network (seen with 29.0). So it gets its network back, and what was started is looked at.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use bollard::models::{ContainerInspectResponse, ContainerSummary, PortBinding};

use crate::error::{Error, ErrorKind};

/// Starts that are tried while others have the ports of a range.
pub(super) const ATTEMPTS: usize = 100;

/// Ports of a container, to be reached on 127.0.0.1 of this machine.
pub(super) fn bindings(
    ports: &[u16],
    range: Option<&RangeInclusive<u16>>,
) -> HashMap<String, Option<Vec<PortBinding>>> {
    // Empty means any that is free.
    let host_port = range.map_or_else(String::new, |range| format!("{}-{}", range.start(), range.end()));
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(host_port) };
    ports.iter().map(|port| (format!("{port}/tcp"), Some(vec![binding.clone()]))).collect()
}

/// The ports that were to be published, with the ports of this machine that each may have; empty means any.
pub(super) fn wanted(container: &ContainerInspectResponse) -> BTreeMap<u16, String> {
    let bindings = container.host_config.as_ref().and_then(|config| config.port_bindings.as_ref());
    let all = bindings.into_iter().flatten().filter_map(|(port, bindings)| {
        let host_port = bindings.as_ref()?.first()?.host_port.clone().unwrap_or_default();
        Some((number(port)?, host_port))
    });
    all.collect()
}

/// The ports that are published, and where.
pub(super) fn published(container: &ContainerInspectResponse) -> BTreeMap<u16, SocketAddr> {
    let ports = container.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    let all = ports.into_iter().flatten().filter_map(|(port, bindings)| {
        let address = bindings
            .as_ref()?
            .iter()
            .find_map(|binding| address(binding.host_ip.as_deref(), binding.host_port.as_deref()?.parse().ok()?));
        Some((number(port)?, address?))
    });
    all.collect()
}

/// The same from a listing.
pub(super) fn listed(container: &ContainerSummary) -> BTreeMap<u16, SocketAddr> {
    let all = container.ports.iter().flatten();
    all.filter_map(|port| Some((port.private_port, address(port.ip.as_deref(), port.public_port?)?))).collect()
}

/// Whether a failed start has taken it out of its network.
pub(super) fn has_no_network(container: &ContainerInspectResponse) -> bool {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks.is_none_or(HashMap::is_empty)
}

/// How many ports of this machine there are for one of the container's.
pub(super) fn choices(host_port: &str) -> usize {
    let (first, last) = host_port.split_once('-').unwrap_or((host_port, host_port));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => usize::from(last.saturating_sub(first)) + 1,
        // Any: the engine goes on by itself.
        _ => 1,
    }
}

/// Whether a start failed since somebody has the port that the engine tried, or all there are.
pub(super) fn is_taken(error: &Error) -> bool {
    let said = error.to_string();
    ["address already in use", "port is already allocated", "all ports are allocated"]
        .iter()
        .any(|why| said.contains(why))
}

/// What is said when no port is left.
pub(super) fn used_up(wanted: &BTreeMap<u16, String>, error: Error) -> Error {
    let of = |(port, range): (&u16, &String)| match range.as_str() {
        "" => format!("port {port}"),
        range => format!("port {port} on one of {range}"),
    };
    let all: Vec<String> = wanted.iter().map(of).collect();
    let message = format!("no port of this machine is free to publish {}", all.join(" and "));
    Error::new(ErrorKind::Conflict, message)
        .hint("remove other workspaces, or give more ports: COREHOLD_PORT_RANGE, HostBuilder::port_range")
        .caused_by(error)
}

/// What is said when a container was started without the ports that it was to have.
pub(super) fn unpublished(missing: &[u16]) -> Error {
    let all: Vec<String> = missing.iter().map(u16::to_string).collect();
    Error::new(
        ErrorKind::Engine,
        format!("the engine started the container without publishing port {}", all.join(" and ")),
    )
    .hint("its network publishes none; `Workspace::preview` needs none")
}

fn number(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp")?.parse().ok()
}

fn address(ip: Option<&str>, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = ip?.parse().ok()?;
    (port != 0).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use bollard::models::{HostConfig, NetworkSettings, PortSummary};

    use super::*;

    #[test]
    fn what_is_wanted_is_what_was_asked_for() {
        for (range, written) in [(None, ""), (Some(20_000..=20_010), "20000-20010"), (Some(80..=80), "80-80")] {
            let host_config =
                HostConfig { port_bindings: Some(bindings(&[4321, 8080], range.as_ref())), ..HostConfig::default() };
            let container = ContainerInspectResponse { host_config: Some(host_config), ..Default::default() };
            assert_eq!(wanted(&container), BTreeMap::from([(4321, written.to_owned()), (8080, written.to_owned())]));
        }
        assert_eq!([choices(""), choices("20000-20010"), choices("80-80"), choices("80")], [1, 11, 1, 1]);
        assert_eq!(wanted(&ContainerInspectResponse::default()), BTreeMap::new());
    }

    #[test]
    fn listing_and_inspection_say_the_same_of_what_is_published() {
        let expected = BTreeMap::from([(4321, "127.0.0.1:20000".parse().unwrap())]);
        let bindings =
            Some(vec![PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some("20000".to_owned()) }]);
        let ports = HashMap::from([
            ("4321/tcp".to_owned(), bindings.clone()),
            ("3001/tcp".to_owned(), None),
            ("53/udp".to_owned(), bindings),
        ]);
        let settings = NetworkSettings { ports: Some(ports), ..NetworkSettings::default() };
        let container = ContainerInspectResponse { network_settings: Some(settings), ..Default::default() };
        assert_eq!(published(&container), expected);

        let of = |private_port, public_port| PortSummary {
            private_port,
            public_port,
            ip: public_port.map(|_| "127.0.0.1".to_owned()),
            ..PortSummary::default()
        };
        let ports = Some(vec![of(3001, None), of(4321, Some(20_000))]);
        assert_eq!(listed(&ContainerSummary { ports, ..ContainerSummary::default() }), expected);
    }

    #[test]
    fn engines_say_in_their_own_words_that_a_port_is_taken() {
        for said in [
            // 20.10
            "Error starting userland proxy: listen tcp4 127.0.0.1:23400: bind: address already in use",
            "Bind for 127.0.0.1:23410 failed: port is already allocated",
            "driver failed programming external connectivity on endpoint x: all ports are allocated",
            // 29.0
            "failed to bind host port 127.0.0.1:23400/tcp: address already in use",
        ] {
            assert!(is_taken(&Error::new(ErrorKind::Engine, said)), "{said}");
        }
        assert!(!is_taken(&Error::new(ErrorKind::Engine, "no such network")));
        let error = used_up(&BTreeMap::from([(4321, "1-2".to_owned())]), Error::new(ErrorKind::Engine, "taken"));
        assert!(error.to_string().ends_with("port 4321 on one of 1-2"), "{error}");
    }
}
