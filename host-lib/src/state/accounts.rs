//! What owners, teams and the host have: counted where it is changed.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, named_params, params};

use super::{Entry, Store, entry};
use crate::{
    error::Result,
    life::WorkspaceState,
    policy::{Account, Asked, Policy, Quota, StoredAccount, Totals},
    runtime::Resources,
};

/// The states in which nothing of a workspace can run: they take no memory and no CPU.
const AT_REST: &str = "'stopped', 'asleep', 'failed', 'removed'";
/// Those in which it has no container either, and so nothing on the engine's disk.
const AWAY: &str = "'asleep', 'removed'";

/// What a recipe says, by a path. A damaged one says nothing. Indexes have the same words.
fn of_recipe(path: &str) -> String {
    format!("iif(json_valid(recipe), json_extract(recipe, '$.{path}'), NULL)")
}

/// What stands in the columns for an account.
fn key(account: &Account) -> (&'static str, &str) {
    match account {
        Account::Owner(name) => ("owner", name),
        Account::Team(name) => ("team", name),
        Account::Host => ("host", ""),
    }
}

impl Store {
    pub(crate) async fn account(&self, account: &Account) -> Result<StoredAccount> {
        let account = account.clone();
        self.call(move |connection| stored(connection, &account)).await
    }

    /// What an account has, and what is stored of it.
    pub(crate) async fn usage(&self, account: &Account) -> Result<(StoredAccount, Totals)> {
        let account = account.clone();
        self.call(move |connection| {
            let volumes = Some(volumes(connection, &account)?);
            Ok((stored(connection, &account)?, Totals { volumes, ..used(connection, &account, "")? }))
        })
        .await
    }

    pub(crate) async fn set_plan(&self, account: &Account, plan: Option<String>) -> Result<()> {
        self.set_account(account, "plan", plan).await
    }

    pub(crate) async fn set_totals(&self, account: &Account, totals: Option<Totals>) -> Result<()> {
        let totals = totals.map(|totals| serde_json::to_string(&totals)).transpose();
        let totals = totals.map_err(|error| crate::Error::new(crate::ErrorKind::Invalid, error.to_string()))?;
        self.set_account(account, "totals", totals).await
    }

    /// The isolation mode of a team; one that has none gets this one, and keeps it.
    pub(crate) async fn isolation(&self, team: &str, default: &str) -> Result<String> {
        let (team, default) = (team.to_owned(), default.to_owned());
        self.call(move |connection| {
            let get = || {
                connection
                    .prepare_cached("SELECT mode FROM isolation WHERE team = ?")?
                    .query_row([&team], |row| row.get(0))
                    .optional()
            };
            if let Some(mode) = get()? {
                return Ok(mode);
            }
            connection
                .prepare_cached("INSERT INTO isolation (team, mode) VALUES (?, ?) ON CONFLICT DO NOTHING")?
                .execute([&team, &default])?;
            // Somebody may have been faster.
            Ok(get()?.unwrap_or(default))
        })
        .await
    }

    pub(crate) async fn set_isolation(&self, team: &str, mode: Option<String>) -> Result<()> {
        let team = team.to_owned();
        self.call(move |connection| {
            let changed = match mode {
                Some(mode) => connection
                    .prepare_cached(
                        "INSERT INTO isolation (team, mode) VALUES (?1, ?2) ON CONFLICT (team) DO UPDATE SET mode = excluded.mode",
                    )?
                    .execute([&team, &mode]),
                None => connection.prepare_cached("DELETE FROM isolation WHERE team = ?")?.execute([&team]),
            };
            changed.map(|_| ())
        })
        .await
    }

    async fn set_account(&self, account: &Account, column: &'static str, value: Option<String>) -> Result<()> {
        let account = account.clone();
        self.call(move |connection| {
            let (kind, name) = key(&account);
            let line = format!(
                "INSERT INTO accounts (kind, name, {column}) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (kind, name) DO UPDATE SET {column} = excluded.{column}"
            );
            connection.prepare_cached(&line)?.execute(params![kind, name, value])?;
            connection
                .prepare_cached(
                    "DELETE FROM accounts WHERE kind = ?1 AND name = ?2 AND plan IS NULL AND totals IS NULL",
                )?
                .execute(params![kind, name])
                .map(|_| ())
        })
        .await
    }
}

fn stored(connection: &Connection, account: &Account) -> rusqlite::Result<StoredAccount> {
    let (kind, name) = key(account);
    let row = connection
        .prepare_cached("SELECT plan, totals FROM accounts WHERE kind = ?1 AND name = ?2")?
        .query_row(params![kind, name], |row| {
            Ok(StoredAccount { plan: row.get("plan")?, totals: entry::from_json(row, "totals")? })
        });
    Ok(row.optional()?.unwrap_or_default())
}

/// What an account has of workspaces, but for one.
fn used(connection: &Connection, account: &Account, without: &str) -> rusqlite::Result<Totals> {
    let (whose, name) = match account {
        Account::Owner(name) => (of_recipe("owner"), name.as_str()),
        Account::Team(name) => (of_recipe("team"), name.as_str()),
        Account::Host => ("''".to_owned(), ""),
    };
    let sum = |path, without: &str| {
        let amount = of_recipe(path);
        format!("coalesce(sum(CASE WHEN state NOT IN ({without}) THEN {amount} END), 0)")
    };
    let (memory, cpu, disk) = (sum("memoryBytes", AT_REST), sum("cpuMillis", AT_REST), sum("diskBytes", AWAY));
    let line = format!(
        "SELECT count(*), {memory}, {cpu}, {disk} FROM workspaces WHERE {whose} = :name AND id <> :without AND state <> 'removed'"
    );
    let values = named_params! { ":name": name, ":without": without };
    connection.prepare_cached(&line)?.query_row(values, |row| {
        let amount = |column: usize| row.get::<_, i64>(column).map(|amount| Some(amount.unsigned_abs()));
        Ok(Totals::of(amount(0)?, amount(1)?, amount(2)?, amount(3)?))
    })
}

/// How many named volumes an account has, those that are being made included.
fn volumes(connection: &Connection, account: &Account) -> rusqlite::Result<u64> {
    let (whose, name) = match account {
        Account::Owner(name) => ("owner", name.as_str()),
        Account::Team(name) => ("team", name.as_str()),
        Account::Host => ("''", ""),
    };
    let line = format!("SELECT count(*) FROM volumes WHERE {whose} = ?");
    connection.prepare_cached(&line)?.query_row([name], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// Whether there is room for one more volume. In the transaction that adds it.
pub(super) fn admit_volume(
    transaction: &Transaction<'_>,
    policy: &Policy,
    owner: Option<&str>,
    team: Option<&str>,
) -> rusqlite::Result<Result<(), Quota>> {
    let owner = owner.map(|name| Account::Owner(name.to_owned()));
    let team = team.map(|name| Account::Team(name.to_owned()));
    for account in [owner, team, Some(Account::Host)].into_iter().flatten() {
        let stored = stored(transaction, &account)?;
        let totals = policy.totals_of(&account, &stored);
        if let Err(quota) = totals.admit_volume(&account, volumes(transaction, &account)?) {
            return Ok(Err(of_plan(quota, policy, &stored)));
        }
    }
    Ok(Ok(()))
}

/// With the plan that an owner's totals are of.
fn of_plan(mut quota: Quota, policy: &Policy, stored: &StoredAccount) -> Quota {
    if let Account::Owner(_) = quota.account {
        quota.plan = policy.plan_of(stored.plan.as_deref()).map(|plan| plan.name.clone());
    }
    quota
}

/// Whether an entry that is to be added, or to run again, has room, by the totals that count. In the transaction that writes it.
fn admit(
    transaction: &Transaction<'_>,
    policy: &Policy,
    entry: &Entry,
    workspaces: u64,
    counts: impl Fn(Totals) -> Totals,
) -> rusqlite::Result<Result<(), Quota>> {
    let recipe = &entry.recipe;
    let asked = Asked {
        workspaces,
        memory_bytes: recipe.memory_bytes,
        cpu_millis: recipe.cpu_millis,
        disk_bytes: recipe.disk_bytes,
    };
    let owner = recipe.owner.clone().map(Account::Owner);
    let team = recipe.team.clone().map(Account::Team);
    for account in [owner, team, Some(Account::Host)].into_iter().flatten() {
        let stored = stored(transaction, &account)?;
        let totals = counts(policy.totals_of(&account, &stored));
        if totals == Totals::default() {
            continue;
        }
        if let Err(quota) = totals.admit(&account, &used(transaction, &account, entry.id.as_str())?, &asked) {
            return Ok(Err(of_plan(quota, policy, &stored)));
        }
    }
    Ok(Ok(()))
}

/// Does a write of an entry by which something may run, if there is room for it. Whether it was written, `is_written` says.
pub(super) fn admitted<T>(
    connection: &Connection,
    policy: &Policy,
    entry: &Entry,
    write: impl FnOnce() -> rusqlite::Result<T>,
    is_written: impl FnOnce(&T) -> bool,
) -> rusqlite::Result<Result<T, Quota>> {
    // Who else asks waits, whatever process it is: between counting and writing nobody comes.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let new = entry.state == WorkspaceState::Creating;
    // What runs is counted already, whatever the totals have become since.
    let adds = new || {
        let rests = format!("SELECT count(*) FROM workspaces WHERE id = ? AND state IN ({AT_REST})");
        let rests: i64 = transaction.prepare_cached(&rests)?.query_row([entry.id.as_str()], |row| row.get(0))?;
        rests > 0
    };
    let written = write()?;
    // That somebody was faster comes before that there is no room: it may be theirs that takes it.
    if is_written(&written)
        && adds
        && let Err(quota) = admit(&transaction, policy, entry, u64::from(new), |totals| totals)?
    {
        // Dropped, the transaction is undone.
        return Ok(Err(quota));
    }
    transaction.commit()?;
    Ok(Ok(written))
}

/// Does a write of an entry by which it may use more, or less, than before. Of what doesn't grow it is not asked whether there is room: totals
/// may have become smaller since.
pub(super) fn regranted(
    connection: &Connection,
    policy: &Policy,
    entry: &Entry,
    before: &Resources,
    write: impl FnOnce() -> rusqlite::Result<Option<Entry>>,
) -> rusqlite::Result<Result<Option<Entry>, Quota>> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let written = write()?;
    let after = entry.recipe.resources();
    let grown = |totals: Totals| {
        let more = |limit: fn(&Resources) -> Option<u64>| limit(&after) > limit(before);
        Totals::of(
            None,
            totals.memory_bytes.filter(|_| more(|limits| limits.memory_bytes)),
            totals.cpu_millis.filter(|_| more(|limits| limits.cpu_millis)),
            totals.disk_bytes.filter(|_| more(|limits| limits.disk_bytes)),
        )
    };
    // What is at rest counts when it runs again, but for its disk; what is away, with that too.
    let counts = |totals: Totals| match entry.state {
        state if !state.is_at_rest() => grown(totals),
        WorkspaceState::Asleep | WorkspaceState::Removed => Totals::default(),
        _ => Totals::of(None, None, None, grown(totals).disk_bytes),
    };
    if written.is_some()
        && let Err(quota) = admit(&transaction, policy, entry, 0, counts)?
    {
        return Ok(Err(quota));
    }
    transaction.commit()?;
    Ok(Ok(written))
}
