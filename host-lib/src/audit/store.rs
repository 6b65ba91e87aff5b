//! The log's files: one JSON object a line, appended, rotated, bounded.
//!
//! `<home>/audit/audit.ndjson` is written to; when it has 16 MiB it becomes `audit.1.ndjson`, that one `audit.2.ndjson`, and so on to 7.
//! `cursors/<workspace>` says up to which record of which start of its agent a workspace is written down. All processes of a home
//! write, in turn, under a lock; so a record that two of them collect is written once.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{AuditAnswer, AuditEntry, AuditQuery};
use crate::workspace::WorkspaceId;

/// Bytes of a file after which another is begun.
const FILE_BYTES: u64 = 16 << 20;
/// Files besides the one that is written to.
const OLD_FILES: u32 = 7;
/// Bytes of a line. A record's largest parts are bounded by the agent to some 20 KiB.
const LINE_BYTES: u64 = 1 << 20;

/// Up to where an agent's records are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cursor {
    pub(super) boot_id: String,
    pub(super) seq: u64,
}

/// The folder. All of it blocks.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
    file_bytes: u64,
}

impl Store {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, file_bytes: FILE_BYTES }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, number: u32) -> PathBuf {
        match number {
            0 => self.folder.join("audit.ndjson"),
            number => self.folder.join(format!("audit.{number}.ndjson")),
        }
    }

    fn cursor_path(&self, workspace: &WorkspaceId) -> PathBuf {
        self.folder.join("cursors").join(workspace.as_str())
    }

    /// Up to where an agent's records are written down; nothing where it is another start of it, or the cursor is damaged.
    pub(super) fn cursor(&self, workspace: &WorkspaceId, boot_id: &str) -> u64 {
        let cursor = fs::read(self.cursor_path(workspace)).ok();
        let cursor = cursor.and_then(|content| serde_json::from_slice::<Cursor>(&content).ok());
        cursor.filter(|cursor| cursor.boot_id == boot_id).map_or(0, |cursor| cursor.seq)
    }

    /// Writes entries down, but those of agents that are there already.
    ///
    /// # Errors
    /// When they can't be; some may be there then.
    pub(super) fn append(&self, entries: Vec<AuditEntry>) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join("cursors"))?;
        let lock = options().create(true).append(true).open(self.folder.join("lock"))?;
        // Held for the time of one write; a process that is killed lets it go.
        lock.lock()?;
        let mut cursors: Vec<(WorkspaceId, Cursor)> = Vec::new();
        let mut content = Vec::new();
        for entry in entries {
            let told_up_to = match &entry {
                AuditEntry::Agent { workspace, boot_id, record } => Some((workspace, boot_id, record.seq)),
                AuditEntry::Gap { workspace, boot_id, gap, .. } => Some((workspace, boot_id, gap.to)),
                AuditEntry::Host { .. } => None,
            };
            if let Some((workspace, boot_id, seq)) = told_up_to {
                let known = cursors.iter().position(|(id, cursor)| id == workspace && cursor.boot_id == *boot_id);
                let index = known.unwrap_or_else(|| {
                    let seq = self.cursor(workspace, boot_id);
                    cursors.push((workspace.clone(), Cursor { boot_id: boot_id.clone(), seq }));
                    cursors.len() - 1
                });
                let cursor = &mut cursors[index].1;
                if seq <= cursor.seq {
                    continue;
                }
                // Some records within a gap may be there: it moves nothing.
                if matches!(entry, AuditEntry::Agent { .. }) {
                    cursor.seq = seq;
                }
            }
            serde_json::to_writer(&mut content, &entry)?;
            content.push(b'\n');
        }
        if content.is_empty() {
            return Ok(());
        }
        let mut file = self.current()?;
        let length = file.metadata()?.len();
        if length > 0 && length + content.len() as u64 > self.file_bytes {
            self.rotate()?;
            file = self.current()?;
        }
        if !ends_with_line(&self.file(0))? {
            // A host that was killed, or a full disk, left half a line: it must not spoil the next one.
            content.insert(0, b'\n');
        }
        file.write_all(&content)?;
        for (workspace, cursor) in cursors {
            let mut file = tempfile::NamedTempFile::new_in(self.folder.join("cursors"))?;
            file.write_all(&serde_json::to_vec(&cursor)?)?;
            file.persist(self.cursor_path(&workspace))?;
        }
        Ok(())
    }

    /// Nothing more comes of a workspace.
    pub(super) fn forget(&self, workspace: &WorkspaceId) {
        // One that isn't there is fine; one that stays says nothing about another workspace of the name: its agent starts anew.
        let _ = fs::remove_file(self.cursor_path(workspace));
    }

    fn current(&self) -> io::Result<File> {
        let file = options().create(true).append(true).open(self.file(0))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "audit.ndjson is no file"));
        }
        Ok(file)
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (0..OLD_FILES).rev() {
            match fs::rename(self.file(number), self.file(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The newest entries that meet a query.
    ///
    /// # Errors
    /// When a file that is there can't be read.
    pub(super) fn read(&self, query: &AuditQuery) -> io::Result<AuditAnswer> {
        let mut entries = VecDeque::new();
        let mut damaged = 0;
        // Opened before any is read: a rotation meanwhile moves names, not what they stand for.
        let mut files = Vec::new();
        for number in (0..=OLD_FILES).rev() {
            match options().read(true).open(self.file(number)) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for file in files {
            let mut lines = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                line.clear();
                if lines.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                match serde_json::from_slice::<AuditEntry>(&line) {
                    Ok(entry) if query.meets(&entry) => {
                        if entries.len() == query.limit {
                            entries.pop_front();
                        }
                        if query.limit > 0 {
                            entries.push_back(entry);
                        }
                    }
                    Ok(_) => {}
                    Err(_) if line.trim_ascii().is_empty() => {}
                    Err(_) => damaged += 1,
                }
            }
        }
        Ok(AuditAnswer { entries: entries.into(), damaged })
    }
}

/// Nobody else's business, and no link to somewhere else.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed());
    options
}

fn ends_with_line(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let file = options().read(true).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [0];
    Ok(length == 0 || (file.read_at(&mut last, length - 1)? == 1 && last == [b'\n']))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use corehold_types::{
        Timestamp,
        tools::{AuditGap, AuditOutcome, AuditRecord, AuditSurface},
    };

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("audit"));
        (folder, store)
    }

    fn record(seq: u64, subject: &str, detail: &str) -> AuditRecord {
        AuditRecord {
            seq,
            time: Timestamp::from_unix(1_700_000_000 + i64::try_from(seq).unwrap(), 0),
            subject: Some(subject.to_owned()),
            surface: AuditSurface::Http,
            request_id: "r".to_owned(),
            tool: "read".to_owned(),
            paths: vec![],
            paths_omitted: None,
            detail: Some(detail.to_owned()),
            command: None,
            changed: None,
            bytes_in: None,
            bytes_out: None,
            duration_ms: 1,
            outcome: AuditOutcome::Ok,
            code: None,
            replayed: false,
            times: None,
            since: None,
        }
    }

    fn call(workspace: &str, boot: &str, seq: u64) -> AuditEntry {
        let record = Box::new(record(seq, "ada", ""));
        AuditEntry::Agent { workspace: workspace.parse().unwrap(), boot_id: boot.to_owned(), record }
    }

    fn removed(workspace: &str, subject: &str) -> AuditEntry {
        AuditEntry::Host {
            workspace: Some(workspace.parse().unwrap()),
            time: Timestamp::from_unix(1_800_000_000, 0),
            subject: Some(subject.to_owned()),
            tool: "removed".to_owned(),
            outcome: AuditOutcome::Ok,
            detail: serde_json::Map::new(),
        }
    }

    fn all(store: &Store) -> Vec<AuditEntry> {
        store.read(&AuditQuery::default()).unwrap().entries
    }

    #[test]
    fn a_record_is_written_once_however_many_collect_it() {
        let (_folder, store) = store();
        let id = "w".parse().unwrap();
        store.append(vec![call("w", "a", 1), call("w", "a", 2), call("v", "b", 1)]).unwrap();
        let other = store.clone();
        other.append(vec![call("w", "a", 2), call("w", "a", 3)]).unwrap();
        assert_eq!((store.cursor(&id, "a"), store.cursor(&id, "z")), (3, 0));
        // The agent was started anew: it counts from 1 again.
        store.append(vec![call("w", "z", 1)]).unwrap();
        let expected = [("w", "a", 1), ("w", "a", 2), ("v", "b", 1), ("w", "a", 3), ("w", "z", 1)];
        assert_eq!(all(&store), expected.map(|(workspace, boot, seq)| call(workspace, boot, seq)));
        store.forget(&id);
        assert_eq!(store.cursor(&id, "z"), 0);
    }

    #[test]
    fn queries_choose_and_gaps_are_never_hidden() {
        let (_folder, store) = store();
        let gap = AuditGap { from: 2, to: 5, refusals_only: false };
        let time = Timestamp::from_unix(1_700_000_006, 0);
        let gap = AuditEntry::Gap { workspace: "w".parse().unwrap(), boot_id: "a".to_owned(), time, gap };
        let entries = vec![call("w", "a", 1), gap.clone(), call("w", "a", 6), call("v", "b", 7), removed("w", "bob")];
        store.append(entries.clone()).unwrap();
        let read = |query: AuditQuery| store.read(&query).unwrap().entries;
        let id: WorkspaceId = "w".parse().unwrap();
        assert_eq!(read(AuditQuery::default()), entries);
        assert_eq!(read(AuditQuery::default().workspace(&id).subject("bob")), [gap.clone(), removed("w", "bob")]);
        assert_eq!(read(AuditQuery::default().tool("removed")), [gap.clone(), removed("w", "bob")]);
        let (from, to) = (Timestamp::from_unix(1_700_000_006, 0), Timestamp::from_unix(1_700_000_007, 0));
        assert_eq!(read(AuditQuery::default().since(from).until(to)), entries[1..4]);
        assert_eq!(read(AuditQuery::default().limit(2)), entries[3..]);
        assert_eq!(read(AuditQuery::default().limit(0)), []);
    }

    #[test]
    fn files_are_rotated_and_bounded() {
        let (_folder, mut store) = store();
        store.file_bytes = 64 << 10;
        let large = "x".repeat(3 << 10);
        for seq in 1..=300 {
            let record = Box::new(record(seq, "ada", &large));
            let entry = AuditEntry::Agent { workspace: "w".parse().unwrap(), boot_id: "a".to_owned(), record };
            store.append(vec![entry]).unwrap();
        }
        let files: Vec<u64> = fs::read_dir(&store.folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().to_str().unwrap().starts_with("audit"))
            .map(|entry| entry.metadata().unwrap().len())
            .collect();
        assert_eq!(files.len() as u32, OLD_FILES + 1);
        assert!(files.iter().all(|bytes| *bytes <= store.file_bytes), "{files:?}");
        let newest = all(&store).into_iter().map(|entry| match entry {
            AuditEntry::Agent { record, .. } => record.seq,
            other => panic!("{other:?}"),
        });
        let newest: Vec<u64> = newest.collect();
        assert_eq!(newest.last(), Some(&300));
        assert!(newest.is_sorted() && (100..300).contains(&newest.len()));
    }

    #[test]
    fn damage_is_counted_and_spoils_nothing_else() {
        let (_folder, store) = store();
        store.append(vec![call("w", "a", 1)]).unwrap();
        let mut file = OpenOptions::new().append(true).open(store.file(0)).unwrap();
        file.write_all(b"\xff\xfe no JSON\n{\"source\":\"agent\",\"works").unwrap();
        fs::write(store.cursor_path(&"w".parse().unwrap()), "damaged").unwrap();
        store.append(vec![call("w", "a", 2)]).unwrap();
        let answer = store.read(&AuditQuery::default()).unwrap();
        assert_eq!((answer.entries, answer.damaged), (vec![call("w", "a", 1), call("w", "a", 2)], 2));
    }

    #[test]
    fn it_is_nobody_elses_and_follows_no_link() {
        let (folder, store) = store();
        assert_eq!(all(&store), [], "a home without a log");
        store.append(vec![removed("w", "ada")]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.folder), mode(&store.file(0))), (0o700, 0o600));
        let precious = folder.path().join("precious");
        fs::rename(store.file(0), &precious).unwrap();
        std::os::unix::fs::symlink(&precious, store.file(0)).unwrap();
        let before = fs::read(&precious).unwrap();
        store.append(vec![removed("w", "bob")]).unwrap_err();
        store.read(&AuditQuery::default()).unwrap_err();
        assert_eq!(fs::read(&precious).unwrap(), before);
    }
}
