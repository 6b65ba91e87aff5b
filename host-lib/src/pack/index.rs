//! Remembers what a folder's files hashed to, by their stamps.
//!
//! A file that changed shortly before it was looked at could change again within the clock's grain and keep its stamp
//! (git calls this "racily clean"), so such files are never remembered. A damaged index is no index.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    manifest::Content,
    scan::{Entry, Kind, Stamp},
};

const MAGIC: &[u8] = b"corehold index 1\n";
const CHECKSUM: usize = 32;
/// More than the coarsest clock of a file system in use (FAT: two seconds).
const GRAIN: i128 = 3_000_000_000;
/// An index of 200,000 long names has some tens of megabytes.
const LARGEST: u64 = 256 << 20;

/// Nanoseconds since 1970.
pub(super) fn now() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
}

#[derive(Debug, Default)]
pub(super) struct Index(HashMap<PathBuf, (Stamp, Content)>);

impl Index {
    /// Whatever can't be read is not known.
    pub(super) fn read(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() <= LARGEST => {}
            _ => return Self::default(),
        }
        fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
    }

    /// What an entry holds, if it is known for sure.
    pub(super) fn content(&self, entry: &Entry) -> Option<Content> {
        match &entry.kind {
            Kind::Directory | Kind::Symlink { .. } => Some([0; 32]),
            Kind::File { stamp, .. } => {
                let (known, content) = self.0.get(&entry.path)?;
                (known == stamp).then_some(*content)
            }
        }
    }

    /// Remembers the files that have not changed since well before `began`.
    pub(super) fn write(path: &Path, entries: &[Entry], contents: &[Content], began: i128) -> io::Result<()> {
        let bytes = encode(entries, contents, began - GRAIN);
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn encode(entries: &[Entry], contents: &[Content], settled: i128) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (entry, content) in entries.iter().zip(contents) {
        let Kind::File { stamp, .. } = &entry.kind else { continue };
        let path = entry.path.as_os_str().as_bytes();
        let Ok(length) = u32::try_from(path.len()) else { continue };
        if stamp.changed.max(stamp.modified) > settled {
            continue;
        }
        bytes.extend(length.to_le_bytes());
        bytes.extend(path);
        for number in [stamp.device, stamp.inode, stamp.size] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(stamp.modified.to_le_bytes());
        bytes.extend(stamp.changed.to_le_bytes());
        bytes.extend(content);
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Index> {
    let (bytes, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    if blake3::hash(bytes).as_bytes() != checksum {
        return None;
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut index = HashMap::new();
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let stamp = Stamp {
            device: u64::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            modified: i128::from_le_bytes(take(&mut rest)?),
            changed: i128::from_le_bytes(take(&mut rest)?),
        };
        index.insert(std::ffi::OsString::from_vec(path.to_vec()).into(), (stamp, take(&mut rest)?));
    }
    Some(Index(index))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, changed: i128) -> Entry {
        let stamp = Stamp { device: 1, inode: 2, size: 3, modified: changed, changed };
        Entry { path: path.into(), kind: Kind::File { executable: false, stamp } }
    }

    #[test]
    fn settled_files_are_remembered_and_fresh_ones_are_not() {
        let entries = [file("old", 100), file("fresh", 201)];
        let index = decode(&encode(&entries, &[[7; 32], [8; 32]], 200)).unwrap();
        assert_eq!(index.content(&entries[0]), Some([7; 32]));
        assert_eq!(index.content(&entries[1]), None);
        assert_eq!(index.content(&file("old", 101)), None, "another time is another file");
    }

    #[test]
    fn a_damaged_index_knows_nothing() {
        let whole = encode(&[file("a", 1)], &[[7; 32]], 200);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&whole[..at]).is_none(), "cut at {at}");
        }
    }
}
