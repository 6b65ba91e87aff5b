//! The archive's bytes: hashed as they come, and decoded by what they begin with, whatever the file is called.

use std::io::{self, BufRead, BufReader, Read};

use corehold_types::Problem;

use super::{invalid, unreadable};
use crate::blocking::Cancelled;

/// Bytes decoded at a time.
const BUFFER: usize = 256 << 10;

/// Largest window of a zstd frame, as a power of two: what `zstd -19` makes, in 8 MiB of memory. The tool's own default
/// takes 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The archive as it came.
pub(super) struct Source<'a> {
    inner: &'a mut dyn BufRead,
    hasher: Option<blake3::Hasher>,
    cancelled: &'a Cancelled,
}

impl<'a> Source<'a> {
    pub(super) fn new(inner: &'a mut dyn BufRead, hash: bool, cancelled: &'a Cancelled) -> Self {
        Self { inner, hasher: hash.then(blake3::Hasher::new), cancelled }
    }

    /// The BLAKE3 of what was read.
    pub(super) fn hash(&self) -> blake3::Hash {
        self.hasher.as_ref().map(blake3::Hasher::finalize).unwrap_or_else(|| blake3::hash(b""))
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.cancelled.is_set() {
            return Err(io::Error::other(Cancelled::problem()));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(hasher) = &mut self.hasher
            // What is consumed was in the buffer, so this neither reads nor fails.
            && let Ok(buffer) = self.inner.fill_buf()
        {
            hasher.update(&buffer[..amount]);
        }
        self.inner.consume(amount);
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Hands the decoded bytes to `work`, then reads what is left of the source, so that its hash is the whole file's.
pub(super) fn decoded<T>(
    source: &mut Source<'_>,
    work: impl FnOnce(&mut dyn BufRead) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let magic = source.fill_buf().map_err(unreadable)?;
    let result = match magic {
        [] => return Err(invalid("it is empty")),
        [0x1f, 0x8b, ..] => {
            work(&mut BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(&mut *source)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(&mut *source).map_err(unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(unreadable)?;
            work(&mut BufReader::with_capacity(BUFFER, decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(foreign("xz")),
        [b'B', b'Z', b'h', ..] => return Err(foreign("bzip2")),
        [b'P', b'K', 3, 4, ..] => return Err(foreign("zip")),
        [b'7', b'z', 0xbc, 0xaf, ..] => return Err(foreign("7z")),
        _ => work(source),
    }?;
    io::copy(source, &mut io::sink()).map_err(unreadable)?;
    Ok(result)
}

fn foreign(name: &str) -> Problem {
    invalid(format!("it is {name}")).suggest("send a tar, plain or compressed with gzip or zstd")
}
