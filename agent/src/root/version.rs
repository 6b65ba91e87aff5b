//! Versions: whether a file is still the one that somebody read.
//!
//! A version is made of inode, size, mtime and ctime, which cost one `fstat`. The kernel stamps times by a clock that may
//! stand still for 10 ms, so a file that was changed just now could change again under the same times. Such a file's
//! version carries a hash of its content as well. Callers see an opaque word.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::Stat;

use super::OpenFile;

/// No kernel's clock for file times is coarser (HZ=100).
const GRAIN: Duration = Duration::from_millis(20);

/// A fresh file up to this size is hashed; for a larger one it is quicker to wait until the grain has passed.
const HASHED: u64 = 1 << 20;

/// What a file is now, as an opaque word: equal words mean equal content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// The version of an open file. May block for the grain of the clock.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn of(file: &File) -> io::Result<Self> {
        Self::as_of(file, &rustix::fs::fstat(file)?)
    }

    /// The version of a file as it was opened, for content that is read from now on. May block as [`of`](Self::of).
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn of_opened(opened: &OpenFile) -> io::Result<Self> {
        Self::as_of(&opened.file, &opened.stat)
    }

    fn as_of(file: &File, stat: &Stat) -> io::Result<Self> {
        // Judged after the file was looked at: what changes from here on gets other times.
        if !is_fresh(stat) {
            return Ok(Self(of_stat(stat)));
        }
        if size_of(stat) <= HASHED {
            return Ok(Self(format!("{}-{}", of_stat(stat), content(file)?)));
        }
        std::thread::sleep(GRAIN);
        let stat = rustix::fs::fstat(file)?;
        if is_fresh(&stat) {
            // Somebody is writing it right now. A version that never matches is the truth.
            let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            return Ok(Self(format!("{}-changing{nanoseconds:x}", of_stat(&stat))));
        }
        Ok(Self(of_stat(&stat)))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The word, to keep.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// What a file is, for the audit log: the BLAKE3 of its content in hex if that has at most so many bytes, else its version.
/// Nothing where that would need waiting, or where it can't be read.
pub(crate) fn mark(file: &File, most_bytes: u64) -> Option<String> {
    let stat = rustix::fs::fstat(file).ok()?;
    if size_of(&stat) > most_bytes {
        return (!is_fresh(&stat)).then(|| of_stat(&stat));
    }
    let (mut hasher, mut read) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read_at(&mut buffer, read) {
            Ok(0) => return Some(hasher.finalize().to_hex().to_string()),
            // Somebody writes to it.
            Ok(length) if read + length as u64 > most_bytes => return None,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                read += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Whether a word is a BLAKE3 in hex, and no version.
pub(crate) fn is_hash(word: &str) -> bool {
    word.len() == blake3::OUT_LEN * 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file is still what `expected` says: a version, or a BLAKE3 of the content in hex.
///
/// # Errors
/// The file can't be read.
pub(crate) fn is_current(file: &File, expected: &str) -> io::Result<bool> {
    if is_hash(expected) {
        let mut hasher = blake3::Hasher::new();
        read_all(file, |bytes| {
            hasher.update(bytes);
        })?;
        return Ok(hasher.finalize().to_hex().as_str().eq_ignore_ascii_case(expected));
    }
    let (of_expected, hash) = match expected.split_once('-') {
        Some((of_expected, hash)) => (of_expected, Some(hash)),
        None => (expected, None),
    };
    let stat = rustix::fs::fstat(file)?;
    if of_stat(&stat) != of_expected {
        return Ok(false);
    }
    match hash {
        // The file was fresh when the version was made: only its content tells.
        Some(hash) => Ok(content(file)? == hash),
        // It was not fresh then, so any change since has given it another ctime.
        None => Ok(true),
    }
}

fn is_fresh(stat: &Stat) -> bool {
    let changed =
        Duration::new(u64::try_from(stat.st_ctime).unwrap_or(0), u32::try_from(stat.st_ctime_nsec).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A time ahead of the clock by more than the grain comes from a clock that was set back: not fresh.
    now.abs_diff(changed) < GRAIN
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn of_stat(stat: &Stat) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stat.st_ino.to_le_bytes());
    hasher.update(&stat.st_size.to_le_bytes());
    for (seconds, nanoseconds) in [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)] {
        hasher.update(&seconds.to_le_bytes());
        hasher.update(&nanoseconds.to_le_bytes());
    }
    short_hex(&hasher.finalize())
}

fn content(file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    read_all(file, |bytes| {
        hasher.update(bytes);
    })?;
    Ok(short_hex(&hasher.finalize()))
}

fn read_all(file: &File, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                see(&buffer[..length]);
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// 96 bits: more than enough against accidents, and nobody gains by a collision with his own file.
fn short_hex(hash: &blake3::Hash) -> String {
    hash.to_hex()[..24].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn set_ctime_aside() {
        std::thread::sleep(GRAIN * 2);
    }

    #[test]
    fn a_change_within_the_clocks_grain_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "aaaa").unwrap();
        let file = File::open(&path).unwrap();
        let version = Version::of(&file).unwrap();
        assert!(is_current(&file, version.as_str()).unwrap());
        fs::write(&path, "bbbb").unwrap();
        assert!(!is_current(&file, version.as_str()).unwrap());
    }

    #[test]
    fn a_version_made_while_fresh_holds_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "same").unwrap();
        let file = File::open(&path).unwrap();
        let fresh = Version::of(&file).unwrap();
        set_ctime_aside();
        assert!(is_current(&file, fresh.as_str()).unwrap());
        let settled = Version::of(&file).unwrap();
        assert!(is_current(&file, settled.as_str()).unwrap());
        assert!(!settled.as_str().contains('-'), "a settled file costs no hash");
    }

    #[test]
    fn a_large_fresh_file_gets_a_version_without_being_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("f")).unwrap();
        file.set_len(HASHED + 1).unwrap();
        let version = Version::of(&file).unwrap();
        assert!(!version.as_str().contains('-'), "{version:?}");
    }

    #[test]
    fn a_mark_is_the_contents_hash_or_for_what_is_large_the_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(mark(&file, 7).unwrap(), blake3::hash(b"content").to_hex().as_str());
        set_ctime_aside();
        assert_eq!(mark(&file, 6).unwrap(), Version::of(&file).unwrap().as_str());
        let directory = File::open(directory.path()).unwrap();
        assert_eq!(mark(&directory, u64::MAX), None);
    }

    #[test]
    fn a_content_hash_is_as_good_as_a_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_current(&file, blake3::hash(b"content").to_hex().as_str()).unwrap());
        assert!(!is_current(&file, blake3::hash(b"other").to_hex().as_str()).unwrap());
        assert!(!is_current(&file, "nonsense").unwrap() && !is_current(&file, "").unwrap());
    }
}
