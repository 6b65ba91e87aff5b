//! Bytes that come in pieces, put together to lines.

/// A line longer than this is split, so that a program that never ends one can't fill the memory.
pub(super) const LINE_BYTES: usize = 8 << 10;

/// Puts one output's pieces together. What a terminal would draw over (a carriage return alone) stays in its line.
#[derive(Default)]
pub(super) struct Splitter(Vec<u8>);

impl Splitter {
    /// Takes a piece and hands on the lines that it completes, and whether each goes on in the next.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(String, bool)) {
        while let Some(end) = newline(bytes) {
            self.0.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.split(&mut line);
            self.end(&mut line);
        }
        self.0.extend_from_slice(bytes);
        self.split(&mut line);
    }

    fn split(&mut self, line: &mut impl FnMut(String, bool)) {
        while self.0.len() > LINE_BYTES {
            let at = boundary(&self.0);
            line(String::from_utf8_lossy(&self.0[..at]).into_owned(), true);
            self.0.drain(..at);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(String, bool)) {
        let whole = std::mem::take(&mut self.0);
        let text = whole.strip_suffix(b"\r").unwrap_or(&whole);
        line(String::from_utf8_lossy(text).into_owned(), false);
    }

    /// Hands on what was begun, when nothing comes any more.
    pub(super) fn finish(&mut self, mut line: impl FnMut(String, bool)) {
        if !self.0.is_empty() {
            self.end(&mut line);
        }
    }

    /// Forgets what was begun: what comes next doesn't belong to it.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// Where to split a long line: not within a character.
fn boundary(bytes: &[u8]) -> usize {
    let continues = |at: &usize| bytes[*at] & 0b1100_0000 == 0b1000_0000;
    (LINE_BYTES - 3..=LINE_BYTES).rev().find(|at| !continues(at)).unwrap_or(LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, bool)> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.feed(piece, |text, continues| lines.push((text, continues)));
            assert!(splitter.0.len() <= LINE_BYTES);
        }
        splitter.finish(|text, continues| lines.push((text, continues)));
        lines
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let text = "one\r\n\ntwo é\rredrawn\nthree".as_bytes();
        let expected = ["one", "", "two é\rredrawn", "three"].map(|line| (line.to_owned(), false));
        for size in 1..=text.len() {
            assert_eq!(lines_of(text.chunks(size)), expected, "pieces of {size}");
        }
        assert_eq!(lines_of([&b"ended\n"[..]]), [("ended".to_owned(), false)]);
    }

    #[test]
    fn a_long_line_is_split_with_a_mark_and_not_within_a_character() {
        let long = format!("x{}\nnext\n", "é".repeat(LINE_BYTES));
        let lines = lines_of(long.as_bytes().chunks(1000));
        let marks: Vec<bool> = lines.iter().map(|(_, continues)| *continues).collect();
        assert_eq!(marks, [true, true, false, false]);
        assert_eq!(lines[..3].iter().map(|(text, _)| text.as_str()).collect::<String>(), long.lines().next().unwrap());
        let exact = "x".repeat(LINE_BYTES);
        assert_eq!(lines_of([format!("{exact}\n").as_bytes()]), [(exact, false)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_of_any_bytes(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..600), size in 1usize..50) {
            let lines = lines_of(bytes.chunks(size));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let expected: Vec<(String, bool)> = text
                .split_terminator('\n')
                .map(|line| (line.strip_suffix('\r').unwrap_or(line).to_owned(), false))
                .collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
