//! The store's file: opened, made, brought to this version, and what its errors mean.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::{Error, ErrorKind, Result};

/// How the tables look; a file of a newer version is left alone.
const VERSION: i64 = 2;
/// Says in the file's head whose it is: `core`.
const APPLICATION: i64 = 0x636f_7265;

const TABLES: &str = "
    CREATE TABLE workspaces (
        id TEXT PRIMARY KEY NOT NULL,
        owner TEXT UNIQUE,
        state TEXT NOT NULL,
        reason TEXT,
        engine TEXT NOT NULL,
        container TEXT,
        instance TEXT NOT NULL,
        recipe TEXT NOT NULL,
        archive TEXT,
        created TEXT NOT NULL,
        entered_at TEXT NOT NULL,
        generation INTEGER NOT NULL,
        actor TEXT,
        policy TEXT
    ) STRICT, WITHOUT ROWID;
";

/// Since version 2: what owners and teams may have, and by whom workspaces are counted.
const ACCOUNTS: &str = "
    CREATE TABLE accounts (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        plan TEXT,
        totals TEXT,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX workspaces_by_owner ON workspaces (iif(json_valid(recipe), json_extract(recipe, '$.owner'), NULL));
    CREATE INDEX workspaces_by_team ON workspaces (iif(json_valid(recipe), json_extract(recipe, '$.team'), NULL));
";

/// What a file that is new, since the one before it was lost, is yet to be told once. Files of before have it without it.
const LOOKED: &str = "CREATE TABLE IF NOT EXISTS looked (at TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;";

/// Which network has which addresses. Files of before have it without it.
const SUBNETS: &str = "CREATE TABLE IF NOT EXISTS subnets (network TEXT PRIMARY KEY NOT NULL, subnet TEXT NOT NULL UNIQUE) STRICT, WITHOUT ROWID;";

/// Which isolation mode a team has. Files of before have it without it.
const ISOLATION: &str =
    "CREATE TABLE IF NOT EXISTS isolation (team TEXT PRIMARY KEY NOT NULL, mode TEXT NOT NULL) STRICT, WITHOUT ROWID;";

/// Which named volumes count. Files of before have it without it.
const VOLUMES: &str = "
    CREATE TABLE IF NOT EXISTS volumes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        owner TEXT,
        team TEXT,
        maker TEXT
    ) STRICT;
";

/// Between two attempts at what another process has locked while it opens the file.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens the file of a home folder, making it where there is none. `patience` is how long others may hold it.
pub(super) fn open(path: &Path, patience: Duration) -> Result<Connection> {
    // SQLite would make it readable by others.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(path, &error)),
        _ => {}
    }
    let until = Instant::now() + patience;
    loop {
        match attempt(path, patience) {
            // Changing the journal's mode doesn't wait for others by itself.
            Err(error) if is_locked(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
            Err(error) => return Err(explain(path, error)),
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(foreign)) => return Err(foreign),
        }
    }
}

fn attempt(path: &Path, patience: Duration) -> rusqlite::Result<Result<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    let shown = path.display();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    match (number("application_id")?, number("user_version")?, number("schema_version")?) {
        // Nobody has written to it.
        (0, 0, 0) => {
            transaction.execute_batch(TABLES)?;
            transaction.execute_batch(ACCOUNTS)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (APPLICATION, VERSION, _) => {}
        (APPLICATION, 1, _) => {
            transaction.execute_batch(ACCOUNTS)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (APPLICATION, version, _) => {
            let message =
                format!("the state store {shown} is of version {version}; this corehold knows version {VERSION}");
            return Ok(Err(
                Error::new(ErrorKind::Invalid, message).hint("upgrade corehold, or use another COREHOLD_HOME")
            ));
        }
        _ => {
            let message = format!("{shown} is a database, but not the state store of corehold");
            return Ok(Err(Error::new(ErrorKind::Invalid, message).hint("move it away, or use another COREHOLD_HOME")));
        }
    }
    transaction.execute_batch(LOOKED)?;
    transaction.execute_batch(SUBNETS)?;
    transaction.execute_batch(ISOLATION)?;
    transaction.execute_batch(VOLUMES)?;
    transaction.commit()?;
    // Readers and a writer don't wait for each other, and a write needs no sync: see `Durability` for those that do.
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        connection.pragma_update(None, "journal_mode", "WAL")?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(Ok(connection))
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("the state store {} can't be used: {error}", path.display()))
        .hint("the state folder must be writable by this user; COREHOLD_HOME names another one")
}

/// What an error of SQLite means for whoever uses this library: which file, and what to do.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> Error {
    let shown = path.display();
    let (kind, what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Timeout,
            format!("the state store {shown} is locked by another process"),
            format!("`fuser {shown}` says by which; try again when it is done"),
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            ErrorKind::Io,
            format!("the state store {shown} can't be written"),
            "its folder and files must be writable by this user; COREHOLD_HOME names another folder".to_owned(),
        ),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::Io,
            format!("the state store {shown} can't be opened"),
            "it must be a file in a folder that is writable by this user; COREHOLD_HOME names another folder"
                .to_owned(),
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::DiskFull,
            format!("the disk of the state store {shown} is full"),
            "free some space and try again; nothing is lost".to_owned(),
        ),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Invalid,
            format!("the state store {shown} is damaged"),
            format!(
                "move it away (`mv {shown} {shown}.damaged`, with its -wal and -shm): workspaces that have a container are \
                 found again, and so are those that sleep, by their archives; owners of those that don't, and variables, are lost"
            ),
        ),
        _ => (ErrorKind::Io, format!("the state store {shown} failed"), String::new()),
    };
    let told = Error::new(kind, format!("{what}: {error}")).caused_by(error);
    if hint.is_empty() { told } else { told.hint(hint) }
}
