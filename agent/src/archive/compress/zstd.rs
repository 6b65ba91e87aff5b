//! Zstandard (RFC 8878), by the library's own threads.

use std::io::{self, Write};

use zstd::zstd_safe::CParameter;

use super::{Source, threads};

/// The level of `zstd` and `tar --zstd`, so that nobody gets a larger archive from us.
const LEVEL: i32 = 3;

/// Bytes that a thread compresses at a time. The library's own choice, 8 MiB, would take tens of megabytes of memory.
const JOB: u32 = 2 << 20;

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
    }
    source(&mut encoder)?;
    encoder.finish().map(drop)
}
