//! An agent reached through the engine, beside its own address: how long a connection takes, a small file on one that is kept, and
//! how fast 100 MB come and go.
//!
//! Usage: `relay [ROUNDS [MEGABYTES]]` (defaults 300 and 100). Needs an engine whose containers are reached directly, and the core image with
//! an agent of this version.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::figures::Samples;
use corehold_host::{
    CreateWorkspace, Host, Workspace,
    runtime::{
        BoxConnection, ContainerId, Runtime as _,
        docker::{Docker, DockerAddress},
    },
    types::Scopes,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

const AGENT_PORT: u16 = 3001;
const SMALL_BYTES: usize = 1000;
/// Connections of each kind.
const CONNECTIONS: usize = 30;
/// Transfers of all bytes, of which the fastest counts.
const TRANSFERS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let (rounds, megabytes) = (arguments.next().unwrap_or(Ok(300))?, arguments.next().unwrap_or(Ok(100))?);
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let host = Host::builder().runtime(Arc::new(docker.clone())).home(home.path()).build().await?;
    let workspace = host.create(CreateWorkspace::empty()).await?;
    let measured = compare(&docker, &workspace, rounds, megabytes).await;
    workspace.remove().await?;
    measured
}

/// One and then the other in each round, so that whatever else this machine does meets both.
async fn compare(docker: &Docker, workspace: &Workspace, rounds: usize, megabytes: usize) -> Result<()> {
    let container = ContainerId(workspace.info().await?.container.context("it has a container")?);
    let token = workspace.mint_token("bench", &Scopes::all(), Duration::from_secs(3600));
    workspace.write_file("small", vec![b'x'; SMALL_BYTES]).await?;

    let mut opened = [Samples::default(), Samples::default()];
    for _ in 0..CONNECTIONS {
        let began = Instant::now();
        let direct = workspace.connect_agent().await?;
        opened[0].add(began.elapsed());
        let began = Instant::now();
        let through = docker.connect(&container, AGENT_PORT).await?;
        opened[1].add(began.elapsed());
        drop((direct, through));
    }
    print("a connection", &opened);

    let mut kept = [
        Agent::new(workspace.connect_agent().await?, &token),
        Agent::new(docker.connect(&container, AGENT_PORT).await?, &token),
    ];
    let mut small = [Samples::default(), Samples::default()];
    for round in 0..rounds + rounds / 10 {
        for (agent, samples) in kept.iter_mut().zip(&mut small) {
            let began = Instant::now();
            ensure!(agent.get("small").await? == SMALL_BYTES, "another file came");
            if round >= rounds / 10 {
                samples.add(began.elapsed());
            }
        }
    }
    print("a file of 1 KB, connection kept", &small);

    for (what, puts) in [("in", true), ("out", false)] {
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..TRANSFERS {
            for (agent, fastest) in kept.iter_mut().zip(&mut fastest) {
                let began = Instant::now();
                if puts {
                    agent.put("large", megabytes).await?;
                } else {
                    ensure!(agent.get("large").await? == megabytes << 20, "another file came");
                }
                *fastest = (*fastest).min(began.elapsed());
            }
        }
        let [direct, through] = fastest.map(|time| (megabytes << 20) as f64 / time.as_secs_f64() / 1e6);
        println!(
            "{megabytes} MiB {what}: direct {direct:.0} MB/s, through the engine {through:.0} MB/s: {:.2} times",
            through / direct
        );
    }
    Ok(())
}

fn print(what: &str, [direct, through]: &[Samples; 2]) {
    println!("{what}, direct: {direct}");
    println!("{what}, through the engine: {through}: {:.1} times as long", through.ratio_to(direct));
}

/// A connection to the files route.
struct Agent {
    stream: BufReader<BoxConnection>,
    authorization: String,
}

impl Agent {
    fn new(connection: BoxConnection, token: &str) -> Self {
        Self { stream: BufReader::with_capacity(256 << 10, connection), authorization: format!("Bearer {token}") }
    }

    async fn ask(&mut self, method: &str, file: &str, length: usize) -> Result<()> {
        let head = format!(
            "{method} /v1/files/{file} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Length: {length}\r\n\r\n",
            self.authorization
        );
        Ok(self.stream.write_all(head.as_bytes()).await?)
    }

    /// Reads an answer, and returns the bytes of its body.
    async fn answer(&mut self) -> Result<usize> {
        let (mut length, mut line, mut status) = (0, String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the agent closed the connection");
            if status.is_empty() {
                status.clone_from(&line);
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        ensure!(status.contains(" 20"), "{status}");
        let read = tokio::io::copy_buf(&mut (&mut self.stream).take(length), &mut tokio::io::sink()).await?;
        Ok(usize::try_from(read)?)
    }

    async fn get(&mut self, file: &str) -> Result<usize> {
        self.ask("GET", file, 0).await?;
        self.stream.flush().await?;
        self.answer().await
    }

    async fn put(&mut self, file: &str, megabytes: usize) -> Result<()> {
        self.ask("PUT", file, megabytes << 20).await?;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..megabytes {
            self.stream.write_all(&piece).await?;
        }
        self.stream.flush().await?;
        self.answer().await.map(drop)
    }
}
