//! A process that was just started, and its input.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::OwnedSemaphorePermit;

use super::{command::Command, registry::Slot};

/// A process that was just started, on its way from the spawner to the keeper.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) command: Arc<Command>,
    pub(super) slot: Slot,
    pub(super) handle: Option<OwnedFd>,
    pub(super) output: OwnedFd,
    /// Absent where both streams are one, a terminal.
    pub(super) error: Option<OwnedFd>,
    pub(super) feed: Option<Feed>,
    pub(super) timeout: Option<Duration>,
    pub(super) stall_timeout: Option<Duration>,
    pub(super) started: Instant,
    /// The agent's own peak when the process began, which the kernel counts as the process's.
    pub(super) own_peak_memory_bytes: u64,
    /// What the control group had counted before.
    pub(super) kills_before: Option<u64>,
}

/// Input on its way to a command.
#[derive(Debug)]
pub(super) struct Feed {
    pipe: OwnedFd,
    bytes: Bytes,
    done: usize,
    /// Whoever writes to the same input waits for this.
    turn: Option<OwnedSemaphorePermit>,
}

impl Feed {
    pub(super) fn new(pipe: OwnedFd, bytes: Bytes) -> Self {
        Self { pipe, bytes, done: 0, turn: None }
    }

    /// Before all others who write to this input.
    pub(super) fn in_turn(mut self, turn: Option<OwnedSemaphorePermit>) -> Self {
        self.turn = turn;
        self
    }

    /// The pipe's descriptor.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Writes as much as the pipe takes. Returns true when there is nothing left to do.
    pub(super) fn push(&mut self) -> bool {
        while self.done < self.bytes.len() {
            match rustix::io::write(&self.pipe, &self.bytes[self.done..]) {
                Ok(written) => self.done += written,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                // The command doesn't read (any more), which is its right.
                Err(_) => return true,
            }
        }
        true
    }
}
