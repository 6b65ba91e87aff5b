//! Extended headers: `length key=value\n`, again and again.

use corehold_types::Problem;

use super::super::invalid;

/// What extended headers say about the entry that follows them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) sparse: bool,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes what matters here; the rest (owners, attributes, comments) is left out.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        for record in records(bytes) {
            let (key, value) = record?;
            let number = || invalid(format!("the extended header's {} is not a number", key.escape_ascii()));
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(text(value).and_then(|text| text.parse().ok()).ok_or_else(number)?),
                b"mtime" => self.modified = Some(text(value).and_then(time).ok_or_else(number)?),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A header for all entries that follow. Git writes one with a comment; one that names or sizes files would mean them all
/// to be the same file.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), Problem> {
    for record in records(bytes) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(invalid(format!("a global header sets {}", key.escape_ascii())));
        }
    }
    Ok(())
}

fn records(bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Problem>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((key, value, after)) = record(rest) else {
            rest = &[];
            return Some(Err(invalid("an extended header is malformed")));
        };
        rest = after;
        Some(Ok((key, value)))
    })
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = text(&bytes[..space])?.parse().ok()?;
    let (record, after) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], after))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.starts_with('+'))
}

/// Seconds with a fraction, such as `1700000000.123456789`; before 1970 with a minus sign.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_set_what_they_name() {
        let mut extensions = Extensions::default();
        extensions.parse(b"11 path=ab\n21 mtime=1.000000005\n12 size=123\n14 uname=s\xe9me\n").unwrap();
        assert_eq!(extensions.name.as_deref(), Some(&b"ab"[..]));
        assert_eq!((extensions.modified, extensions.size), (Some((1, 5)), Some(123)));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"9 path=ab",
            b"99 path=ab\n",
            b"0 path=ab\n",
            b"3 path=ab\n",
            b" path=ab\n",
            b"18446744073709551616 path=ab\n",
            b"+9 path=ab\n",
            b"9 pathab\n",
            b"11 size=-1\n",
            b"11 mtime=x\n",
        ] {
            assert!(Extensions::default().parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_may_be_before_1970() {
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-1"), Some((-1, 0)));
        assert_eq!(time("5.1234567899"), Some((5, 123_456_789)));
        assert_eq!(time("5.x"), None);
    }
}
