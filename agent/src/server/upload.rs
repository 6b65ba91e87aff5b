//! A request's body for work that blocks: one thread works, the connection feeds it, and neither runs ahead of the other.

use std::io::{self, BufRead, Read};

use axum::body::{Body, Bytes};
use corehold_types::Problem;
use tokio::sync::mpsc;

use super::body::Pace;
use crate::{
    agent::Agent,
    blocking::{self, Cancelled},
};

/// Pieces under way between connection and thread; hyper's are up to some hundred KiB.
const PIECES: usize = 4;

enum Piece {
    Data(Bytes),
    End,
    Failed(Problem),
}

/// The body as the working thread reads it.
///
/// An error of the connection's comes out as an [`io::Error`] that holds the [`Problem`]; [`problem_of`] gets it back.
pub(crate) struct Upload {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    received: u64,
    ended: bool,
}

impl Upload {
    /// Bytes of the body that have come to the working thread by now.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }
}

/// Runs blocking work on a body. When the caller goes away the work finds its body broken off and [`Cancelled`] set.
///
/// # Errors
/// What the work says.
pub(crate) async fn with_body<T: Send + 'static>(
    mut body: Body,
    agent: &Agent,
    work: impl FnOnce(&mut Upload, &Cancelled) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    // The semaphore is never closed.
    let _permit = agent.transfers.acquire().await.ok();
    let limits = &agent.config.limits;
    let (sender, pieces) = mpsc::channel(PIECES);
    let mut upload = Upload { pieces, current: Bytes::new(), received: 0, ended: false };
    let mut work = std::pin::pin!(blocking::run(move |cancelled| work(&mut upload, cancelled)));
    let feed = async {
        let mut pace = Pace::default();
        loop {
            let piece = match pace.next_piece(&mut body, limits).await {
                Ok(Some(data)) => Piece::Data(data),
                Ok(None) => Piece::End,
                Err(problem) => Piece::Failed(problem),
            };
            let is_last = !matches!(piece, Piece::Data(_));
            if sender.send(piece).await.is_err() || is_last {
                // Sent everything, or the work has ended and says why.
                return;
            }
        }
    };
    tokio::select! {
        result = work.as_mut() => result,
        () = feed => work.await,
    }
}

/// The problem that an I/O error holds, if it came from the connection.
pub(crate) fn problem_of(error: io::Error) -> Result<Problem, io::Error> {
    error.downcast::<Problem>()
}

impl BufRead for Upload {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => {
                    self.received += data.len() as u64;
                    self.current = data;
                }
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(problem)) => return Err(io::Error::other(problem)),
                None => return Err(io::Error::other(Cancelled::problem())),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.current.split_to(amount);
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
