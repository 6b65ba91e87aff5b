//! What may be had: limits of a workspace by its owner's plan, totals of owners, teams and the host, and which images.
//!
//! The rules are the backend's configuration. Which plan an owner has, and totals of one owner's or team's own, stand in the state store,
//! the same for all host processes of a home. What is used is counted there too, in the transaction that adds a workspace or has one
//! run again: however many are asked for at once, in however many processes, together they never get more than there is. What a host that
//! was killed had begun counts until it is cleared away.
//!
//! Without rules nothing is limited but each workspace, by its [`Resources`].

mod egress;
mod hardening;
mod images;
mod isolation;
mod meet;
mod mounts;
mod plan;
mod quota;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    error::{Error, ErrorKind, Result},
    host::{Host, HostInner},
    idle::IdlePolicy,
    runtime::{Capability, Network, Resources},
};

pub(crate) use self::{
    hardening::Wanted,
    mounts::{configured, settle},
    quota::Asked,
};
pub use self::{
    images::Images,
    isolation::Isolation,
    meet::Meet,
    mounts::CONFIG_PATH,
    plan::{Plan, Totals},
    quota::{Account, AccountUsage, Measure, Quota},
};

/// The rules of a host. All its processes should have the same.
#[derive(Debug, Clone, Default)]
#[must_use = "it holds for a host that is built with it"]
pub struct Policy {
    plans: Vec<Plan>,
    team: Totals,
    host: Totals,
    images: Option<Images>,
    mount_roots: Vec<PathBuf>,
    capabilities: BTreeSet<Capability>,
    sandboxes: BTreeSet<String>,
    isolations: Vec<Isolation>,
    default_isolation: Option<String>,
    meet: Meet,
}

impl Policy {
    /// Limits nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plan that owners may have; one of the same name is replaced. An owner who has none, or one that isn't among these, has the
    /// least. Default: none, and owners aren't limited.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plans.retain(|other| other.name != plan.name);
        self.plans.push(plan);
        self
    }

    /// Adds several, such as [`Plan::shipped`].
    pub fn plans(self, plans: impl IntoIterator<Item = Plan>) -> Self {
        plans.into_iter().fold(self, Self::plan)
    }

    /// What each team may have that has no totals of its own. Default: no limit.
    pub fn each_team(mut self, totals: Totals) -> Self {
        self.team = totals;
        self
    }

    /// What all workspaces of this home may have together. Default: no limit.
    pub fn host(mut self, totals: Totals) -> Self {
        self.host = totals;
        self
    }

    /// Which images a workspace may be made of, besides the host's own. Default: any.
    pub fn images(mut self, images: Images) -> Self {
        self.images = Some(images);
        self
    }

    /// Allows folders of this machine to be mounted: this one, and all beneath it; it may be called for several. Never mounted are the
    /// kernel's folders, `/run`, `/etc`, `/boot`, the engine's data and socket, and this host's home folder, nor what holds one of them.
    /// Links are followed before that is decided, and not any more afterwards. Default: none.
    pub fn mount_root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.mount_roots.push(folder.into());
        self
    }

    /// Allows workspaces a capability, if they ask for it; it may be called for several. Default: none.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// Allows workspaces to run in a runtime of the engine's, besides its default one, `runc` and `runsc`, if they ask for it. What
    /// such a runtime holds, and what it doesn't, is the operator's to know.
    pub fn sandbox(mut self, name: impl Into<String>) -> Self {
        self.sandboxes.insert(name.into());
        self
    }

    /// Adds an isolation mode that teams may have; one of the same name is replaced. Default: none, and requests alone say how they are held.
    pub fn isolation(mut self, mode: Isolation) -> Self {
        self.isolations.retain(|other| other.name != mode.name);
        self.isolations.push(mode);
        self
    }

    /// The mode of teams that come from now on, and of workspaces of no team. Where there are modes, one of them must be it.
    pub fn default_isolation(mut self, name: impl Into<String>) -> Self {
        self.default_isolation = Some(name.into());
        self
    }

    pub(crate) fn isolation_named(&self, name: &str) -> Option<&Isolation> {
        self.isolations.iter().find(|isolation| isolation.name == name)
    }

    pub(crate) fn isolations(&self) -> &[Isolation] {
        &self.isolations
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.isolations.iter().try_for_each(|isolation| isolation.check(&self.sandboxes))?;
        let default = self.default_isolation.as_deref();
        if default.is_some() == self.isolations.is_empty()
            || default.is_some_and(|name| self.isolation_named(name).is_none())
        {
            let message =
                format!("the default isolation mode {:?} is none of the policy's", default.unwrap_or_default());
            return Err(Error::new(ErrorKind::Invalid, message).hint("name one of them by `Policy::default_isolation`"));
        }
        if let Some(root) = self.mount_roots.iter().find(|root| !root.is_absolute()) {
            let message = format!("the policy's mount root {} is no absolute path", root.display());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.plans.iter().try_for_each(Plan::check)
    }

    /// The plan that an owner has by the name that is stored.
    pub(crate) fn plan_of(&self, stored: Option<&str>) -> Option<&Plan> {
        let named = stored.and_then(|name| self.plans.iter().find(|plan| plan.name == name));
        named.or_else(|| self.plans.iter().min_by_key(|plan| plan.rank()))
    }

    /// The totals of an account by what is stored of it.
    pub(crate) fn totals_of(&self, account: &Account, stored: &StoredAccount) -> Totals {
        let ruled = match account {
            Account::Owner(_) => self.plan_of(stored.plan.as_deref()).map(|plan| plan.totals).unwrap_or_default(),
            Account::Team(_) => self.team,
            Account::Host => self.host,
        };
        stored.totals.unwrap_or(ruled)
    }

    /// Refuses an image that isn't allowed.
    pub(crate) fn check_image(&self, reference: &str) -> Result<()> {
        self.images.as_ref().map_or(Ok(()), |images| images.check(reference))
    }
}

/// What the store has of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredAccount {
    /// An owner's plan.
    pub(crate) plan: Option<String>,
    /// Totals of its own, instead of its plan's or the host's.
    pub(crate) totals: Option<Totals>,
}

/// What one workspace of an owner may have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ceiling {
    of: Option<(String, Plan)>,
}

impl Ceiling {
    /// The limits of a workspace for which these are asked for, or the plan's where none are.
    pub(crate) fn apply(&self, asked: Resources) -> Result<Resources> {
        let Some((owner, plan)) = &self.of else { return Ok(asked) };
        let most = plan.workspace;
        let limit = |measure, asked: Option<u64>, most: Option<u64>| match (asked, most) {
            (Some(asked), Some(limit)) if asked > limit => {
                let account = Account::Owner(owner.clone());
                Err(Quota { account, measure, limit, used: 0, asked, of_each: true, plan: Some(plan.name.clone()) }
                    .into())
            }
            (Some(asked), _) => Ok(Some(asked)),
            (None, most) => Ok::<_, Error>(most),
        };
        Ok(Resources {
            memory_bytes: limit(Measure::Memory, asked.memory_bytes, most.memory_bytes)?,
            cpu_millis: limit(Measure::Cpu, asked.cpu_millis, most.cpu_millis)?,
            pids: limit(Measure::Processes, asked.pids, most.pids)?,
            disk_bytes: limit(Measure::Disk, asked.disk_bytes, most.disk_bytes)?,
        })
    }

    /// Refuses a network that is asked for and by which more is reached than by the plan.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn check_network(&self, asked: &Network) -> Result<()> {
        let Some((owner, plan)) = &self.of else { return Ok(()) };
        match (&asked.egress, &plan.egress) {
            (Some(egress), Some(most)) if !egress.is_within(most) => {
                let (account, name) = (Account::Owner(owner.clone()), &plan.name);
                let message = format!("the egress {egress} is more than {account} may have: {most} (plan {name})");
                Err(Error::new(ErrorKind::Forbidden, message).hint("leave it out, ask for less, or for another plan"))
            }
            _ => Ok(()),
        }
    }

    /// A network by which no more is reached than by the plan.
    pub(crate) fn hold(&self, network: &Network) -> Network {
        let most = self.of.as_ref().and_then(|(_, plan)| plan.egress.as_ref());
        let egress = most.map(|most| network.reach().and(most)).or_else(|| network.egress.clone());
        Network { egress, ..network.clone() }
    }

    /// When a workspace is paused by itself, unless its request says otherwise.
    pub(crate) fn idle(&self) -> Option<IdlePolicy> {
        self.of.as_ref().and_then(|(_, plan)| plan.idle.clone())
    }
}

impl HostInner {
    /// What one more workspace of an owner may have.
    pub(crate) async fn ceiling(&self, owner: Option<&str>) -> Result<Ceiling> {
        let Some(owner) = owner.filter(|_| !self.policy.plans.is_empty()) else { return Ok(Ceiling::default()) };
        let stored = self.store.account(&Account::Owner(owner.to_owned())).await?;
        let plan = self.policy.plan_of(stored.plan.as_deref());
        Ok(Ceiling { of: plan.map(|plan| (owner.to_owned(), plan.clone())) })
    }
}

impl Host {
    /// Gives an owner a plan, from the next creation on; `None` takes it back. Workspaces that there are keep their limits.
    /// Dropping the future leaves it written or not; calling it again sees to that.
    ///
    /// # Errors
    /// `NotFound` for a plan that the host's [`Policy`] doesn't have, `Invalid` for an owner that can't be.
    pub async fn set_plan(&self, owner: &str, plan: Option<&str>) -> Result<()> {
        let account = Account::Owner(owner.to_owned());
        account.check()?;
        if let Some(plan) = plan
            && !self.inner.policy.plans.iter().any(|known| known.name == plan)
        {
            let names: Vec<&str> = self.inner.policy.plans.iter().map(|plan| plan.name.as_str()).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("there is no plan named {plan:?}"))
                .hint(format!("this host has: {}", names.join(", "))));
        }
        self.inner.store.set_plan(&account, plan.map(str::to_owned)).await
    }

    /// Gives an account totals of its own, instead of its plan's or the policy's, from the next creation on; `None` takes them back. What
    /// is above them already stays, and nothing is added.
    /// Dropping the future leaves them written or not; calling it again sees to that.
    ///
    /// # Errors
    /// `Invalid` for a name that can't be.
    pub async fn set_totals(&self, account: &Account, totals: Option<Totals>) -> Result<()> {
        account.check()?;
        self.inner.store.set_totals(account, totals).await
    }

    /// What an account has, and what it may have. Cancel-safe.
    ///
    /// # Errors
    /// `Invalid` for a name that can't be.
    pub async fn usage(&self, account: &Account) -> Result<AccountUsage> {
        account.check()?;
        let (stored, used) = self.inner.store.usage(account).await?;
        let policy = &self.inner.policy;
        let plan = match account {
            Account::Owner(_) => policy.plan_of(stored.plan.as_deref()).map(|plan| plan.name.clone()),
            _ => None,
        };
        Ok(AccountUsage { plan, used, limits: policy.totals_of(account, &stored) })
    }
}
