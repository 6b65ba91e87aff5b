//! How commands run: their limits, their environment, and where their output is kept.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use super::environment;
use crate::config::{Config, Limit, Limits};

/// How commands run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// What every command's environment begins with.
    pub environment: BTreeMap<OsString, OsString>,
    /// Folder for the log of commands, an unlinked file. Default: the first of `/tmp` and `/var/tmp` that is on a disk and
    /// can be written; where there is none, memory.
    pub log_directory: Option<PathBuf>,
    /// File with the control group's count of processes that the kernel killed for want of memory (`memory.events`, or
    /// `memory.oom_control`). Default: that of the agent's own group, where there is one.
    pub kill_counter: Option<PathBuf>,
    /// Milliseconds after which a command that isn't detached is ended, unless its caller says otherwise.
    pub command_ms: Limit,
    /// Commands that run at a time.
    pub commands: Limit,
    /// Finished commands that are remembered.
    pub commands_kept: Limit,
    /// Bytes of a command's arguments and of the environment that its caller adds.
    pub argument_bytes: Limit,
    /// Bytes of output that are kept of one command.
    pub log_bytes: Limit,
    /// Bytes of output that are kept of all commands together.
    pub logs_bytes: Limit,
    /// Bytes of each stream that a collected answer may hold.
    pub collected_bytes: Limit,
    /// How long a command whose log is full waits for who reads its beginning.
    pub hold: Duration,
    /// Time that a command gets between TERM and KILL.
    pub grace: Duration,
}

impl ProcessConfig {
    /// What the agent's configuration says about commands, which inherit the agent's environment.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            log_directory: config.command_log_directory.clone(),
            ..Self::from_limits(&config.limits, environment::of_commands(std::env::vars_os()))
        }
    }

    /// With these limits and this environment, and the defaults for the rest.
    #[must_use]
    pub fn from_limits(limits: &Limits, environment: BTreeMap<OsString, OsString>) -> Self {
        Self {
            environment,
            log_directory: None,
            kill_counter: None,
            command_ms: limits.command_ms,
            commands: limits.commands,
            commands_kept: limits.commands_kept,
            argument_bytes: limits.command_argument_bytes,
            log_bytes: limits.command_log_bytes,
            logs_bytes: limits.command_logs_bytes,
            collected_bytes: limits.command_collected_bytes,
            hold: limits.command_hold_ms.as_duration(),
            grace: limits.command_grace_ms.as_duration(),
        }
    }
}
