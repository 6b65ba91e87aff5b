//! A command that does nothing, its answer included, beside the least that a program written with tokio would do for it.
//!
//! Usage: `run AGENT [ROUNDS]` (default 3,000). One kept connection; both sides run `true` and collect its output and status.

use std::{path::Path, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{agent::Agent, figures::Samples, http::Connection};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let agent = arguments.next().context("usage: run AGENT [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(3_000), |rounds| rounds.parse())?;
    let folder = tempfile::tempdir()?;
    let running = Agent::start(Path::new(&agent), folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut connection = Connection::open(running.port())?;
    let body = r#"{"argv":["true"]}"#;
    let request = format!(
        "{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        running.head("POST", "/v1/tools/command"),
        body.len()
    );
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    // In blocks of ten, so that neither finds the caches as the other left them each time.
    for _ in 0..rounds.div_ceil(10) {
        for _ in 0..10 {
            let began = Instant::now();
            connection.exchange(request.as_bytes())?;
            ours.add(began.elapsed());
        }
        for _ in 0..10 {
            let began = Instant::now();
            // In a task of its own: the runtime's threads are what runs a server, not the thread that waits for it.
            let output = runtime.block_on(
                runtime.spawn(async { tokio::process::Command::new("true").stdin(Stdio::null()).output().await }),
            )??;
            theirs.add(began.elapsed());
            ensure!(output.status.success(), "true failed");
        }
    }
    println!("agent, over HTTP:    {ours}");
    println!("tokio's bare spawn:  {theirs}");
    println!("ratio of the medians {:.2}", ours.ratio_to(&theirs));
    Ok(())
}
