//! Search over HTTP, streamed to the last byte, beside ripgrep as a process.
//!
//! Usage: `search AGENT RIPGREP FOLDER [ROUNDS]` (default 7). Both give JSON; the number of matching lines must agree. First
//! searches are each with a new agent; later ones with one that has searched before and had some seconds to think about it.
//! Nothing is known of files that were changed in the last minute, so the folder should be older.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{agent::Agent, figures::Samples};
use serde_json::{Value, json};

/// Name, flags for ripgrep, pattern, fields of the request besides the pattern.
type Query = (&'static str, &'static [&'static str], &'static str, fn() -> Value);

const QUERIES: [Query; 6] = [
    ("rare literal", &["-F"], "unsafe_op_in_unsafe_fn", || json!({ "literal": true })),
    ("common literal", &["-F"], "impl", || json!({ "literal": true })),
    ("expression", &[], r"fn \w+_from\w*\(", || json!({})),
    ("no match", &["-F"], "zzzz-not-there-zzzz", || json!({ "literal": true })),
    ("case-insensitive word", &["-i", "-w"], "todo", || json!({ "case": "insensitive", "word": true })),
    ("one type", &["-t", "toml"], "^version", || json!({ "types": ["toml"] })),
];

/// Time for an agent to gather what later searches know: at low priority, it takes about a second for 400 MB.
const THINKING: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, ripgrep, folder, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: search AGENT RIPGREP FOLDER [ROUNDS]");
    };
    let folder = PathBuf::from(folder).canonicalize()?;
    let rounds: u32 = rest.first().map_or(Ok(7), |rounds| rounds.parse())?;
    println!(
        "{:24} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
        "query", "ours", "ripgrep", "ratio", "1st match", "ripgrep", "ratio", "later", "ripgrep", "ratio"
    );
    for (name, flags, pattern, fields) in QUERIES {
        let mut request = fields();
        request["pattern"] = pattern.into();
        request["maxMatches"] = 100_000.into();
        let mut sides = [(Samples::default(), Samples::default()), (Samples::default(), Samples::default())];
        for _ in 0..rounds {
            // An agent of its own each time: the goal for the first search is the harder one.
            let running = Agent::start(Path::new(agent), &folder)?;
            let ours = through_agent(&running, &request)?;
            let theirs = through_ripgrep(ripgrep, flags, pattern, &folder)?;
            ours.agrees_with(&theirs, name)?;
            for (run, (all, first)) in [ours, theirs].into_iter().zip(&mut sides) {
                all.add(run.all);
                first.add(run.first.unwrap_or(run.all));
            }
        }
        let mut later = (Samples::default(), Samples::default());
        let running = Agent::start(Path::new(agent), &folder)?;
        through_agent(&running, &request)?;
        std::thread::sleep(THINKING);
        for _ in 0..rounds {
            let ours = through_agent(&running, &request)?;
            let theirs = through_ripgrep(ripgrep, flags, pattern, &folder)?;
            ours.agrees_with(&theirs, name)?;
            later.0.add(ours.all);
            later.1.add(theirs.all);
        }
        let [ours, theirs] = &sides;
        let milliseconds = |samples: &Samples| samples.median().as_secs_f64() * 1e3;
        println!(
            "{name:24} {:>6.1} ms {:>6.1} ms {:>6.2}   {:>6.1} ms {:>6.1} ms {:>6.2}   {:>6.1} ms {:>6.1} ms {:>6.2}",
            milliseconds(&ours.0),
            milliseconds(&theirs.0),
            ours.0.ratio_to(&theirs.0),
            milliseconds(&ours.1),
            milliseconds(&theirs.1),
            ours.1.ratio_to(&theirs.1),
            milliseconds(&later.0),
            milliseconds(&later.1),
            later.0.ratio_to(&later.1),
        );
    }
    Ok(())
}

struct Run {
    all: Duration,
    first: Option<Duration>,
    matches: u64,
}

impl Run {
    /// Not to the line: what ripgrep finds in front of a NUL byte in a large file depends on the files before.
    fn agrees_with(&self, theirs: &Self, name: &str) -> Result<()> {
        let (ours, theirs) = (self.matches, theirs.matches);
        ensure!(ours.abs_diff(theirs) * 1_000 <= theirs, "{name}: {ours} matches, ripgrep {theirs}");
        Ok(())
    }

    fn see(&mut self, began: Instant, line: &[u8]) {
        if line.starts_with(b"{\"type\":\"match\"") {
            self.first.get_or_insert_with(|| began.elapsed());
            self.matches += 1;
        }
    }
}

fn through_agent(agent: &Agent, request: &Value) -> Result<Run> {
    let body = request.to_string();
    let mut run = Run { all: Duration::ZERO, first: None, matches: 0 };
    let began = Instant::now();
    agent.stream("search", &body, |line| run.see(began, line))?;
    run.all = began.elapsed();
    Ok(run)
}

fn through_ripgrep(ripgrep: &str, flags: &[&str], pattern: &str, folder: &Path) -> Result<Run> {
    let mut run = Run { all: Duration::ZERO, first: None, matches: 0 };
    let began = Instant::now();
    let mut child = Command::new(ripgrep)
        .args(["--json", "--no-config", "--no-require-git", "--no-ignore-global"])
        .args(flags)
        .args(["-e", pattern, "."])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut reader = BufReader::with_capacity(64 << 10, child.stdout.take().context("it is piped")?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        run.see(began, &line);
        line.clear();
    }
    child.wait()?;
    run.all = began.elapsed();
    Ok(run)
}
