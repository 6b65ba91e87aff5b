//! How a search that runs is stopped: by its caller, by time, or by its own caps.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Why a search stopped before it had seen everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// The caller went away.
    Cancelled = 1,
    /// Its time was over.
    Timeout = 2,
    /// It found more than it may.
    MaxMatches = 3,
    /// The collected answer is as large as it may be.
    AnswerBytes = 4,
    /// A thread of it panicked.
    Failed = 5,
}

/// Shared by the threads of one search and whoever started it.
#[derive(Debug)]
pub struct Control {
    /// 0 while it runs, else a [`Stop`].
    stop: AtomicU8,
    /// Matches that may still be reported.
    matches_left: AtomicU64,
}

impl Control {
    /// A search that may report so many matches.
    #[must_use]
    pub fn new(max_matches: u64) -> Self {
        Self { stop: AtomicU8::new(0), matches_left: AtomicU64::new(max_matches) }
    }

    /// Stops the search. The first reason stays.
    pub fn stop(&self, why: Stop) {
        // Nothing else is published by this flag, so the order of other memory doesn't matter.
        let _ = self.stop.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the search is to end. Cheap: asked between files, and between pieces of a large one.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }

    /// Why it was stopped.
    #[must_use]
    pub fn why(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Relaxed) {
            1 => Some(Stop::Cancelled),
            2 => Some(Stop::Timeout),
            3 => Some(Stop::MaxMatches),
            4 => Some(Stop::AnswerBytes),
            5 => Some(Stop::Failed),
            _ => None,
        }
    }

    /// Takes one of the matches that may be reported; without one left it stops the search.
    pub(super) fn take_match(&self) -> bool {
        let taken = self.matches_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            self.stop(Stop::MaxMatches);
        }
        taken.is_ok()
    }
}

/// Stops a search when it is dropped: held by whoever waits for its answer.
#[derive(Debug)]
pub struct StopOnDrop(pub std::sync::Arc<Control>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(Stop::Cancelled);
    }
}
