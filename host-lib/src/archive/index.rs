//! The index of an archive: which chunks make up its tar, and which the list of its entries.
//!
//! Named by the BLAKE3 of its bytes, which are: the magic, then twice the number of chunks (u32, little-endian) and of each
//! its name (32 bytes) and its length before compression (u32). 36 bytes for about a megabyte of files.

use super::chunk::{ChunkId, LARGEST};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"corehold index 1\n";
const RECORD: usize = 36;
/// Bytes of a tar that is taken: 1 TiB, whose index has some 40 MB.
pub(super) const MOST_CONTENT: u64 = 1 << 40;
/// Bytes of the largest index: each of its chunks as small as they are cut.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// A chunk as an index names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRef {
    pub(super) id: ChunkId,
    /// Bytes before compression.
    pub(super) length: u32,
}

/// What an archive consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) content: Vec<ChunkRef>,
    pub(super) entries: Vec<ChunkRef>,
}

impl Index {
    /// Its bytes, always the same for the same chunks.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for list in [&self.content, &self.entries] {
            // An archive has at most 1 TiB, of which each chunk but the last has 256 KiB.
            bytes.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes());
            for chunk in list {
                bytes.extend(chunk.id.0);
                bytes.extend(chunk.length.to_le_bytes());
            }
        }
        bytes
    }

    /// # Errors
    /// `Damaged`: whatever isn't exactly what [`encode`](Self::encode) makes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::new(ErrorKind::Damaged, format!("its index {why}"));
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("is none, or of another version"))?;
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            let (count, after) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
            let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
            let length = count.checked_mul(RECORD).ok_or_else(|| damaged("is cut off"))?;
            let (records, after) = after.split_at_checked(length).ok_or_else(|| damaged("is cut off"))?;
            rest = after;
            // No room is made before the bytes are known to be there.
            list.reserve_exact(count);
            for record in records.chunks_exact(RECORD) {
                let (id, length) = record.split_first_chunk::<32>().ok_or_else(|| damaged("is cut off"))?;
                let length = length.try_into().map(u32::from_le_bytes).map_err(|_| damaged("is cut off"))?;
                if length == 0 || length as usize > LARGEST {
                    return Err(damaged(&format!("names a chunk of {length} bytes")));
                }
                list.push(ChunkRef { id: ChunkId(*id), length });
            }
        }
        if !rest.is_empty() {
            return Err(damaged("has more after its end"));
        }
        let [content, entries] = lists;
        Ok(Self { content, entries })
    }

    /// Bytes of the tar.
    pub(super) fn content_bytes(&self) -> u64 {
        self.content.iter().map(|chunk| u64::from(chunk.length)).sum()
    }

    /// All its chunks.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkRef> + '_ {
        self.content.iter().chain(&self.entries).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index() -> Index {
        let chunk = |byte: u8, length| ChunkRef { id: ChunkId([byte; 32]), length };
        Index { content: vec![chunk(1, 1), chunk(2, LARGEST as u32)], entries: vec![chunk(3, 77)] }
    }

    #[test]
    fn what_was_written_is_read_again_and_nothing_else() {
        for index in [index(), Index::default()] {
            let bytes = index.encode();
            assert_eq!(Index::decode(&bytes).unwrap(), index);
            for end in 0..bytes.len() {
                assert_eq!(Index::decode(&bytes[..end]).unwrap_err().kind(), ErrorKind::Damaged, "cut at {end}");
            }
            assert!(Index::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn absurd_numbers_are_refused_before_room_is_made_for_them() {
        for count in [4, 1 << 20, u32::MAX] {
            let mut bytes = index().encode();
            bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&count.to_le_bytes());
            assert_eq!(Index::decode(&bytes).unwrap_err().kind(), ErrorKind::Damaged, "{count}");
        }
        for length in [0, LARGEST as u32 + 1, u32::MAX] {
            let mut absurd = index();
            absurd.content[0].length = length;
            assert_eq!(Index::decode(&absurd.encode()).unwrap_err().kind(), ErrorKind::Damaged, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_index_or_an_error(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(index) = Index::decode(&[MAGIC, &tail].concat()) {
                prop_assert_eq!(index.encode(), [MAGIC, &tail].concat());
            }
        }
    }
}
