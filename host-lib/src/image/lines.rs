//! Output that comes in pieces, put together to lines, and the last of them kept.

use std::collections::VecDeque;

/// A line longer than this is passed on in pieces.
const LONGEST_LINE: usize = 16 * 1024;

/// Lines of the tail that an error carries.
const TAIL_LINES: usize = 40;

/// Puts pieces together to lines; blank ones are left out.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes a piece and hands on the lines that it completes.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            for part in piece.chunks(LONGEST_LINE) {
                self.0.extend_from_slice(part);
                if self.0.len() >= LONGEST_LINE || self.0.ends_with(b"\n") || self.0.ends_with(b"\r") {
                    self.end(&mut line);
                }
            }
        }
    }

    /// Hands on what was begun.
    pub(crate) fn end(&mut self, mut line: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.0);
        let text = text.trim_end();
        if !text.is_empty() {
            line(text);
        }
        self.0.clear();
    }
}

/// The last lines of an output.
#[derive(Default)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub(crate) fn last(&self) -> &str {
        self.0.back().map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece, |line| seen.push(line.to_owned()));
        }
        lines.end(|line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn pieces_become_lines() {
        let seen = lines_of(&[b"Step 1/2 : FROM x", b"\n", b" ---> 12\r\na\n\nb", b"\xc3", b"\xa4"]);
        assert_eq!(seen, ["Step 1/2 : FROM x", " ---> 12", "a", "bä"]);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let seen = lines_of(&[&vec![b'x'; 3 * LONGEST_LINE + 1]]);
        assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1]);
    }

    #[test]
    fn a_tail_keeps_the_end() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(&number.to_string());
        }
        assert!(tail.text().starts_with("60\n61\n") && tail.last() == "99");
    }
}
