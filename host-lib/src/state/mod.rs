//! The durable store: what neither labels nor archives can say of a workspace, shared by the host processes of one home folder.
//!
//! The engine tells what runs, the archive store what sleeps; here stands what changes (owner, state, policy) and who changes it.
//! An entry is changed by compare-and-set on its `generation`, so of two who begin a transition at once one wins. A host that dies in the
//! middle leaves its name as the `actor`; `process` tells the living from the dead. What is written here may be behind what is true:
//! `life` decides what to believe.
//!
//! A write survives the death of the process, and with [`Durability::Disk`] the loss of power too.

mod accounts;
mod entry;
mod process;
mod schema;
mod subnets;
#[cfg(test)]
pub(crate) mod tests;
mod volumes;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, named_params};
use serde::Serialize;

pub(crate) use self::{
    entry::{Dev, Entry, Recipe},
    process::HostProcess,
    volumes::{CountedVolume, VolumeChanges},
};
use crate::{
    blocking::blocking,
    error::Result,
    idle::Field,
    life::WorkspaceState,
    policy::{Policy, Quota},
    runtime::Resources,
    workspace::WorkspaceId,
};

/// How long another process may hold the file. Its writes take a fraction of a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a write is to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the process, in whatever way.
    Process,
    /// The loss of power: for what nothing else says.
    Disk,
}

/// Why an entry could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There is a workspace of that name.
    Id,
    /// The owner has a workspace.
    Owner,
}

/// The store of a home folder. Clones share one connection; calls wait for each other, off the runtime.
#[derive(Clone)]
pub(crate) struct Store {
    path: Arc<PathBuf>,
    connection: Arc<Mutex<Connection>>,
    policy: Arc<Policy>,
    #[cfg(test)]
    pub(crate) faults: Arc<tests::WriteFaults>,
}

impl Store {
    /// Opens the store, making it where there is none. Blocks.
    ///
    /// # Errors
    /// `Invalid` when it is damaged, of a newer version or somebody else's; `Timeout` when it is locked; `Io` otherwise. Each names the
    /// file and what to do.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        Self::open_with(home, PATIENCE)
    }

    fn open_with(home: &Path, patience: Duration) -> Result<Self> {
        let path = home.join("state.db");
        let connection = schema::open(&path, patience)?;
        Ok(Self {
            path: Arc::new(path),
            connection: Arc::new(Mutex::new(connection)),
            policy: Arc::default(),
            #[cfg(test)]
            faults: Arc::default(),
        })
    }

    /// The same with rules for what may be had.
    pub(crate) fn ruled_by(self, policy: Arc<Policy>) -> Self {
        Self { policy, ..self }
    }

    /// Adds an entry. Its generation is to be 0.
    ///
    /// # Errors
    /// `Quota` when its accounts have no room for it.
    pub(crate) async fn insert(&self, entry: Entry) -> Result<Result<(), Taken>> {
        let policy = entry.policy.as_ref().map(entry::to_json).transpose();
        let rules = self.policy.clone();
        let inserted = self.write(move |connection| {
            let policy = policy?;
            let columns = entry::COLUMNS;
            let add = || {
                entry.write(|values| {
                    let mut all = values.to_vec();
                    all.extend_from_slice(&[(":owner", &entry.owner), (":policy", &policy)]);
                    connection
                        .prepare_cached(&format!(
                            "INSERT INTO workspaces ({columns}) VALUES (:id, :owner, :state, :reason, :engine, :container, \
                             :instance, :recipe, :archive, :created, :entered_at, :generation, :actor, :policy) \
                             ON CONFLICT DO NOTHING"
                        ))?
                        .execute(all.as_slice())
                })
            };
            let added = match accounts::admitted(connection, &rules, &entry, add, |added| *added == 1)? {
                Ok(added) => added,
                Err(quota) => return Ok(Err(quota)),
            };
            if added == 1 {
                return Ok(Ok(Ok(())));
            }
            let id = entry.id.as_str();
            let same = connection.query_row("SELECT count(*) FROM workspaces WHERE id = ?", [id], |row| row.get(0));
            Ok(Ok(Err(if same? { Taken::Id } else { Taken::Owner })))
        });
        Ok(inserted.await??)
    }

    /// The entry of a workspace.
    pub(crate) async fn get(&self, id: &WorkspaceId) -> Result<Option<Entry>> {
        self.one("id", id.to_string()).await
    }

    /// The entry of an owner's workspace.
    pub(crate) async fn by_owner(&self, owner: &str) -> Result<Option<Entry>> {
        self.one("owner", owner.to_owned()).await
    }

    /// The entry whose container this is.
    pub(crate) async fn by_container(&self, container: &str) -> Result<Option<Entry>> {
        self.one("container", container.to_owned()).await
    }

    async fn one(&self, column: &'static str, value: String) -> Result<Option<Entry>> {
        self.call(move |connection| {
            let columns = entry::COLUMNS;
            let mut statement =
                connection.prepare_cached(&format!("SELECT {columns} FROM workspaces WHERE {column} = ?"))?;
            statement.query_row([value], Entry::read).optional()
        })
        .await
    }

    /// All entries that can be read, by their names. One that somebody damaged hides no other.
    pub(crate) async fn all(&self) -> Result<Vec<Entry>> {
        self.call(|connection| {
            let columns = entry::COLUMNS;
            let mut statement = connection.prepare_cached(&format!("SELECT {columns} FROM workspaces ORDER BY id"))?;
            let mut rows = statement.query([])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                match Entry::read(row) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => tracing::warn!(%error, "an entry of the state store can't be read"),
                }
            }
            Ok(entries)
        })
        .await
    }

    /// Writes what became of an entry, unless somebody has changed it since it was read: then none. The owner and the policy stay.
    ///
    /// # Errors
    /// `Quota` when it is to run again and its accounts have no room for that.
    pub(crate) async fn put(&self, entry: Entry, durability: Durability) -> Result<Option<Entry>> {
        let rules = self.policy.clone();
        let put = self.write(move |connection| {
            let put = || update(connection, &entry);
            match durability {
                Durability::Process if matches!(entry.state, WorkspaceState::Starting | WorkspaceState::Waking) => {
                    accounts::admitted(connection, &rules, &entry, put, Option::is_some)
                }
                Durability::Process => put().map(Ok),
                Durability::Disk => {
                    connection.pragma_update(None, "synchronous", "FULL")?;
                    let result = put();
                    connection.pragma_update(None, "synchronous", "NORMAL")?;
                    result.map(Ok::<_, Quota>)
                }
            }
        });
        Ok(put.await??)
    }

    /// Writes other limits of an entry, unless somebody has changed it since it was read: then none. `before` are those that it has.
    ///
    /// # Errors
    /// `Quota` when its accounts have no room for what is more.
    pub(crate) async fn put_limits(&self, entry: Entry, before: Resources) -> Result<Option<Entry>> {
        let rules = self.policy.clone();
        let put = self.write(move |connection| {
            accounts::regranted(connection, &rules, &entry, &before, || update(connection, &entry))
        });
        Ok(put.await??)
    }

    /// Writes one of the things that stand beside a workspace's state, and leaves the others as they are. No transition is disturbed by
    /// it. Says whether there is such a workspace.
    pub(crate) async fn set_policy(&self, id: &WorkspaceId, field: Field, value: &impl Serialize) -> Result<bool> {
        let (id, path, value) = (id.to_string(), format!("$.{}", field.as_str()), entry::to_json(value));
        self.write(move |connection| {
            let values = named_params! { ":id": id, ":path": path, ":value": value? };
            connection
                .prepare_cached(
                    "UPDATE workspaces SET policy = json_set(coalesce(policy, '{}'), :path, json(:value)) WHERE id = :id",
                )?
                .execute(values)
                .map(|changed| changed == 1)
        })
        .await
    }

    /// Whether it was looked since this store was made which workspaces sleep.
    pub(crate) async fn knows_sleepers(&self) -> Result<bool> {
        self.call(|connection| {
            connection.query_row("SELECT count(*) FROM looked WHERE at = 'sleepers'", [], |row| row.get(0))
        })
        .await
    }

    /// It was.
    pub(crate) async fn set_knows_sleepers(&self) -> Result<()> {
        self.write(|connection| {
            connection.execute("INSERT INTO looked (at) VALUES ('sleepers') ON CONFLICT DO NOTHING", []).map(|_| ())
        })
        .await
    }

    /// Removes an entry, unless somebody has changed it since it was read. Says whether it is gone.
    pub(crate) async fn delete(&self, entry: &Entry) -> Result<bool> {
        let (id, generation) = (entry.id.to_string(), entry.generation);
        self.write(move |connection| {
            let values = named_params! { ":id": id, ":generation": generation };
            connection
                .prepare_cached("DELETE FROM workspaces WHERE id = :id AND generation = :generation")?
                .execute(values)
                .map(|deleted| deleted == 1)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        #[cfg(test)]
        self.faults.strike().map_err(|error| schema::explain(&self.path, error))?;
        self.call(work).await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (connection, path) = (self.connection.clone(), self.path.clone());
        let done = blocking("the state store", move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&connection).map_err(|error| schema::explain(&path, error))
        });
        done.await?
    }
}

/// Writes an entry, unless somebody has changed it since it was read.
fn update(connection: &Connection, entry: &Entry) -> rusqlite::Result<Option<Entry>> {
    let columns = entry::COLUMNS;
    entry.write(|values| {
        connection
            .prepare_cached(&format!(
                "UPDATE workspaces SET state = :state, reason = :reason, engine = :engine, container = :container, \
                 instance = :instance, recipe = :recipe, archive = :archive, created = :created, \
                 entered_at = :entered_at, actor = :actor, generation = generation + 1 \
                 WHERE id = :id AND generation = :generation RETURNING {columns}"
            ))?
            .query_row(values, Entry::read)
            .optional()
    })
}
