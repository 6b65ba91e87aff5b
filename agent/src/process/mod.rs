//! Processes of the workspace: starting, keeping, ending them, and what they wrote.
//!
//! Two threads do it, both there before anything else is, since at the limit of processes no thread can be made: the
//! `spawner` starts commands and is restricted in what they must not do; the `keeper` reads, reaps and ends. Nobody else
//! in the agent starts or reaps a process: no `std::process`, no `tokio::process`. `command`, `viewer` and `collect` are what
//! the tools see.
//!
//! A terminal is another set of descriptors in the spawner's `Plan` and the keeper's `Arrival`. What callers write to a
//! running command goes past the keeper, straight into the kernel's pipe: `input`.

mod arrival;
mod clock;
mod collect;
mod command;
mod config;
mod confine;
mod ending;
pub mod environment;
mod error;
mod exit;
mod input;
mod keeper;
mod limits;
mod log;
mod lookup;
mod members;
mod memory_events;
mod oom;
mod orphans;
mod output;
mod pace;
mod registry;
mod room;
mod spawn;
mod spawner;
mod store;
mod sys;
mod table;
mod terminal;
mod viewer;

pub use collect::{Collected, collect, collect_along};
pub use command::Command;
pub use config::ProcessConfig;
pub use error::StartError;
pub use input::InputClosed;
pub use room::Processes;
pub use spawner::{Program, Start};
pub use viewer::{EVENT_BYTES, Viewer};

use room::{Order, Shared, start_thread};
