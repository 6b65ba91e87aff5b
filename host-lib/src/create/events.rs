//! What a creation says while it goes on.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// The steps of a creation, in their order; packing goes on beside the three after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Step {
    /// An image that is missing is pulled from its registry. Of the host's own the engine's refusal to create from it is the answer.
    Image,
    /// The template's folder becomes an archive, or is found packed already.
    Pack,
    /// A container is taken from a pool, where a pool has what is needed. If none is ready, one is made.
    Claim,
    /// The container is made.
    Create,
    /// The container is started.
    Start,
    /// The agent answers.
    Agent,
    /// The archive is sent to the agent, which extracts it as it comes: all of it, or nothing.
    Ship,
    /// What was saved of a workspace is loaded, instead of a template's files and what its set-up makes of them.
    Load,
    /// The template's set-up commands run, or what they left in an earlier workspace came with [`Ship`](Self::Ship).
    Setup,
    /// What the set-up left is kept for the next workspace of the template; if it can't be, the step says why, and the creation goes on.
    Keep,
    /// The dev command is started.
    Dev,
    /// The preview answers.
    Ready,
}

impl Step {
    /// The word for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Pack => "pack",
            Self::Claim => "claim",
            Self::Create => "create",
            Self::Start => "start",
            Self::Agent => "agent",
            Self::Ship => "ship",
            Self::Load => "load",
            Self::Setup => "setup",
            Self::Keep => "keep",
            Self::Dev => "dev",
            Self::Ready => "ready",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Something happened in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CreateEvent {
    /// In which.
    pub step: Step,
    /// What.
    #[serde(flatten)]
    pub kind: CreateEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum CreateEventKind {
    /// It began. `detail` says on what: the image, the set-up line.
    Started {
        /// For people.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A command of the step wrote a line, without its line end; what isn't UTF-8 is replaced, long lines are split. Of a
    /// flood, 10,000 lines a second are told, then how many were left out; the tool `commandOutput` has them all.
    Output {
        /// Where it wrote it.
        stream: OutputStream,
        /// What.
        line: String,
    },
    /// A pull has come this far. Whoever is slow to read misses some.
    Received {
        /// Bytes received.
        received_bytes: u64,
        /// Bytes of the layers whose size is known by now.
        total_bytes: u64,
    },
    /// It is done. `detail` says what came of it: how much was packed, whether it was packed already.
    Finished {
        /// How long it took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
        /// For people.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// It failed; the creation's error says why. Steps that went on beside it are given up without an event of their own.
    Failed {
        /// How long it took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
    },
}

/// One of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// With a fraction: most steps take less than ten.
pub(crate) fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
