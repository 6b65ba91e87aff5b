//! Chunks: pieces of an archive that are stored once, whoever needs them. Cut by content (FastCDC), so that what is
//! inserted into a file changes the chunks around it and no others; named by the BLAKE3 of their bytes; kept as zstd.

use std::fmt;

use fastcdc::v2020::FastCDC;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the largest chunk. No object of an archive's content is larger, so none needs an upload in parts.
pub(super) const LARGEST: usize = 4 << 20;
/// zstd's fastest level but for the negative ones: text becomes a third, and the disk is still what takes the time.
const LEVEL: i32 = 1;

/// How a stream is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    smallest: usize,
    average: usize,
    largest: usize,
}

impl Sizes {
    /// Of the files themselves.
    pub(super) const CONTENT: Self = Self { smallest: 256 << 10, average: 1 << 20, largest: LARGEST };
    /// Of the list of entries, of which a changed file changes a few bytes.
    pub(super) const ENTRIES: Self = Self { smallest: 16 << 10, average: 64 << 10, largest: 256 << 10 };
}

/// The name of a chunk: the BLAKE3 of its bytes before compression.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChunkId(pub(super) [u8; 32]);

impl ChunkId {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Cuts a stream into chunks as it comes. Holds one of the largest at most.
pub(super) struct Cutter {
    sizes: Sizes,
    buffer: Vec<u8>,
}

impl Cutter {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { sizes, buffer: Vec::with_capacity(sizes.largest) }
    }

    /// Takes bytes, and gives the chunks that they complete to `emit`.
    ///
    /// # Errors
    /// Those of `emit`.
    pub(super) fn push<E>(
        &mut self,
        mut bytes: &[u8],
        mut emit: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(self.sizes.largest - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            if self.buffer.len() == self.sizes.largest {
                emit(self.cut())?;
            }
        }
        Ok(())
    }

    /// The chunks of what is left.
    ///
    /// # Errors
    /// Those of `emit`.
    pub(super) fn finish<E>(mut self, mut emit: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        while !self.buffer.is_empty() {
            emit(self.cut())?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Vec<u8> {
        let Sizes { smallest, average, largest } = self.sizes;
        let (_, end) = FastCDC::new(&self.buffer, smallest, average, largest).cut(0, self.buffer.len());
        let chunk = self.buffer[..end].to_vec();
        self.buffer.drain(..end);
        chunk
    }
}

/// A chunk as it is kept.
pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL)
        .map_err(|error| Error::new(ErrorKind::Io, format!("a chunk can't be compressed: {error}")).caused_by(error))
}

/// Most bytes that a kept chunk of this length can have: what can't be compressed grows a little.
pub(super) fn most_compressed(length: usize) -> u64 {
    // zstd's own bound (ZSTD_COMPRESSBOUND), rounded up.
    (length + length / 256 + 1024) as u64
}

/// The bytes of a kept chunk, if they are those that its name says: `length` of them, and never room for more.
pub(super) fn decompress(id: ChunkId, length: usize, kept: &[u8]) -> Result<Vec<u8>> {
    let damaged = |why: &str| Error::new(ErrorKind::Damaged, format!("its chunk {id} {why}"));
    if length > LARGEST {
        return Err(damaged(&format!("is said to have {length} bytes, and none has more than {LARGEST}")));
    }
    let bytes = zstd::bulk::decompress(kept, length)
        .map_err(|error| damaged(&format!("is not what zstd makes of {length} bytes ({error})")))?;
    if bytes.len() != length {
        return Err(damaged(&format!("has {} bytes and not {length}", bytes.len())));
    }
    if ChunkId::of(&bytes) != id {
        return Err(damaged("holds other bytes than those it is named after"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that don't repeat.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(bytes: &[u8], piece: usize, sizes: Sizes) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut cutter = Cutter::new(sizes);
        for piece in bytes.chunks(piece) {
            cutter
                .push(piece, |chunk| {
                    all.push(chunk);
                    Ok::<_, ()>(())
                })
                .unwrap();
        }
        cutter
            .finish(|chunk| {
                all.push(chunk);
                Ok::<_, ()>(())
            })
            .unwrap();
        all
    }

    #[test]
    fn cuts_depend_on_the_content_alone() {
        let bytes = noise(3 << 20);
        let whole = chunks(&bytes, bytes.len(), Sizes::ENTRIES);
        assert_eq!(whole, chunks(&bytes, 1000, Sizes::ENTRIES));
        assert_eq!(whole.concat(), bytes);
        assert!(whole.len() > 20 && whole.iter().all(|chunk| chunk.len() <= Sizes::ENTRIES.largest));

        let mut changed = bytes.clone();
        changed.splice(1_500_000..1_500_000, *b"inserted");
        let changed = chunks(&changed, 1 << 20, Sizes::ENTRIES);
        let new = changed.iter().filter(|chunk| !whole.contains(chunk)).count();
        assert!((1..=3).contains(&new), "{new} of {} chunks are new", changed.len());
        assert!(chunks(b"", 1, Sizes::CONTENT).is_empty());
    }

    #[test]
    fn a_kept_chunk_gives_the_bytes_of_its_name_or_none() {
        for bytes in [noise(1), noise(300_000), vec![0; LARGEST]] {
            let (id, kept) = (ChunkId::of(&bytes), compress(&bytes).unwrap());
            assert!(kept.len() as u64 <= most_compressed(bytes.len()));
            assert_eq!(decompress(id, bytes.len(), &kept).unwrap(), bytes);
            for length in [0, bytes.len() - 1, bytes.len() + 1, LARGEST + 1, usize::MAX] {
                assert_eq!(decompress(id, length, &kept).unwrap_err().kind(), ErrorKind::Damaged, "{length}");
            }
            let other = ChunkId::of(b"other");
            assert!(decompress(other, bytes.len(), &kept).unwrap_err().to_string().contains(&other.to_string()));
        }
    }

    #[test]
    fn a_bomb_gets_no_more_room_than_it_says() {
        // 2 GiB of zeros in some kilobytes.
        let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 2 << 30), 1).unwrap();
        assert!(bomb.len() < 1 << 20);
        for length in [0, 1, 300_000, LARGEST] {
            assert_eq!(decompress(ChunkId([0; 32]), length, &bomb).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}
