//! `corehold`, the command line over `corehold-host`: says what the user may say, calls the library, shows what it answers.

mod args;
mod commands;
mod failure;
mod input;
mod output;
mod progress;
mod surroundings;
mod terminal;

use std::process::ExitCode;

use args::{Arguments, Cache, Command, Image, Template};
use clap::Parser as _;
use commands::life::Verb;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    surroundings::start_logging();
    let global = &arguments.global;
    let done = match &arguments.command {
        Command::Up(up) => commands::up::run(global, up).await,
        Command::Ls => commands::ls::run(global).await,
        Command::Why(why) => commands::why::run(global, why).await,
        Command::Policy(policy) => commands::policy::run(global, policy).await,
        Command::Health(health) => commands::health::run(global, health).await,
        Command::Start(chosen) => commands::life::at_once(global, Verb::Start, chosen).await,
        Command::Stop(graced) => commands::life::graced(global, Verb::Stop, graced).await,
        Command::Restart(graced) => commands::life::graced(global, Verb::Restart, graced).await,
        Command::Pause(chosen) => commands::life::at_once(global, Verb::Pause, chosen).await,
        Command::Resume(chosen) => commands::life::at_once(global, Verb::Resume, chosen).await,
        Command::Sleep(graced) => commands::life::graced(global, Verb::Sleep, graced).await,
        Command::Wake(chosen) => commands::life::at_once(global, Verb::Wake, chosen).await,
        Command::Supervise(supervise) => commands::events::supervise(global, supervise).await,
        Command::Limits(limits) => commands::limits::run(global, limits).await,
        Command::Exec(exec) => return commands::exec::run(global, exec).await,
        Command::Forward(forward) => commands::forward::run(global, forward).await,
        Command::Logs(logs) => commands::logs::run(global, logs).await,
        Command::Stats(stats) => commands::stats::run(global, stats).await,
        Command::Events => commands::events::run(global).await,
        Command::Down(down) => commands::down::run(global, down).await,
        Command::Save(save) => commands::archives::save(global, save).await,
        Command::Archives(archives) => commands::archives::run(global, archives).await,
        Command::Load(load) => commands::load::run(global, load).await,
        Command::Fork(fork) => commands::load::fork(global, fork).await,
        Command::Diff(diff) => commands::diff::run(global, diff).await,
        Command::Image(Image::Build(build)) => commands::image::build(global, build).await,
        Command::Image(Image::Ls) => commands::image::ls(global).await,
        Command::Image(Image::Pull { images }) => commands::image::pull(global, images).await,
        Command::Image(Image::Rm { images }) => commands::image::rm(global, images).await,
        Command::Image(Image::Report) => commands::image::report(global).await,
        Command::Template(Template::Ls) => commands::template::ls(global),
        Command::Template(Template::Check { source }) => commands::template::check(global, source),
        Command::Template(Template::Schema) => commands::template::schema(),
        Command::Cache(Cache::Ls) => commands::cache::ls(global).await,
        Command::Cache(Cache::Clear) => commands::cache::clear(global).await,
        Command::Volume(volume) => commands::volume::run(global, volume).await,
        Command::Doctor => commands::doctor::run(global).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => failure::report(&error, global.json),
    }
}
