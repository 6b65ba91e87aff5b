//! The entries of a tar: ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU's long names.
//!
//! Read and, by `write`, written. Strict where a lenient reader would guess: a header with a wrong checksum, a cut-off entry, a sparse file (whose
//! pieces would silently become a shorter file) and an archive without its end are errors. Owners, extended attributes
//! and devices' numbers are not read; nothing here needs them.

mod header;
mod pax;
mod write;

use std::io::{self, BufRead};

use corehold_types::Problem;

use super::{invalid, unreadable};
use header::{BLOCK, Header};
pub(super) use write::{END, padding, write_entry};

/// Bytes of one extended header at most: names have 4,096, and attributes that we skip some more.
const EXTENSION_BYTES: u64 = 1 << 20;

/// Extended headers before one entry: a writer needs at most one of each kind.
const EXTENSIONS: usize = 8;

/// One entry, as the archive has it: nothing of it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// Bytes of content that follow.
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Seconds since 1970 and nanoseconds.
    pub(super) modified: (i64, u32),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharacterDevice,
    BlockDevice,
    Fifo,
    /// A type that this reader doesn't know, by its flag.
    Other(u8),
}

/// Reads entries one after the other.
pub(super) struct Reader<'a> {
    input: &'a mut dyn BufRead,
    /// Bytes of the current entry's content that were not taken yet.
    remaining: u64,
    /// Bytes after the content up to the next block.
    padding: u64,
    /// Bytes of extended headers so far: they cost time, whatever becomes of them.
    extended: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead) -> Self {
        Self { input, remaining: 0, padding: 0, extended: 0 }
    }

    /// Bytes of extended headers that were read.
    pub(super) fn extended(&self) -> u64 {
        self.extended
    }

    /// The next entry; nothing at the end of the archive. Skips what is left of the one before.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Problem> {
        let mut extensions = pax::Extensions::default();
        for _ in 0..=EXTENSIONS {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(invalid("it ends after an extended header, before its entry"))
                };
            };
            match header.flag() {
                b'L' => extensions.name = Some(self.long_name(&header)?),
                b'K' => extensions.link = Some(self.long_name(&header)?),
                b'x' => extensions.parse(&self.extension(&header)?)?,
                b'g' => pax::check_global(&self.extension(&header)?)?,
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(invalid(format!("there are more than {EXTENSIONS} extended headers before one entry")))
    }

    /// Content of the current entry that is at hand; empty at its end.
    pub(super) fn content(&mut self) -> Result<&[u8], Problem> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = fill(self.input)?;
        if buffer.is_empty() {
            return Err(cut_off());
        }
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&buffer[..length])
    }

    /// Takes content that [`Reader::content`] gave.
    pub(super) fn consume(&mut self, amount: usize) {
        self.remaining -= amount as u64;
        self.input.consume(amount);
    }

    /// Reads what follows the archive's end: padding, usually zeros. Returns its length, or nothing if there is more of
    /// it than `most`.
    pub(super) fn drain(&mut self, most: u64) -> Result<Option<u64>, Problem> {
        let mut drained = 0;
        loop {
            let length = fill(self.input)?.len();
            if length == 0 {
                return Ok(Some(drained));
            }
            self.input.consume(length);
            drained += length as u64;
            if drained > most {
                return Ok(None);
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: pax::Extensions) -> Result<Entry, Problem> {
        let name = extensions.name.unwrap_or_else(|| header.name());
        let shown = || name.escape_ascii().to_string();
        let kind = match header.flag() {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(sparse(&name)),
            b'M' | b'V' | b'D' | b'N' => {
                return Err(invalid(format!("{} is GNU tar's for volumes and increments, not a file", shown())));
            }
            flag => Kind::Other(flag),
        };
        if extensions.sparse {
            return Err(sparse(&name));
        }
        let size = match extensions.size {
            Some(size) => size,
            None => header.size().ok_or_else(|| invalid(format!("the size of {} is not a number", shown())))?,
        };
        // Only files have content. A size elsewhere means something else to each writer (POSIX: room to reserve for a
        // directory; star: the size of a hard link's target), and none of them has content follow.
        let size = if kind == Kind::File { size } else { 0 };
        if size > i64::MAX as u64 {
            return Err(invalid(format!("the size of {} is impossible", shown())));
        }
        self.begin(size);
        Ok(Entry {
            kind,
            link: extensions.link.unwrap_or_else(|| header.link()),
            size,
            mode: header.mode(),
            modified: extensions.modified.unwrap_or_else(|| (header.modified(), 0)),
            name,
        })
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn header(&mut self) -> Result<Option<Header>, Problem> {
        let mut block = [0; BLOCK];
        match self.input.read_exact(&mut block) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(cut_off()),
            Err(error) => return Err(unreadable(error)),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Header::new(block).map(Some).ok_or_else(|| {
            invalid("a header's checksum is wrong: it is damaged, or no tar")
                .suggest("send a tar, plain or compressed with gzip or zstd")
        })
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, Problem> {
        let mut name = self.extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Problem> {
        let size = header.size().filter(|size| *size <= EXTENSION_BYTES);
        let size = size.ok_or_else(|| invalid("the size of an extended header is impossible"))?;
        self.begin(size);
        self.extended += size;
        let mut extension = Vec::new();
        loop {
            let content = self.content()?;
            if content.is_empty() {
                return Ok(extension);
            }
            let length = content.len();
            extension.extend_from_slice(content);
            self.consume(length);
        }
    }

    fn skip_rest(&mut self) -> Result<(), Problem> {
        self.remaining += std::mem::take(&mut self.padding);
        loop {
            let length = self.content()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }
}

fn fill(input: &mut dyn BufRead) -> Result<&[u8], Problem> {
    input.fill_buf().map_err(unreadable)
}

fn cut_off() -> Problem {
    invalid("it is cut off: the end of the archive is missing")
}

fn sparse(name: &[u8]) -> Problem {
    invalid(format!("{} is a sparse file in GNU's format, which is not supported", name.escape_ascii()))
        .suggest("pack it without --sparse")
}

#[cfg(test)]
mod tests;
