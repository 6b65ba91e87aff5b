//! Compression of archives that go out, on all cores: `pigz` and `zstd -T0` are what people would use instead.

mod gzip;
mod zstd;

use std::{io, num::NonZero, thread};

pub(crate) use gzip::gzip;
pub(crate) use zstd::zstd;

/// Threads that compress one archive, at most.
const THREADS: usize = 4;

/// Threads to compress one archive with.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(THREADS)
}

/// What writes the uncompressed bytes.
pub(crate) trait Source: FnOnce(&mut dyn io::Write) -> io::Result<()> {}

impl<F: FnOnce(&mut dyn io::Write) -> io::Result<()>> Source for F {}
