//! Search over HTTP, streamed to the last byte, beside ripgrep as a process.
//!
//! Usage: `search AGENT RIPGREP FOLDER [ROUNDS]` (default 7). Both give JSON; the number of matching lines must agree. First
//! searches are each with a new agent, which has ended when ripgrep runs; later ones with one that has searched before and had
//! some seconds to think about it. Nothing is known of files that were changed in the last minute, so the folder should be older.
//!
//! When the first match comes is mostly a matter of where it is in the order in which each of both happens to walk, which is the same
//! at each run. So it is asked for many words, each from another place of the folder.

use std::{
    fmt,
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

/// What makes ripgrep walk as the agent does.
const WALK: [&str; 3] = ["--no-config", "--no-require-git", "--no-ignore-global"];

/// Words whose first match is waited for.
const WORDS: usize = 40;

/// Letters of such a word at least, so that it isn't everywhere, and at most.
const LETTERS: std::ops::RangeInclusive<usize> = 14..=60;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, ripgrep, folder, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: search AGENT RIPGREP FOLDER [ROUNDS]");
    };
    let folder = PathBuf::from(folder).canonicalize()?;
    let rounds: u32 = rest.first().map_or(Ok(7), |rounds| rounds.parse())?;
    println!(
        "{:24} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
        "query", "first", "ripgrep", "ratio", "later", "ripgrep", "ratio"
    );
    for (name, flags, pattern, fields) in QUERIES {
        let mut request = fields();
        request["pattern"] = pattern.into();
        request["maxMatches"] = 100_000.into();
        let mut first = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            let [ours, theirs] = first_searches(agent, ripgrep, &folder, &request, flags, pattern)?;
            ours.agrees_with(&theirs, name)?;
            first.0.add(ours.all);
            first.1.add(theirs.all);
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
        println!("{name:24} {} {}", Beside(&first, 0.5), Beside(&later, 0.5));
    }
    let words = words(ripgrep, &folder)?;
    let mut first = (Samples::default(), Samples::default());
    let mut later = (Samples::default(), Samples::default());
    let waited = |run: &Run, word: &str| run.first.with_context(|| format!("{word} isn't found"));
    for word in &words {
        let [ours, theirs] = first_searches(agent, ripgrep, &folder, &request_for(word), &["-F"], word)?;
        first.0.add(waited(&ours, word)?);
        first.1.add(waited(&theirs, word)?);
    }
    let running = Agent::start(Path::new(agent), &folder)?;
    through_agent(&running, &request_for(&words[0]))?;
    std::thread::sleep(THINKING);
    for word in &words {
        later.0.add(waited(&through_agent(&running, &request_for(word))?, word)?);
        later.1.add(waited(&through_ripgrep(ripgrep, &["-F"], word, &folder)?, word)?);
    }
    for (name, share) in [("first match, median", 0.5), ("  lower quartile", 0.25), ("  upper quartile", 0.75)] {
        println!("{name:24} {} {}", Beside(&first, share), Beside(&later, share));
    }
    Ok(())
}

fn request_for(word: &str) -> Value {
    json!({ "literal": true, "pattern": word })
}

/// Ours and ripgrep's quantile, and their ratio.
struct Beside<'a>(&'a (Samples, Samples), f64);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((ours, theirs), share) = self;
        let [ours, theirs] = [ours, theirs].map(|samples| samples.quantile(*share).as_secs_f64() * 1e3);
        write!(formatter, "{ours:>6.1} ms {theirs:>6.1} ms {:>6.2}  ", ours / theirs)
    }
}

/// A search by an agent that has never searched, and one by ripgrep.
fn first_searches(
    agent: &str,
    ripgrep: &str,
    folder: &Path,
    request: &Value,
    flags: &[&str],
    pattern: &str,
) -> Result<[Run; 2]> {
    let running = Agent::start(Path::new(agent), folder)?;
    let ours = through_agent(&running, request)?;
    // It would be thinking while ripgrep runs.
    drop(running);
    Ok([ours, through_ripgrep(ripgrep, flags, pattern, folder)?])
}

/// The longest word of each of some files, spread over the folder.
fn words(ripgrep: &str, folder: &Path) -> Result<Vec<String>> {
    let listed = Command::new(ripgrep).args(WALK).args(["--files", "--sort", "path"]).current_dir(folder).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let files: Vec<&str> = listed.lines().collect();
    ensure!(files.len() >= WORDS, "{} has {} files", folder.display(), files.len());
    let mut words = Vec::new();
    for part in files.chunks(files.len() / WORDS).take(WORDS) {
        words.extend(part.iter().find_map(|file| longest_word(&folder.join(file))));
    }
    ensure!(words.len() == WORDS, "only {} parts of {} have a long word", words.len(), folder.display());
    Ok(words)
}

fn longest_word(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok().filter(|text| !text.contains('\0'))?;
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let word = words.filter(|word| LETTERS.contains(&word.len())).max_by_key(|word| word.len())?;
    Some(word.to_owned())
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
        .args(WALK)
        .arg("--json")
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
