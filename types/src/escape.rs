//! Text into JSON, for text by the gigabyte: what commands write and files hold. Eight bytes at a time where serde_json looks at
//! each; it is a third of all work of a command's output as JSON otherwise. The result is the same to the byte.

use std::io::{self, Write};

/// Bytes that text takes as JSON, if one in sixteen of them is escaped.
pub(crate) const fn escaped_bytes(text: &str) -> usize {
    text.len() + text.len() / 16
}

/// Appends text as it stands between the quotes of a JSON string.
pub(crate) fn escape_into(out: &mut Vec<u8>, text: &str) {
    out.reserve(escaped_bytes(text));
    // Memory takes everything.
    let _ = escape_to(out, text);
}

/// Writes text as it stands between the quotes of a JSON string.
///
/// # Errors
/// What the writer says.
#[inline]
pub(crate) fn escape_to(out: &mut impl Write, text: &str) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        if plain > 0 {
            out.write_all(&rest[..plain])?;
        }
        let Some(byte) = rest.get(plain) else { return Ok(()) };
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => b'u',
        };
        // In one piece each, since there may be one for every byte.
        if short == b'u' {
            let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
            out.write_all(&[b'\\', b'u', b'0', b'0', high, low])?;
        } else {
            out.write_all(&[b'\\', short])?;
        }
        rest = &rest[plain + 1..];
    }
}

/// How many bytes stand for themselves before the first that doesn't: a quote, a backslash or a control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    // Bytes below `n` (at most 128) have their highest bit set in this, and the lowest that does is no mistake: a borrow only goes
    // upwards. (Hacker's Delight, 6-1; "Bit Twiddling Hacks", determine if a word has a byte less than n.)
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = below(word, 0x20) | quote | backslash;
        if special != 0 {
            return index * 8 + (special.trailing_zeros() / 8) as usize;
        }
    }
    let is_special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_serde_json_writes() {
        let every: Vec<char> =
            (0..0x300).filter_map(char::from_u32).chain(['€', '🦀', '\u{2028}', '\u{ffff}']).collect();
        // Each character at each place of a word, before and after each kind that needs another look.
        for place in 0..17 {
            for neighbour in ["", "\"", "\\", "\n", "\u{1f}", "!", "#", "[", "]", "\u{7f}", "\u{80}"] {
                for character in &every {
                    let text = format!("{}{character}{neighbour}{character}", "x".repeat(place));
                    let mut ours = vec![b'"'];
                    escape_into(&mut ours, &text);
                    ours.push(b'"');
                    assert_eq!(ours, serde_json::to_vec(&text).unwrap(), "{text:?}");
                }
            }
        }
    }
}
