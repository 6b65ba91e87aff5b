//! The one error format: RFC 9457 `application/problem+json` with a stable code.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What went wrong, as a word that never changes its meaning. The list is append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Code {
    /// The request is malformed: not JSON, a missing, unknown or wrong-typed field.
    InvalidRequest,
    /// No token, or one that isn't valid.
    Unauthorized,
    /// A valid token that lacks the scope, or a browser origin that isn't allowed.
    Forbidden,
    /// No such route or tool.
    UnknownRoute,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// No such file, directory or command.
    NotFound,
    /// The path leads outside of the workspace root.
    PathOutsideRoot,
    /// A regular file was needed, and the path names something else.
    NotAFile,
    /// A directory was needed, and the path names something else.
    NotADirectory,
    /// What was to be created is there already.
    AlreadyExists,
    /// The operating system refused: the file's owner or mode don't allow it.
    PermissionDenied,
    /// The version or hash that the caller expected is not the current one.
    VersionMismatch,
    /// A limit was exceeded; `context.limit` names it, `context.variable` the environment variable that sets it.
    LimitExceeded,
    /// The disk is full, or a quota is used up.
    DiskFull,
    /// The archive is damaged, or of a format that isn't known.
    ArchiveInvalid,
    /// The archive holds an entry that is never extracted: it leads outside, or is a device.
    ArchiveEntryRefused,
    /// The command could not be started: no such program, or it isn't executable.
    CommandNotStarted,
    /// The request took longer than it may.
    Timeout,
    /// The agent has no workspace yet, or serves another one.
    NotClaimed,
    /// The agent is shutting down.
    ShuttingDown,
    /// A mistake of the agent's own.
    Internal,
    /// The text to replace, or the lines that a hunk of a diff expects, are not in the file; `context.nearest` shows where
    /// it comes close.
    NoMatch,
    /// The text to replace occurs another number of times than the caller said.
    AmbiguousMatch,
    /// The file's bytes are not UTF-8, and what was asked needs text.
    NotText,
    /// The directory isn't empty.
    DirectoryNotEmpty,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyMismatch,
    /// Nothing listens on the port, or what does doesn't take a connection. It may in a moment.
    NotListening,
    /// Somebody else has claimed the agent, or it had a workspace from its start.
    AlreadyClaimed,
    /// The command policy that the agent was started with doesn't allow the command; `context.part` is the part of it,
    /// `context.rule` the rule.
    CommandDenied,
    /// The command takes no input or has no terminal: it has ended, its input was ended, or it was started without.
    InputClosed,
    /// The caller cancelled the call, or went away. What was done by then is done.
    Cancelled,
    /// A code that this version doesn't know: the other side is newer. Never sent.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ArchiveInvalid | Self::ArchiveEntryRefused | Self::CommandNotStarted => 400,
            Self::Unauthorized => 401,
            Self::UnknownRoute | Self::NotFound | Self::NotListening => 404,
            Self::Forbidden | Self::PathOutsideRoot | Self::PermissionDenied | Self::CommandDenied => 403,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::AlreadyExists
            | Self::NotAFile
            | Self::NotADirectory
            | Self::VersionMismatch
            | Self::NotClaimed
            | Self::NoMatch
            | Self::AmbiguousMatch
            | Self::NotText
            | Self::DirectoryNotEmpty
            | Self::AlreadyClaimed
            | Self::InputClosed => 409,
            Self::LimitExceeded => 413,
            Self::IdempotencyMismatch => 422,
            // Nobody is there to see it; proxies call it so.
            Self::Cancelled => 499,
            Self::Internal | Self::Unknown => 500,
            Self::ShuttingDown => 503,
            Self::DiskFull => 507,
        }
    }

    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Timeout | Self::ShuttingDown | Self::NotListening | Self::Cancelled)
    }

    /// A short title, the same for every problem of this code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is malformed",
            Self::Unauthorized => "A valid token is needed",
            Self::Forbidden => "The token does not allow this",
            Self::UnknownRoute => "No such route",
            Self::MethodNotAllowed => "The route does not take this method",
            Self::NotFound => "Not found",
            Self::PathOutsideRoot => "The path leads outside of the workspace",
            Self::NotAFile => "Not a regular file",
            Self::NotADirectory => "Not a directory",
            Self::AlreadyExists => "It exists already",
            Self::PermissionDenied => "Permission denied",
            Self::VersionMismatch => "It has changed meanwhile",
            Self::LimitExceeded => "A limit was exceeded",
            Self::DiskFull => "The disk is full",
            Self::ArchiveInvalid => "The archive can't be read",
            Self::ArchiveEntryRefused => "The archive holds an entry that is refused",
            Self::CommandNotStarted => "The command could not be started",
            Self::Timeout => "It took too long",
            Self::NotClaimed => "The agent has no such workspace",
            Self::ShuttingDown => "The agent is shutting down",
            Self::Internal => "The agent made a mistake",
            Self::NoMatch => "There is no match",
            Self::AmbiguousMatch => "It matches another number of times",
            Self::NotText => "The file is not text",
            Self::DirectoryNotEmpty => "The directory is not empty",
            Self::IdempotencyMismatch => "The key was used for another request",
            Self::NotListening => "Nothing listens there",
            Self::InputClosed => "The command takes no input",
            Self::AlreadyClaimed => "The agent is claimed already",
            Self::CommandDenied => "The command policy does not allow this",
            Self::Cancelled => "The call was cancelled",
            Self::Unknown => "A problem that this version doesn't know",
        }
    }
}

/// An error as it crosses the wire (RFC 9457, media type `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct Problem {
    /// RFC 9457's `type`: always `about:blank`, `code` says what it is.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// Short, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, for the caller, with names and numbers.
    pub detail: String,
    /// Facts a program may want: the path, the limit, the current version.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[ts(optional, type = "Record<string, unknown>")]
    pub context: serde_json::Map<String, serde_json::Value>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// The request this answers, as in the agent's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with its code's title, status and retryability.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            problem_type: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            context: serde_json::Map::new(),
            suggestion: None,
            retryable: code.retryable(),
            request_id: None,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.context.insert(key.to_owned(), value.into());
        self
    }

    /// A limit was exceeded: names it, its value, and the variable that changes it.
    #[must_use]
    pub fn limit(what: &str, limit: u64, variable: &str) -> Self {
        Self::new(Code::LimitExceeded, format!("{what} exceeds the limit of {limit}"))
            .with("limit", limit)
            .with("variable", variable)
            .suggest(format!("{variable} sets this limit"))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.title, self.detail)?;
        if let Some(suggestion) = &self.suggestion {
            write!(formatter, " ({suggestion})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
