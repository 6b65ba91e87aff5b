//! Output for a caller who wants one answer: all of each stream, or its head and tail.

use std::{collections::VecDeque, sync::Arc};

use corehold_types::{CollectedOutput, Data, tools::CommandExit};

use super::{
    command::Command,
    log::Stream,
    viewer::{Piece, Viewer, whole_characters},
};

/// Bytes of a tail that is kept whether there is room or not.
const LEAST_TAIL: usize = 4 << 10;

/// What a collected answer is made of.
#[derive(Debug)]
pub struct Collected {
    /// Standard output.
    pub stdout: CollectedOutput,
    /// Standard error.
    pub stderr: CollectedOutput,
    /// How the command ended, if it has.
    pub exit: Option<CommandExit>,
    /// Where the log was read up to.
    pub offset: u64,
}

/// Reads a command's log from `offset`, and to its end if it follows, keeping `most` bytes of each stream.
///
/// It reads along while the command runs, so that the head is there also when the log drops its beginning later.
pub async fn collect(command: Arc<Command>, offset: u64, follow: bool, most: usize) -> Collected {
    collect_along(command, offset, follow, most, |_| {}, |_| true).await
}

/// The same, and `along` is shown what is read. Before more is kept, `room` is asked for so many bytes; from the first time on
/// that there are none, head and tail stay as long as they are.
pub async fn collect_along(
    command: Arc<Command>,
    offset: u64,
    follow: bool,
    most: usize,
    along: impl Fn(&[u8]),
    room: impl Fn(usize) -> bool,
) -> Collected {
    let mut viewer = Viewer::new(Arc::clone(&command), offset, follow);
    let mut parts = [Part::new(most), Part::new(most)];
    let mut exit = None;
    while let Some(piece) = viewer.next_piece().await {
        match piece {
            Piece::Data { stream, bytes, .. } => {
                along(&bytes);
                let part = &mut parts[stream as usize];
                let growth = part.growth(bytes.len());
                if growth > 0 && !room(growth) {
                    part.stay();
                }
                part.push(&bytes);
            }
            Piece::Gap { .. } => parts.iter_mut().for_each(Part::interrupt),
            Piece::Exit { exit: how, .. } => exit = Some(how),
        }
    }
    let totals = command.totals();
    let [stdout, stderr] = [Stream::Output, Stream::Error].map(|stream| {
        let part = std::mem::replace(&mut parts[stream as usize], Part::new(0));
        // From the beginning, what a gap swallowed is known too: it is the rest of what was written.
        let seen = if offset == 0 { totals[stream as usize].max(part.seen) } else { part.seen };
        part.finish(totals[stream as usize], seen)
    });
    Collected { stdout, stderr, exit, offset: viewer.offset() }
}

/// Head and tail of one stream.
struct Part {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    most_head: usize,
    most_tail: usize,
    /// Whether bytes are missing between head and tail for sure.
    interrupted: bool,
    seen: u64,
}

impl Part {
    fn new(most: usize) -> Self {
        let most_head = most.div_ceil(2);
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            most_head,
            most_tail: most - most_head,
            interrupted: false,
            seen: 0,
        }
    }

    /// By how much it gets longer when so many bytes are pushed.
    fn growth(&self, bytes: usize) -> usize {
        let head = if self.interrupted { 0 } else { self.most_head - self.head.len() };
        let tail = self.most_tail - self.tail.len();
        bytes.min(head.saturating_add(tail))
    }

    /// From now on it gets no longer, but for a tail of some lines.
    fn stay(&mut self) {
        self.most_head = self.head.len();
        self.most_tail = self.most_tail.min(self.tail.len().max(LEAST_TAIL));
    }

    fn push(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        let room = if self.interrupted { 0 } else { self.most_head - self.head.len() };
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.most_tail)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.most_tail);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// Bytes were dropped before they could be read: a tail must be in one piece, so it begins anew.
    fn interrupt(&mut self) {
        self.interrupted = true;
        self.tail.clear();
    }

    fn finish(self, total_bytes: u64, seen: u64) -> CollectedOutput {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        let kept = (head.len() + tail.len()) as u64;
        if !self.interrupted && seen == kept {
            head.append(&mut tail);
            return CollectedOutput { head: Data::from_bytes(head), tail: None, total_bytes, omitted_bytes: 0 };
        }
        head.truncate(whole_characters(&head));
        let cut = tail.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
        tail.drain(..cut);
        let omitted_bytes = seen.saturating_sub((head.len() + tail.len()) as u64);
        let tail = (!tail.is_empty()).then(|| Data::from_bytes(tail));
        CollectedOutput { head: Data::from_bytes(head), tail, total_bytes, omitted_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(most: usize, pushes: &[&str]) -> CollectedOutput {
        let mut part = Part::new(most);
        for push in pushes {
            part.push(push.as_bytes());
        }
        let seen = part.seen;
        part.finish(seen, seen)
    }

    #[test]
    fn what_fits_comes_whole() {
        let output = part(10, &["01234", "56789"]);
        assert_eq!(output.head, Data::Text("0123456789".into()));
        assert_eq!((output.tail, output.total_bytes, output.omitted_bytes), (None, 10, 0));
    }

    #[test]
    fn what_does_not_fit_keeps_head_and_tail() {
        let output = part(6, &["0123", "4567", "89"]);
        assert_eq!(output.head, Data::Text("012".into()));
        assert_eq!(output.tail, Some(Data::Text("789".into())));
        assert_eq!((output.total_bytes, output.omitted_bytes), (10, 4));
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let output = part(6, &["žžžžžž"]);
        assert_eq!(output.head, Data::Text("ž".into()));
        assert_eq!(output.tail, Some(Data::Text("ž".into())));
        assert_eq!(output.omitted_bytes, 8);
    }

    #[test]
    fn nothing_may_be_asked_for() {
        let output = part(0, &["abc"]);
        assert_eq!((output.head, output.tail, output.omitted_bytes), (Data::Text(String::new()), None, 3));
    }

    #[test]
    fn without_room_head_and_tail_stay_as_long_as_they_are() {
        let mut part = Part::new(100_000);
        part.push(&[b'a'; 10_000]);
        assert_eq!(part.growth(200_000), 90_000);
        part.stay();
        part.push(&[b'b'; 9_000]);
        part.push(b"end");
        let output = part.finish(19_003, 19_003);
        let tail = format!("{}end", "b".repeat(LEAST_TAIL - 3));
        assert_eq!((output.head, output.tail), (Data::Text("a".repeat(10_000)), Some(Data::Text(tail))));
        assert_eq!(output.omitted_bytes, 9_003 - LEAST_TAIL as u64);
    }

    #[test]
    fn a_gap_separates_head_and_tail_though_both_fit() {
        let mut part = Part::new(100);
        part.push(b"begin");
        part.interrupt();
        part.push(b"end");
        let output = part.finish(1_000, 1_000);
        assert_eq!(output.head, Data::Text("begin".into()));
        assert_eq!(output.tail, Some(Data::Text("end".into())));
        assert_eq!((output.total_bytes, output.omitted_bytes), (1_000, 992));
    }
}
