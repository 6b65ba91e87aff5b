//! `Range` (RFC 9110 section 14): one range of bytes. Anything else is ignored, as the RFC lets a server do.

use http::{HeaderMap, header};

/// The bytes of a file that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// All of them.
    Whole,
    /// From the first up to, not with, the second.
    Part(u64, u64),
    /// A range of which the file has no byte.
    Unsatisfiable,
}

impl Span {
    /// What the headers ask for of a file with `size` bytes.
    pub(super) fn of(headers: &HeaderMap, size: u64) -> Self {
        let value = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        value.and_then(|value| parse(value, size)).unwrap_or(Self::Whole)
    }
}

fn parse(value: &str, size: u64) -> Option<Span> {
    let (unit, range) = value.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    Some(if start < end { Span::Part(start, end) } else { Span::Unsatisfiable })
}

/// Digits only: `parse` alone would take a sign. A number beyond 2^64 is beyond every file.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_anything_else_is_ignored() {
        use Span::{Part, Unsatisfiable, Whole};
        for (value, span) in [
            ("bytes=0-0", Part(0, 1)),
            ("bytes=2-", Part(2, 10)),
            ("bytes=-3", Part(7, 10)),
            ("bytes=-99", Part(0, 10)),
            ("bytes=5-99", Part(5, 10)),
            ("Bytes=0-18446744073709551615", Part(0, 10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=99999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("lines=1-2", Whole),
            ("nonsense", Whole),
        ] {
            assert_eq!(parse(value, 10).unwrap_or(Whole), span, "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(Unsatisfiable));
    }
}
