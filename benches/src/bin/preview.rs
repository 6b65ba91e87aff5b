//! A dev server's preview through the tunnel, beside the same server's port as the engine publishes it: how long a small answer
//! takes, on a connection that is kept and on a new one, and how fast 1 GB comes.
//!
//! Usage: `preview [ROUNDS [MEGABYTES]]` (defaults 2000 and 1024). Needs an engine at /var/run/docker.sock and the core image.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{figures::Samples, http::Connection};
use corehold_host::{
    CreateWorkspace, Host,
    runtime::docker::{Docker, DockerAddress},
    tools::{Ports, PortsRequest},
};

/// What is previewed: a few bytes at `/`, and as many megabytes as the path says below `/bytes/`.
const SERVER: &str = r"
const piece = Buffer.alloc(1 << 20, 'x');
require('http').createServer((request, answer) => {
  if (!request.url.startsWith('/bytes/')) return answer.setHeader('Content-Length', 5).end('hello');
  let left = Number(request.url.slice(7));
  answer.setHeader('Content-Length', left * piece.length);
  const more = () => {
    while (left > 0) { left -= 1; if (!answer.write(piece)) return; }
    answer.end();
  };
  answer.on('drain', more);
  more();
}).listen(4321, '0.0.0.0');
";
const PORT: u16 = 4321;
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Transfers of all bytes, of which the fastest counts.
const TRANSFERS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let (rounds, megabytes) = (arguments.next().unwrap_or(Ok(2000))?, arguments.next().unwrap_or(Ok(1024))?);
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(Arc::new(docker)).home(home.path()).build().await?;
    let workspace = host.create(CreateWorkspace::empty().publish(PORT)).await?;
    let measured = async {
        workspace.write_file("server.js", SERVER).await?;
        workspace.command("node server.js").detach().await?;
        let listening = PortsRequest { wait_for: Some(PORT), ..Default::default() };
        ensure!(workspace.call::<Ports>(&listening).await?.opened == Some(true), "the server doesn't listen");
        let published = *workspace.info().await?.published.get(&PORT).context("the port is published")?;
        let tunnelled = address(&workspace.preview(PORT).await?.url)?;
        tokio::task::spawn_blocking(move || compare(published, tunnelled, rounds, megabytes)).await?
    }
    .await;
    workspace.remove().await?;
    measured
}

fn address(url: &str) -> Result<SocketAddr> {
    Ok(url.strip_prefix("http://").context("a preview is reached by HTTP")?.trim_end_matches('/').parse()?)
}

/// One and then the other in each round, so that whatever else this machine does meets both.
fn compare(published: SocketAddr, tunnelled: SocketAddr, rounds: usize, megabytes: usize) -> Result<()> {
    let ways = [published, tunnelled];
    let mut kept = [Connection::open(published.port())?, Connection::open(tunnelled.port())?];
    for connection in &mut kept {
        for _ in 0..rounds / 10 {
            connection.exchange(SMALL)?;
        }
    }
    let mut answers = [Samples::default(), Samples::default()];
    for _ in 0..rounds {
        for (connection, samples) in kept.iter_mut().zip(&mut answers) {
            let began = Instant::now();
            connection.exchange(SMALL)?;
            samples.add(began.elapsed());
        }
    }
    print("a small answer, connection kept", &answers);

    let mut fresh = [Samples::default(), Samples::default()];
    for _ in 0..rounds / 4 {
        for (way, samples) in ways.iter().zip(&mut fresh) {
            let began = Instant::now();
            Connection::open(way.port())?.exchange(SMALL)?;
            samples.add(began.elapsed());
        }
    }
    print("a small answer, connection new ", &fresh);

    let mut fastest = [Duration::MAX; 2];
    for _ in 0..TRANSFERS {
        for (way, fastest) in ways.iter().zip(&mut fastest) {
            *fastest = (*fastest).min(transfer(*way, megabytes)?);
        }
    }
    let [one, other] = fastest.map(|time| (megabytes << 20) as f64 / time.as_secs_f64() / 1e9);
    println!("{megabytes} MiB: published {one:.2} GB/s, tunnelled {other:.2} GB/s: {:.2} times", other / one);
    Ok(())
}

fn print(what: &str, [published, tunnelled]: &[Samples; 2]) {
    for (way, samples) in [("published", published), ("tunnelled", tunnelled)] {
        let [median, p99] = [0.5, 0.99].map(|share| samples.quantile(share).as_secs_f64() * 1e6);
        println!("{what}, {way}: median {median:.0} µs, p99 {p99:.0} µs");
    }
    println!("{what}: the tunnel takes {:.2} times as long", tunnelled.ratio_to(published));
}

fn transfer(way: SocketAddr, megabytes: usize) -> Result<Duration> {
    let mut stream = TcpStream::connect(way)?;
    let began = Instant::now();
    write!(stream, "GET /bytes/{megabytes} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let (mut total, mut buffer) = (0, vec![0; 256 << 10]);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => total += read,
        }
    }
    ensure!(total > megabytes << 20, "{total} bytes came");
    Ok(began.elapsed())
}
