//! The minutes of each workspace in a file of its own, so that a host that starts again knows the last 24 hours.
//!
//! `<home>/stats/<workspace>.ndjson`: a line that says what it is, then a [`StatsPoint`] a line. A file that is no such thing, or is
//! of another workspace that had the name before, is told and written anew; lines that were cut off or damaged are left out. Only one
//! host process of a home writes. Nothing here is worth a failure: what can't be written is told, and measuring goes on.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    StatsPoint,
    history::{COARSE_SECONDS, KEPT_SECONDS},
    owners::Owners,
};
use crate::workspace::WorkspaceId;

const FORMAT: u32 = 1;
/// Lines of a file at most; then only those of the last 24 hours stay.
const LINES: usize = (KEPT_SECONDS / COARSE_SECONDS) as usize + 360;
/// A file is some 400 KiB; what is larger is none of ours.
const BYTES: u64 = 2 << 20;
/// Files of workspaces, those that are gone included, and of owners; the oldest go first.
const FILES: usize = 4096;
/// The folder of [`owners`](super::owners).
const OWNERS: &str = "owners";

/// The first line of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    workspace: WorkspaceId,
    /// When it was made: another one may have the name later.
    created: Timestamp,
}

/// The folder. All of it blocks.
pub(super) struct Store {
    folder: PathBuf,
    /// Held by the one process that writes.
    lock: Option<File>,
}

/// The file of a workspace that this process appends to.
pub(super) struct Ledger {
    head: Head,
    lines: usize,
    /// It must be written as a whole: it isn't there, or is damaged.
    anew: bool,
}

impl Store {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, lock: None }
    }

    fn path(&self, workspace: &WorkspaceId) -> PathBuf {
        self.folder.join(format!("{workspace}.ndjson"))
    }

    /// Whether this process is the one that writes; it becomes so when no other is.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn ours(&mut self) -> io::Result<bool> {
        if self.lock.is_none() {
            fs::create_dir_all(&self.folder)?;
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(self.folder.join("lock"))?;
            match file.try_lock() {
                Ok(()) => self.lock = Some(file),
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What is kept of a workspace: the points of the last 24 hours, in their order. `created` is known where it is there.
    pub(super) fn load(
        &self,
        workspace: &WorkspaceId,
        created: Option<Timestamp>,
        now: Timestamp,
    ) -> (Vec<StatsPoint>, Ledger) {
        let path = self.path(workspace);
        let mut anew = true;
        let (head, points) = match read(&path) {
            Ok(content) => {
                let (head, points, damaged) = parse::<Head>(&content);
                let fits = |head: &Head| {
                    head.format == FORMAT && head.workspace == *workspace && created.is_none_or(|at| at == head.created)
                };
                match head.filter(fits) {
                    Some(head) => {
                        if damaged > 0 {
                            tracing::warn!(path = %path.display(), damaged, "lines of what a workspace used are damaged and left out");
                        }
                        anew = damaged > 0;
                        (Some(head), points)
                    }
                    None => {
                        tracing::warn!(path = %path.display(), "what a workspace of this name used before is written anew");
                        (None, Vec::new())
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Vec::new()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what a workspace used can't be read, and is written anew");
                (None, Vec::new())
            }
        };
        let head =
            head.unwrap_or(Head { format: FORMAT, workspace: workspace.clone(), created: created.unwrap_or(now) });
        let ledger = Ledger { head, lines: points.len(), anew };
        (recent(points, now), ledger)
    }

    /// Adds a minute. `all` is everything that is kept, it included, for when the file is written as a whole.
    ///
    /// # Errors
    /// When it can't be written; the next minute tries to write all.
    pub(super) fn append(&self, ledger: &mut Ledger, point: &StatsPoint, all: &[StatsPoint]) -> io::Result<()> {
        let path = self.path(&ledger.head.workspace);
        let result = if ledger.anew || ledger.lines >= LINES {
            write_lines(&self.folder, &path, &ledger.head, all).map(|()| ledger.lines = all.len())
        } else {
            append(&path, point).map(|()| ledger.lines += 1)
        };
        ledger.anew = result.is_err();
        result
    }

    /// What is kept of owners.
    pub(super) fn owners(&self) -> Owners {
        Owners::new(self.folder.join(OWNERS))
    }

    /// Removes what is older than 24 hours, and the oldest of too many files.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub(super) fn sweep(&self) -> io::Result<()> {
        sweep(&self.folder)?;
        self.owners().sweep()
    }
}

/// Of points in their order those of the last 24 hours.
pub(super) fn recent(points: Vec<StatsPoint>, now: Timestamp) -> Vec<StatsPoint> {
    let mut recent = Vec::with_capacity(points.len());
    for point in points {
        let known = recent.last().is_none_or(|last: &StatsPoint| last.at < point.at);
        // A minute of grace for one that goes on.
        let ahead = point.at.since(now).as_secs() > COARSE_SECONDS;
        if known && !ahead && now.since(point.at).as_secs() <= KEPT_SECONDS {
            recent.push(point);
        }
    }
    recent
}

/// Each as a line of JSON.
pub(super) fn lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, &value)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Writes a whole file, or leaves the one that is there.
pub(super) fn write_lines(folder: &Path, path: &Path, head: &impl Serialize, all: &[StatsPoint]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&[lines([head])?, lines(all)?].concat())?;
    file.persist(path)?;
    Ok(())
}

/// Removes files of a folder that are older than 24 hours, and the oldest of too many.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && entry.file_name() != "lock" {
            files.push((metadata.modified()?, entry.path()));
        }
    }
    files.sort();
    let surplus = files.len().saturating_sub(FILES);
    let now = SystemTime::now();
    for (number, (modified, path)) in files.into_iter().enumerate() {
        let old = now.duration_since(modified).is_ok_and(|age| age > Duration::from_secs(KEPT_SECONDS));
        if (old || number < surplus)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "an old file could not be removed");
        }
    }
    Ok(())
}

fn append(path: &Path, point: &StatsPoint) -> io::Result<()> {
    let line = lines([point])?;
    // One write: a host that is killed leaves a whole line or none, but for a full disk.
    OpenOptions::new()
        .append(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?
        .write_all(&line)
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of at most 2 MiB"));
    }
    let mut content = Vec::new();
    file.take(BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// The first line, the points, and how many lines are none.
pub(super) fn parse<H: DeserializeOwned>(content: &[u8]) -> (Option<H>, Vec<StatsPoint>, usize) {
    let mut lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    let (mut points, mut damaged) = (Vec::new(), 0);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(point) => points.push(point),
            Err(_) => damaged += 1,
        }
    }
    // What is appended to a line that was cut off would be part of it.
    if content.last().is_some_and(|last| *last != b'\n') {
        damaged += 1;
    }
    (head, points, damaged)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::damaged;

    const BEGIN: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(BEGIN + second, 0)
    }

    fn point(minute: i64) -> StatsPoint {
        StatsPoint {
            at: at(60 * minute),
            memory_bytes: 1024,
            memory_limit_bytes: None,
            cpu_percent: Some(1.5),
            cpu_ms: 7,
            network_received_bytes: u64::from(u32::MAX) + 1,
            network_sent_bytes: 0,
            disk_read_bytes: 0,
            disk_written_bytes: 0,
            pids: 2,
        }
    }

    struct Fixture {
        folder: tempfile::TempDir,
        store: Store,
        id: WorkspaceId,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::new(folder.path().join("stats"));
            assert!(store.ours().unwrap());
            Self { folder, store, id: "w".parse().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.store.path(&self.id)
        }

        fn load(&self, now: i64) -> (Vec<StatsPoint>, Ledger) {
            self.store.load(&self.id, Some(at(0)), at(now))
        }

        fn filled(minutes: i64) -> Self {
            let fixture = Self::new();
            let (mut all, mut ledger) = fixture.load(0);
            for minute in 0..minutes {
                all.push(point(minute));
                fixture.store.append(&mut ledger, all.last().unwrap(), &all).unwrap();
            }
            fixture
        }
    }

    #[test]
    fn what_was_kept_is_there_again_and_goes_on() {
        let fixture = Fixture::filled(3);
        let (mut all, mut ledger) = fixture.load(180);
        assert_eq!(all, [point(0), point(1), point(2)]);
        all.push(point(3));
        fixture.store.append(&mut ledger, &point(3), &all).unwrap();
        assert_eq!(fixture.load(240).0, all);
        // Asked for without knowing when it was made, as of one that is gone.
        assert_eq!(fixture.store.load(&fixture.id, None, at(240)).0, all);
        assert_eq!(fixture.load(KEPT_SECONDS as i64 + 60).0, all[1..], "older than 24 hours");
        assert_eq!(fixture.load(-1000).0, [], "and of a clock that was ahead");
    }

    #[test]
    fn another_workspace_of_the_name_begins_anew() {
        let fixture = Fixture::filled(3);
        let (points, mut ledger) = fixture.store.load(&fixture.id, Some(at(100)), at(180));
        assert_eq!(points, []);
        fixture.store.append(&mut ledger, &point(3), &[point(3)]).unwrap();
        assert_eq!(fixture.store.load(&fixture.id, Some(at(100)), at(240)).0, [point(3)]);
    }

    #[test]
    fn wherever_a_file_is_cut_off_or_damaged_the_rest_is_kept_and_it_goes_on() {
        let fixture = Fixture::filled(3);
        let whole = fs::read(fixture.path()).unwrap();
        for (how, content) in damaged(&whole) {
            fs::write(fixture.path(), content).unwrap();
            let (mut all, mut ledger) = fixture.load(180);
            assert!(all.len() <= 3);
            all.push(point(3));
            fixture.store.append(&mut ledger, &point(3), &all).unwrap();
            assert_eq!(fixture.load(240).0, all, "{how}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_an_error_or_written_anew_and_nothing_else_is_touched() {
        let fixture = Fixture::new();
        let precious = fixture.folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, fixture.path()).unwrap();
        let (all, mut ledger) = fixture.load(0);
        assert_eq!(all, []);
        fixture.store.append(&mut ledger, &point(0), &[point(0)]).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fixture.load(60).0, [point(0)]);

        fs::write(fixture.path(), vec![b'\n'; BYTES as usize + 1]).unwrap();
        let (all, mut ledger) = fixture.load(60);
        assert_eq!(all, []);
        fixture.store.append(&mut ledger, &point(1), &[point(1)]).unwrap();
        assert_eq!(fixture.load(60).0, [point(1)]);

        fs::remove_file(fixture.path()).unwrap();
        fs::create_dir(fixture.path()).unwrap();
        let (_, mut ledger) = fixture.load(60);
        fixture.store.append(&mut ledger, &point(1), &[point(1)]).unwrap_err();
        fs::remove_dir(fixture.path()).unwrap();
        fixture.store.append(&mut ledger, &point(2), &[point(1), point(2)]).unwrap();
        assert_eq!(fixture.load(120).0.len(), 2, "a later minute writes what an earlier one could not");
    }

    #[test]
    fn a_file_is_bounded() {
        let fixture = Fixture::new();
        let (mut all, mut ledger) = fixture.load(0);
        for minute in 0..2 * LINES as i64 {
            all.push(point(minute));
            let kept = all.len().saturating_sub(1440);
            all.drain(..kept);
            fixture.store.append(&mut ledger, all.last().unwrap(), &all).unwrap();
        }
        let content = fs::read_to_string(fixture.path()).unwrap();
        assert!(content.lines().count() <= LINES + 1 && content.len() < 512 << 10, "{}", content.len());
    }

    #[test]
    fn one_process_writes_and_what_is_old_is_swept() {
        let fixture = Fixture::filled(1);
        let mut other = Store::new(fixture.store.folder.clone());
        assert!(!other.ours().unwrap());
        let old = File::create(fixture.store.folder.join("old.ndjson")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(KEPT_SECONDS + 60)).unwrap();
        fixture.store.sweep().unwrap();
        assert!(!fixture.store.folder.join("old.ndjson").exists() && fixture.path().exists());
        drop(fixture.store);
        assert!(other.ours().unwrap(), "the other takes over");
        let mode = fs::metadata(other.folder.join("lock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
