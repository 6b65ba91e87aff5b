//! Which network has which addresses.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::Store;
use crate::{error::Result, network::Subnets, runtime::Subnet};

impl Store {
    /// The addresses of a network: those that it has, unless they are refused or of another pool now, else the first that nobody has.
    /// None when there are none.
    pub(crate) async fn subnet(
        &self,
        network: &str,
        subnets: Subnets,
        refused: BTreeSet<Subnet>,
    ) -> Result<Option<Subnet>> {
        let network = network.to_owned();
        self.write(move |connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let has = of(&transaction, &network)?;
            let fits = |subnet: &Subnet| {
                subnet.prefix() == subnets.prefix && subnet.overlaps(&subnets.pool) && !refused.contains(subnet)
            };
            if let Some(subnet) = has.filter(fits) {
                return Ok(Some(subnet));
            }
            let taken = all(&transaction, &network)?;
            let free = |subnet: &Subnet| !refused.contains(subnet) && !taken.iter().any(|other| other.overlaps(subnet));
            let subnet = subnets.pool.parts(subnets.prefix).find(free);
            if let Some(subnet) = subnet {
                transaction
                    .prepare_cached(
                        "INSERT INTO subnets (network, subnet) VALUES (?1, ?2) \
                         ON CONFLICT (network) DO UPDATE SET subnet = excluded.subnet",
                    )?
                    .execute(params![network, subnet.to_string()])?;
            }
            transaction.commit()?;
            Ok(subnet)
        })
        .await
    }

    /// Gives free the addresses of all networks but these.
    pub(crate) async fn forget_subnets(&self, but: BTreeSet<String>) -> Result<()> {
        self.write(move |connection| {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let networks: Vec<String> = transaction
                .prepare_cached("SELECT network FROM subnets")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for network in networks.iter().filter(|network| !but.contains(*network)) {
                transaction.prepare_cached("DELETE FROM subnets WHERE network = ?1")?.execute([network])?;
            }
            transaction.commit()
        })
        .await
    }
}

/// A damaged row says nothing, and is written anew.
fn of(connection: &Connection, network: &str) -> rusqlite::Result<Option<Subnet>> {
    let row = connection
        .prepare_cached("SELECT subnet FROM subnets WHERE network = ?1")?
        .query_row([network], |row| row.get::<_, String>(0));
    Ok(row.optional()?.and_then(|subnet| subnet.parse().ok()))
}

/// Those of all other networks.
fn all(connection: &Connection, but: &str) -> rusqlite::Result<Vec<Subnet>> {
    let mut statement = connection.prepare_cached("SELECT subnet FROM subnets WHERE network <> ?1")?;
    let rows = statement.query_map([but], |row| row.get::<_, String>(0))?;
    let texts: Vec<String> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(texts.iter().filter_map(|subnet| subnet.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Store;

    fn small() -> Subnets {
        Subnets::of("10.213.0.0/28".parse().unwrap(), 29)
    }

    #[tokio::test]
    async fn a_network_keeps_its_addresses_and_no_two_have_the_same() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let of = async |network: &str| store.subnet(network, small(), BTreeSet::new()).await.unwrap();
        let (anna, bob) = (of("anna").await.unwrap(), of("bob").await.unwrap());
        assert_eq!((anna.to_string(), bob.to_string()), ("10.213.0.0/29".into(), "10.213.0.8/29".into()));
        assert_eq!(of("carol").await, None, "there are two");
        let again = Store::open(home.path()).unwrap();
        assert_eq!(again.subnet("anna", small(), BTreeSet::new()).await.unwrap(), Some(anna));

        store.forget_subnets(BTreeSet::from(["anna".to_owned()])).await.unwrap();
        assert_eq!(of("carol").await, Some(bob));
        assert_eq!(of("anna").await, Some(anna));
    }

    #[tokio::test]
    async fn refused_addresses_and_those_of_another_pool_are_left() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let first = store.subnet("anna", small(), BTreeSet::new()).await.unwrap().unwrap();
        let next = store.subnet("anna", small(), BTreeSet::from([first])).await.unwrap().unwrap();
        assert_ne!(first, next);
        assert_eq!(store.subnet("anna", small(), BTreeSet::from([first, next])).await.unwrap(), None);
        let elsewhere = Subnets::of("10.99.0.0/16".parse().unwrap(), 24);
        assert_eq!(
            store.subnet("anna", elsewhere, BTreeSet::new()).await.unwrap().unwrap().to_string(),
            "10.99.0.0/24"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_at_once_each_gets_others() {
        let home = tempfile::tempdir().unwrap();
        let subnets = Subnets::default();
        let tasks: Vec<_> = (0..40)
            .map(|number| {
                let store = Store::open(home.path()).unwrap();
                tokio::spawn(async move { store.subnet(&format!("n{number}"), subnets, BTreeSet::new()).await })
            })
            .collect();
        let mut all = BTreeSet::new();
        for task in tasks {
            assert!(all.insert(task.await.unwrap().unwrap().unwrap()));
        }
        assert_eq!(all.len(), 40);
    }
}
