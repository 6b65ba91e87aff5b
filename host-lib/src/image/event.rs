//! What making an image says while it goes on.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// Something that takes time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum ImageStep {
    /// A base is pulled from its registry.
    Pull {
        /// Which.
        reference: String,
    },
    /// A base is made on this machine.
    MakeBase {
        /// Its name to be.
        reference: String,
    },
    /// An instruction of the Dockerfile.
    Instruction {
        /// Which one, from 1.
        number: u32,
        /// Of how many.
        total: u32,
        /// Its first line.
        text: String,
    },
    /// All of it.
    Build {
        /// The image's name to be.
        reference: String,
    },
}

impl fmt::Display for ImageStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pull { reference } => write!(formatter, "pull {reference}"),
            Self::MakeBase { reference } => write!(formatter, "make {reference}"),
            Self::Instruction { number, total, text } => write!(formatter, "{number}/{total} {text}"),
            Self::Build { reference } => write!(formatter, "build {reference}"),
        }
    }
}

/// Something happened in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageEvent {
    /// In which.
    #[serde(flatten)]
    pub step: ImageStep,
    /// What.
    #[serde(flatten)]
    pub kind: ImageEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum ImageEventKind {
    /// It began.
    Started,
    /// A pull has come this far.
    Received {
        /// Bytes received.
        received_bytes: u64,
        /// Bytes of the layers whose size is known by now.
        total_bytes: u64,
    },
    /// It wrote a line.
    Output {
        /// Without its end.
        line: String,
    },
    /// It is done.
    Finished {
        /// How long it took.
        #[serde(rename = "durationMs", serialize_with = "milliseconds")]
        duration: Duration,
        /// Whether the result was there already, so that nothing was done.
        cached: bool,
    },
    /// It failed, and something else is tried in its place.
    Failed {
        /// Why.
        reason: String,
    },
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Where events go.
pub(super) type Events<'a> = &'a (dyn Fn(ImageEvent) + Send + Sync);

/// A step that began, and tells so.
pub(super) struct Running<'a> {
    step: ImageStep,
    events: Events<'a>,
    began: std::time::Instant,
}

impl<'a> Running<'a> {
    pub(super) fn start(step: ImageStep, events: Events<'a>) -> Self {
        let running = Self { step, events, began: std::time::Instant::now() };
        running.tell(ImageEventKind::Started);
        running
    }

    pub(super) fn tell(&self, kind: ImageEventKind) {
        (self.events)(ImageEvent { step: self.step.clone(), kind });
    }

    pub(super) fn output(&self, line: &str) {
        self.tell(ImageEventKind::Output { line: line.to_owned() });
    }

    pub(super) fn finish(self, cached: bool) {
        self.tell(ImageEventKind::Finished { duration: self.began.elapsed(), cached });
    }

    pub(super) fn step(&self) -> &ImageStep {
        &self.step
    }
}
