//! `commandSignal`: a signal to all processes of a command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{NoEvent, Scope, Tool};

/// Signals a command's whole process group.
pub struct CommandSignal;

impl Tool for CommandSignal {
    const NAME: &'static str = "commandSignal";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str = "Sends a signal to every process of a command.";
    const SCOPE: Scope = Scope::Command;
    type Request = CommandSignalRequest;
    type Response = CommandSignalResponse;
    type Event = NoEvent;
}

/// Request of `commandSignal`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandSignalRequest {
    /// The command.
    pub id: String,
    /// The signal.
    pub signal: Signal,
}

/// Signals that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[non_exhaustive]
pub enum Signal {
    /// Hang-up.
    #[serde(rename = "SIGHUP")]
    Hup,
    /// Interrupt, as Ctrl-C.
    #[serde(rename = "SIGINT")]
    Int,
    /// Quit.
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// Kill; can't be caught.
    #[serde(rename = "SIGKILL")]
    Kill,
    /// Terminate.
    #[serde(rename = "SIGTERM")]
    Term,
    /// User-defined 1.
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// User-defined 2.
    #[serde(rename = "SIGUSR2")]
    Usr2,
    /// Stop; can't be caught.
    #[serde(rename = "SIGSTOP")]
    Stop,
    /// Continue.
    #[serde(rename = "SIGCONT")]
    Cont,
    /// Window size changed.
    #[serde(rename = "SIGWINCH")]
    Winch,
}

/// Response of `commandSignal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct CommandSignalResponse {
    /// How many processes got it; 0 when the command and all it left behind have ended.
    pub processes: u32,
}
