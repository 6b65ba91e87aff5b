//! The binary: what the agent does when it starts, as a list.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use corehold_agent::{
    agent::{Agent, StartError},
    blocking,
    config::{Config, ConfigError},
    health, logging, memory,
    process::{ProcessConfig, Processes},
    reach, relay, server,
};

const HELP: &str = "\
The resident agent of a Corehold workspace.

Usage: corehold-agent [COMMAND]

Commands:
  (none)     serve until told to end
  health     ask the agent on this machine whether it answers; exits with 0 or 1
  reach      say which addresses, of those on standard input, can be connected to from here
  relay PORT carry a connection to a port of this machine's loopback over standard input and output, in frames
  --version  print the version
  --help     print this

It is configured by environment variables; COREHOLD_PUBLIC_KEY and COREHOLD_INSTANCE, or COREHOLD_TOKEN_SHA256, are
needed. The tool `info` lists its limits with the variable of each.";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.iter().map(|argument| argument.to_str()).collect::<Vec<_>>().as_slice() {
        [] => done(serve()),
        [Some("health")] => done(health::ask()),
        [Some("reach")] => done(reach::run()),
        [Some("relay"), Some(port)] => done(relay::run(port)),
        [Some("--version" | "-V")] => print(concat!("corehold-agent ", env!("CARGO_PKG_VERSION"))),
        [Some("--help" | "-h")] => print(HELP),
        _ => {
            eprintln!("corehold-agent: these arguments are not understood: {arguments:?}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> Result<(), Failed> {
    let config = Config::from_environment()?;
    logging::start(&config);
    memory::return_what_is_large();
    // Before any other thread exists, since what it restricts and blocks it does for all that come after.
    let processes = Processes::start(ProcessConfig::from_config(&config)).map_err(Failed::Processes)?;
    let agent = Arc::new(Agent::new(config, processes)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(agent.config.workers)
        .max_blocking_threads(blocking::THREADS)
        .thread_keep_alive(blocking::KEEP_ALIVE)
        .enable_all()
        .build()
        .map_err(Failed::Runtime)?;
    runtime.block_on(async {
        blocking::keep_ready();
        let address = agent.config.listen;
        let listener =
            tokio::net::TcpListener::bind(address).await.map_err(|error| Failed::Listen { address, error })?;
        logging::started(&agent, &listener);
        server::run(listener, Arc::clone(&agent), agent.processes.told_to_end()).await.map_err(Failed::Runtime)
    })
}

/// Why the agent doesn't run.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the threads that start and reap processes can't be started: {0}")]
    Processes(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("what serves can't be started: {0}")]
    Runtime(std::io::Error),
    #[error("can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
}

fn done(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corehold-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}
