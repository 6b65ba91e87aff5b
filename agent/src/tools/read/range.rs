//! Which bytes of a file are asked for, and how they are come by.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use corehold_types::{
    Code, Problem,
    tools::{ByteRange, LineRange, ReadTarget},
};

use crate::blocking::Cancelled;

/// Asked before more bytes are gathered: whether there is room for them.
pub(super) type Room<'a> = &'a dyn Fn(usize) -> bool;

/// Bytes looked at in one system call while lines are counted.
pub(super) const BUFFER: usize = 256 << 10;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) start_byte: u64,
    pub(super) start_line: Option<u64>,
    /// Lines in the file, where a line range was read up to its end.
    pub(super) total_lines: Option<u64>,
    /// Whether this is all of the file.
    pub(super) is_whole: bool,
    /// Whether the budget kept something back that was asked for.
    pub(super) truncated: bool,
}

/// Refuses ranges that mean nothing.
pub(super) fn check(target: &ReadTarget) -> Result<(), Problem> {
    let refused = |what: &str| Err(Problem::new(Code::InvalidRequest, format!("{}: {what}", target.path)));
    match (target.lines, target.bytes) {
        (Some(_), Some(_)) => refused("lines and bytes can't be asked for together"),
        (Some(LineRange { start: 0, .. }), _) => refused("lines are counted from 1"),
        (Some(LineRange { start, end: Some(end) }), _) if end < start => {
            refused(&format!("line {start} comes after line {end}"))
        }
        _ => Ok(()),
    }
}

/// The whole file, or its beginning.
pub(super) fn whole(file: &File, size: u64, budget: u64, room: Room<'_>) -> io::Result<Piece> {
    let mut piece = Piece { start_line: Some(1), ..read(file, 0, budget, size.min(budget), room)? };
    piece.is_whole = !piece.truncated;
    Ok(piece)
}

/// A range of bytes.
pub(super) fn bytes(file: &File, range: ByteRange, budget: u64, room: Room<'_>) -> io::Result<Piece> {
    let wanted = range.length.unwrap_or(u64::MAX);
    let mut piece = read(file, range.start, wanted.min(budget), 0, room)?;
    piece.truncated &= budget < wanted;
    Ok(piece)
}

/// At most `most` bytes from `start`, truncated if there are more. The file should end `expected` bytes behind it, as far as
/// is known; 0 where it isn't.
fn read(file: &File, start: u64, most: u64, expected: u64, room: Room<'_>) -> io::Result<Piece> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells whether there are more; one more than expected, that there are not.
    let mut step = if expected > 0 { expected.saturating_add(1) } else { BUFFER as u64 };
    while bytes.len() as u64 <= most {
        let left = most.saturating_add(1) - bytes.len() as u64;
        let before = bytes.capacity();
        bytes.reserve_exact(usize::try_from(step.min(left)).unwrap_or(usize::MAX));
        // Nothing of it is in memory yet.
        need(room, bytes.capacity() - before)?;
        step = BUFFER as u64;
        let asked = bytes.capacity() - bytes.len();
        let offset = start.saturating_add(bytes.len() as u64);
        let length = append_at(file, &mut bytes, offset)?;
        // A regular file gives what is asked for, but for its end.
        if length == 0 || (length < asked && bytes.len() as u64 == expected) {
            break;
        }
    }
    let truncated = bytes.len() as u64 > most;
    if truncated {
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    Ok(Piece { bytes, start_byte: start, truncated, ..Piece::default() })
}

/// # Errors
/// `OutOfMemory` when there is no room.
fn need(room: Room<'_>, bytes: usize) -> io::Result<()> {
    if room(bytes) { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}

/// A range of lines. Reads no further than its last line.
pub(super) fn lines(
    file: &File,
    range: LineRange,
    budget: u64,
    cancelled: &Cancelled,
    room: Room<'_>,
) -> io::Result<Piece> {
    let mut buffer = vec![0; BUFFER];
    let mut piece = Piece { start_line: Some(range.start), ..Piece::default() };
    let budget = usize::try_from(budget).unwrap_or(usize::MAX);
    let mut line = 1;
    let mut offset = 0_u64;
    let mut last_byte = None;
    loop {
        if cancelled.is_set() {
            return Err(io::Error::other("the caller went away"));
        }
        let length = read_at(file, &mut buffer, offset)?;
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        last_byte = rest.last().copied();
        if line < range.start {
            let (skipped, lines) = skip(rest, range.start - line);
            line += lines;
            rest = &rest[skipped..];
        }
        if line == range.start && piece.bytes.is_empty() {
            piece.start_byte = offset + (length - rest.len()) as u64;
        }
        if line >= range.start {
            let (taken, lines) = skip(rest, range.end.map_or(u64::MAX, |end| end - line + 1));
            line += lines;
            let fits = (budget - piece.bytes.len()).min(taken);
            need(room, fits)?;
            piece.bytes.extend_from_slice(&rest[..fits]);
            piece.truncated = fits < taken;
            if piece.truncated || range.end.is_some_and(|end| line > end) {
                return Ok(Piece { total_lines: None, ..piece });
            }
        }
        offset += length as u64;
    }
    // The end was seen. A line end at the very end begins no line.
    let total = if matches!(last_byte, None | Some(b'\n')) { line - 1 } else { line };
    if range.start > total {
        piece.start_byte = offset;
    }
    Ok(Piece { total_lines: Some(total), ..piece })
}

/// Bytes up to and with the `count`th line end, or all of them; and how many line ends that are.
fn skip(bytes: &[u8], count: u64) -> (usize, u64) {
    let all = memchr::memchr_iter(b'\n', bytes);
    match usize::try_from(count - 1).ok().and_then(|nth| memchr::memchr_iter(b'\n', bytes).nth(nth)) {
        Some(end) => (end + 1, count),
        None => (bytes.len(), all.count() as u64),
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    if is_behind_every_file(offset) {
        return Ok(0);
    }
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The same into a vector's spare room, which isn't touched before there is something for it.
fn append_at(file: &File, bytes: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
    if is_behind_every_file(offset) {
        return Ok(0);
    }
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// A range may be asked for anywhere up to 2^64, the kernel knows offsets up to 2^63: there is nothing beyond.
fn is_behind_every_file(offset: u64) -> bool {
    i64::try_from(offset).is_err()
}
