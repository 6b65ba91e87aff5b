//! What the store holds, and everything that can be wrong with its file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use corehold_types::Timestamp;
use rusqlite::{TransactionBehavior, ffi};

use super::*;
use crate::{error::ErrorKind, life::WorkspaceState};

/// Writes that fail, as where the disk is full: those with these numbers, counted from 0.
#[derive(Default)]
pub(crate) struct WriteFaults {
    writes: AtomicUsize,
    failing: Mutex<Option<std::ops::Range<usize>>>,
}

impl WriteFaults {
    /// Counts from 0 from now on.
    pub(crate) fn fail(&self, writes: Option<std::ops::Range<usize>>) {
        self.writes.store(0, Ordering::Relaxed);
        *self.failing.lock().unwrap() = writes;
    }

    /// How many writes there were.
    pub(crate) fn count(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// What the next write comes to.
    pub(super) fn strike(&self) -> rusqlite::Result<()> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let failing = self.failing.lock().unwrap();
        match failing.as_ref().is_some_and(|failing| failing.contains(&number)) {
            true => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)),
            false => Ok(()),
        }
    }
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.parse().unwrap(),
        owner: None,
        state: WorkspaceState::Ready,
        reason: None,
        engine: "engine".to_owned(),
        container: Some(format!("container-of-{id}")),
        instance: "i".to_owned(),
        recipe: Recipe {
            template: Some("web".into()),
            env: [("A".into(), "\"'\0ä".into())].into(),
            ..Recipe::default()
        },
        archive: None,
        created: Timestamp::from_unix(1_700_000_000, 123_456_789),
        entered_at: Timestamp::from_unix(1_700_000_001, 0),
        generation: 0,
        actor: None,
        policy: Some(serde_json::json!({"pauseAfterMs": 1})),
    }
}

fn open(home: &Path) -> Result<Store> {
    Store::open_with(home, Duration::from_millis(50))
}

#[tokio::test]
async fn what_is_written_is_read_back_by_whoever_opens_it() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (open(home.path()).unwrap(), open(home.path()).unwrap());
    let owned =
        Entry { owner: Some("ada".into()), reason: Some("why".into()), archive: Some("w/1".into()), ..entry("b") };
    for entry in [entry("a"), owned.clone()] {
        assert_eq!(one.insert(entry).await.unwrap(), Ok(()));
    }
    assert_eq!(other.all().await.unwrap(), [entry("a"), owned.clone()]);
    assert_eq!(other.get(&owned.id).await.unwrap(), Some(owned.clone()));
    assert_eq!(other.by_owner("ada").await.unwrap(), Some(owned.clone()));
    assert_eq!(other.by_container("container-of-b").await.unwrap(), Some(owned));
    assert_eq!((other.by_owner("").await.unwrap(), other.by_container("c").await.unwrap()), (None, None));
    let mode = |name: &str| fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state.db"), mode("state.db-wal")), (0o600, 0o600), "it holds secrets");
}

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_to_this_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("version-1.sql")).unwrap();
    drop(old);
    let store = open(home.path()).unwrap();
    let found = store.get(&"old".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((found.owner.as_deref(), found.recipe.memory_bytes), (Some("ada"), Some(1 << 29)));
    assert_eq!((found.recipe.owner, found.state), (None, WorkspaceState::Asleep));
    let account = crate::policy::Account::Owner("ada".to_owned());
    store.set_plan(&account, Some("pro".to_owned())).await.unwrap();
    drop(store);
    let store = open(home.path()).unwrap();
    assert_eq!(store.account(&account).await.unwrap().plan.as_deref(), Some("pro"));
    assert_eq!(store.insert(entry("new")).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_name_and_an_owner_are_given_once() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).unwrap();
    let owned = |id: &str| Entry { owner: Some("ada".into()), ..entry(id) };
    assert_eq!(store.insert(owned("a")).await.unwrap(), Ok(()));
    assert_eq!(store.insert(entry("a")).await.unwrap(), Err(Taken::Id));
    assert_eq!(store.insert(owned("b")).await.unwrap(), Err(Taken::Owner));
    assert_eq!(store.insert(entry("b")).await.unwrap(), Ok(()), "those without an owner don't collide");
    assert_eq!(store.insert(entry("c")).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn of_those_who_change_what_they_read_one_wins() {
    let home = tempfile::tempdir().unwrap();
    let stores = [open(home.path()).unwrap(), open(home.path()).unwrap()];
    stores[0].insert(entry("a")).await.unwrap().unwrap();
    let read = entry("a");
    let attempts = (0..16).map(|number| {
        let wanted = Entry { actor: Some(format!("host{number}")), ..read.clone() };
        let durability = if number % 2 == 0 { Durability::Process } else { Durability::Disk };
        stores[number % 2].put(wanted, durability)
    });
    let won: Vec<Entry> =
        futures_util::future::join_all(attempts).await.into_iter().filter_map(Result::unwrap).collect();
    let [winner] = won.as_slice() else { panic!("{won:?}") };
    assert_eq!((winner.generation, &winner.policy), (1, &read.policy));
    assert_eq!(stores[0].get(&read.id).await.unwrap().as_ref(), Some(winner));
    assert!(!stores[1].delete(&read).await.unwrap(), "it was changed since it was read");
    assert!(stores[1].delete(winner).await.unwrap());
    assert_eq!(stores[0].all().await.unwrap(), []);
}

#[tokio::test]
async fn an_entry_that_somebody_damaged_hides_no_other() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).unwrap();
    for id in ["a", "b", "c"] {
        store.insert(entry(id)).await.unwrap().unwrap();
    }
    store
        .call(|connection| {
            connection.execute("UPDATE workspaces SET state = 'flying' WHERE id = 'a'", [])?;
            connection.execute("UPDATE workspaces SET recipe = '{' WHERE id = 'b'", [])
        })
        .await
        .unwrap();
    assert_eq!(store.all().await.unwrap(), [entry("c")]);
    let error = store.get(&"a".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("state.db") && error.to_string().contains("flying"), "{error}");
}

/// Says what is wrong, names the file, and what to do.
fn refused(result: Result<Store>, kind: ErrorKind, says: &str, hint: &str) {
    let error = result.err().expect("it can't be used");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains("state.db") && error.to_string().contains(says), "{error}");
    assert!(error.hint_text().is_some_and(|text| text.contains(hint)), "{error:?}");
}

#[tokio::test]
async fn a_damaged_file_is_said_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let garbage = b"no database at all, and long enough to have a head of a hundred bytes. ".repeat(100);
    fs::write(&path, &garbage).unwrap();
    refused(open(home.path()), ErrorKind::Invalid, "is damaged", "mv ");
    assert_eq!(fs::read(&path).unwrap(), garbage, "it is never made anew");

    // Damaged in the middle: met by whoever reads there.
    fs::remove_file(&path).unwrap();
    let store = open(home.path()).unwrap();
    for number in 0..100 {
        store.insert(entry(&format!("w{number}"))).await.unwrap().unwrap();
    }
    store.call(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await.unwrap();
    drop(store);
    let mut content = fs::read(&path).unwrap();
    let from = content.len() / 3;
    content[from..].fill(0xa5);
    fs::write(&path, content).unwrap();
    let error = match open(home.path()) {
        Ok(store) => store.all().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.hint_text().unwrap().contains("mv "), "{error:?}");
}

#[tokio::test]
async fn a_file_of_a_newer_version_or_of_somebody_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).unwrap();
    store.call(|connection| connection.pragma_update(None, "user_version", 3)).await.unwrap();
    drop(store);
    refused(open(home.path()), ErrorKind::Invalid, "is of version 3", "upgrade corehold");

    fs::remove_file(home.path().join("state.db")).unwrap();
    let foreign = Connection::open(home.path().join("state.db")).unwrap();
    foreign.execute_batch("CREATE TABLE holidays (day TEXT)").unwrap();
    drop(foreign);
    refused(open(home.path()), ErrorKind::Invalid, "not the state store", "move it away");
}

#[tokio::test]
async fn a_file_that_others_hold_is_waited_for_and_then_said() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).unwrap();
    store.insert(entry("a")).await.unwrap().unwrap();
    let mut other = Connection::open(home.path().join("state.db")).unwrap();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let error = store.insert(entry("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.hint_text().unwrap().contains("fuser"), "{error:?}");
    assert_eq!(store.all().await.unwrap(), [entry("a")], "readers wait for nobody");
    refused(open(home.path()), ErrorKind::Timeout, "locked", "fuser");
    lock.commit().unwrap();
    assert_eq!(store.insert(entry("b")).await.unwrap(), Ok(()), "and it goes on");
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).unwrap();
    store.insert(entry("a")).await.unwrap().unwrap();
    let pages = |pages: i64| {
        store.call(move |connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
        })
    };
    pages(1).await.unwrap();
    let large =
        Entry { recipe: Recipe { env: [("A".into(), "x".repeat(1 << 20))].into(), ..Recipe::default() }, ..entry("b") };
    let error = store.insert(large.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(
        error.to_string().contains("is full") && error.hint_text().unwrap().contains("free some space"),
        "{error:?}"
    );
    assert_eq!(store.all().await.unwrap(), [entry("a")]);
    pages(1 << 20).await.unwrap();
    assert_eq!(store.insert(large).await.unwrap(), Ok(()), "once there is room it goes on");
}

/// In a thread that the kernel takes for nobody in particular, whoever runs the tests.
fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        // SAFETY: it takes a number and changes nothing but this thread.
        unsafe { libc::setfsuid(65_534) };
        work()
    });
    thread.join().unwrap()
}

#[test]
fn a_file_that_cant_be_written_is_said() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()).unwrap());
    let path = home.path().to_owned();
    let folder = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let file = path.join("state.db");
    for (mode, says) in [(0o444, "can't be written"), (0o000, "can't be opened")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        folder(0o555);
        let home = path.clone();
        refused(as_nobody(move || open(&home)), ErrorKind::Io, says, "writable");
    }
    folder(0o755);
    fs::remove_file(&file).unwrap();
    folder(0o555);
    let home = path.clone();
    refused(as_nobody(move || open(&home)), ErrorKind::Io, "can't be used", "writable");
    folder(0o755);
    fs::create_dir(&file).unwrap();
    refused(open(&path), ErrorKind::Io, "can't be opened", "must be a file");
}

/// A link could lead the secrets elsewhere.
#[test]
fn a_link_in_its_place_is_not_followed() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(home.path().join("elsewhere"), home.path().join("state.db")).unwrap();
    assert_eq!(open(home.path()).err().unwrap().kind(), ErrorKind::Io);
    assert!(!home.path().join("elsewhere").exists());
}

#[tokio::test]
async fn many_that_open_it_at_once_end_with_the_same() {
    let home = tempfile::tempdir().unwrap();
    let stores: Vec<Store> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::open(home.path()).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let inserts = stores.iter().enumerate().map(|(number, store)| store.insert(entry(&format!("w{number}"))));
    assert!(futures_util::future::join_all(inserts).await.into_iter().all(|done| done.unwrap().is_ok()));
    assert_eq!(stores[0].all().await.unwrap().len(), 8);
}

#[test]
fn what_else_fails_is_an_error_of_the_file() {
    let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None);
    let error = schema::explain(Path::new("/home/state.db"), failure);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("/home/state.db"), "{error}");
}
