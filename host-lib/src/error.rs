//! The library's one error: a kind to decide by, a message for people, and a hint what to do next.

use std::{error::Error as StdError, fmt, io};

use corehold_types::{Code, Problem};

use crate::{create::Step, policy::Quota};

/// What a caller can decide by. No kind names an engine or an HTTP library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such workspace, template, image or file.
    NotFound,
    /// There is one of that name already, and names are what tells them apart: a workspace, a container, a volume, a network; or its owner
    /// has one, and may have one only.
    AlreadyExists,
    /// Its state doesn't allow that, another process was faster, or what it takes is in use by others: a port, memory, all addresses for
    /// networks.
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
    /// The agent answered with a problem; [`Error::problem`] has it. One that says that the disk is full is of the kind
    /// [`DiskFull`](Self::DiskFull).
    Agent,
    /// A command of the template failed; [`Error::output`] has the tail of what it wrote.
    CommandFailed,
    /// It took longer than it may.
    Timeout,
    /// A disk is full, or has less left than must be: the engine's, what a workspace or a volume may use of it, or this machine's. The
    /// message says which.
    DiskFull,
    /// This runtime can't do that.
    Unsupported,
    /// What was saved is not what it was: an archive, or a part of it, is damaged or missing.
    Damaged,
    /// Something on the host's side failed: a file, a permission.
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

    /// Adds the cause. What failed on the host's side because a disk is full is of the kind [`DiskFull`](ErrorKind::DiskFull) from then on.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        if self.kind == ErrorKind::Io && is_disk_full(source.as_ref()) {
            self.kind = ErrorKind::DiskFull;
            self.hint.get_or_insert_with(|| "free some space on that disk of this machine, and try again".to_owned());
        }
        self.source = Some(source);
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
        let kind = if problem.code == Code::DiskFull { ErrorKind::DiskFull } else { ErrorKind::Agent };
        let mut error = Self::new(kind, format!("{}: {}", problem.title, problem.detail));
        error.hint.clone_from(&problem.suggestion);
        error.problem = Some(Box::new(problem));
        error
    }
}

/// Whether it was for want of room, of bytes or of files, or of what this user may use.
fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        // An error that wraps another one leaves it out of its sources.
        let wrapped = cause.get_ref().is_some_and(|wrapped| is_disk_full(wrapped));
        wrapped || matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    })
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
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

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn whatever_fails_for_want_of_room_is_told_as_that() {
        let full = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        let quota = io::Error::from_raw_os_error(Errno::DQUOT.raw_os_error());
        let store = || object_store::Error::Generic { store: "folder", source: full().into() };
        let of = |source: Box<dyn StdError + Send + Sync>| Error::new(ErrorKind::Io, "x").caused_by(source);
        for error in [of(full().into()), of(quota.into()), of(store().into()), of(io::Error::other(store()).into())] {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error:?}");
            assert!(error.hint_text().is_some());
        }
        assert_eq!(Error::from(full()).kind(), ErrorKind::DiskFull);
        let other = of(io::Error::from(io::ErrorKind::PermissionDenied).into());
        assert_eq!((other.kind(), other.hint_text()), (ErrorKind::Io, None));
        let hinted = Error::new(ErrorKind::Io, "x").hint("y").caused_by(full());
        assert_eq!((hinted.kind(), hinted.hint_text()), (ErrorKind::DiskFull, Some("y")));
        assert_eq!(Error::from(Problem::new(Code::DiskFull, "x")).kind(), ErrorKind::DiskFull);
    }
}
