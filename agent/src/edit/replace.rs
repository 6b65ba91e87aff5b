//! The operation `replace`: text for text, once unless told otherwise.
//!
//! Unless `exact`, text is compared with every line ending as `\n`, on both sides. Of a match only what differs between
//! old and new is replaced: what they have in common at their beginnings and ends keeps its bytes, line endings included,
//! and what is inserted gets the ending of the line where it goes.

use corehold_types::{Code, Problem};
use memchr::memmem;

use super::{
    lines::{self, ending_near, push_with_ending, with_line_feeds},
    nearest,
};
use crate::config::Limit;

/// How often the old text must occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Once, and overlapping occurrences count: of `aa` in `aaa` nobody knows which one was meant.
    Once,
    /// At least once.
    All,
    /// So many times, counted without overlaps.
    Exactly(u64),
}

/// Replaces `old` by `new`.
///
/// # Errors
/// `INVALID_REQUEST` for an empty `old`, `NOT_TEXT` unless `exact`, `NO_MATCH` with the nearest lines, `AMBIGUOUS_MATCH`
/// with the lines of the first matches, `LIMIT_EXCEEDED` when the result would be too large.
pub(crate) fn replace(
    bytes: &[u8],
    old: &[u8],
    new: &[u8],
    times: Times,
    exact: bool,
    most_bytes: Limit,
) -> Result<Vec<u8>, Problem> {
    if old.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "`old` is empty, so it is everywhere and nowhere")
            .suggest("use insert, or create with overwrite"));
    }
    if exact {
        let matches = matches(bytes, old, times);
        check_count(bytes, bytes, old, &matches, times)?;
        check_size(bytes, &matches, new, most_bytes)?;
        return Ok(splice(bytes, &matches, old.len(), |at, target| {
            target.extend_from_slice(new);
            at..at + old.len()
        }));
    }
    lines::require_text(bytes)?;
    let (old, new) = (with_line_feeds(old), with_line_feeds(new));
    let text = with_line_feeds(bytes);
    let matches = matches(&text, &old, times);
    check_count(bytes, &text, &old, &matches, times)?;
    check_size(bytes, &matches, &new, most_bytes)?;
    let positions = Positions::new(bytes);
    let prefix = common_prefix(&old, &new);
    let suffix = common_prefix_reversed(&old[prefix..], &new[prefix..]);
    let inserted = &new[prefix..new.len() - suffix];
    Ok(splice(bytes, &matches, old.len(), |at, target| {
        let (from, to) = (positions.original(at + prefix), positions.original(at + old.len() - suffix));
        let ending = ending_near(bytes, positions.original(at));
        target.extend_from_slice(&bytes[positions.original(at)..from]);
        push_with_ending(target, inserted, ending);
        positions.original(at)..to
    }))
}

/// Copies `bytes`, except what `put` replaces: for each match it appends the replacement and says which bytes it replaces.
fn splice(
    bytes: &[u8],
    matches: &[usize],
    old_length: usize,
    mut put: impl FnMut(usize, &mut Vec<u8>) -> std::ops::Range<usize>,
) -> Vec<u8> {
    let mut changed = Vec::with_capacity(bytes.len());
    let mut done = 0;
    let mut replacement = Vec::with_capacity(old_length);
    for at in matches {
        replacement.clear();
        let range = put(*at, &mut replacement);
        changed.extend_from_slice(&bytes[done..range.start]);
        changed.extend_from_slice(&replacement);
        done = range.end;
    }
    changed.extend_from_slice(&bytes[done..]);
    changed
}

fn matches(text: &[u8], old: &[u8], times: Times) -> Vec<usize> {
    let finder = memmem::Finder::new(old);
    match times {
        Times::All | Times::Exactly(_) => finder.find_iter(text).collect(),
        Times::Once => {
            // Two are enough to know that it isn't one; a few more serve the message.
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(at) = text.get(from..).and_then(|rest| finder.find(rest))
                && found.len() < 5
            {
                found.push(from + at);
                from += at + 1;
            }
            found
        }
    }
}

fn check_count(bytes: &[u8], text: &[u8], old: &[u8], matches: &[usize], times: Times) -> Result<(), Problem> {
    let wanted = match times {
        Times::Once => 1,
        Times::All => matches.len().max(1) as u64,
        Times::Exactly(count) => count,
    };
    if matches.len() as u64 == wanted {
        return Ok(());
    }
    if matches.is_empty() {
        return Err(nearest::no_match(bytes, old));
    }
    let mut lines: Vec<u64> = matches.iter().take(5).map(|at| line_of(text, *at)).collect();
    lines.dedup();
    let numbers = lines.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let found = match times {
        Times::Once if matches.len() >= 5 => "at least 5".to_owned(),
        _ => matches.len().to_string(),
    };
    let detail = format!("the old text occurs {found} times instead of {wanted}; the first are on line {numbers}");
    Err(Problem::new(Code::AmbiguousMatch, detail)
        .with("found", matches.len() as u64)
        .with("wanted", wanted)
        .with("lines", lines)
        .suggest("give more of the lines around it, or `all: true`, or the `count` that there should be"))
}

/// Before the memory is taken: a short text may occur a million times.
fn check_size(bytes: &[u8], matches: &[usize], new: &[u8], most_bytes: Limit) -> Result<(), Problem> {
    let size = matches.len().saturating_mul(new.len()).saturating_add(bytes.len());
    if size as u64 > most_bytes.value { Err(most_bytes.exceeded("the file with the text replaced")) } else { Ok(()) }
}

fn line_of(text: &[u8], position: usize) -> u64 {
    memchr::memchr_iter(b'\n', &text[..position]).count() as u64 + 1
}

fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn common_prefix_reversed(left: &[u8], right: &[u8]) -> usize {
    left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

/// From positions in the text with `\n` to those in the bytes as they are.
struct Positions {
    /// Where, in the text with `\n`, line feeds stand that are `\r\n` in the bytes.
    shortened: Vec<usize>,
}

impl Positions {
    fn new(bytes: &[u8]) -> Self {
        let shortened =
            memmem::find_iter(bytes, b"\r\n").enumerate().map(|(before, carriage_return)| carriage_return - before);
        Self { shortened: shortened.collect() }
    }

    /// A position at a line ending is the position before the whole of it.
    fn original(&self, position: usize) -> usize {
        position + self.shortened.partition_point(|line_feed| *line_feed < position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn replace(bytes: &[u8], old: &[u8], new: &[u8], times: Times, exact: bool) -> Result<Vec<u8>, Problem> {
        super::replace(bytes, old, new, times, exact, Limits::default().edit_bytes)
    }

    #[test]
    fn a_result_that_would_be_too_large_is_refused_before_it_is_made() {
        let new = "x".repeat(1 << 20);
        let problem = replace(&b"a".repeat(1 << 20), b"a", new.as_bytes(), Times::All, false).unwrap_err();
        assert_eq!(problem.code, Code::LimitExceeded);
    }

    fn once(text: &str, old: &str, new: &str) -> String {
        let changed = replace(text.as_bytes(), old.as_bytes(), new.as_bytes(), Times::Once, false).unwrap();
        String::from_utf8(changed).unwrap()
    }

    fn refused(text: &str, old: &str, times: Times, exact: bool) -> Problem {
        replace(text.as_bytes(), old.as_bytes(), b"x", times, exact).unwrap_err()
    }

    #[test]
    fn line_feeds_match_crlf_and_the_inserted_lines_get_it() {
        assert_eq!(once("a\r\nb\r\nc\r\n", "a\nb\n", "a\nnew\nb\n"), "a\r\nnew\r\nb\r\nc\r\n");
        assert_eq!(once("a\nb\n", "a\r\nb", "a\r\nx\r\nb"), "a\nx\nb\n");
        assert_eq!(
            once("a\r\nb", "b", "b\nc"),
            "a\r\nb\r\nc",
            "a last line without ending takes that of the one before"
        );
    }

    #[test]
    fn endings_that_both_texts_have_keep_their_bytes_in_a_mixed_file() {
        assert_eq!(once("a\r\nb\nc\r\nd", "a\nb\nc\n", "a\nB\nc\n"), "a\r\nB\nc\r\nd");
        assert_eq!(once("a\r\nb\nc\n", "b\nc", "b"), "a\r\nb\n");
    }

    #[test]
    fn exact_is_byte_for_byte() {
        assert_eq!(replace(b"a\r\nb\r\n", b"\r\n", b"\n", Times::All, true).unwrap(), b"a\nb\n");
        assert_eq!(replace(b"\xff\xfe", b"\xfe", b"\x00", Times::Once, true).unwrap(), b"\xff\x00");
        assert_eq!(refused("a\r\nb", "a\nb", Times::Once, true).code, Code::NoMatch);
    }

    #[test]
    fn counts_are_kept_and_overlaps_are_ambiguous() {
        assert_eq!(refused("aaa", "aa", Times::Once, false).code, Code::AmbiguousMatch);
        assert_eq!(replace(b"aaa", b"aa", b"b", Times::All, false).unwrap(), b"ba");
        assert_eq!(replace(b"x x", b"x", b"y", Times::Exactly(2), false).unwrap(), b"y y");
        let problem = refused("x\nx\nx", "x", Times::Exactly(2), false);
        assert_eq!((problem.code, problem.context["lines"].to_string()), (Code::AmbiguousMatch, "[1,2,3]".to_owned()));
        assert_eq!(refused("abc", "", Times::All, false).code, Code::InvalidRequest);
        assert_eq!(refused("abc", "x", Times::All, false).code, Code::NoMatch);
        assert_eq!(replace(b"caf\xe9", b"c", b"d", Times::Once, false).unwrap_err().code, Code::NotText);
    }
}
