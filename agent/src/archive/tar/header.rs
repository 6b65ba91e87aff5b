//! One 512-byte header.

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

impl Header {
    /// Checks the checksum: the sum of all bytes, with spaces for its own. Old writers summed signed bytes.
    pub(super) fn new(block: [u8; BLOCK]) -> Option<Self> {
        let stored = number(&block[148..156])?;
        let (mut unsigned, mut signed) = (0_u64, 0_i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        (stored == unsigned || i64::try_from(stored) == Ok(signed)).then_some(Self(block))
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with POSIX's prefix. GNU has other things in its place.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    /// Permission bits; none when the field is no number.
    pub(super) fn mode(&self) -> u32 {
        number(&self.0[100..108]).map_or(0, |mode| u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    /// Seconds since 1970; 0 when the field is no number. GNU writes times before 1970 as a negative binary number.
    pub(super) fn modified(&self) -> i64 {
        let field = &self.0[136..148];
        if field[0] == 0xff {
            let tail: [u8; 8] = field[4..].try_into().unwrap_or_default();
            return i64::from_be_bytes(tail);
        }
        number(field).and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
    }
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, among spaces and NULs; or GNU's binary, marked by the highest bit.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len().checked_sub(8)?);
        let beyond = head.iter().enumerate().any(|(index, byte)| *byte != if index == 0 { 0x80 } else { 0 });
        if head.is_empty() {
            let bytes: [u8; 8] = field.try_into().ok()?;
            return Some(u64::from_be_bytes(bytes) & (u64::MAX >> 1));
        }
        return if beyond { None } else { Some(u64::from_be_bytes(tail.try_into().ok()?)) };
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o777_7777_7777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        for malformed in [&b"0000648\0"[..], b"-000644\0", b"644 644\0", b"\xff\0\0\0\0\0\0\x02\0\0\0\0"] {
            assert_eq!(number(malformed), None, "{}", malformed.escape_ascii());
        }
    }
}
