//! Lines, their endings, and what makes bytes text. A line ends with `\n` or `\r\n`; a last line without an ending is a
//! line too. A lone `\r` is a character like any other.

use std::borrow::Cow;

use corehold_types::{Code, Problem};
use memchr::{memchr, memrchr};

/// The byte order mark of UTF-8.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Lf,
    CrLf,
}

impl Ending {
    pub(crate) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
        }
    }
}

/// The ending of the lines around a position: of the line it stands in, else of the one before, else `\n`.
pub(crate) fn ending_near(bytes: &[u8], position: usize) -> Ending {
    let position = position.min(bytes.len());
    let line_feed = memchr(b'\n', &bytes[position..]).map(|index| position + index);
    match line_feed.or_else(|| memrchr(b'\n', &bytes[..position])) {
        Some(index) if index > 0 && bytes[index - 1] == b'\r' => Ending::CrLf,
        _ => Ending::Lf,
    }
}

/// Lines with their endings. Nothing has no line.
pub(crate) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let end = memchr(b'\n', bytes).map_or(bytes.len(), |index| index + 1);
        let (line, rest) = bytes.split_at(end);
        bytes = rest;
        Some(line)
    })
}

/// A line without its ending.
pub(crate) fn content(line: &[u8]) -> &[u8] {
    match line {
        [content @ .., b'\r', b'\n'] | [content @ .., b'\n'] => content,
        _ => line,
    }
}

/// Every line ending as `\n`.
pub(crate) fn with_line_feeds(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(bytes, b"\r\n").is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut changed = Vec::with_capacity(bytes.len());
    for line in split(bytes) {
        match line {
            [content @ .., b'\r', b'\n'] => {
                changed.extend_from_slice(content);
                changed.push(b'\n');
            }
            _ => changed.extend_from_slice(line),
        }
    }
    Cow::Owned(changed)
}

/// Appends text whose lines end with `\n`, with another ending.
pub(crate) fn push_with_ending(target: &mut Vec<u8>, text: &[u8], ending: Ending) {
    for line in split(text) {
        match line {
            [content @ .., b'\n'] => {
                target.extend_from_slice(content);
                target.extend_from_slice(ending.bytes());
            }
            _ => target.extend_from_slice(line),
        }
    }
}

/// Whether the bytes are text that operations on text may change.
///
/// # Errors
/// `NOT_TEXT`, which says what they seem to be and what still works.
pub(crate) fn require_text(bytes: &[u8]) -> Result<(), Problem> {
    let encoding = match bytes {
        [0xff, 0xfe, ..] => Some("UTF-16, little-endian, by its byte order mark"),
        [0xfe, 0xff, ..] => Some("UTF-16, big-endian, by its byte order mark"),
        _ => None,
    };
    let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
    let detail = match encoding {
        Some(encoding) => format!("the file is {encoding}"),
        None => format!("the file is not UTF-8: byte {} is 0x{:02x}", error.valid_up_to(), bytes[error.valid_up_to()]),
    };
    let suggestion = "replace with `exact: true` changes bytes (as base64 where they aren't UTF-8); create with \
                      `overwrite: true` replaces everything";
    Err(Problem::new(Code::NotText, detail).suggest(suggestion).with("offset", error.valid_up_to() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_is_that_of_the_lines_around() {
        for (text, position, expected) in [
            ("a\r\nb\n", 0, Ending::CrLf),
            ("a\r\nb\n", 3, Ending::Lf),
            ("a\r\nb", 3, Ending::CrLf),
            ("a\nb", 3, Ending::Lf),
            ("\n", 0, Ending::Lf),
            ("", 5, Ending::Lf),
        ] {
            assert_eq!(ending_near(text.as_bytes(), position), expected, "{text:?} at {position}");
        }
    }

    #[test]
    fn splitting_loses_nothing_and_a_lone_carriage_return_is_no_ending() {
        let text = b"a\rb\r\n\nc";
        let lines: Vec<_> = split(text).collect();
        assert_eq!(lines, [&b"a\rb\r\n"[..], b"\n", b"c"]);
        assert_eq!(lines.concat(), text);
        assert_eq!(with_line_feeds(text).as_ref(), b"a\rb\n\nc");
        assert_eq!(split(b"").count(), 0);
    }

    #[test]
    fn what_is_not_text_is_named() {
        assert!(require_text("a\0ž".as_bytes()).is_ok());
        let problem = require_text(b"caf\xe9").unwrap_err();
        assert_eq!((problem.code, problem.context["offset"].as_u64()), (Code::NotText, Some(3)));
        assert!(require_text(b"\xff\xfea\0").unwrap_err().detail.contains("UTF-16, little-endian"));
    }
}
