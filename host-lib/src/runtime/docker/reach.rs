//! How this process reaches what runs in an engine, and whether what the engine publishes is reached from here.
//!
//! | the engine | its containers | ports published on 127.0.0.1 |
//! |---|---|---|
//! | in this process' network namespace | at their own addresses | here |
//! | in a virtual machine or rootless, of this machine | not reached | here: forwarded by what runs the engine |
//! | elsewhere: another machine, behind a forwarded socket, in another namespace | not reached | there |
//!
//! Where neither is reached, connections go through the engine (`relay.rs`).

use std::net::{IpAddr, SocketAddr};

use bollard::models::{ContainerInspectResponse, SystemInfo};

use super::{Docker, engine::Engine, network, ports};
use crate::{error::Result, runtime::Endpoint};

impl Docker {
    /// The way to a port of a container that runs.
    pub(super) async fn way_to(&self, container: ContainerInspectResponse, port: u16) -> Result<Endpoint> {
        if !self.connection.address.is_on_this_machine() {
            return Ok(Endpoint::ThroughRuntime);
        }
        let own = self.own_address(&container).await?;
        match (ports::published(&container).get(&port), own) {
            (Some(published), Some(_)) => Ok(Endpoint::Tcp(*published)),
            (Some(published), None) if self.forwards_ports().await? => Ok(Endpoint::Tcp(*published)),
            (_, Some(own)) => Ok(Endpoint::Tcp(SocketAddr::new(own, port))),
            (_, None) => Ok(Endpoint::ThroughRuntime),
        }
    }

    /// The address at which this process reaches it.
    async fn own_address(&self, container: &ContainerInspectResponse) -> Result<Option<IpAddr>> {
        let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        for endpoint in networks.into_iter().flat_map(|networks| networks.values()) {
            let address = |text: &Option<String>| text.as_ref()?.parse::<IpAddr>().ok();
            if let (Some(own), Some(gateway), Some(network)) =
                (address(&endpoint.ip_address), address(&endpoint.gateway), &endpoint.network_id)
                && self.networks.reached_directly(&self.connection, network, gateway).await?
            {
                return Ok(Some(own));
            }
        }
        Ok(None)
    }

    /// Whether what it publishes is reached on this machine. Where only one of its networks tells, that is made if it isn't there.
    pub(super) async fn publishes_ports_here(&self) -> Result<bool> {
        if !self.connection.address.is_on_this_machine() {
            return Ok(false);
        }
        if self.forwards_ports().await? {
            return Ok(true);
        }
        let network = network::default_spec(&self.connection.options);
        Ok(Box::pin(self.networks.there(&self.connection, &network)).await?.direct)
    }

    /// Whether something of this machine listens where the engine, in its own network namespace, publishes ports.
    pub(super) async fn forwards_ports(&self) -> Result<bool> {
        let facts = self.connection.facts().await?;
        Ok(self.connection.address.is_on_this_machine()
            && forwards_ports(facts, self.connection.engine, this_machine().as_deref()))
    }
}

/// An engine of another machine, whose socket is forwarded to here, says that machine's name.
fn forwards_ports(facts: &SystemInfo, engine: Engine, machine: Option<&str>) -> bool {
    let says = |text: &Option<String>, what: &str| text.as_ref().is_some_and(|text| text.contains(what));
    let rootless =
        facts.security_options.iter().flatten().any(|option| option.split(',').any(|part| part == "name=rootless"));
    let of_this_machine = machine.is_some() && facts.name.as_deref() == machine;
    // Elsewhere than on Linux every engine is in a virtual machine.
    cfg!(not(target_os = "linux"))
        || says(&facts.operating_system, "Docker Desktop")
        || ((rootless || engine == Engine::Podman) && of_this_machine)
}

/// The name by which an engine in this machine's UTS namespace knows it.
fn this_machine() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_elsewhere_forwards_no_port_to_here() {
        let facts = |name: &str, options: &[&str], system: &str| SystemInfo {
            name: Some(name.to_owned()),
            security_options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
            operating_system: Some(system.to_owned()),
            ..SystemInfo::default()
        };
        let rootless = ["name=seccomp,profile=builtin", "name=rootless"];
        for (facts, engine, forwards) in [
            (facts("here", &["name=seccomp,profile=builtin"], "Debian GNU/Linux 12"), Engine::Docker, false),
            (facts("here", &rootless, "Debian GNU/Linux 12"), Engine::Docker, true),
            (facts("there", &rootless, "Debian GNU/Linux 12"), Engine::Docker, false),
            (facts("docker-desktop", &[], "Docker Desktop"), Engine::Docker, true),
            (facts("here", &[], "debian"), Engine::Podman, true),
            (facts("there", &[], "debian"), Engine::Podman, false),
        ] {
            assert_eq!(forwards_ports(&facts, engine, Some("here")), forwards, "{facts:?}");
        }
        assert!(!forwards_ports(&SystemInfo::default(), Engine::Podman, None));
    }
}
