//! The operations `lines` and `insert`: whole lines by their numbers.

use corehold_types::{Code, Problem};

use super::lines::{self, BOM, ending_near};

/// Replaces the lines from `start` to `end`, both included, counted from 1.
///
/// The last new line ends as the last replaced one did, so a missing ending at the end of the file stays missing.
///
/// # Errors
/// `NOT_TEXT`, or `INVALID_REQUEST` when the lines aren't there.
pub(crate) fn replace(bytes: &[u8], start: u64, end: u64, text: &str) -> Result<Vec<u8>, Problem> {
    lines::require_text(bytes)?;
    let offsets = line_offsets(bytes);
    let count = (offsets.len() - 1) as u64;
    if start == 0 || start > end || end > count {
        return Err(not_there(&format!("lines {start} to {end}"), count));
    }
    // Both fit: they are at most the number of lines.
    let (from, to) = (offsets[start as usize - 1], offsets[end as usize]);
    let mut changed = bytes[..from].to_vec();
    let last_has_ending = bytes[..to].ends_with(b"\n");
    push_lines(&mut changed, text, bytes, from, last_has_ending);
    changed.extend_from_slice(&bytes[to..]);
    Ok(changed)
}

/// Inserts lines so that the first of them has the number `line`.
///
/// At the end of a file whose last line has no ending, that line gets one and the last new line has none.
///
/// # Errors
/// `NOT_TEXT`, or `INVALID_REQUEST` when the file is too short.
pub(crate) fn insert(bytes: &[u8], line: u64, text: &str) -> Result<Vec<u8>, Problem> {
    lines::require_text(bytes)?;
    let offsets = line_offsets(bytes);
    let count = (offsets.len() - 1) as u64;
    if line == 0 || line > count + 1 {
        return Err(not_there(&format!("a place before line {line}"), count));
    }
    let at = offsets[line as usize - 1];
    let mut changed = bytes[..at].to_vec();
    let after_unended_line = at == bytes.len() && count > 0 && !bytes.ends_with(b"\n");
    if after_unended_line && !text.is_empty() {
        changed.extend_from_slice(ending_near(bytes, at).bytes());
    }
    push_lines(&mut changed, text, bytes, at, !after_unended_line);
    changed.extend_from_slice(&bytes[at..]);
    Ok(changed)
}

/// Appends text as lines, with the endings of the lines around `near`.
fn push_lines(target: &mut Vec<u8>, text: &str, bytes: &[u8], near: usize, last_has_ending: bool) {
    let ending = ending_near(bytes, near).bytes();
    let mut new = lines::split(text.as_bytes()).peekable();
    while let Some(line) = new.next() {
        target.extend_from_slice(lines::content(line));
        if new.peek().is_some() || last_has_ending {
            target.extend_from_slice(ending);
        }
    }
}

/// Where each line begins, and where the last one ends. A byte order mark belongs to no line.
fn line_offsets(bytes: &[u8]) -> Vec<usize> {
    let mut offset = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
    let mut offsets = vec![offset];
    for line in lines::split(&bytes[offset..]) {
        offset += line.len();
        offsets.push(offset);
    }
    offsets
}

fn not_there(what: &str, count: u64) -> Problem {
    Problem::new(Code::InvalidRequest, format!("there is no such thing as {what}: the file has {count} lines"))
        .with("totalLines", count)
        .suggest("lines are counted from 1, and the last is included; give `expected` so that numbers can't go stale")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Vec<u8>, Problem>) -> String {
        String::from_utf8(result.unwrap()).unwrap()
    }

    #[test]
    fn ranges_keep_endings_mark_and_a_missing_last_ending() {
        assert_eq!(text(replace(b"a\r\nb\r\nc", 2, 2, "x\ny\n")), "a\r\nx\r\ny\r\nc");
        assert_eq!(text(replace(b"a\nb", 2, 2, "x\n")), "a\nx", "the last line had no ending");
        assert_eq!(text(replace(b"a\nb\n", 2, 2, "x")), "a\nx\n");
        assert_eq!(text(replace(b"\xef\xbb\xbfa\nb\n", 1, 1, "x")), "\u{feff}x\nb\n");
        assert_eq!(text(replace(b"a\nb\nc\n", 1, 2, "")), "c\n");
        assert_eq!(text(replace(b"a\nb\n", 1, 1, "\n")), "\nb\n", "one empty line");
    }

    #[test]
    fn lines_are_inserted_at_any_place() {
        assert_eq!(text(insert(b"a\nb\n", 1, "x")), "x\na\nb\n");
        assert_eq!(text(insert(b"a\nb\n", 3, "x\n")), "a\nb\nx\n");
        assert_eq!(text(insert(b"a\r\nb", 3, "x\ny")), "a\r\nb\r\nx\r\ny");
        assert_eq!(text(insert(b"", 1, "x")), "x\n");
        assert_eq!(text(insert(b"\xef\xbb\xbf", 1, "x")), "\u{feff}x\n");
        assert_eq!(text(insert(b"a", 2, "")), "a");
    }

    #[test]
    fn lines_that_are_not_there_are_refused() {
        for (start, end) in [(0, 1), (2, 1), (1, 4), (u64::MAX, u64::MAX), (4, 4)] {
            let problem = replace(b"a\nb\nc", start, end, "x").unwrap_err();
            assert_eq!((problem.code, problem.context["totalLines"].as_u64()), (Code::InvalidRequest, Some(3)));
        }
        assert!(insert(b"a\n", 3, "x").is_err() && insert(b"a\n", 0, "x").is_err());
        assert!(insert(b"a", u64::MAX, "x").is_err());
        assert_eq!(replace(b"\xff", 1, 1, "x").unwrap_err().code, Code::NotText);
    }
}
