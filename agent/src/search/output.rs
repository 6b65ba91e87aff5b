//! How what is found leaves the threads of a search: in batches, the events of one file together, the first at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use corehold_types::{Data, tools::SearchEvent};

use super::control::{Control, Stop};

/// Events that leave together at most.
const BATCH: usize = 128;
/// Bytes of memory of which no more are gathered to leave together.
const BATCH_BYTES: usize = 64 << 10;
/// How long an event may wait for others.
const PATIENCE: Duration = Duration::from_millis(2);

/// Where batches go. Says false when nobody wants more.
pub type Deliver<'a> = dyn Fn(Vec<SearchEvent>) -> bool + Sync + 'a;

/// Bytes of memory that an event takes, about.
pub(crate) fn memory_of(event: &SearchEvent) -> usize {
    let line = match event {
        SearchEvent::Match(hit) | SearchEvent::Context(hit) => {
            let (Data::Text(text) | Data::Base64(text)) = &hit.line.data;
            text.len() + size_of_val(&hit.line.ranges[..])
        }
        SearchEvent::File { .. } | SearchEvent::Binary { .. } => 0,
    };
    size_of::<SearchEvent>() + line
}

/// Shared by the threads of a search.
pub(super) struct Output<'a> {
    deliver: &'a Deliver<'a>,
    control: &'a Control,
    /// Held by a thread whose file's events didn't fit into one batch, until the file is done.
    turn: Mutex<()>,
}

impl<'a> Output<'a> {
    pub(super) fn new(deliver: &'a Deliver<'a>, control: &'a Control) -> Self {
        Self { deliver, control, turn: Mutex::new(()) }
    }
}

/// One thread's way out.
pub(super) struct Outlet<'a> {
    output: &'a Output<'a>,
    batch: Vec<SearchEvent>,
    /// Bytes of memory in it.
    bytes: usize,
    /// When the last batch left; nothing before the first.
    left: Option<Instant>,
    turn: Option<MutexGuard<'a, ()>>,
}

impl<'a> Outlet<'a> {
    pub(super) fn new(output: &'a Output<'a>) -> Self {
        Self { output, batch: Vec::new(), bytes: 0, left: None, turn: None }
    }

    /// Sends an event of the file at hand.
    pub(super) fn send(&mut self, event: SearchEvent) {
        self.bytes += memory_of(&event);
        self.batch.push(event);
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES || self.left.is_none() {
            if self.turn.is_none() {
                self.turn = Some(self.take_turn());
            }
            self.flush();
        }
    }

    /// The file at hand is done. Called for files without events too, so that those before them don't wait.
    pub(super) fn end_of_file(&mut self) {
        // Whoever had to take a turn has sent a part of the file: the rest goes before others may send theirs.
        let waited = self.turn.is_some() || self.left.is_none_or(|left| left.elapsed() >= PATIENCE);
        if waited && !self.batch.is_empty() {
            let _turn = self.turn.take().unwrap_or_else(|| self.take_turn());
            self.flush();
        }
        self.turn = None;
    }

    /// Waits until no other thread is in the middle of a file.
    fn take_turn(&self) -> MutexGuard<'a, ()> {
        self.output.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&mut self) {
        self.left = Some(Instant::now());
        self.bytes = 0;
        if !(self.output.deliver)(std::mem::take(&mut self.batch)) {
            self.output.control.stop(Stop::Cancelled);
        }
    }
}

impl Drop for Outlet<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            let _turn = self.turn.take().unwrap_or_else(|| self.take_turn());
            self.flush();
        }
    }
}
