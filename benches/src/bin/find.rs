//! `find` over 100,000 files, by glob and by fuzzy query, beside `rg --files`, which only lists them.
//!
//! Usage: `find AGENT RIPGREP [ROUNDS]` (default 15). The tree is made in memory.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};
use corehold_benches::{agent::Agent, figures::Samples};

const FILES: usize = 100_000;
const QUERIES: [(&str, &str); 4] = [
    ("glob", r#"{"globs":["**/handler_7*.rs"],"limit":100}"#),
    ("fuzzy, rare", r#"{"query":"srvhandler99rs","limit":100}"#),
    ("fuzzy, common", r#"{"query":"mod","limit":100}"#),
    ("fuzzy, two words", r#"{"query":"client !test 42","limit":100}"#),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, ripgrep, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: find AGENT RIPGREP [ROUNDS]");
    };
    let rounds: u32 = rest.first().map_or(Ok(15), |rounds| rounds.parse())?;
    let folder = tempfile::tempdir_in("/dev/shm")?;
    make(folder.path())?;
    let running = Agent::start(Path::new(agent), folder.path())?;
    for (name, request) in QUERIES {
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            let began = Instant::now();
            let mut answer = String::new();
            running.stream("find", request, |line| answer.push_str(&String::from_utf8_lossy(line)))?;
            ours.add(began.elapsed());
            ensure!(answer.contains(&format!("\"considered\":{FILES}")) || name == "glob", "{answer}");
            let began = Instant::now();
            let listed =
                Command::new(ripgrep).arg("--files").current_dir(folder.path()).stderr(Stdio::null()).output()?;
            theirs.add(began.elapsed());
            ensure!(listed.stdout.iter().filter(|byte| **byte == b'\n').count() == FILES, "rg lists other files");
        }
        println!("{name:18} ours {ours}\n{:18} rg   {theirs}   ratio {:.2}", "", ours.ratio_to(&theirs));
    }
    Ok(())
}

/// 100 directories in 10, with 100 files each.
fn make(root: &Path) -> Result<()> {
    for (index, area) in
        ["server", "client", "core", "tests", "tools", "docs", "web", "proto", "store", "auth"].iter().enumerate()
    {
        for module in 0..100 {
            let folder = root.join(area).join(format!("module_{module}"));
            fs::create_dir_all(&folder)?;
            for file in 0..FILES / 1_000 {
                let kind = ["handler", "model", "view", "test"][(file + index) % 4];
                File::create(folder.join(format!("{kind}_{file}.rs")))?;
            }
        }
    }
    Ok(())
}
