//! The named volumes that count: those that there are, and those that are being made.
//!
//! Which there are, the engine says; a row is there so that of many who make one at once, in whatever processes, no more get one than
//! there is room for. Rows are brought to what the engine has whenever it was asked anyway, so none that is wrong stays.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Store, accounts};
use crate::{error::Result, policy::Quota};

/// Whose a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountedVolume {
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) team: Option<String>,
}

/// One that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeRow {
    /// No other row ever has it.
    pub(crate) number: i64,
    pub(crate) volume: CountedVolume,
    /// The host process that makes it; absent when it is made.
    pub(crate) maker: Option<String>,
}

/// In what the rows differ from what the engine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeChanges {
    /// Rows of what isn't there any more.
    pub(crate) gone: Vec<i64>,
    /// What is there and has no row: made by a host of before, or by one whose store was lost.
    pub(crate) found: Vec<CountedVolume>,
}

impl Store {
    /// All rows.
    pub(crate) async fn volumes(&self) -> Result<Vec<VolumeRow>> {
        self.call(|connection| {
            let mut statement = connection.prepare_cached("SELECT number, name, owner, team, maker FROM volumes")?;
            let rows = statement.query_map([], |row| {
                let volume = CountedVolume { name: row.get("name")?, owner: row.get("owner")?, team: row.get("team")? };
                Ok(VolumeRow { number: row.get("number")?, volume, maker: row.get("maker")? })
            })?;
            rows.collect()
        })
        .await
    }

    /// Brings the rows to what the engine has.
    pub(crate) async fn change_volumes(&self, changes: VolumeChanges) -> Result<()> {
        if changes == VolumeChanges::default() {
            return Ok(());
        }
        self.write(move |connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            change(&transaction, &changes)?;
            transaction.commit()
        })
        .await
    }

    /// Brings the rows to what the engine has, and adds one for a volume that this process is about to make. None where there is one of
    /// that name.
    ///
    /// # Errors
    /// `Quota` when its accounts have no room for it.
    pub(crate) async fn add_volume(
        &self,
        changes: VolumeChanges,
        volume: CountedVolume,
        maker: String,
    ) -> Result<Option<i64>> {
        let rules = self.policy.clone();
        let added = self.write(move |connection| {
            // Who else asks waits, whatever process it is: between counting and writing nobody comes.
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            change(&transaction, &changes)?;
            // Before the new one is there.
            let room = accounts::admit_volume(&transaction, &rules, volume.owner.as_deref(), volume.team.as_deref())?;
            let number = insert(&transaction, &volume, Some(&maker))?;
            // That there is one of the name comes before that there is no room.
            if let (Some(_), Err(quota)) = (number, room) {
                return Ok(Err::<_, Quota>(quota));
            }
            transaction.commit()?;
            Ok(Ok(number))
        });
        Ok(added.await??)
    }

    /// It is made.
    pub(crate) async fn volume_made(&self, number: i64) -> Result<()> {
        self.write(move |connection| {
            let line = "UPDATE volumes SET maker = NULL WHERE number = ?";
            connection.prepare_cached(line)?.execute([number]).map(drop)
        })
        .await
    }

    /// It isn't there any more.
    pub(crate) async fn forget_volume(&self, number: i64) -> Result<()> {
        self.change_volumes(VolumeChanges { gone: vec![number], found: Vec::new() }).await
    }
}

fn change(connection: &Connection, changes: &VolumeChanges) -> rusqlite::Result<()> {
    for number in &changes.gone {
        connection.prepare_cached("DELETE FROM volumes WHERE number = ?")?.execute([number])?;
    }
    for volume in &changes.found {
        insert(connection, volume, None)?;
    }
    Ok(())
}

fn insert(connection: &Connection, volume: &CountedVolume, maker: Option<&str>) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "INSERT INTO volumes (name, owner, team, maker) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (name) DO NOTHING RETURNING number",
        )?
        .query_row(params![volume.name, volume.owner, volume.team, maker], |row| row.get(0))
        .optional()
}
