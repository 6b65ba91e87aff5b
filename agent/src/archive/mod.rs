//! Archives: tar, tar.gz and tar.zst become files of the workspace, all or nothing; and files a tar, by [`pack`].
//!
//! [`tar`] reads entries, [`unpack`] makes them in a staging directory inside the destination, [`merge`] moves them to
//! their places by renames, [`replace`] puts them in the place of what is there. An archive that is refused, damaged, too large or given up leaves nothing behind; what a
//! killed agent left is swept at the next start. No entry is written through a symbolic link, whoever made it.

pub(crate) mod compress;
mod descent;
mod format;
mod merge;
mod pack;
mod replace;
mod stage;
mod tar;
mod unpack;

use std::{
    io::BufRead,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use corehold_types::{Code, Problem, WorkspacePath, tools::ExtractResponse};

use crate::{agent::Agent, blocking::Cancelled, server::upload::problem_of};
pub(crate) use pack::{Packing, pack};
pub(crate) use stage::sweep;

/// How far an extraction is, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Entries so far.
    pub(crate) entries: AtomicU64,
    /// Bytes of content so far.
    pub(crate) bytes: AtomicU64,
}

impl Progress {
    fn entry(&self) -> u64 {
        self.entries.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn bytes(&self, count: u64) -> u64 {
        self.bytes.fetch_add(count, Ordering::Relaxed) + count
    }
}

/// What is to be extracted, and where to.
pub(crate) struct Extraction<'a> {
    pub(crate) agent: &'a Agent,
    /// Made if missing.
    pub(crate) destination: &'a WorkspacePath,
    /// BLAKE3 in hex that the archive's bytes must have.
    pub(crate) expected_hash: Option<&'a str>,
    /// Whether what is in the destination and not in the archive goes. Else the two are merged.
    pub(crate) replace: bool,
    pub(crate) progress: &'a Progress,
    pub(crate) cancelled: &'a Cancelled,
}

impl Extraction<'_> {
    /// Extracts an archive.
    ///
    /// # Errors
    /// `ARCHIVE_INVALID` when it is damaged or its hash is another, `ARCHIVE_ENTRY_REFUSED` naming the entry,
    /// `LIMIT_EXCEEDED`, `DISK_FULL`. Nothing of it is in the destination then.
    pub(crate) fn run(&self, archive: &mut dyn BufRead) -> Result<ExtractResponse, Problem> {
        let started = Instant::now();
        let expected_hash = self.expected_hash.map(parse_hash).transpose()?;
        let made = self.agent.root.make_directory(self.destination)?;
        let stage = stage::Stage::create(&self.agent.root, self.destination)?;
        let mut source = format::Source::new(archive, expected_hash.is_some(), self.cancelled);
        let unpacked = format::decoded(&mut source, |decoded| unpack::unpack(self, decoded, &stage))?;
        if let Some(expected) = expected_hash {
            let hash = source.hash();
            if hash != expected {
                return Err(invalid(format!("its BLAKE3 is {}, {} was expected", hash.to_hex(), expected.to_hex())));
            }
        }
        if self.cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        let merged = if self.replace {
            replace::replace(&stage, &stage::Stage::create(&self.agent.root, self.destination)?, self.destination)?;
            merge::Merged::default()
        } else {
            merge::merge(&stage, self.destination)?
        };
        unpacked.finish(stage.destination(), &merged);
        made.keep();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(ExtractResponse { duration_ms, ..unpacked.counts })
    }
}

fn parse_hash(text: &str) -> Result<blake3::Hash, Problem> {
    blake3::Hash::from_hex(text)
        .map_err(|_| Problem::new(Code::InvalidRequest, "the expected hash is not a BLAKE3: 64 hexadecimal digits"))
}

/// The problem of an archive that is damaged or of an unknown format.
fn invalid(detail: impl std::fmt::Display) -> Problem {
    Problem::new(Code::ArchiveInvalid, format!("the archive can't be extracted: {detail}"))
}

/// The problem of an entry that is never extracted.
fn refused(entry: &[u8], why: &str) -> Problem {
    Problem::new(Code::ArchiveEntryRefused, format!("the entry {} {why}", WorkspacePath::from_bytes(entry)))
        .with("entry", serde_json::to_value(WorkspacePath::from_bytes(entry)).unwrap_or_default())
        .suggest("nothing was extracted; pack the archive without this entry")
}

/// What an error while reading the archive means.
fn unreadable(error: std::io::Error) -> Problem {
    match problem_of(error) {
        Ok(problem) => problem,
        Err(error) if error.raw_os_error().is_some() => {
            Problem::new(Code::Internal, format!("the archive can't be read: {error}"))
        }
        Err(error) => invalid(format!("it is damaged or cut off ({error})")),
    }
}

#[cfg(test)]
mod tests;

/// Reads every entry of an archive to its end, for fuzzing.
#[cfg(any(feature = "fuzzing", test))]
pub(crate) fn fuzz(mut bytes: &[u8]) {
    let mut reader = tar::Reader::new(&mut bytes);
    while let Ok(Some(_)) = reader.next() {
        while let Ok(content) = reader.content() {
            let length = content.len();
            if length == 0 {
                break;
            }
            reader.consume(length);
        }
    }
}
