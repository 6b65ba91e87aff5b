//! `cargo xtask fuzz`: builds the fuzz targets, runs each for some minutes, and says of each in one line what came of it.
//!
//! What is built, learnt and found lies in `target/fuzz`: a corpus that grows from run to run, a log of each target, and what made one fail.

mod log;

use std::{
    collections::VecDeque,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    config::Config,
    progress::{self, seconds},
    setup::{self, Needs, Outcome},
};

use log::Log;

/// What to fuzz, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fuzzing {
    /// Names of targets. Default: all.
    pub(crate) targets: Vec<String>,
    /// How long each one runs.
    pub(crate) duration: Duration,
    /// How many run at a time. Default: as many as there are processors.
    pub(crate) jobs: Option<usize>,
    /// Whether anything may be installed.
    pub(crate) install: bool,
}

/// What is reported as a hang: the longest known takes seconds, on a machine that does much else.
const HANG: Duration = Duration::from_secs(120);

/// Where the things of a target are.
struct Places<'a> {
    config: &'a Config,
}

impl Places<'_> {
    fn folder(&self, of: &str, target: &str) -> Result<PathBuf> {
        let folder = self.config.target.join("fuzz").join(of).join(target);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    fn build(&self) -> PathBuf {
        self.config.target.join("fuzz/build")
    }

    fn program(&self, target: &str) -> PathBuf {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        self.build().join(triple).join("release").join(target)
    }
}

/// Runs the chosen targets; fails when one of them found something or couldn't run.
pub(crate) fn run(config: &Config, fuzzing: &Fuzzing) -> Result<ExitCode> {
    let targets = chosen(&targets(&config.repository)?, &fuzzing.targets)?;
    let Outcome::Ready { .. } = setup::set_up(config, Needs::FUZZING, fuzzing.install)? else {
        return Ok(ExitCode::FAILURE);
    };
    let places = Places { config };
    progress::step("Build the fuzz targets (optimized; many minutes the first time)", || {
        if fuzzing.targets.is_empty() {
            return progress::run(&mut build(config, &places, None));
        }
        targets.iter().try_for_each(|target| progress::run(&mut build(config, &places, Some(target))))
    })?;
    let jobs = fuzzing.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let heading = format!("Run {} for {} each, {jobs} at a time", targets.join(", "), minutes(fuzzing.duration));
    let done =
        progress::step(&heading, || Ok(run_all(&targets, jobs, |target| run_one(&places, target, fuzzing.duration))))?;
    println!();
    for done in &done {
        println!("{done}");
    }
    Ok(if done.iter().all(Done::is_clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The names of all targets, sorted.
fn targets(repository: &Path) -> Result<Vec<String>> {
    let folder = repository.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Those that were asked for, or all.
fn chosen(all: &[String], asked: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target `{unknown}`: {}", all.join(", "));
    }
    Ok(all.iter().filter(|name| asked.is_empty() || asked.contains(name)).cloned().collect())
}

/// Without the address sanitizer, which needs a nightly toolchain, and these parsers have no `unsafe`; what the instrumentation needs of one,
/// the stable one gives to who says so.
fn build(config: &Config, places: &Places<'_>, target: Option<&str>) -> Command {
    let mut command = Command::new(config.cargo_fuzz().unwrap_or_else(|| "cargo-fuzz".into()));
    command.args(["fuzz", "build", "--sanitizer", "none", "--target-dir"]).arg(places.build()).args(target);
    command.current_dir(config.repository.join("fuzz")).env("RUSTC_BOOTSTRAP", "1").env("CARGO", &config.cargo);
    command
}

/// Runs all, some at a time, in their order.
fn run_all(targets: &[String], jobs: usize, work: impl Fn(&str) -> Done + Sync) -> Vec<Done> {
    let waiting: Mutex<VecDeque<(usize, &String)>> = Mutex::new(targets.iter().enumerate().collect());
    let done: Mutex<Vec<(usize, Done)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((index, target)) = next else { break };
                    let result = work(target);
                    eprintln!("    {result}");
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, done)| done).collect()
}

/// What became of one target.
struct Done {
    target: String,
    duration: Duration,
    outcome: Result<Log>,
    log: PathBuf,
}

impl Done {
    fn is_clean(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|log| log.artifacts.is_empty() && log.ended)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, duration, outcome, log } = self;
        let word = if self.is_clean() { "nothing" } else { "FOUND" };
        match outcome {
            Ok(Log { executions, coverage: [first, last], artifacts, ended }) => {
                write!(
                    formatter,
                    "{word:<8} {target:<9} {executions:>12} executions, coverage {first} to {last}, {}",
                    seconds(*duration)
                )?;
                artifacts.iter().try_for_each(|artifact| write!(formatter, "; {artifact}"))?;
                if *ended && artifacts.is_empty() { Ok(()) } else { write!(formatter, "; its log: {}", log.display()) }
            }
            Err(error) => write!(formatter, "FAILED   {target:<9} {error:#}"),
        }
    }
}

fn run_one(places: &Places<'_>, target: &str, duration: Duration) -> Done {
    let begun = Instant::now();
    let log = places.config.target.join("fuzz/logs").join(format!("{target}.log"));
    let outcome = fuzz(places, target, duration, &log);
    Done { target: target.to_owned(), duration: begun.elapsed(), outcome, log }
}

/// Runs a target from its corpus and its seeds. New inputs go into the corpus, since it comes first.
fn fuzz(places: &Places<'_>, target: &str, duration: Duration, log: &Path) -> Result<Log> {
    let artifacts = places.folder("artifacts", target)?;
    places.folder("logs", "")?;
    let seeds = places.config.repository.join("fuzz/seeds").join(target);
    ensure!(seeds.is_dir(), "{target} has no seeds in {}", seeds.display());
    let output = fs::File::create(log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(places.program(target));
    command.arg(places.folder("corpus", target)?).arg(seeds);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={}", duration.as_secs()));
    command.arg(format!("-timeout={}", HANG.as_secs()));
    // What the targets themselves print is nothing that anybody reads.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let status = command.status().with_context(|| format!("can't run `{}`", progress::line(&command)))?;
    let text = fs::read(log).with_context(|| log.display().to_string())?;
    let mut read = Log::read(&String::from_utf8_lossy(&text));
    read.ended &= status.success();
    Ok(read)
}

/// A duration for people: `10 minutes`.
fn minutes(duration: Duration) -> String {
    match duration.as_secs() / 60 {
        1 => "1 minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn targets_are_the_files_and_each_has_seeds() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = targets(&repository).unwrap();
        assert!(all.contains(&"path".to_owned()) && all.is_sorted(), "{all:?}");
        let manifest = fs::read_to_string(repository.join("fuzz/Cargo.toml")).unwrap();
        for target in &all {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} isn't built");
            assert!(repository.join("fuzz/seeds").join(target).is_dir(), "{target} has no seeds");
        }
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let all = names(&["diff", "path"]);
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &names(&["path"])).unwrap(), ["path"]);
        let error = chosen(&all, &names(&["pth"])).unwrap_err().to_string();
        assert!(error.contains("`pth`") && error.contains("diff, path"), "{error}");
    }

    fn done(target: &str, outcome: Result<Log>) -> Done {
        Done { target: target.to_owned(), duration: Duration::from_secs(60), outcome, log: "logs/x.log".into() }
    }

    #[test]
    fn all_run_and_are_told_in_their_order() {
        let log = || Log { executions: 7, coverage: [1, 2], artifacts: Vec::new(), ended: true };
        let all = names(&["a", "b", "c", "d"]);
        let results = run_all(&all, 2, |target| done(target, Ok(log())));
        assert!(results.iter().map(|done| done.target.as_str()).eq(["a", "b", "c", "d"]));
        assert!(results.iter().all(Done::is_clean));
        let line = results[0].to_string();
        assert!(line.contains("7 executions, coverage 1 to 2, 60.0 s") && !line.contains("logs/x.log"), "{line}");
    }

    #[test]
    fn what_was_found_or_broke_off_is_no_success() {
        let found =
            Log { executions: 7, coverage: [1, 2], artifacts: vec!["artifacts/crash-1".to_owned()], ended: false };
        let broken = Log { executions: 0, coverage: [0, 0], artifacts: Vec::new(), ended: false };
        for (outcome, told) in [
            (Ok(found), "artifacts/crash-1"),
            (Ok(broken), "logs/x.log"),
            (Err(anyhow::anyhow!("no program")), "no program"),
        ] {
            let done = done("a", outcome);
            assert!(!done.is_clean() && done.to_string().contains(told), "{done}");
        }
    }
}
