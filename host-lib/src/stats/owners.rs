//! The minutes of each owner's workspaces together, those that are gone included, in a file of its own.
//!
//! `<home>/stats/owners/<hash of the owner>.ndjson`: a line that says whose it is, then a [`StatsPoint`] a line, what some of the owner's
//! workspaces used in a minute. Lines of the same minute add up: what a workspace used is known when its minute is over, and of one
//! that stands still that is later than of others. Where there are too many lines, those of a minute become one. As of the files of workspaces,
//! what is damaged is left out or written anew, one host process of a home writes, and nothing is worth a failure. Nothing is held in memory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    StatsHistory, StatsPoint,
    history::{COARSE_SECONDS, sum},
    store::{lines, parse, read, recent, sweep, write_lines},
};

const FORMAT: u32 = 1;
/// A day's minutes are some 340 KiB; from here on the lines of each become one.
const FULL_BYTES: u64 = 512 << 10;
/// A first line is shorter.
const HEAD_BYTES: u64 = 4096;

/// The first line of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    owner: String,
}

/// The folder. All of it blocks.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    folder: PathBuf,
}

impl Owners {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// An owner is any text, which no file's name may be.
    fn path(&self, owner: &str) -> PathBuf {
        self.folder.join(format!("{}.ndjson", &blake3::hash(owner.as_bytes()).to_hex()[..32]))
    }

    /// Whether anything is kept of an owner.
    pub(super) fn knows(&self, owner: &str) -> bool {
        self.path(owner).symlink_metadata().is_ok()
    }

    /// The minutes of the last 24 hours, in their order.
    pub(super) fn load(&self, owner: &str, now: Timestamp) -> Vec<StatsPoint> {
        let points = match read(&self.path(owner)) {
            Ok(content) => points(&content, owner).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "what an owner's workspaces used can't be read");
                Vec::new()
            }
        };
        recent(merged(points), now)
    }

    /// Adds what was used in some minutes.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn add(&self, owner: &str, more: &[StatsPoint], now: Timestamp) -> io::Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let path = self.path(owner);
        if append(&path, owner, more)? {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let mut all = self.load(owner, now);
        all.extend(more.iter().cloned());
        write_lines(&self.folder, &path, &Head { format: FORMAT, owner: owner.to_owned() }, &merged(all))
    }

    /// Removes what is older than 24 hours, and the oldest of too many files.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub(super) fn sweep(&self) -> io::Result<()> {
        match sweep(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            swept => swept,
        }
    }
}

/// Appends to a file that is whole, the owner's, and has room; says whether it did.
fn append(path: &Path, owner: &str, more: &[StatsPoint]) -> io::Result<bool> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let Ok(mut file) = OpenOptions::new().read(true).append(true).custom_flags(flags.bits().cast_signed()).open(path)
    else {
        return Ok(false);
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FULL_BYTES {
        return Ok(false);
    }
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head)?;
    let mut last = [0];
    if head.is_empty() || file.seek(SeekFrom::End(-1)).is_err() || file.read_exact(&mut last).is_err() {
        return Ok(false);
    }
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if last != *b"\n" || !is_of(serde_json::from_slice(first).ok().as_ref(), owner) {
        return Ok(false);
    }
    // One write: a host that is killed leaves whole lines, but for a full disk.
    file.write_all(&lines(more)?)?;
    Ok(true)
}

fn is_of(head: Option<&Head>, owner: &str) -> bool {
    head.is_some_and(|head| head.format == FORMAT && head.owner == owner)
}

/// The points of a file, if it is the owner's.
fn points(content: &[u8], owner: &str) -> Option<Vec<StatsPoint>> {
    let (head, points, _) = parse::<Head>(content);
    is_of(head.as_ref(), owner).then_some(points)
}

/// One point for each minute.
fn merged(points: Vec<StatsPoint>) -> Vec<StatsPoint> {
    sum(vec![StatsHistory { every_seconds: COARSE_SECONDS, points }]).points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::damaged;

    const BEGIN: i64 = 1_700_000_040;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_unix(BEGIN + 60 * minute, 0)
    }

    fn point(minute: i64, sent: u64) -> StatsPoint {
        StatsPoint {
            at: at(minute),
            memory_bytes: 1024,
            memory_limit_bytes: None,
            cpu_percent: Some(1.5),
            cpu_ms: 7,
            network_received_bytes: 0,
            network_sent_bytes: sent,
            disk_read_bytes: 0,
            disk_written_bytes: 0,
            pids: 2,
        }
    }

    fn owners() -> (tempfile::TempDir, Owners) {
        let folder = tempfile::tempdir().unwrap();
        let owners = Owners::new(folder.path().join("stats/owners"));
        (folder, owners)
    }

    fn sent(owners: &Owners, owner: &str, now: i64) -> Vec<(i64, u64)> {
        let minute = |point: &StatsPoint| (point.at.as_unix_seconds() - BEGIN) / 60;
        owners.load(owner, at(now)).iter().map(|point| (minute(point), point.network_sent_bytes)).collect()
    }

    #[test]
    fn a_minute_is_the_sum_of_all_that_is_told_of_it_in_whatever_order() {
        let (_folder, owners) = owners();
        assert!(!owners.knows("ada") && owners.load("ada", at(0)).is_empty());
        owners.add("ada", &[point(1, 10), point(2, 1)], at(2)).unwrap();
        owners.add("ada", &[point(2, 20)], at(3)).unwrap();
        // Of one that stood still since.
        owners.add("ada", &[point(1, 5)], at(9)).unwrap();
        owners.add("../bob\n", &[point(1, 99)], at(9)).unwrap();
        assert_eq!(sent(&owners, "ada", 9), [(1, 15), (2, 21)]);
        assert_eq!(owners.load("ada", at(9))[0].pids, 4);
        assert_eq!(sent(&owners, "../bob\n", 9), [(1, 99)]);
        assert_eq!(sent(&owners, "ada", 24 * 60 + 2), [(2, 21)], "older than 24 hours");
        assert_eq!(sent(&owners, "ada", -1), [], "and of a clock that was ahead");
        assert!(owners.knows("ada") && !owners.knows("eve"));
    }

    #[test]
    fn wherever_a_file_is_cut_off_or_damaged_the_rest_is_kept_and_it_goes_on() {
        let (_folder, owners) = owners();
        owners.add("ada", &[point(1, 1), point(2, 2)], at(2)).unwrap();
        let path = owners.path("ada");
        let whole = fs::read(&path).unwrap();
        for (how, content) in damaged(&whole) {
            fs::write(&path, content).unwrap();
            let before = sent(&owners, "ada", 3);
            owners.add("ada", &[point(3, 3)], at(3)).unwrap();
            let after: Vec<_> = before.into_iter().chain([(3, 3)]).collect();
            assert_eq!(sent(&owners, "ada", 3), after, "{how}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_written_anew_and_nothing_else_is_touched() {
        let (folder, owners) = owners();
        fs::create_dir_all(&owners.folder).unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, owners.path("ada")).unwrap();
        owners.add("ada", &[point(1, 1)], at(1)).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(sent(&owners, "ada", 1), [(1, 1)]);
        // Somebody else's, as where two had one hash.
        fs::rename(owners.path("ada"), owners.path("eve")).unwrap();
        assert_eq!(sent(&owners, "eve", 1), []);
        owners.add("eve", &[point(1, 7)], at(1)).unwrap();
        assert_eq!(sent(&owners, "eve", 1), [(1, 7)]);
    }

    #[test]
    fn a_file_is_bounded_however_many_workspaces_an_owner_has() {
        let (_folder, owners) = owners();
        let minutes = 2 * 1440;
        for minute in 0..minutes {
            let all: Vec<_> = (0..3).map(|_| point(minute, 1)).collect();
            owners.add("ada", &all, at(minute)).unwrap();
        }
        let size = fs::metadata(owners.path("ada")).unwrap().len();
        assert!(size <= FULL_BYTES + 4096, "{size}");
        let kept = sent(&owners, "ada", minutes - 1);
        assert_eq!((kept.len(), kept.iter().all(|(_, sent)| *sent == 3)), (1441, true));
        owners.sweep().unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
        OpenOptions::new().append(true).open(owners.path("ada")).unwrap().set_modified(old).unwrap();
        owners.sweep().unwrap();
        assert!(!owners.knows("ada"), "what is as old goes");
    }
}
