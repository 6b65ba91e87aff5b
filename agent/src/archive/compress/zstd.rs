//! Zstandard (RFC 8878), by the library's own threads.

use std::io::{self, Write};

use zstd::zstd_safe::CParameter;

use super::{Source, threads};

/// The level of `zstd` and `tar --zstd`, so that nobody gets a larger archive from us.
const LEVEL: i32 = 3;

/// Bytes that a thread compresses at a time: 16 MB of memory for two threads. The library's own choice, 8 MiB, takes 50.
const JOB: u32 = 2 << 20;

/// Each thread looks back as far as if there were one (the library's 9 of 9), which makes up for the small jobs.
const OVERLAP: u32 = 9;

/// Compresses what `source` writes.
///
/// # Errors
/// The source's and the writer's.
pub(crate) fn zstd(out: &mut dyn Write, source: impl Source) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    let threads = threads();
    if threads > 1 {
        encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
        encoder.set_parameter(CParameter::JobSize(JOB))?;
        encoder.set_parameter(CParameter::OverlapSizeLog(OVERLAP))?;
    }
    source(&mut encoder)?;
    encoder.finish().map(drop)
}
