//! The log: lines on standard error, for people or as JSON.

use std::panic;

use tokio::net::TcpListener;
use tracing_subscriber::{Layer as _, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};

use crate::{
    agent::Agent,
    config::{Config, LogFormat},
};

/// Starts logging as configured. Panics are logged as errors, with where they were.
pub fn start(config: &Config) {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let lines = match config.log_format {
        LogFormat::Plain => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Started twice in one process, as tests may, the first one stays.
    let _ = registry().with(lines.with_filter(config.log_filter.clone())).try_init();
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or_default();
        tracing::error!(place, message, "a panic: this is a mistake of the agent's");
    }));
}

/// Says once what runs and where.
pub fn started(agent: &Agent, listener: &TcpListener) {
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let (version, boot_id) = (env!("CARGO_PKG_VERSION"), agent.boot_id.as_str());
    let (instance, root) = (agent.config.instance.as_str(), agent.root.path().display());
    let start_us = u64::try_from(agent.started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(version, boot_id, instance, %root, address, start_us, "the agent serves");
}
