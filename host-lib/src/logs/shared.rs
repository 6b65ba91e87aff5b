//! What one upstream reader and all its readers share: the newest lines, and where the next ones are told.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError},
};

use super::LogItem;

/// Lines that wait for the slowest reader. Of 8 KiB at most, they are 8 MiB at most.
const BACKLOG: usize = 1024;
/// What a new reader gets first, at most.
const KEPT_LINES: usize = 1000;
const KEPT_BYTES: usize = 1 << 20;

pub(super) struct Shared {
    state: Mutex<State>,
    /// There may be a new command.
    pub(super) look: Notify,
}

struct State {
    kept: VecDeque<LogItem>,
    bytes: usize,
    /// `None` when nothing comes any more.
    sender: Option<broadcast::Sender<LogItem>>,
}

impl Default for Shared {
    fn default() -> Self {
        let sender = Some(broadcast::channel(BACKLOG).0);
        Self { state: Mutex::new(State { kept: VecDeque::new(), bytes: 0, sender }), look: Notify::new() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: LogItem) {
        let mut state = self.lock();
        state.bytes += size(&item);
        state.kept.push_back(item.clone());
        while state.kept.len() > KEPT_LINES || state.bytes > KEPT_BYTES {
            let Some(oldest) = state.kept.pop_front() else { break };
            state.bytes -= size(&oldest);
        }
        if let Some(sender) = &state.sender {
            // Nobody may be reading.
            let _ = sender.send(item);
        }
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.lock().sender = None;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().sender.is_none()
    }

    /// What is kept, and exactly what comes after it.
    pub(super) fn subscribe(&self) -> (VecDeque<LogItem>, Option<Receiver>) {
        let state = self.lock();
        (state.kept.clone(), state.sender.as_ref().map(|sender| Receiver(sender.subscribe())))
    }
}

fn size(item: &LogItem) -> usize {
    match item {
        LogItem::Line(line) => line.text.len(),
        _ => 0,
    }
}

pub(super) struct Receiver(broadcast::Receiver<LogItem>);

impl Receiver {
    pub(super) async fn next(&mut self) -> Option<LogItem> {
        match self.0.recv().await {
            Ok(item) => Some(item),
            Err(RecvError::Lagged(lines)) => Some(LogItem::Missed { lines }),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::Timestamp;

    use super::*;
    use crate::{
        create::OutputStream,
        logs::{LogLine, LogSource},
    };

    fn line(number: usize, length: usize) -> LogItem {
        LogItem::Line(LogLine {
            at: Timestamp::from_unix(0, 0),
            source: LogSource::Agent,
            stream: OutputStream::Stderr,
            text: format!("{number:length$}"),
            continues: false,
        })
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed_and_delays_nobody() {
        let shared = Shared::default();
        let (_, slow) = shared.subscribe();
        let (_, quick) = shared.subscribe();
        let (mut slow, mut quick) = (slow.unwrap(), quick.unwrap());
        for number in 0..3 * BACKLOG {
            shared.push(line(number, 1));
            assert_eq!(quick.next().await, Some(line(number, 1)));
        }
        assert_eq!(slow.next().await, Some(LogItem::Missed { lines: 2 * BACKLOG as u64 }));
        assert_eq!(slow.next().await, Some(line(2 * BACKLOG, 1)));
        shared.close();
        assert!(shared.is_closed() && quick.next().await.is_none());
    }

    #[tokio::test]
    async fn a_late_reader_gets_the_newest_and_then_all_that_comes() {
        let shared = Shared::default();
        for number in 0..5000 {
            shared.push(line(number, 1));
        }
        let (kept, receiver) = shared.subscribe();
        shared.push(line(5000, 1));
        assert_eq!((kept.len(), kept.back()), (KEPT_LINES, Some(&line(4999, 1))));
        assert_eq!(receiver.unwrap().next().await, Some(line(5000, 1)));
        for number in 0..500 {
            shared.push(line(number, 8 << 10));
        }
        assert_eq!(shared.subscribe().0.len(), KEPT_BYTES / (8 << 10));
        shared.close();
        assert!(shared.subscribe().1.is_none());
    }
}
