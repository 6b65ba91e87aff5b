//! Processes of the workspace.

use std::{io, time::Duration};

use crate::config::Config;

/// How commands run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {}

impl ProcessConfig {
    /// What the agent's configuration says about commands.
    #[must_use]
    pub fn from_config(_config: &Config) -> Self {
        Self {}
    }
}

/// All commands of the agent.
#[derive(Debug)]
pub struct Processes {}

impl Processes {
    /// Starts the spawner and the reaper. Called once, before any other thread exists.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn start(_config: ProcessConfig) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Resolves when the agent is told to end from outside.
    pub async fn told_to_end(&self) {
        std::future::pending::<()>().await;
    }

    /// The guards that are active, for `info`.
    #[must_use]
    pub fn guards(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends all commands: TERM, then KILL after the grace.
    pub async fn shutdown(&self, _grace: Duration) {}
}
