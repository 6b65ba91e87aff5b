//! The input of a running command that callers write to: an open pipe, or its terminal.
//!
//! There is no queue: the kernel's pipe is the queue, and its bound the bound. Who writes more than it takes waits, each caller
//! in turn, and the keeper has no part in it; so input is never lost here and never held in memory but in its own request.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
};

use corehold_types::tools::PtySize;
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use super::terminal;

/// Where a command's input goes, while it is open.
#[derive(Debug)]
pub(super) struct Input {
    end: Mutex<Option<End>>,
    /// One writer at a time, in the order in which they came.
    turn: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    is_terminal: bool,
}

/// Our end of the pipe or terminal. Closed when the last writer lets go of it.
#[derive(Debug, Clone)]
struct End(Arc<OwnedFd>);

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The command takes no input (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the command takes no input: it has ended, its input was ended, or it was started without `interactive` or `pty`"
)]
pub struct InputClosed;

impl Input {
    /// Of a descriptor that never waits.
    pub(super) fn new(end: OwnedFd, is_terminal: bool) -> Self {
        Self {
            end: Mutex::new(Some(End(Arc::new(end)))),
            turn: Arc::new(Semaphore::new(1)),
            closed: watch::Sender::new(false),
            is_terminal,
        }
    }

    /// The first turn, for what the command was started with.
    pub(super) fn first_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turn).try_acquire_owned().ok()
    }

    fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.end().is_some()
    }

    /// Nothing is written any more, also by those who wait.
    pub(super) fn close(&self) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.turn.close();
        self.closed.send_replace(true);
    }

    /// Resolves when nothing is written any more.
    pub(super) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as this.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Writes all of it, waiting for room. `accepted` counts what the kernel has taken, also when the caller stops waiting.
    pub(super) async fn write(&self, bytes: &[u8], end: bool, accepted: &mut usize) -> Result<(), InputClosed> {
        let mut closed = self.closed.subscribe();
        let _turn = self.turn.acquire().await.map_err(|_| InputClosed)?;
        let to = self.end().ok_or(InputClosed)?;
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return Err(InputClosed),
            written = write_all(&to, bytes, accepted) => written?,
        }
        if !end {
            return Ok(());
        }
        if self.is_terminal {
            let end_of_input = terminal::end_of_input(&to).map_err(|_| InputClosed)?;
            let (bytes, mut count) = ([end_of_input], 0);
            return tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => Err(InputClosed),
                written = write_all(&to, &bytes, &mut count) => written,
            };
        }
        self.close();
        Ok(())
    }

    /// Whether it leads to a terminal, not to a pipe.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The terminal's size; none for a pipe.
    pub(super) fn size(&self) -> Option<PtySize> {
        self.end().filter(|_| self.is_terminal).and_then(|end| terminal::size(end).ok())
    }

    /// Sets the terminal's size. `None` when there is no terminal (any more).
    pub(super) fn resize(&self, size: PtySize) -> Option<Result<(), Errno>> {
        self.end().filter(|_| self.is_terminal).map(|end| terminal::resize(end, size))
    }
}

/// Tries first: a keystroke nearly always finds room, and then nothing is registered anywhere.
async fn write_all(to: &End, bytes: &[u8], accepted: &mut usize) -> Result<(), InputClosed> {
    let mut registered: Option<AsyncFd<End>> = None;
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::write(to, &bytes[done..]) {
            Ok(written) => {
                done += written;
                *accepted += written;
                // A reader that keeps pace would keep us here: others on this thread get their turn.
                tokio::task::consume_budget().await;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let fd = match registered.take() {
                    Some(fd) => fd,
                    None => {
                        // SAFETY: an `End` names the same descriptor all its life and keeps it open.
                        let registering = unsafe { AsyncFd::register_with_interest(to.clone(), Interest::WRITABLE) };
                        registering.map_err(|_| InputClosed)?
                    }
                };
                // Room may have come between the attempt and the registration, which then tells at once.
                let mut ready = fd.writable().await.map_err(|_| InputClosed)?;
                let attempt = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &bytes[done..])?));
                match attempt {
                    Ok(Ok(written)) => {
                        done += written;
                        *accepted += written;
                    }
                    Ok(Err(error)) if error.kind() != std::io::ErrorKind::Interrupted => return Err(InputClosed),
                    Ok(Err(_)) | Err(_) => {}
                }
                drop(ready);
                registered = Some(fd);
            }
            // Nobody reads it any more, and nobody will.
            Err(_) => return Err(InputClosed),
        }
    }
    Ok(())
}
