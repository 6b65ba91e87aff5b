//! What bytes are: encoding, line ends, characters cut in two.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{
    Data,
    tools::{Encoding, LineEnding},
};

use super::Piece;

const BYTE_ORDER_MARK: usize = 3;

/// The first bytes of the file, where a byte order mark would be.
pub(super) fn head(file: &File, piece: &Piece) -> io::Result<Vec<u8>> {
    if piece.start_byte == 0 {
        return Ok(piece.bytes[..piece.bytes.len().min(BYTE_ORDER_MARK)].to_vec());
    }
    let mut head = vec![0; BYTE_ORDER_MARK];
    let length = file.read_at(&mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

/// The encoding of a file that begins with `head`, judged by some of its bytes.
pub(super) fn encoding(head: &[u8], bytes: &[u8]) -> Encoding {
    match head {
        [0xef, 0xbb, 0xbf, ..] if is_utf8_within(bytes) => Encoding::Utf8Bom,
        [0xff, 0xfe, ..] => Encoding::Utf16Le,
        [0xfe, 0xff, ..] => Encoding::Utf16Be,
        _ if is_utf8_within(bytes) => Encoding::Utf8,
        _ => Encoding::Unknown,
    }
}

/// The bytes for the wire. UTF-16 goes as it is, also where a piece of it happens to be valid UTF-8.
pub(super) fn data(bytes: Vec<u8>, encoding: Encoding) -> Data {
    match encoding {
        Encoding::Utf16Le | Encoding::Utf16Be => Data::Base64(STANDARD.encode(bytes)),
        _ => Data::from_bytes(bytes),
    }
}

/// Whether bytes are UTF-8, but for characters cut in two where the range begins and ends.
fn is_utf8_within(bytes: &[u8]) -> bool {
    let cut = bytes.iter().take(3).take_while(|byte| is_continuation(**byte)).count();
    match std::str::from_utf8(&bytes[cut..]) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

/// Takes away the beginning of a character whose rest was cut off.
pub(super) fn cut_at_character(bytes: &mut Vec<u8>) {
    let start = bytes.iter().rev().take(4).position(|byte| !is_continuation(*byte)).map(|back| bytes.len() - 1 - back);
    if let Some(start) = start
        && std::str::from_utf8(&bytes[start..]).is_err_and(|error| error.error_len().is_none())
    {
        bytes.truncate(start);
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Lines of a whole file; a last one without line end counts.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ends + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// How lines end; nothing when there is no line end.
pub(super) fn line_ending(bytes: &[u8]) -> Option<LineEnding> {
    let first = memchr::memchr(b'\n', bytes)?;
    if memchr::memchr(b'\r', bytes).is_none() {
        return Some(LineEnding::Lf);
    }
    let has_return = |end: usize| end > 0 && bytes[end - 1] == b'\r';
    let of_first = has_return(first);
    if memchr::memchr_iter(b'\n', bytes).any(|end| has_return(end) != of_first) {
        return Some(LineEnding::Mixed);
    }
    Some(if of_first { LineEnding::CrLf } else { LineEnding::Lf })
}
