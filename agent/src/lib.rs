//! The resident agent of a Corehold workspace: a daemon that reads, writes, lists and runs for whoever bears a token.
//!
//! The crate is a library with a thin binary, so that its tests can put an agent together in process. It knows
//! `corehold-types` and nothing of hosts and engines. `handler` is the tool seam, `tools` its handlers, `calls` what leads to them from every surface, `root` the only
//! way to a file of the workspace, `process` the only way to a process.

// A `Problem` is larger than clippy likes an error to be. It is made at most once a request, and boxing it would put a
// `Box` into every signature of the tool seam.
#![allow(clippy::result_large_err)]

pub mod access;
pub mod activity;
pub mod agent;
mod archive;
pub mod audit;
pub mod blocking;
pub mod calls;
pub mod config;
pub mod edit;
#[cfg(any(feature = "fuzzing", test))]
pub mod fuzzing;
pub mod handler;
pub mod health;
pub mod logging;
pub mod mcp;
pub mod memory;
pub mod metrics;
pub mod ownership;
pub mod policy;
pub mod ports;
pub mod process;
pub mod reach;
pub mod relay;
pub mod root;
mod routes;
pub mod search;
pub mod server;
pub mod socket;
#[cfg(test)]
mod testing;
pub mod tools;
pub mod watch;
