//! What the searcher finds in a file, made into lines of the wire: columns, and the cut of long ones.

use corehold_types::{
    Data,
    tools::{SearchColumns, SearchCut, SearchLine},
};
use grep_matcher::Matcher as _;
use grep_regex::RegexMatcher;
use grep_searcher::Searcher;

/// How far behind a match of several lines the pattern may look; the same as ripgrep's (grep-printer `util.rs`).
const MAX_LOOK_AHEAD: usize = 128;

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub struct LineOptions {
    /// What columns count.
    pub columns: SearchColumns,
    /// Bytes of a line that are shown.
    pub max_bytes: usize,
}

/// The piece of a line that is shown, and the matches in it.
struct Piece {
    start: usize,
    end: usize,
    ranges: Vec<(usize, usize)>,
    hidden: u64,
}

impl Piece {
    /// The piece of a line around its first match, if there is one.
    fn around(first: Option<usize>, length: usize, max_bytes: usize) -> Self {
        let (mut start, mut end) = (0, length);
        if length > max_bytes {
            // A quarter before the match: enough to see where it is, and most of the room for what follows.
            start = first.unwrap_or(0).saturating_sub(max_bytes / 4).min(length - max_bytes);
            end = start + max_bytes;
        }
        Self { start, end, ranges: Vec::new(), hidden: 0 }
    }

    fn add(&mut self, start: usize, end: usize, length: usize) {
        if start >= self.start && (start < self.end || self.end >= length) {
            self.ranges.push((start, end));
        } else {
            self.hidden += 1;
        }
    }
}

/// Makes a line from `range` of what the searcher has in memory. `find` says whether to look for the matches in it.
pub(super) fn line(
    searcher: &Searcher,
    matcher: &RegexMatcher,
    buffer: &[u8],
    range: std::ops::Range<usize>,
    number: u64,
    find: bool,
    options: LineOptions,
) -> SearchLine {
    let whole = &buffer[range.clone()];
    let length = whole.strip_suffix(b"\n").unwrap_or(whole).len();
    let mut piece: Option<Piece> = None;
    if find {
        find_in_context(searcher, matcher, buffer, &range, |start, end| {
            // As grep-printer's JSON: an empty match behind everything is none.
            if start == end && start >= buffer.len() {
                return;
            }
            piece.get_or_insert_with(|| Piece::around(Some(start), length, options.max_bytes)).add(start, end, length);
        });
    }
    let piece = piece.unwrap_or_else(|| Piece::around(None, length, options.max_bytes));
    show(whole, length, number, &piece, options)
}

/// Makes a line of one that stands by itself, without its end and number. `find` says whether to look for the matches in it.
pub(crate) fn line_alone(matcher: &RegexMatcher, line: &[u8], find: bool, options: LineOptions) -> SearchLine {
    let mut piece: Option<Piece> = None;
    if find {
        // This matcher has no errors.
        let _ = matcher.find_iter(line, |found| {
            let first = || Piece::around(Some(found.start()), line.len(), options.max_bytes);
            piece.get_or_insert_with(first).add(found.start(), found.end(), line.len());
            true
        });
    }
    let piece = piece.unwrap_or_else(|| Piece::around(None, line.len(), options.max_bytes));
    show(line, line.len(), 0, &piece, options)
}

fn show(whole: &[u8], mut length: usize, number: u64, piece: &Piece, options: LineOptions) -> SearchLine {
    // The carriage return of a line's end is not shown, unless a match ends behind it.
    let covered = piece.ranges.last().map_or(0, |range| range.1);
    if whole[..length].ends_with(b"\r") && covered < length {
        length -= 1;
    }
    let (mut start, mut end) = (piece.start.min(length), piece.end.min(length));
    let is_cut = start > 0 || end < length;
    if is_cut {
        while start < end && start > 0 && is_continuation(whole[start]) {
            start += 1;
        }
        while end > start && end < length && is_continuation(whole[end]) {
            end -= 1;
        }
    }
    let mut columns = Columns::new(whole, options.columns);
    let cut_start = columns.at(start);
    let ranges = piece.ranges.iter().map(|&(start, end)| [columns.at(start), columns.at(end)]).collect();
    let cut = is_cut.then(|| SearchCut {
        start: cut_start,
        length: Columns::new(whole, options.columns).at(length),
        hidden_matches: piece.hidden,
    });
    SearchLine { line: number, data: Data::from_bytes(whole[start..end].to_vec()), ranges, cut }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Counts columns up to places that come in rising order; a place before the last one begins anew.
struct Columns<'a> {
    bytes: &'a [u8],
    unit: SearchColumns,
    at: usize,
    count: u64,
}

impl<'a> Columns<'a> {
    fn new(bytes: &'a [u8], unit: SearchColumns) -> Self {
        Self { bytes, unit, at: 0, count: 0 }
    }

    fn at(&mut self, place: usize) -> u64 {
        if self.unit == SearchColumns::Bytes {
            return place as u64;
        }
        if place < self.at {
            (self.at, self.count) = (0, 0);
        }
        let piece = &self.bytes[self.at..place.min(self.bytes.len())];
        for chunk in piece.utf8_chunks() {
            self.count += chunk.valid().chars().map(|letter| letter.len_utf16() as u64).sum::<u64>();
            self.count += u64::from(!chunk.invalid().is_empty());
        }
        self.at = place;
        self.count
    }
}

/// Finds the matches in `range` again, relative to its beginning: the searcher only says which lines match.
///
/// After `find_iter_at_in_context` of grep-printer's `util.rs`, which says why it is so: without several lines the line's
/// end must not be seen; with them the pattern may have to look behind the match.
fn find_in_context(
    searcher: &Searcher,
    matcher: &RegexMatcher,
    buffer: &[u8],
    range: &std::ops::Range<usize>,
    mut found: impl FnMut(usize, usize),
) {
    let mut bytes = buffer;
    if searcher.multi_line_with_matcher(matcher) {
        if bytes[range.end..].len() >= MAX_LOOK_AHEAD {
            bytes = &bytes[..range.end + MAX_LOOK_AHEAD];
        }
    } else {
        bytes = &bytes[..range.end];
        if searcher.line_terminator().is_suffix(bytes) {
            let end = if searcher.line_terminator().is_crlf() && bytes.ends_with(b"\r\n") { 2 } else { 1 };
            bytes = &bytes[..bytes.len() - end];
        }
    }
    // This matcher has no errors to tell.
    let _ = matcher.find_iter_at(bytes, range.start, |one| {
        if one.start() >= range.end {
            return false;
        }
        found(one.start() - range.start, one.end() - range.start);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, ranges: &[(usize, usize)], max_bytes: usize, columns: SearchColumns) -> SearchLine {
        let length = text.strip_suffix('\n').unwrap_or(text).len();
        let mut piece = Piece::around(ranges.first().map(|range| range.0), length, max_bytes);
        ranges.iter().for_each(|&(start, end)| piece.add(start, end, length));
        show(text.as_bytes(), length, 1, &piece, LineOptions { columns, max_bytes })
    }

    #[test]
    fn the_end_of_a_line_is_not_shown() {
        let line = shown("let x;\r\n", &[(4, 5)], 100, SearchColumns::Bytes);
        assert_eq!((line.data, line.ranges, line.cut), (Data::Text("let x;".into()), vec![[4, 5]], None));
        let line = shown("let x;\r\n", &[(5, 7)], 100, SearchColumns::Bytes);
        assert_eq!(line.data, Data::Text("let x;\r".into()), "the match ends behind the carriage return");
    }

    #[test]
    fn columns_in_utf16_are_an_editors() {
        let line = shown("žluť 🦀 crab", &[(12, 16)], 100, SearchColumns::Utf16);
        assert_eq!(line.ranges, [[8, 12]]);
        let mut columns = Columns::new(b"a\xff\xf0\x9f\xa6\x80b", SearchColumns::Utf16);
        assert_eq!((columns.at(1), columns.at(2), columns.at(6), columns.at(0)), (1, 2, 4, 0));
    }

    #[test]
    fn a_long_line_is_cut_around_its_first_match_and_says_so() {
        let text = format!("{}needle{}needle", "ž".repeat(500), "y".repeat(1_000));
        let line = shown(&text, &[(1_000, 1_006), (2_006, 2_012)], 100, SearchColumns::Bytes);
        let Data::Text(piece) = &line.data else { panic!("the cut went through a character") };
        let cut = line.cut.unwrap();
        assert_eq!((cut.length, cut.hidden_matches), (2_012, 1));
        assert!(piece.len() <= 100 && piece.len() > 96);
        assert_eq!(&piece[1_000 - usize::try_from(cut.start).unwrap()..][..6], "needle");
        let utf16 = shown(&text, &[(1_000, 1_006)], 100, SearchColumns::Utf16);
        assert_eq!((utf16.ranges, utf16.cut.unwrap().length), (vec![[500, 506]], 1_512));
    }

    #[test]
    fn a_match_at_the_end_of_a_long_line_is_shown() {
        let text = format!("{}needle\n", "y".repeat(1_000));
        let line = shown(&text, &[(1_000, 1_006)], 100, SearchColumns::Bytes);
        assert!(matches!(line.data, Data::Text(piece) if piece.ends_with("needle")));
        assert_eq!(line.cut.unwrap().start, 906);
    }

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        let piece = Piece::around(None, 2, 100);
        let options = LineOptions { columns: SearchColumns::Bytes, max_bytes: 100 };
        assert_eq!(show(b"\xff\xfe", 2, 1, &piece, options).data, Data::from_bytes(vec![0xff, 0xfe]));
    }
}
