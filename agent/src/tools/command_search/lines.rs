//! A command's output, piece by piece as the log has it, made into the lines of its two streams and those that match told.
//!
//! Knows nothing of where the pieces come from. Memory is bounded: of each stream the line that hasn't ended yet, up to
//! [`LINE_BYTES`], and what is shown of the lines that may become context.

use std::collections::VecDeque;

use corehold_types::tools::{CommandSearchEvent, CommandSearchLine, OutputStream, SearchTruncation};
use grep_matcher::Matcher as _;
use grep_regex::RegexMatcher;

use crate::search::{self, LineOptions};

/// Bytes of a line that are searched at once. The schema of the response says it too.
pub(super) const LINE_BYTES: usize = 512 << 10;
/// Matches of one line that are told.
const RANGES: usize = 1_000;

/// What is looked for, and what is told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) invert: bool,
    pub(super) crlf: bool,
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) max_matches: u64,
    pub(super) lines: LineOptions,
}

/// Where what is found goes. Says false when there is no room for it, or nobody is there.
pub(super) type Tell<'a> = dyn FnMut(CommandSearchEvent) -> bool + 'a;

/// The lines of a log.
pub(super) struct Lines<'a> {
    matcher: &'a RegexMatcher,
    wanted: Wanted,
    tell: &'a mut Tell<'a>,
    /// Standard output, standard error.
    streams: [Stream; 2],
    counts: Counts,
}

/// What was counted, and where it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) matched_lines: u64,
    pub(super) searched_bytes: u64,
    pub(super) long_lines: u64,
    /// Behind the last byte that came.
    at: u64,
    /// Behind the last line that was told.
    told: u64,
    /// Why it was left, and where the line begins that wasn't told any more.
    pub(super) left: Option<(SearchTruncation, u64)>,
}

/// One stream's line that has begun, and what was in front of it.
#[derive(Debug, Default)]
struct Stream {
    line: Vec<u8>,
    /// Where it begins in the log.
    start: u64,
    /// Whether its beginning was searched already, being too long.
    is_long: bool,
    /// Lines that would be context of a match.
    before: VecDeque<CommandSearchLine>,
    /// Lines that are context of the last match still.
    after: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(matcher: &'a RegexMatcher, wanted: Wanted, offset: u64, tell: &'a mut Tell<'a>) -> Self {
        let counts = Counts { at: offset, told: offset, ..Counts::default() };
        Self { matcher, wanted, tell, streams: [Stream::default(), Stream::default()], counts }
    }

    /// Takes the next piece, which begins at an offset of the log. False when no more is wanted.
    pub(super) fn push(&mut self, stream: OutputStream, mut offset: u64, mut bytes: &[u8]) -> bool {
        self.counts.at = offset + bytes.len() as u64;
        self.counts.searched_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let state = &mut self.streams[stream as usize];
            if state.line.is_empty() {
                state.start = offset;
            }
            let room = LINE_BYTES - state.line.len();
            let end = memchr::memchr(b'\n', &bytes[..bytes.len().min(room)]);
            let taken = end.unwrap_or(bytes.len().min(room));
            state.line.extend_from_slice(&bytes[..taken]);
            let is_full = state.line.len() == LINE_BYTES;
            // With the line's end, which belongs to it also where it comes right behind so many bytes.
            let with_end = taken + usize::from(bytes.get(taken) == Some(&b'\n'));
            if is_full && with_end == taken && !state.is_long {
                state.is_long = true;
                self.counts.long_lines += 1;
            }
            offset += with_end as u64;
            let is_whole = with_end > taken;
            if (is_whole || is_full) && !self.flush(stream, offset) {
                return false;
            }
            if is_whole {
                self.streams[stream as usize].is_long = false;
            }
            bytes = &bytes[with_end..];
        }
        true
    }

    /// Bytes of the log are missing here: what has begun is searched as far as it came.
    pub(super) fn gap(&mut self, from: u64, to: u64) -> bool {
        if !self.finish() {
            return false;
        }
        for stream in &mut self.streams {
            (stream.after, stream.is_long) = (0, false);
            stream.before.clear();
        }
        (self.counts.at, self.counts.told) = (to, self.counts.told.max(from));
        (self.tell)(CommandSearchEvent::Gap { from, to }) || self.leave(SearchTruncation::AnswerBytes, from)
    }

    /// Searches what has begun and not ended, the first of both first.
    fn finish(&mut self) -> bool {
        let mut begun = [OutputStream::Stdout, OutputStream::Stderr];
        begun.sort_by_key(|stream| self.streams[*stream as usize].start);
        begun.into_iter().all(|stream| {
            let is_there = !self.streams[stream as usize].line.is_empty();
            !is_there || self.flush(stream, self.counts.at)
        })
    }

    /// The end: searches what hasn't ended yet as far as it is there, if that is still wanted. Returns what was counted, and where another
    /// search goes on: behind all of it, if nothing `follows`.
    pub(super) fn end(mut self, wanted: bool, follows: bool) -> (Counts, u64) {
        let begun = self.resume();
        if wanted {
            self.finish();
        }
        let next = match self.counts.left {
            None if wanted && !follows => self.counts.at,
            None => begun.max(self.counts.told),
            Some(_) => self.resume(),
        };
        (self.counts, next)
    }

    /// Where to go on, before what hasn't been told and behind what has.
    fn resume(&self) -> u64 {
        let begun = self.streams.iter().filter(|stream| !stream.line.is_empty()).map(|stream| stream.start).min();
        let from = self.counts.left.map(|left| left.1).or(begun).unwrap_or(self.counts.at);
        from.max(self.counts.told)
    }

    fn leave(&mut self, why: SearchTruncation, from: u64) -> bool {
        self.counts.left = Some((why, from));
        false
    }

    /// Searches a stream's line, which ends there in the log.
    fn flush(&mut self, stream: OutputStream, end: u64) -> bool {
        let mut whole = std::mem::take(&mut self.streams[stream as usize].line);
        let goes_on = self.line(stream, &whole, end);
        // Its memory serves the next one.
        whole.clear();
        self.streams[stream as usize].line = whole;
        goes_on
    }

    fn line(&mut self, stream: OutputStream, whole: &[u8], end: u64) -> bool {
        let start = self.streams[stream as usize].start;
        let content = if self.wanted.crlf { whole.strip_suffix(b"\r").unwrap_or(whole) } else { whole };
        // This matcher has no errors.
        let is_match = self.matcher.is_match(content).unwrap_or(false) != self.wanted.invert;
        let state = &mut self.streams[stream as usize];
        let is_after = !is_match && state.after > 0;
        if !is_match && !is_after && self.wanted.before == 0 {
            return true;
        }
        let line = self.shown(stream, (start, end), content, is_match != self.wanted.invert);
        let state = &mut self.streams[stream as usize];
        if !is_match && !is_after {
            if state.before.len() == self.wanted.before {
                state.before.pop_front();
            }
            state.before.push_back(line);
            return true;
        }
        if is_after {
            state.after -= 1;
            return self.tell_line(CommandSearchEvent::Context(line), start, end);
        }
        if self.counts.matched_lines == self.wanted.max_matches {
            return self.leave(SearchTruncation::MaxMatches, start);
        }
        state.after = self.wanted.after;
        let before = std::mem::take(&mut state.before);
        for context in before {
            let (start, end) = (context.offset, context.end);
            if !self.tell_line(CommandSearchEvent::Context(context), start, end) {
                return false;
            }
        }
        let told = self.tell_line(CommandSearchEvent::Match(line), start, end);
        self.counts.matched_lines += u64::from(told);
        told
    }

    fn tell_line(&mut self, event: CommandSearchEvent, start: u64, end: u64) -> bool {
        if !(self.tell)(event) {
            return self.leave(SearchTruncation::AnswerBytes, start);
        }
        self.counts.told = self.counts.told.max(end);
        true
    }

    fn shown(&self, stream: OutputStream, (offset, end): (u64, u64), line: &[u8], find: bool) -> CommandSearchLine {
        let mut line = search::line_alone(self.matcher, line, find, self.wanted.lines);
        let beyond = line.ranges.len().saturating_sub(RANGES) as u64;
        line.ranges.truncate(RANGES);
        if let Some(cut) = &mut line.cut {
            cut.hidden_matches += beyond;
        }
        CommandSearchLine { stream, offset, end, data: line.data, ranges: line.ranges, cut: line.cut }
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::{
        Data,
        tools::{OutputStream::*, SearchColumns},
    };

    use super::*;
    use crate::search::pattern::{PatternOptions, compile};

    fn wanted() -> Wanted {
        let lines = LineOptions { columns: SearchColumns::Bytes, max_bytes: 100 };
        Wanted { invert: false, crlf: false, before: 0, after: 0, max_matches: 100, lines }
    }

    /// Events in short: their mark, stream, place and text. And the counts, and where to go on.
    fn search(
        pattern: &str,
        wanted: Wanted,
        pieces: &[(OutputStream, &[u8])],
        room: usize,
    ) -> (Vec<String>, Counts, u64) {
        let options = PatternOptions { nul_is_text: true, crlf: wanted.crlf, ..PatternOptions::default() };
        let matcher = compile(pattern, &options).unwrap();
        let mut told = Vec::new();
        let mut tell = |event: CommandSearchEvent| {
            let is_room = told.len() < room;
            if is_room {
                told.push(short(&event));
            }
            is_room
        };
        let mut lines = Lines::new(&matcher, wanted, 0, &mut tell);
        let mut at = 0;
        let mut goes_on = true;
        for (stream, bytes) in pieces {
            goes_on = goes_on && lines.push(*stream, at, bytes);
            at += bytes.len() as u64;
        }
        let (counts, next) = lines.end(goes_on, true);
        (told, counts, next)
    }

    fn short(event: &CommandSearchEvent) -> String {
        let (mark, line) = match event {
            CommandSearchEvent::Match(line) => (':', line),
            CommandSearchEvent::Context(line) => ('-', line),
            CommandSearchEvent::Gap { from, to } => return format!("gap {from} {to}"),
        };
        let Data::Text(text) = &line.data else { return "no text".to_owned() };
        let stream = if line.stream == Stdout { 'o' } else { 'e' };
        format!("{stream}{}..{}{mark}{text}", line.offset, line.end)
    }

    #[test]
    fn lines_are_put_together_across_pieces_and_apart_by_stream() {
        let pieces: &[(OutputStream, &[u8])] =
            &[(Stdout, b"one nee"), (Stderr, b"an error: need"), (Stdout, b"dle\ntwo\n"), (Stderr, b"le\nlast needle")];
        let (told, counts, next) = search("needle", wanted(), pieces, 99);
        assert_eq!(told, ["o0..25:one needle", "e7..32:an error: needle", "e32..43:last needle"]);
        assert_eq!((counts.matched_lines, counts.searched_bytes, next), (3, 43, 43), "the last one was told");
        let (_, _, next) = search("nothing", wanted(), pieces, 99);
        assert_eq!(next, 32, "it hadn't ended");
    }

    #[test]
    fn context_is_that_of_the_stream() {
        let pieces: &[(OutputStream, &[u8])] = &[
            (Stdout, b"a\nb\n"),
            (Stderr, b"E\n"),
            (Stdout, b"hit\nc\nd\nhit\n"),
            (Stderr, b"F\n"),
            (Stdout, b"e\nf\n"),
        ];
        let (told, ..) = search("hit", Wanted { before: 1, after: 1, ..wanted() }, pieces, 99);
        assert_eq!(told, ["o2..4-b", "o6..10:hit", "o10..12-c", "o12..14-d", "o14..18:hit", "o20..22-e"]);
    }

    #[test]
    fn a_line_longer_than_is_searched_at_once_is_searched_in_pieces() {
        let long = [&b"x".repeat(LINE_BYTES)[..], b"needle", &b"y".repeat(LINE_BYTES), b"needle\nneedle\n"].concat();
        for size in [1_000, 32 << 10, long.len()] {
            let pieces: Vec<_> = long.chunks(size).map(|piece| (Stdout, piece)).collect();
            let lines = LineOptions { max_bytes: 6, ..wanted().lines };
            let (told, counts, next) = search("needle", Wanted { lines, ..wanted() }, &pieces, 99);
            assert_eq!((told.len(), counts.matched_lines, counts.long_lines), (3, 3, 1), "{told:?}");
            assert!(told[0].starts_with(&format!("o{LINE_BYTES}..")), "{told:?}");
            assert_eq!((counts.searched_bytes, next), (long.len() as u64, long.len() as u64));
        }
        // Exactly as long as may be is one line.
        let fits = [&b"x".repeat(LINE_BYTES - 6)[..], b"needle\n"].concat();
        for size in [1_000, LINE_BYTES, fits.len()] {
            let pieces: Vec<_> = fits.chunks(size).map(|piece| (Stdout, piece)).collect();
            let (told, counts, _) = search("needle$", wanted(), &pieces, 99);
            assert_eq!((told.len(), counts.matched_lines), (1, 1));
        }
    }

    #[test]
    fn it_stops_at_so_many_and_goes_on_there() {
        let text: &[u8] = b"hit 1\nno\nhit 2\nhit 3\n";
        let (told, counts, next) = search("hit", Wanted { max_matches: 2, ..wanted() }, &[(Stdout, text)], 99);
        assert_eq!(told, ["o0..6:hit 1", "o9..15:hit 2"]);
        assert_eq!((counts.left.map(|left| left.0), next), (Some(SearchTruncation::MaxMatches), 15));
        let (told, counts, next) = search("hit", wanted(), &[(Stdout, text)], 1);
        assert_eq!(told, ["o0..6:hit 1"]);
        assert_eq!(
            (counts.left.map(|left| left.0), counts.matched_lines, next),
            (Some(SearchTruncation::AnswerBytes), 1, 9)
        );
        // Not before what was told, or who goes on might never come further.
        let pieces: &[(OutputStream, &[u8])] = &[(Stdout, b"hit"), (Stderr, b"hit\n"), (Stdout, b"\n")];
        let (told, _, next) = search("hit", Wanted { max_matches: 1, ..wanted() }, pieces, 99);
        assert_eq!((told, next), (vec!["e3..7:hit".to_owned()], 7));
    }

    #[test]
    fn inverted_with_carriage_returns_and_bytes_that_are_no_text() {
        let text: &[u8] = b"keep\r\ndrop\r\n\xff\0\r\n";
        let options = Wanted { invert: true, crlf: true, ..wanted() };
        let (told, ..) = search("^drop$", options, &[(Stdout, text)], 99);
        assert_eq!(told, ["o0..6:keep", "no text"]);
        let (told, ..) = search("^drop$", wanted(), &[(Stdout, text)], 99);
        assert!(told.is_empty(), "the carriage return belongs to the line");
    }

    #[test]
    fn a_gap_cuts_lines_and_context() {
        let options = PatternOptions { nul_is_text: true, ..PatternOptions::default() };
        let matcher = compile("needle", &options).unwrap();
        let mut told = Vec::new();
        let mut tell = |event: CommandSearchEvent| {
            told.push(short(&event));
            true
        };
        let mut lines = Lines::new(&matcher, Wanted { before: 2, after: 2, ..wanted() }, 0, &mut tell);
        assert!(lines.push(Stdout, 0, b"needle\nnee"));
        assert!(lines.gap(10, 100));
        assert!(lines.push(Stdout, 100, b"dle\nx\nneedle\n"));
        let (counts, next) = lines.end(true, false);
        assert_eq!((counts.matched_lines, counts.searched_bytes, next), (2, 23, 113));
        assert_eq!(
            told,
            ["o0..7:needle", "o7..10-nee", "gap 10 100", "o100..104-dle", "o104..106-x", "o106..113:needle"]
        );
    }
}
