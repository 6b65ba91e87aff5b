//! Developer commands of Corehold: `cargo xtask help`.
//!
//! This is the first thing that a newcomer's machine compiles, so its tree of dependencies is one crate.

mod arguments;
mod artifacts;
mod config;
mod engine;
mod fuzz;
mod machine;
mod progress;
mod schemathesis;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    arguments::Task,
    artifacts::Artifacts,
    config::Config,
    setup::{Needs, Outcome},
};

fn main() -> ExitCode {
    let task = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(task) => task,
        Err(mistake) => {
            eprintln!("{mistake}");
            return ExitCode::from(2);
        }
    };
    run(task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    let config = Config::of_this_process();
    let artifacts = Artifacts::new(&config);
    match task {
        Task::Help(text) => print!("{text}"),
        Task::Setup { install } => match setup::set_up(&config, Needs::EVERYTHING, install)? {
            Outcome::Ready { engine: Some(engine) } => println!("ready; the engine at {engine} answers"),
            Outcome::Ready { engine: None } => println!("ready"),
            Outcome::Missing => return Ok(ExitCode::FAILURE),
        },
        Task::Agent => println!("{}", artifacts.build_agent()?.display()),
        Task::Generate => artifacts.generate()?,
        Task::Up { arguments, install } => {
            let Outcome::Ready { engine: Some(engine) } = setup::set_up(&config, Needs::ENGINE, install)? else {
                return Ok(ExitCode::FAILURE);
            };
            artifacts.build_agent()?;
            artifacts.build_cli()?;
            artifacts.build_image(&engine)?;
            return artifacts.up(&engine, &arguments);
        }
        Task::Fuzz(fuzzing) => return fuzz::run(&config, &fuzzing),
        Task::Schemathesis { duration, install } => return schemathesis::run(&config, &artifacts, duration, install),
        Task::Test(selection) => return test::run(&config, &artifacts, &selection),
    }
    Ok(ExitCode::SUCCESS)
}
