//! What the user may say, and the help that teaches it.

use std::{ffi::OsString, fmt, time::Duration};

use crate::fuzz::Fuzzing;

const HELP: &str = "\
Developer commands of Corehold.

    cargo xtask up <template or folder> [flags of `corehold up`]
        Makes a running workspace on a machine that has Rust and nothing else:
        installs and starts a Docker engine if none answers, builds the agent, the
        command line and the core image, then runs `corehold up` with the arguments.
            cargo xtask up vite-react
            cargo xtask up ./my-app --name demo --attach

    cargo xtask test [--level unit|engine|all] [--skip STAGE]...
        Runs every test. `unit` needs no engine: format, lints, unit and integration
        tests, generated files, TypeScript. `engine` needs one, sets it up as `up`
        does, and runs the end-to-end tests. Default: all.
        Stages that can be skipped: format, lints, unit, typescript, end-to-end.
            cargo xtask test --level unit --skip typescript

    cargo xtask test --project-types
        Only a real project of each type with each of its package managers: makes their images
        one after the other, removes each again, and needs a way to the packages' registries.
    cargo xtask test --podman
    cargo xtask test --newest-docker
        Only the conformance suite and a workspace's life on another engine, which runs
        beside the machine's in folders and a network of its own. Podman is fetched from
        Debian and unpacked into target/tools, not installed; the newest Docker Engine is
        built from Go modules there, which needs Go 1.24 or newer. Both need root.

    cargo xtask fuzz [TARGET]... [--minutes N] [--jobs N]
        Builds the fuzz targets (all, or these) and runs each for 10 minutes or as many as
        are said, as many at a time as there are processors. Says of each how much it
        tried, and where the input is that makes it fail, if there is one: then the exit
        code is 1. What it learns is kept in target/fuzz for the next time.
            cargo xtask fuzz path resolve --minutes 30
    cargo xtask schemathesis [--minutes N]
        Asks an agent by its OpenAPI document for 10 minutes, or as many as are said: one
        on a folder and a port of its own, as a user of its own, that runs no command.
        Needs root for that user.

    cargo xtask setup
        Only installs and starts what `up` and `test` need.

    cargo xtask agent
        Builds the agent's static binary, checks it, and prints its path.

    cargo xtask gen
        Writes the committed generated files anew: TypeScript bindings, JSON Schemas, OpenAPI, MCP.

    cargo xtask help

`up`, `test`, `setup`, `fuzz` and `schemathesis` say what they install or start before they
do it, and leave an engine that answers as it is; the last two install into target/tools.
With --no-install they change nothing: what is missing is listed with the commands that
mend it, and the exit code is 1.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Print this text.
    Help(&'static str),
    /// Make a workspace.
    Up {
        /// Passed on to `corehold up`.
        arguments: Vec<OsString>,
        /// Whether anything may be installed or started.
        install: bool,
    },
    /// Run tests.
    Test(Selection),
    /// Run fuzz targets.
    Fuzz(Fuzzing),
    /// Ask an agent by its OpenAPI document.
    Schemathesis {
        /// For how long.
        duration: Duration,
        /// Whether anything may be installed.
        install: bool,
    },
    /// Install and start what is missing.
    Setup {
        /// Whether anything may be installed or started.
        install: bool,
    },
    /// Build the agent.
    Agent,
    /// Write generated files.
    Generate,
}

/// Which tests to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) level: Level,
    pub(crate) skip: Vec<Stage>,
    /// Only on this engine, beside the machine's.
    pub(crate) beside: Option<Other>,
    /// Whether anything may be installed or started.
    pub(crate) install: bool,
}

/// What tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// No engine.
    Unit,
    /// Only those that need an engine.
    Engine,
    /// Projects of each type, which all others leave out.
    ProjectTypes,
    All,
}

/// An engine beside the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    Podman,
    NewestDocker,
}

/// What can be left out of a test run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Format,
    Lints,
    Unit,
    /// The tests among the unit tests that need Node and npm.
    Typescript,
    EndToEnd,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Format, Self::Lints, Self::Unit, Self::Typescript, Self::EndToEnd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Lints => "lints",
            Self::Unit => "unit",
            Self::Typescript => "typescript",
            Self::EndToEnd => "end-to-end",
        }
    }
}

/// What the user said is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}\nTry `cargo xtask help`.", self.0)
    }
}

fn mistake<T>(text: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake(text.into()))
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Task, Mistake> {
    let mut arguments: Vec<_> = arguments.collect();
    let command = match arguments.first().map(|command| command.to_string_lossy().into_owned()) {
        None => return Ok(Task::Help(HELP)),
        Some(_) => arguments.remove(0).to_string_lossy().into_owned(),
    };
    match command.as_str() {
        "help" | "--help" | "-h" => return Ok(Task::Help(HELP)),
        // `corehold up --help` has its own help, but it isn't built yet when somebody asks.
        "up" if arguments.is_empty() => {
            return mistake("`up` needs a template or a folder: `cargo xtask up vite-react`");
        }
        _ if is_help(&arguments) => return Ok(Task::Help(HELP)),
        _ => {}
    }
    let install = !take_flag(&mut arguments, "--no-install");
    match command.as_str() {
        "up" => Ok(Task::Up { arguments, install }),
        "test" => parse_test(&arguments, install).map(Task::Test),
        "fuzz" => parse_fuzz(&arguments, install).map(Task::Fuzz),
        "schemathesis" => match parse_fuzz(&arguments, install)? {
            Fuzzing { targets, duration, jobs: None, .. } if targets.is_empty() => {
                Ok(Task::Schemathesis { duration, install })
            }
            Fuzzing { targets, .. } => {
                let word = targets.first().map_or("--jobs", String::as_str);
                mistake(format!("`{word}` is not understood here"))
            }
        },
        "setup" => nothing_more(&arguments, Task::Setup { install }),
        "agent" => nothing_more(&arguments, Task::Agent),
        "gen" => nothing_more(&arguments, Task::Generate),
        other => mistake(format!("there is no command `{other}`")),
    }
}

fn is_help(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--help" || argument == "-h")
}

/// Takes our own flag out of the arguments, wherever it stands before a `--`.
fn take_flag(arguments: &mut Vec<OsString>, flag: &str) -> bool {
    let ours = arguments.iter().take_while(|argument| *argument != "--").position(|argument| argument == flag);
    ours.map(|index| arguments.remove(index)).is_some()
}

fn nothing_more(arguments: &[OsString], task: Task) -> Result<Task, Mistake> {
    match arguments.first() {
        None => Ok(task),
        Some(argument) => mistake(format!("`{}` is not understood here", argument.to_string_lossy())),
    }
}

/// The arguments, of which `--flag=value` and `--flag value` are the same.
fn words(arguments: &[OsString]) -> impl Iterator<Item = String> {
    arguments.iter().flat_map(|argument| match argument.to_string_lossy().split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
        _ => vec![argument.to_string_lossy().into_owned()],
    })
}

fn parse_fuzz(arguments: &[OsString], install: bool) -> Result<Fuzzing, Mistake> {
    let mut fuzzing = Fuzzing { targets: Vec::new(), duration: Duration::from_secs(600), jobs: None, install };
    let mut words = words(arguments);
    while let Some(word) = words.next() {
        let mut number = |most: u64| match words.next() {
            Some(value) => match value.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => mistake(format!("`{word}` is a number from 1 to {most}, not `{value}`")),
            },
            None => mistake(format!("`{word}` needs a value: a number from 1 to {most}")),
        };
        match word.as_str() {
            "--minutes" => fuzzing.duration = Duration::from_secs(60 * number(7 * 24 * 60)?),
            "--jobs" => fuzzing.jobs = usize::try_from(number(256)?).ok(),
            flag if flag.starts_with('-') => return mistake(format!("`{flag}` is not understood here")),
            _ => fuzzing.targets.push(word),
        }
    }
    Ok(fuzzing)
}

fn parse_test(arguments: &[OsString], install: bool) -> Result<Selection, Mistake> {
    let mut selection = Selection { level: Level::All, skip: Vec::new(), beside: None, install };
    let mut words = words(arguments);
    while let Some(word) = words.next() {
        let mut value = |choices: &str| match words.next() {
            Some(value) => Ok(value),
            None => mistake(format!("`{word}` needs a value: {choices}")),
        };
        match word.as_str() {
            "--level" => {
                let choices = "unit, engine or all";
                selection.level = match value(choices)?.as_str() {
                    "unit" => Level::Unit,
                    "engine" => Level::Engine,
                    "all" => Level::All,
                    other => return mistake(format!("there is no level `{other}`: {choices}")),
                };
            }
            "--project-types" => selection.level = Level::ProjectTypes,
            "--podman" => selection.beside = Some(Other::Podman),
            "--newest-docker" => selection.beside = Some(Other::NewestDocker),
            "--skip" => {
                let choices = Stage::ALL.map(Stage::name).join(", ");
                let name = value(&choices)?;
                match Stage::ALL.into_iter().find(|stage| stage.name() == name) {
                    Some(stage) => selection.skip.push(stage),
                    None => return mistake(format!("there is no stage `{name}` to skip: {choices}")),
                }
            }
            other => return mistake(format!("`{other}` is not understood here")),
        }
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, Mistake> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn up_passes_on_all_but_its_own_flag() {
        let expected =
            Task::Up { arguments: ["vite-react", "--name", "demo"].map(OsString::from).into(), install: false };
        assert_eq!(parsed("up vite-react --no-install --name demo"), Ok(expected));
        let after_dashes =
            Task::Up { arguments: ["x", "--", "--no-install"].map(OsString::from).into(), install: true };
        assert_eq!(parsed("up x -- --no-install"), Ok(after_dashes));
    }

    #[test]
    fn tests_are_chosen_by_level_and_stage() {
        let projects = Selection { level: Level::ProjectTypes, skip: Vec::new(), beside: None, install: true };
        assert_eq!(parsed("test --project-types"), Ok(Task::Test(projects)));
        let all = Selection { level: Level::All, skip: Vec::new(), beside: None, install: true };
        assert_eq!(parsed("test"), Ok(Task::Test(all.clone())));
        for (flag, other) in [("--podman", Other::Podman), ("--newest-docker", Other::NewestDocker)] {
            let beside = Selection { beside: Some(other), ..all.clone() };
            assert_eq!(parsed(&format!("test {flag}")), Ok(Task::Test(beside)));
        }
        let skip = vec![Stage::Typescript, Stage::Lints];
        let some = Selection { level: Level::Unit, skip, beside: None, install: false };
        assert_eq!(parsed("test --level=unit --no-install --skip typescript --skip lints"), Ok(Task::Test(some)));
    }

    #[test]
    fn fuzz_targets_are_chosen_with_their_time() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let all = Fuzzing { targets: Vec::new(), duration: minutes(10), jobs: None, install: true };
        assert_eq!(parsed("fuzz"), Ok(Task::Fuzz(all)));
        let targets = ["path", "diff"].map(str::to_owned).into();
        let some = Fuzzing { targets, duration: minutes(3), jobs: Some(2), install: false };
        assert_eq!(parsed("fuzz path --minutes=3 diff --jobs 2 --no-install"), Ok(Task::Fuzz(some)));
        let schemathesis = Task::Schemathesis { duration: minutes(25), install: true };
        assert_eq!(parsed("schemathesis --minutes 25"), Ok(schemathesis));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("fuzz --minutes 0", "`0`"),
            ("fuzz --minutes long", "`long`"),
            ("fuzz --jobs", "needs a value"),
            ("fuzz --fast", "`--fast`"),
            ("schemathesis read", "`read`"),
            ("schemathesis --jobs 2", "`--jobs`"),
            ("fly", "`fly`"),
            ("up", "vite-react"),
            ("test --level sky", "`sky`"),
            ("test --level", "unit, engine or all"),
            ("test --skip", "end-to-end"),
            ("test --skip everything", "`everything`"),
            ("test fast", "`fast`"),
            ("agent --release", "`--release`"),
        ] {
            let mistake = parsed(line).expect_err(line).to_string();
            assert!(mistake.contains(named) && mistake.contains("cargo xtask help"), "{line}: {mistake}");
        }
    }

    #[test]
    fn help_is_one_word_away() {
        for line in ["", "help", "--help", "up --help", "test -h"] {
            assert_eq!(parsed(line), Ok(Task::Help(HELP)), "{line}");
        }
    }

    #[test]
    fn help_names_every_stage() {
        assert!(HELP.contains(&Stage::ALL.map(Stage::name).join(", ")));
    }
}
