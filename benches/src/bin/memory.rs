//! Memory of a host with many workspaces, each with a preview that was used and whose connection is kept as a page's WebSocket is, beside
//! what the engine's way to reach the same servers takes: a proxy process for each published port.
//!
//! Usage: `memory [WORKSPACES]` (default 100). Needs an engine at /var/run/docker.sock, the core image, and about 25 MB of memory for each
//! workspace, most of it the engine's.

use std::{fs, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, http::Connection, remove_all};
use corehold_host::{
    CreateWorkspace, Host, Workspace,
    runtime::{
        Endpoint,
        docker::{Docker, DockerAddress},
    },
    tools::{Ports, PortsRequest},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

const PORT: u16 = 4321;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Answers any number of requests on one connection at a time; smaller than any other server in the image.
const SERVER: &str = r#"use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => 4321, Listen => 9, ReuseAddr => 1) or die;
while (my $peer = $listener->accept) {
  while (<$peer>) { print $peer "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" if /^\r\n$/; $peer->flush; }
}"#;
/// Workspaces that are made at a time.
const AT_ONCE: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let count: usize = std::env::args().nth(1).map_or(Ok(100), |count| count.parse())?;
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(Arc::new(docker)).home(home.path()).build().await?;
    let measured = measure(&host, count).await;
    remove_all(&host, AT_ONCE).await?;
    measured
}

async fn measure(host: &Host, count: usize) -> Result<()> {
    let model = host.create(CreateWorkspace::empty().publish(PORT)).await?;
    let mut specification = engine::specification_like(&model.info().await?.container.context("it has a container")?)?;
    model.remove().await?;
    let alone = resident("self")?;

    let served = stream::iter(0..count).map(|_| served(host));
    let served: Vec<(Workspace, Connection)> = served.buffer_unordered(AT_ONCE).try_collect().await?;
    let ours = resident("self")?;
    ensure!(served.len() == count, "each has its preview");
    ensure!(proxies(&served).await? == 0, "no port is published");
    let megabytes = |kilobytes: u64| kilobytes as f64 * 1024.0 / 1e6;
    println!(
        "the host with {count} workspaces, a preview and a connection each: {:.1} MB resident ({:.1} MB with none), no proxy process",
        megabytes(ours),
        megabytes(alone)
    );
    drop(served);

    specification["Entrypoint"] = json!(["perl", "-e", SERVER]);
    specification["Cmd"] = Value::Null;
    if let Some(fields) = specification.as_object_mut() {
        fields.remove("Healthcheck");
    }
    let containers = (0..count).map(|_| engine::Container::start(&specification)).collect::<Result<Vec<_>>>()?;
    let addresses = containers.iter().map(|one| Ok(one.address()?.to_string())).collect::<Result<Vec<_>>>()?;
    let proxies = proxies_of(&addresses)?;
    let theirs = proxies.iter().map(|process| resident(process)).sum::<Result<u64>>()?;
    println!(
        "the engine's proxies for as many published ports: {:.1} MB in {} processes ({:.1} times as much)",
        megabytes(theirs),
        proxies.len(),
        theirs as f64 / ours as f64
    );
    Ok(())
}

/// A workspace whose server has answered through its preview, and the connection.
async fn served(host: &Host) -> Result<(Workspace, Connection)> {
    let workspace = host.create(CreateWorkspace::empty()).await?;
    workspace.write_file("server.pl", SERVER).await?;
    workspace.command("perl server.pl").detach().await?;
    let listening = PortsRequest { wait_for: Some(PORT), ..Default::default() };
    ensure!(workspace.call::<Ports>(&listening).await?.opened == Some(true), "the server doesn't listen");
    let url = workspace.preview(PORT).await?.url;
    let address: SocketAddr = url.trim_start_matches("http://").trim_end_matches('/').parse()?;
    let connection = tokio::task::spawn_blocking(move || {
        let mut connection = Connection::open(address.port())?;
        connection.exchange(REQUEST)?;
        Ok::<_, anyhow::Error>(connection)
    });
    Ok((workspace, connection.await??))
}

async fn proxies(served: &[(Workspace, Connection)]) -> Result<usize> {
    let mut addresses = Vec::new();
    for (workspace, _) in served {
        let Endpoint::Tcp(address) = workspace.agent_endpoint().await? else { continue };
        addresses.push(address.ip().to_string());
    }
    Ok(proxies_of(&addresses)?.len())
}

/// The processes that carry connections to these containers, as their arguments say.
fn proxies_of(addresses: &[String]) -> Result<Vec<String>> {
    let (mut found, ours) = (Vec::new(), fs::read_link("/proc/self/ns/net")?);
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name().to_string_lossy().into_owned();
        // Another engine's containers have the same addresses, in another network namespace.
        if fs::read_link(format!("/proc/{process}/ns/net")).ok().as_ref() != Some(&ours) {
            continue;
        }
        // It may have ended meanwhile.
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let arguments: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if arguments[0].ends_with("docker-proxy")
            && addresses.iter().any(|address| arguments.iter().any(|all| all == address))
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Kilobytes that a process has in memory, its program included.
fn resident(process: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it says what it has")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
