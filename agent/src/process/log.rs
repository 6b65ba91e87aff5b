//! A command's output as it is kept: records of both streams in the order read, in blocks of the store.
//!
//! A record is four bytes (its length, and the stream in the highest bit) and its data. Offsets count data only, so they are
//! the same whatever the records' size. Output of a few kilobytes never reaches the store. What is kept is always one range,
//! `first` to `end`; when room is short its beginning goes.

use std::collections::VecDeque;

use super::store::Block;

/// Bytes of records that are kept in memory before the first block is taken: most commands write less.
pub(super) const INLINE: usize = 4 * 1024;
/// Bytes before each record's data.
pub(super) const HEADER: usize = 4;

const ERROR_BIT: u32 = 1 << 31;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Output = 0,
    /// Standard error.
    Error = 1,
}

/// A record's first bytes.
pub(super) fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    // Records are at most a block long.
    let length = length as u32;
    (if stream == Stream::Error { length | ERROR_BIT } else { length }).to_le_bytes()
}

/// The stream and length that a record's first bytes say.
pub(super) fn parse_header(bytes: [u8; HEADER]) -> (Stream, usize) {
    let word = u32::from_le_bytes(bytes);
    let stream = if word & ERROR_BIT == 0 { Stream::Output } else { Stream::Error };
    (stream, (word & !ERROR_BIT) as usize)
}

/// A block with records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) block: Block,
    /// Offset of its first byte of data.
    pub(super) start: u64,
    /// Bytes of records in it.
    pub(super) used: usize,
}

/// What is kept of one command. Changed by the keeper only; readers look under the command's lock.
#[derive(Debug, Default)]
pub(super) struct Log {
    inline: Vec<u8>,
    blocks: VecDeque<Held>,
    /// Number of the front block: blocks are numbered from 0 as they come, and `inline` is the beginning of number 0.
    front: u64,
    first: u64,
    end: u64,
    totals: [u64; 2],
}

/// Where a reader finds the bytes that it wants next.
#[derive(Debug)]
pub(super) enum Found {
    /// They were dropped; what is left begins here.
    Dropped { first: u64 },
    /// There is nothing more yet.
    Nothing,
    /// In memory: records from the asked position of block number 0.
    Inline { bytes: Vec<u8> },
    /// In a block, up to `used`.
    Block { number: u64, held: Held },
}

impl Log {
    /// Offset of the first byte that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that were written to each stream, kept or not.
    pub(super) fn totals(&self) -> [u64; 2] {
        self.totals
    }

    /// Adds a record to those in memory, if it has room there.
    pub(super) fn push_inline(&mut self, stream: Stream, record: &[u8]) -> bool {
        let fits = self.blocks.is_empty() && self.front == 0 && self.inline.len() + record.len() <= INLINE;
        // An empty log that dropped bytes once must not begin again as number 0: a reader could hold its old records.
        let fits = fits && (self.first == 0);
        if fits {
            self.inline.extend_from_slice(record);
            self.count(stream, record.len() - HEADER);
        }
        fits
    }

    /// The last block.
    pub(super) fn last(&self) -> Option<Held> {
        self.blocks.back().copied()
    }

    /// Blocks that it has.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Where a block's data begins, of those that it has, the oldest first.
    pub(super) fn start_of(&self, index: usize) -> Option<u64> {
        self.blocks.get(index).map(|held| held.start)
    }

    /// The records in memory, which the first block has to begin with.
    pub(super) fn inline_records(&self) -> &[u8] {
        &self.inline
    }

    /// Says that a record was written to the end of the last block.
    pub(super) fn pushed(&mut self, stream: Stream, record: usize) {
        if let Some(last) = self.blocks.back_mut() {
            last.used += record;
        }
        self.count(stream, record - HEADER);
    }

    /// Says that a new block was written: the records that were in memory, if any, and a record.
    pub(super) fn pushed_block(&mut self, block: Block, stream: Stream, record: usize) {
        let inline = std::mem::take(&mut self.inline);
        let start = if inline.is_empty() { self.end } else { self.first };
        self.blocks.push_back(Held { block, start, used: inline.len() + record });
        self.count(stream, record - HEADER);
    }

    /// Drops the oldest block.
    pub(super) fn pop_front(&mut self) -> Option<Block> {
        let dropped = self.blocks.pop_front()?;
        self.front += 1;
        self.first = self.blocks.front().map_or(self.end, |held| held.start);
        Some(dropped.block)
    }

    /// Drops everything, and counts bytes that could not be kept.
    pub(super) fn drop_with(&mut self, stream: Stream, lost: usize) -> Vec<Block> {
        self.count(stream, lost);
        self.drop_all()
    }

    /// Drops everything.
    pub(super) fn drop_all(&mut self) -> Vec<Block> {
        let blocks: Vec<Block> = self.blocks.drain(..).map(|held| held.block).collect();
        // The records in memory were the beginning of a block that never came.
        self.front += blocks.len().max(usize::from(!self.inline.is_empty())) as u64;
        self.inline = Vec::new();
        self.first = self.end;
        blocks
    }

    fn count(&mut self, stream: Stream, bytes: usize) {
        self.end += bytes as u64;
        self.totals[stream as usize] += bytes as u64;
    }

    /// Whether a block is still there: if not, what was just read from it may be another command's.
    pub(super) fn still_holds(&self, number: u64) -> bool {
        number >= self.front
    }

    /// Where the data at an offset is. `known` is the block that the reader is in, and how many of its bytes it has read.
    pub(super) fn find(&self, offset: u64, known: Option<(u64, usize)>) -> Found {
        if offset < self.first {
            return Found::Dropped { first: self.first };
        }
        if offset >= self.end {
            return Found::Nothing;
        }
        let read_of = |number| known.filter(|known| known.0 == number).map_or(0, |known| known.1);
        if self.blocks.is_empty() {
            return Found::Inline { bytes: self.inline[read_of(0)..].to_vec() };
        }
        // The last block that begins at or before the offset has it.
        let index = self.blocks.partition_point(|held| held.start <= offset).saturating_sub(1);
        Found::Block { number: self.front + index as u64, held: self.blocks[index] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_keeps_stream_and_length() {
        for (stream, length) in [(Stream::Output, 1), (Stream::Error, super::super::store::BLOCK)] {
            assert_eq!(parse_header(header(stream, length)), (stream, length));
        }
    }

    #[test]
    fn small_output_stays_in_memory_and_a_dropped_log_is_empty() {
        let mut log = Log::default();
        let record = [&header(Stream::Error, 3)[..], b"abc"].concat();
        assert!(log.push_inline(Stream::Error, &record));
        assert_eq!((log.first(), log.end(), log.totals()), (0, 3, [0, 3]));
        assert!(!log.push_inline(Stream::Output, &vec![0; INLINE]));
        assert!(log.drop_all().is_empty());
        assert!(matches!(log.find(0, None), Found::Dropped { first: 3 }));
        assert!(matches!(log.find(3, None), Found::Nothing));
        assert!(!log.push_inline(Stream::Error, &record), "its next records belong to another block");
        assert!(!log.still_holds(0));
    }
}
