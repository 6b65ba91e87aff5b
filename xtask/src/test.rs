//! Runs the stages of the tests, counts what passes, and sums up.

pub(crate) mod tally;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    arguments::{Level, Other, Selection, Stage},
    artifacts::Artifacts,
    config::Config,
    engine::{self, Address, beside::Beside, newest, podman},
    progress::{self, seconds},
    setup::{self, Needs, Outcome},
};

use tally::Tally;

/// The package with the tests that need an engine.
const END_TO_END: &str = "corehold-e2e";

/// What became of one stage.
struct Done {
    name: &'static str,
    duration: Duration,
    tally: Tally,
    passed: bool,
}

/// Runs the chosen stages until one fails, and sums up.
pub(crate) fn run(config: &Config, artifacts: &Artifacts, selection: &Selection) -> Result<ExitCode> {
    let chosen = |stage: Stage| {
        let level = if stage == Stage::EndToEnd { Level::Engine } else { Level::Unit };
        selection.beside.is_none()
            && !selection.skip.contains(&stage)
            && (selection.level == Level::All || selection.level == level)
    };
    let needs = Needs {
        engine: chosen(Stage::EndToEnd) || selection.level == Level::ProjectTypes || selection.beside.is_some(),
        podman: selection.beside == Some(Other::Podman),
        newest_docker: selection.beside == Some(Other::NewestDocker),
        node: chosen(Stage::Unit) && chosen(Stage::Typescript),
        python: chosen(Stage::Unit),
        terminals: chosen(Stage::Unit),
        components: chosen(Stage::Format) || chosen(Stage::Lints),
        ..Needs::NOTHING
    };
    // First of all, so that nobody waits through the unit tests to learn that an engine is missing.
    let Outcome::Ready { engine } = setup::set_up(config, needs, selection.install)? else {
        eprintln!("Tests can be chosen by what they need: `cargo xtask help`.");
        return Ok(ExitCode::FAILURE);
    };

    let mut stages = Stages::default();
    if chosen(Stage::Format) {
        stages.run("format", || counted("Check the format", artifacts.cargo(&["fmt", "--all", "--check"])));
    }
    if chosen(Stage::Lints) {
        let lints = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        stages.run("lints", || counted("Check the lints", artifacts.cargo(&lints)));
    }
    if chosen(Stage::Unit) {
        stages.run("unit", || {
            let mut tests = artifacts.cargo(&["test", "--workspace", "--exclude", END_TO_END, "--no-fail-fast"]);
            if !chosen(Stage::Typescript) {
                tests.args(["--", "--skip", "typescript_compiler", "--skip", "typescript_client"]);
            }
            counted("Run the tests that need no engine", tests)
        });
    }
    if let Some(engine) = engine {
        stages.run("agent", || artifacts.build_agent().map(|_| (Tally::default(), true)));
        stages.run("command line", || artifacts.build_cli().map(|()| (Tally::default(), true)));
        stages.run("core image", || artifacts.build_image(&engine).map(|()| (Tally::default(), true)));
        if selection.level == Level::ProjectTypes {
            stages.run("project types", || {
                counted("Build and run projects of each type", project_types(artifacts, &engine))
            });
        } else if chosen(Stage::EndToEnd) {
            stages.run("end-to-end", || counted("Run the end-to-end tests", end_to_end(artifacts, &engine)));
        }
        match selection.beside {
            Some(Other::Podman) => {
                stages.run("podman", || beside(config, artifacts, &engine, "Podman", || podman::start(config)));
            }
            Some(Other::NewestDocker) => stages.run("newest docker", || {
                let programs = newest::build(config)?;
                beside(config, artifacts, &engine, "the newest Docker Engine", || newest::start(config, &programs))
            }),
            None => {}
        }
    }
    stages.sum_up();
    Ok(if stages.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command under a heading and counts the tests in it.
fn counted(heading: &str, mut command: Command) -> Result<(Tally, bool)> {
    progress::step(heading, || tally::count(&mut command))
}

/// Tests of the life of a workspace, which need nothing from outside: what an engine beside the machine's is tried with besides the suite.
/// Their workspaces have one name.
const LIVES: [&str; 2] = ["up_use_and_down", "every_command_of_the_life_cycle"];
/// What workspaces are given by the engine, each by itself: networks, mounts, volumes, the agent in an image that has none.
const PARTS: [&str; 5] = [
    "networks::",
    "a_folder_is_there_as_it_was_asked_for_whatever_befalls_the_workspace",
    "a_volume_outlives_workspaces_and_is_not_removed_under_them",
    "its_root_may_be_read_only",
    "what_it_wrote_sleeps_and_wakes_with_it_and_its_volumes_go",
];

/// Runs the conformance suite, then a workspace's life, on an engine of its own that lives as long as this takes.
fn beside(
    config: &Config,
    artifacts: &Artifacts,
    engine: &Address,
    name: &str,
    start: impl FnOnce() -> Result<Beside>,
) -> Result<(Tally, bool)> {
    // Compiled while the network is still there.
    progress::run(&mut artifacts.cargo(&["test", "--quiet", "--package", END_TO_END, "--test", "e2e", "--no-run"]))?;
    let other = progress::step(&format!("Start {name} beside it, in folders and a network of its own"), start)?;
    progress::step("Give it the core image", || {
        let file = config.target.join("core-image.tar");
        engine::copy_image(engine, &other.address, "workspace-core:latest", &file)
    })?;
    let tests = |arguments: &[&str]| {
        let mut tests = artifacts.cargo(&["test", "--package", END_TO_END, "--test", "e2e", "--no-fail-fast", "--"]);
        tests.args(arguments);
        artifacts.tell_places(&mut tests, &other.address);
        other.within(&tests)
    };
    // A filter that matches nothing would pass too.
    let listed = tests(&["--list"])?.output()?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    for filter in LIVES.iter().chain(&PARTS) {
        ensure!(listed.contains(filter), "there is no test {filter}");
    }
    let (mut tally, mut passed) = (Tally::default(), true);
    let lives = [&LIVES[..], &["--test-threads", "1"]].concat();
    for (what, arguments) in [
        ("the conformance suite", &["conformance::"][..]),
        ("the lives of workspaces", &lives),
        ("what workspaces are given", &PARTS),
    ] {
        let (more, all) = counted(&format!("Run {what} on {name}"), tests(arguments)?)?;
        tally.passed += more.passed;
        tally.failed += more.failed;
        tally.names.extend(more.names);
        passed &= all;
    }
    Ok((tally, passed))
}

fn end_to_end(artifacts: &Artifacts, engine: &Address) -> Command {
    let mut tests = artifacts.cargo(&["test", "--package", END_TO_END, "--no-fail-fast"]);
    artifacts.tell_places(&mut tests, engine);
    tests
}

/// One at a time, so that the disk holds one image of them.
fn project_types(artifacts: &Artifacts, engine: &Address) -> Command {
    let selected = ["--package", END_TO_END, "--features", "project-types", "--test", "project_types"];
    let mut tests = artifacts.cargo(&["test", "--no-fail-fast"]);
    tests.args(selected).args(["--", "--test-threads", "1", "--nocapture"]);
    artifacts.tell_places(&mut tests, engine);
    tests
}

/// The stages so far. After one that fails, the later ones do not run: their failures would hide the first.
#[derive(Default)]
struct Stages {
    done: Vec<Done>,
    not_run: Vec<&'static str>,
}

impl Stages {
    fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<(Tally, bool)>) {
        if !self.all_passed() {
            self.not_run.push(name);
            return;
        }
        let start = Instant::now();
        let (tally, passed) = work().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            (Tally::default(), false)
        });
        self.done.push(Done { name, duration: start.elapsed(), tally, passed });
    }

    fn all_passed(&self) -> bool {
        self.done.iter().all(|done| done.passed)
    }

    /// All tests of all stages. A stage that fails without a failing test (it doesn't compile, a lint) counts as one.
    fn total(&self) -> Tally {
        let mut total = Tally::default();
        for done in &self.done {
            total.passed += done.tally.passed;
            total.failed += done.tally.failed;
            if !done.passed && done.tally.failed == 0 {
                total.failed += 1;
            }
        }
        total
    }

    fn sum_up(&self) {
        println!();
        for Done { name, duration, tally, passed } in &self.done {
            let word = if *passed { "passed" } else { "FAILED" };
            let tests = if *tally == Tally::default() { String::new() } else { format!("   {tally}") };
            println!("{word:<8} {name:<13} {:>9}{tests}", seconds(*duration));
            for name in &tally.names {
                println!("         {name}");
            }
        }
        for name in &self.not_run {
            println!("not run  {name}");
        }
        println!("{}", self.total());
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed, names: Vec::new() }
    }

    #[test]
    fn later_stages_do_not_run_after_a_failure() {
        let mut stages = Stages::default();
        stages.run("first", || Ok((tally(3, 0), true)));
        stages.run("second", || Ok((tally(2, 1), false)));
        stages.run("third", || panic!("must not run"));
        assert_eq!((stages.total(), stages.all_passed()), (tally(5, 1), false));
        assert_eq!(stages.not_run, ["third"]);
    }

    #[test]
    fn a_stage_that_fails_without_a_failing_test_is_counted() {
        let mut stages = Stages::default();
        stages.run("lints", || bail!("a warning"));
        assert_eq!(stages.total(), tally(0, 1));
    }
}
