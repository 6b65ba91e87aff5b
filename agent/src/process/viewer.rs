//! One reader of a command's output, with a place of its own in the log.
//!
//! It waits for news: if the log drops what it hasn't read, it gets a gap. Every byte between its beginning and the end comes
//! exactly once, and every stream that ends has the exit in it. It never makes anybody wait, unless it is made with
//! [`Viewer::waited_for`].

use std::sync::Arc;

use corehold_types::{
    Data,
    tools::{CommandEvent, CommandExit},
};
use tokio::sync::watch;

use super::{
    command::{Command, Ended},
    log::{Found, HEADER, Held, Stream, parse_header},
    store::ReadError,
};

/// Bytes of data in one event, at most.
pub const EVENT_BYTES: usize = 32 * 1024;

/// A reader of a command's output.
#[derive(Debug)]
pub struct Viewer {
    command: Arc<Command>,
    changed: watch::Receiver<()>,
    /// Where it reads in the log; `pending` lies before.
    offset: u64,
    /// Its number among those that the command waits for.
    waited_for: Option<u64>,
    /// How far to read: known at once when it doesn't follow, at the exit when it does.
    until: Option<u64>,
    told_exit: bool,
    /// Data of one stream, in one piece, that has not been handed out.
    pending: Vec<u8>,
    pending_stream: Stream,
    /// Records of a block: its number, its bytes so far, how many of them have been taken, and what is left of the record.
    block: Option<u64>,
    buffer: Vec<u8>,
    taken: usize,
    record: Option<(Stream, usize)>,
}

/// What a viewer gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Bytes of one stream.
    Data { stream: Stream, offset: u64, bytes: Vec<u8> },
    /// Bytes that were dropped before they were read.
    Gap { from: u64, to: u64 },
    /// The leader has exited.
    Exit { exit: CommandExit, offset: u64 },
}

/// What the log has next.
enum Next {
    /// Bytes are in the buffer.
    Bytes,
    /// Bytes were dropped.
    Gap { to: u64 },
    /// Nothing yet.
    Nothing,
}

impl Viewer {
    /// A reader from `offset` on. One that follows ends when the command has ended; another one at what there is now.
    #[must_use]
    pub fn new(command: Arc<Command>, offset: u64, follow: bool) -> Self {
        let changed = command.subscribe();
        let until = (!follow).then(|| command.end());
        Self {
            command,
            changed,
            offset,
            waited_for: None,
            until,
            told_exit: false,
            pending: Vec::new(),
            pending_stream: Stream::Output,
            block: None,
            buffer: Vec::new(),
            taken: 0,
            record: None,
        }
    }

    /// The same, but one that the command waits for, within bounds, rather than have it miss something. See [`pace`](super::pace).
    #[must_use]
    pub fn waited_for(mut self) -> Self {
        self.waited_for = Some(self.command.state().viewers.enter(self.offset));
        self
    }

    /// The next event; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<CommandEvent> {
        self.next_piece().await.map(Piece::into_event)
    }

    /// Where the log was read up to.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset - self.pending.len() as u64
    }

    /// Gives up what was read ahead. It is read again when the next event is asked for.
    pub fn rest(&mut self) {
        self.forget_block();
        self.buffer = Vec::new();
    }

    pub(super) async fn next_piece(&mut self) -> Option<Piece> {
        loop {
            // Seen before the state is looked at, so that no change goes by unnoticed.
            self.changed.borrow_and_update();
            let ended = self.command.state().ended.clone();
            let limit = match &ended {
                Some(ended) if !self.told_exit => ended.offset,
                _ => self.until.unwrap_or(u64::MAX),
            };
            match self.fill(limit).await {
                Filled::Gap { to } => {
                    let from = std::mem::replace(&mut self.offset, to);
                    return Some(Piece::Gap { from, to });
                }
                // The other stream follows, so what is held back won't be completed.
                Filled::OtherStream => return self.flush(self.pending.len()),
                Filled::Full => return self.flush(whole_characters(&self.pending)),
                Filled::AtEnd => {
                    let is_last = ended.is_some() || self.until.is_some();
                    let ready = if is_last { self.pending.len() } else { whole_characters(&self.pending) };
                    if ready > 0 {
                        return self.flush(ready);
                    }
                    match ended {
                        Some(ended) if !self.told_exit => return Some(self.tell_exit(ended)),
                        _ if is_last => return None,
                        _ => {}
                    }
                    // The sender lives as long as the command, which this reader keeps alive.
                    self.changed.changed().await.ok()?;
                }
            }
        }
    }

    fn tell_exit(&mut self, ended: Ended) -> Piece {
        self.told_exit = true;
        // What came after the exit is handed out too, as far as it is there now.
        self.until = Some(self.command.end().max(self.until.unwrap_or(0)));
        Piece::Exit { exit: ended.exit, offset: ended.offset }
    }

    fn flush(&mut self, length: usize) -> Option<Piece> {
        let offset = self.offset();
        let rest = self.pending.split_off(length);
        let bytes = std::mem::replace(&mut self.pending, rest);
        Some(Piece::Data { stream: self.pending_stream, offset, bytes })
    }

    /// Gathers data of one stream in `pending`, up to `limit` in the log.
    async fn fill(&mut self, limit: u64) -> Filled {
        loop {
            if self.pending.len() >= EVENT_BYTES {
                return Filled::Full;
            }
            if self.offset >= limit {
                return Filled::AtEnd;
            }
            let Some((stream, left)) = self.record() else {
                match self.load().await {
                    Next::Bytes => continue,
                    Next::Nothing => return Filled::AtEnd,
                    // What was read before the gap comes before it, whole or not.
                    Next::Gap { .. } if !self.pending.is_empty() => return Filled::OtherStream,
                    Next::Gap { to } => return Filled::Gap { to },
                }
            };
            if self.pending.is_empty() {
                self.pending_stream = stream;
                self.pending.reserve_exact(left.min(EVENT_BYTES));
            } else if stream != self.pending_stream {
                return Filled::OtherStream;
            }
            let wanted = left.min(EVENT_BYTES - self.pending.len());
            let wanted = wanted.min(usize::try_from(limit - self.offset).unwrap_or(usize::MAX));
            self.pending.extend_from_slice(&self.buffer[self.taken..self.taken + wanted]);
            self.take(wanted);
        }
    }

    /// The record that the buffer stands in, and how much of it is left; `None` when the buffer is used up.
    fn record(&mut self) -> Option<(Stream, usize)> {
        if self.record.is_none() {
            let bytes = *self.buffer[self.taken..].first_chunk::<HEADER>()?;
            self.taken += HEADER;
            self.record = Some(parse_header(bytes));
        }
        self.record
    }

    fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        self.offset += bytes as u64;
        self.record = self.record.map(|(stream, left)| (stream, left - bytes)).filter(|(_, left)| *left > 0);
    }

    /// Reads on in the block, or in the next one.
    async fn load(&mut self) -> Next {
        loop {
            let known = self.block.map(|number| (number, self.buffer.len()));
            let found = self.find(known);
            match found {
                Found::Nothing => return Next::Nothing,
                Found::Dropped { first } => {
                    self.forget_block();
                    return Next::Gap { to: first };
                }
                Found::Inline { bytes } => {
                    let is_new = self.enter(0, 0);
                    self.buffer.extend_from_slice(&bytes);
                    if is_new {
                        self.skip(0);
                    }
                    return Next::Bytes;
                }
                Found::Block { number, held } => {
                    let is_new = self.enter(number, held.used);
                    if !self.read(held).await {
                        // The disk failed under a block that is still ours: as good as dropped, up to the next block.
                        self.forget_block();
                        return Next::Gap { to: self.command.end() };
                    }
                    if !self.command.state().log.still_holds(number) {
                        // Dropped while it was read: these may be another's bytes. The log says where it begins now.
                        self.forget_block();
                        continue;
                    }
                    if is_new {
                        self.skip(held.start);
                    }
                    return Next::Bytes;
                }
            }
        }
    }

    /// Where to read on. Says where this reader is, to those who wait for it.
    fn find(&self, known: Option<(u64, usize)>) -> Found {
        let state = &mut *self.command.state();
        let found = state.log.find(self.offset, known);
        if let Some(viewer) = self.waited_for {
            let offset = if let Found::Dropped { first } = found { first } else { self.offset };
            state.viewers.moved(viewer, offset, &state.log);
        }
        found
    }

    /// Makes the buffer that of a block. Returns whether it wasn't.
    fn enter(&mut self, number: u64, used: usize) -> bool {
        let is_new = self.block != Some(number);
        if is_new {
            self.forget_block();
            self.block = Some(number);
            self.buffer.reserve_exact(used);
        }
        is_new
    }

    fn forget_block(&mut self) {
        self.block = None;
        self.buffer.clear();
        self.taken = 0;
        self.record = None;
    }

    /// Reads what the buffer lacks of a block. Returns false when the disk failed.
    async fn read(&mut self, held: Held) -> bool {
        let at = self.buffer.len();
        let mut target = std::mem::take(&mut self.buffer);
        target.resize(held.used, 0);
        let file = Arc::clone(&self.command.file);
        match file.read_now(held.block, at, &mut target[at..]) {
            Ok(()) => {
                self.buffer = target;
                true
            }
            Err(ReadError::WouldWait) => {
                // If the caller stops waiting in here, this reader has no block and finds its place again.
                let (block, taken, record) = (self.block, self.taken, self.record);
                self.forget_block();
                let read = tokio::task::spawn_blocking(move || {
                    let result = file.read_waiting(held.block, at, &mut target[at..]);
                    (target, result)
                });
                match read.await {
                    Ok((target, Ok(()))) => {
                        (self.block, self.taken, self.record) = (block, taken, record);
                        self.buffer = target;
                        true
                    }
                    Ok((_, Err(error))) => log_failure(&error),
                    Err(error) => log_failure(&error.into()),
                }
            }
            Err(ReadError::Failed(error)) => log_failure(&error),
        }
    }

    /// Moves in a fresh buffer from the block's beginning to the offset that is wanted.
    fn skip(&mut self, start: u64) {
        let wanted = std::mem::replace(&mut self.offset, start);
        while self.offset < wanted {
            let Some((_, left)) = self.record() else { break };
            let step = left.min(usize::try_from(wanted - self.offset).unwrap_or(usize::MAX));
            self.take(step);
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if let Some(viewer) = self.waited_for {
            self.command.state().viewers.leave(viewer);
        }
    }
}

fn log_failure(error: &std::io::Error) -> bool {
    tracing::error!(%error, "the log of commands can't be read");
    false
}

/// Why gathering stopped.
enum Filled {
    /// As much as an event may have.
    Full,
    /// The other stream's data, or a gap, comes next.
    OtherStream,
    /// Nothing more may or can be read now.
    AtEnd,
    /// Bytes were dropped.
    Gap { to: u64 },
}

impl Piece {
    fn into_event(self) -> CommandEvent {
        match self {
            Self::Data { stream, offset, bytes } => {
                let end = offset + bytes.len() as u64;
                let data = Data::from_bytes(bytes);
                match stream {
                    Stream::Output => CommandEvent::Stdout { offset, end, data },
                    Stream::Error => CommandEvent::Stderr { offset, end, data },
                }
            }
            Self::Gap { from, to } => CommandEvent::Gap { from, to },
            Self::Exit { exit, offset } => CommandEvent::Exit { exit, offset },
        }
    }
}

/// How many bytes can be handed out so that a character cut at the end waits for its rest.
pub(super) fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        if bytes[at] & 0b1100_0000 != 0b1000_0000 {
            // The last byte that begins a character. Only if more could complete it is it held back.
            let is_cut = std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.error_len().is_none());
            return if is_cut { at } else { bytes.len() };
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cut_character_is_held_back() {
        for (bytes, whole) in [
            (&b"plain"[..], 5),
            ("ž".as_bytes(), 2),
            (&"ž".as_bytes()[..1], 0),
            (&"a€".as_bytes()[..3], 1),
            (&"a🦀".as_bytes()[..4], 1),
            ("🦀".as_bytes(), 4),
            (b"\xff", 1),
            (b"a\x80\x80\x80", 4),
            (b"\xe2\x28", 2),
            (b"", 0),
        ] {
            assert_eq!(whole_characters(bytes), whole, "{bytes:?}");
        }
    }
}
