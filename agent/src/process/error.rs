//! Why a command doesn't start, and how that is told to its caller.

use std::io;

use corehold_types::{Code, Problem};

use crate::config::Limit;

/// A command could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no such program.
    #[error("there is no program {program:?}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// What the caller may have meant.
        suggestion: String,
    },
    /// The program is there, but can't be run.
    #[error("{program:?} can't be run: {why}")]
    NotRunnable {
        /// As it was asked for.
        program: String,
        /// Why.
        why: String,
        /// What to do about it.
        suggestion: String,
    },
    /// The command's directory can't be entered.
    #[error("the working directory can't be entered: {0}")]
    Directory(io::Error),
    /// Arguments and environment are larger than the kernel takes.
    #[error(
        "the arguments and the environment are too large for the kernel: one of them has more than 128 KiB, or all together too many"
    )]
    TooLarge,
    /// A limit of the agent.
    #[error("{what} exceeds the limit of {}", limit.value)]
    Limit {
        /// What was too much.
        what: &'static str,
        /// Which limit.
        limit: Limit,
    },
    /// The container has no process, memory or descriptor left to give.
    #[error("the workspace can't start another process: {0}")]
    Exhausted(io::Error),
    /// The request can't be meant.
    #[error("{0}")]
    Invalid(&'static str),
    /// The agent is about to end.
    #[error("the agent is shutting down")]
    ShuttingDown,
    /// Something that should not happen.
    #[error("the command could not be started: {0}")]
    Internal(io::Error),
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let detail = error.to_string();
        match error {
            StartError::NotFound { program, suggestion } | StartError::NotRunnable { program, suggestion, .. } => {
                Self::new(Code::CommandNotStarted, detail).with("program", program).suggest(suggestion)
            }
            StartError::Directory(error) => {
                let code = match error.kind() {
                    io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                    _ => Code::CommandNotStarted,
                };
                Self::new(code, detail).suggest("the directory's mode must let the agent's user enter it")
            }
            StartError::TooLarge => Self::new(Code::CommandNotStarted, detail)
                .suggest("pass large data by `stdin`, or write it to a file first"),
            StartError::Limit { what, limit } => limit.exceeded(what),
            StartError::Exhausted(_) => Self::new(Code::CommandNotStarted, detail)
                .suggest("the container's limit of processes, memory or open files is used up; end a command first"),
            StartError::Invalid(_) => Self::new(Code::InvalidRequest, detail),
            StartError::ShuttingDown => Self::new(Code::ShuttingDown, detail),
            StartError::Internal(_) => Self::new(Code::Internal, detail),
        }
    }
}
