//! The library's one error: a kind to decide by, a message for people, and a hint what to do next.

use std::{error::Error as StdError, fmt};

use corehold_types::Problem;

use crate::{create::Step, policy::Quota};

/// What a caller can decide by. No kind names an engine or an HTTP library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such workspace, template, image or file.
    NotFound,
    /// It exists already, or another process was faster.
    Conflict,
    /// What was asked for is malformed: a template, a name, a limit.
    Invalid,
    /// An owner, a team or the host has not that much; [`Error::quota`] says of what, and how much there is.
    Quota,
    /// The host's policy forbids it.
    Forbidden,
    /// The engine can't be reached, or died half-way.
    EngineUnavailable,
    /// The engine answered with an error of its own.
    Engine,
    /// The agent can't be reached.
    AgentUnavailable,
    /// The agent answered with a problem; [`Error::problem`] has it.
    Agent,
    /// A command of the template failed; [`Error::output`] has the tail of what it wrote.
    CommandFailed,
    /// It took longer than it may.
    Timeout,
    /// The engine's disk has less left than must be.
    DiskFull,
    /// This runtime can't do that.
    Unsupported,
    /// What was saved is not what it was: an archive, or a part of it, is damaged or missing.
    Damaged,
    /// Something on the host's side failed: a file, a permission, a full disk.
    Io,
}

/// An error of this library.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    output: Option<String>,
    step: Option<Step>,
    problem: Option<Box<Problem>>,
    quota: Option<Box<Quota>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with a message that names what it is about.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            output: None,
            step: None,
            problem: None,
            quota: None,
            source: None,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the tail of what a failed command wrote; nothing, when it wrote nothing.
    #[must_use]
    pub fn with_output(mut self, output: impl Into<String>) -> Self {
        self.output = Some(output.into()).filter(|output| !output.is_empty());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Says in which step of a creation it happened. The first word wins: the innermost step knows best.
    #[must_use]
    pub(crate) fn in_step(mut self, step: Step) -> Self {
        self.step.get_or_insert(step);
        self
    }

    /// Adds to the hint, or begins it.
    #[must_use]
    pub(crate) fn also_hint(mut self, more: &str) -> Self {
        self.hint = Some(match self.hint {
            Some(hint) => format!("{hint}; {more}"),
            None => more.to_owned(),
        });
        self
    }

    /// Adds what would be exceeded.
    #[must_use]
    pub(crate) fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = Some(Box::new(quota));
        self
    }

    /// What a caller can decide by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do next, if the library knows.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The tail of what a failed command wrote.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        self.output.as_deref()
    }

    /// The step of the creation that failed, for errors of [`Host::create`](crate::Host::create).
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// What would have been exceeded, for errors of the kind [`Quota`](ErrorKind::Quota).
    #[must_use]
    pub fn quota(&self) -> Option<&Quota> {
        self.quota.as_deref()
    }

    /// The agent's problem, when the agent answered with one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_deref()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let mut error = Self::new(ErrorKind::Agent, format!("{}: {}", problem.title, problem.detail));
        error.hint.clone_from(&problem.suggestion);
        error.problem = Some(Box::new(problem));
        error
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, source.to_string()).caused_by(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
