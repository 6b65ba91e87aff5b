//! Archives of many files over HTTP, out of a workspace and into one, beside the tools that people would use instead.
//!
//! Usage: `archive AGENT ROUNDS FOLDER…`: the folders' files, at least 20,000 of them, are copied into memory (`/dev/shm`)
//! first, since ext4 takes many times longer to create files for minutes after others were removed. Needs `tar`, `pigz` and
//! `zstd`.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{agent::Agent, figures::Samples};

/// Name, format of ours, the shell line of the peer: what it writes to its standard output is counted.
const OUT: [(&str, &str, &str); 4] = [
    ("gzip, pigz -1", "tar.gz", "tar cf - . | pigz -1"),
    ("gzip, tar czf", "tar.gz", "tar czf - ."),
    ("zstd, tar --zstd", "tar.zst", "tar --zstd -cf - ."),
    ("zstd, zstd -T0", "tar.zst", "tar cf - . | zstd -T0 -q"),
];

/// Name, the peer's shell line in the folder to extract into.
const IN: [(&str, &str); 2] = [("tar xzf", "tar xzf ../a.tar.gz"), ("tar, pigz", "pigz -dc ../a.tar.gz | tar xf -")];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, rounds, folders @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: archive AGENT ROUNDS FOLDER…");
    };
    let rounds: u32 = rounds.parse()?;
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let corpus = memory.path().join("corpus");
    fs::create_dir(&corpus)?;
    for (index, folder) in folders.iter().enumerate() {
        run(Command::new("cp").args(["-a", "-T"]).arg(folder).arg(corpus.join(index.to_string())))?;
    }
    let files = count(&corpus)?;
    ensure!(files >= 20_000, "{files} files; give more folders, for at least 20,000");
    println!("{files} files in memory\n");
    let running = Agent::start(Path::new(agent), memory.path())?;

    println!(
        "{:18} {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}",
        "out", "ours", "theirs", "ratio", "ours", "theirs", "ratio"
    );
    for (name, format, line) in OUT {
        let (mut ours, mut theirs, mut sizes) = (Samples::default(), Samples::default(), (0, 0));
        for _ in 0..rounds {
            let began = Instant::now();
            sizes.0 = running.download(&format!("/v1/archive?path=corpus&format={format}"), &mut io::sink())?;
            ours.add(began.elapsed());
            let (size, time) = piped(line, &corpus)?;
            sizes.1 = size;
            theirs.add(time);
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "{name:18} {:>6.0} ms {:>6.0} ms {:>6.2}   {:>6.1} MB {:>6.1} MB {:>6.3}",
            milliseconds(&ours),
            milliseconds(&theirs),
            ours.ratio_to(&theirs),
            megabytes(sizes.0),
            megabytes(sizes.1),
            sizes.0 as f64 / sizes.1 as f64
        );
    }

    running.download("/v1/archive?path=corpus&format=tar.gz", &mut File::create(memory.path().join("a.tar.gz"))?)?;
    println!("\n{:18} {:>9} {:>9} {:>6}", "in", "ours", "theirs", "ratio");
    for (name, line) in IN {
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            let fresh = memory.path().join("ours");
            fs::create_dir(&fresh)?;
            let archive = File::open(memory.path().join("a.tar.gz"))?;
            let began = Instant::now();
            running.upload("/v1/archive?path=ours", archive)?;
            ours.add(began.elapsed());
            ensure!(count(&fresh)? == files, "files are missing");
            fs::remove_dir_all(&fresh)?;
            fs::create_dir(&fresh)?;
            theirs.add(piped(line, &fresh)?.1);
            fs::remove_dir_all(&fresh)?;
        }
        println!(
            "{name:18} {:>6.0} ms {:>6.0} ms {:>6.2}",
            milliseconds(&ours),
            milliseconds(&theirs),
            ours.ratio_to(&theirs)
        );
    }
    Ok(())
}

/// Runs a shell line and reads its output. Returns its length and the time it all took.
fn piped(line: &str, folder: &Path) -> Result<(u64, Duration)> {
    let began = Instant::now();
    let mut shell = Command::new("sh").args(["-c", line]).current_dir(folder).stdout(Stdio::piped()).spawn()?;
    let mut output = shell.stdout.take().context("the output is piped")?;
    let (mut buffer, mut length) = (vec![0; 64 << 10], 0);
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            read => length += read as u64,
        }
    }
    ensure!(shell.wait()?.success(), "{line}");
    Ok((length, began.elapsed()))
}

fn run(command: &mut Command) -> Result<()> {
    ensure!(command.status()?.success(), "{command:?}");
    Ok(())
}

fn count(folder: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

fn milliseconds(samples: &Samples) -> f64 {
    samples.median().as_secs_f64() * 1e3
}
