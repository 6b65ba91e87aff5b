//! Files of 4 KB and 1 MB over HTTP, on one connection and on sixteen, beside a bare axum server and, if its path is given, nginx.
//!
//! Usage: `read AGENT [NGINX]`. The axum server is this program again: `/memory/…` answers from memory, which is the floor,
//! `/file/…` reads the file for each request, as a server of files must. All are compared with both, and with nginx, in time and in rate.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use axum::{Router, extract::State, routing::get};
use corehold_benches::{agent::Agent, figures::Samples, http::Connection};

const FILES: [(&str, usize); 2] = [("4k", 4 << 10), ("1m", 1 << 20)];
const ROUNDS: usize = 5;
const WARM_UP: usize = 200;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--serve", port, folder] => serve(port.parse()?, Path::new(folder)),
        [agent] => compare(Path::new(agent), None),
        [agent, nginx] => compare(Path::new(agent), Some(nginx)),
        _ => anyhow::bail!("usage: read AGENT [NGINX]"),
    }
}

/// Makes the request for a file.
type Request = Box<dyn Fn(&str) -> String + Sync>;

/// Who answers, and the request that asks for a file.
struct Peer {
    name: &'static str,
    port: u16,
    request: Request,
    /// Whether all are compared with it.
    is_measure: bool,
}

fn compare(agent: &Path, nginx: Option<&str>) -> Result<()> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    for (name, size) in FILES {
        fs::write(folder.path().join(name), "0123456789abcde\n".repeat(size / 16))?;
    }
    let running = Agent::start(agent, folder.path())?;
    let axum = Process::axum(folder.path())?;
    let files = running.head("GET", "/v1/files/NAME");
    let tool = running.head("POST", "/v1/tools/read");
    let plain = |path: &'static str| -> Request {
        Box::new(move |name: &str| format!("GET {path}{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    };
    let mut peers = vec![
        Peer { name: "axum, memory", port: axum.port, request: plain("/memory/"), is_measure: true },
        Peer { name: "axum, file", port: axum.port, request: plain("/file/"), is_measure: true },
        Peer {
            name: "agent, files",
            port: running.port(),
            request: Box::new(move |name| files.replace("NAME", name) + "\r\n"),
            is_measure: false,
        },
        Peer {
            name: "agent, read",
            port: running.port(),
            request: Box::new(move |name| {
                let body = format!(r#"{{"files":[{{"path":"{name}"}}]}}"#);
                format!("{tool}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }),
            is_measure: false,
        },
    ];
    let nginx = nginx.map(|program| Process::nginx(program, folder.path())).transpose()?;
    if let Some(nginx) = &nginx {
        peers.push(Peer { name: "nginx", port: nginx.port, request: plain("/"), is_measure: true });
    }
    for (file, requests) in [("4k", 20_000), ("1m", 1_000)] {
        for connections in [1, 16] {
            measure(&peers, file, connections, requests)?;
        }
    }
    Ok(())
}

/// All peers in turn, several times, so that what disturbs the machine disturbs them alike.
fn measure(peers: &[Peer], file: &str, connections: usize, requests: usize) -> Result<()> {
    let mut samples = vec![Samples::default(); peers.len()];
    let mut rates = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        for (index, peer) in peers.iter().enumerate() {
            let request = (peer.request)(file);
            let began = Instant::now();
            let each = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..connections)
                    .map(|_| scope.spawn(|| exchanges(peer.port, request.as_bytes(), requests / connections / ROUNDS)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("it doesn't panic")).collect::<Result<Vec<_>>>()
            })?;
            let total: usize = each.iter().map(Vec::len).sum();
            rates[index].push((total + WARM_UP * connections) as f64 / began.elapsed().as_secs_f64());
            each.into_iter().flatten().for_each(|sample| samples[index].add(sample));
        }
    }
    println!(
        "{file}, {connections} connections; in brackets the time, or the rate, of what that one has: {}",
        against(peers).join(", ")
    );
    let rates: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let others: Vec<usize> = (0..peers.len()).filter(|index| peers[*index].is_measure).collect();
    for (index, peer) in peers.iter().enumerate() {
        let times: Vec<_> =
            others.iter().map(|other| format!("{:.2}", samples[index].ratio_to(&samples[*other]))).collect();
        let parts: Vec<_> = others.iter().map(|other| format!("{:.2}", rates[index] / rates[*other])).collect();
        println!(
            "  {:14} p50 {:>7.1} µs ({})   p99 {:>7.1} µs   {:>8.0} requests/s ({})",
            peer.name,
            samples[index].median().as_secs_f64() * 1e6,
            times.join(", "),
            samples[index].quantile(0.99).as_secs_f64() * 1e6,
            rates[index],
            parts.join(", ")
        );
    }
    Ok(())
}

/// Whom all are compared with.
fn against(peers: &[Peer]) -> Vec<&'static str> {
    peers.iter().filter(|peer| peer.is_measure).map(|peer| peer.name).collect()
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn exchanges(port: u16, request: &[u8], count: usize) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(port)?;
    for _ in 0..WARM_UP {
        connection.exchange(request)?;
    }
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        connection.exchange(request)?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

/// A server as a process of its own; it ends with its owner.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn axum(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", &port.to_string()]).arg(folder);
        Self::start(&mut command, port)
    }

    /// nginx as it is tuned for static files, with as many workers as the agent has.
    fn nginx(program: &str, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let configuration = format!(
            "daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_requests 10000000;\n\
             server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n",
            folder = folder.display()
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, configuration)?;
        // Its workers are nobody, who must get at the files.
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Self::start(Command::new(program).arg("-c").arg(path), port)
    }

    fn start(command: &mut Command, port: u16) -> Result<Self> {
        let child = command.stderr(Stdio::null()).spawn().with_context(|| format!("starting {command:?}"))?;
        let mut process = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(process.child.try_wait()?.is_none() && began.elapsed() < Duration::from_secs(10), "{command:?}");
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // TERM, since nginx' master ends its workers then; to this one process, which is ours.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn serve(port: u16, folder: &Path) -> Result<()> {
    let folder: Arc<Path> = folder.into();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut router = Router::new();
        for (name, _) in FILES {
            let bytes = bytes::Bytes::from(fs::read(folder.join(name))?);
            router = router.route(&format!("/memory/{name}"), get(async move || bytes)).route(
                &format!("/file/{name}"),
                get(async move |State(folder): State<Arc<Path>>| {
                    tokio::fs::read(folder.join(name)).await.map_err(|error| error.to_string())
                }),
            );
        }
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true)),
            router.with_state(folder),
        )
        .await?;
        Ok(())
    })
}
