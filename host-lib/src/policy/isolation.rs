//! Isolation modes: how the workspaces of a team are held at least, whatever their requests say.
//!
//! The modes are the host's configuration; which one a team has stands in the state store. A team that has none gets the default with its
//! first workspace, and keeps it: another default is for the teams that come after.

use std::collections::BTreeSet;

use super::{Meet, Wanted, hardening::is_known};
use crate::{
    create::plan::check_name,
    error::{Error, ErrorKind, Result},
    host::{Host, HostInner},
    runtime::{Capability, Egress, Network},
};

/// A mode that teams may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it is given to a policy"]
pub struct Isolation {
    /// Its name.
    pub name: String,
    /// The engine's runtime that workspaces run in; absent: what their requests say, else the engine's default.
    pub sandbox: Option<String>,
    /// Whether nothing of the image can be written.
    pub read_only_root: bool,
    /// Capabilities that requests may ask for, of those that the policy allows.
    pub capabilities: BTreeSet<Capability>,
    /// What workspaces may reach outside at most; absent: what their requests say.
    pub egress: Option<Egress>,
    /// Whose workspaces may reach each other, if a request wants them to.
    pub meet: Meet,
}

impl Isolation {
    /// A mode in which workspaces are held as every one is, and may ask for no capability.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sandbox: None,
            read_only_root: false,
            capabilities: BTreeSet::new(),
            egress: None,
            meet: Meet::default(),
        }
    }

    /// The engine's runtime that workspaces run in: a request for another one is refused.
    pub fn sandbox(mut self, name: impl Into<String>) -> Self {
        self.sandbox = Some(name.into());
        self
    }

    /// Whether nothing of the image can be written: a request that it can is refused then.
    pub fn read_only_root(mut self, read_only: bool) -> Self {
        self.read_only_root = read_only;
        self
    }

    /// A capability that requests may ask for, if the policy allows it too; it may be called for several.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// What workspaces may reach outside at most. A request for more is refused; one that doesn't say gets this, and where the host's
    /// default or an earlier mode let it reach something else, it gets what is in both.
    pub fn egress(mut self, most: Egress) -> Self {
        self.egress = Some(most);
        self
    }

    /// Whose workspaces may reach each other, if a request wants them to [meet](crate::Network::meet): a request for more is refused.
    /// Default: [`Meet::Owner`].
    pub fn meet(mut self, whose: Meet) -> Self {
        self.meet = whose;
        self
    }

    pub(super) fn check(&self, sandboxes: &BTreeSet<String>) -> Result<()> {
        check_name("an isolation mode", &self.name)?;
        self.egress
            .as_ref()
            .map_or(Ok(()), Egress::check)
            .map_err(|error| error.context(format_args!("the isolation mode {:?}", self.name)))?;
        match &self.sandbox {
            Some(sandbox) if !is_known(sandbox, sandboxes) => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the isolation mode {:?} is for a sandbox that the policy doesn't allow: {sandbox:?}",
                    self.name
                ),
            )
            .hint("allow it by `Policy::sandbox`")),
            _ => Ok(()),
        }
    }

    /// What is wanted, in this mode.
    ///
    /// # Errors
    /// `Forbidden` for what would be weaker.
    pub(crate) fn apply(&self, wanted: &Wanted) -> Result<Wanted> {
        let weaker = |what: String| self.weaker(&what);
        if let Some(capability) = wanted.capabilities.difference(&self.capabilities).next() {
            return Err(weaker(format!("the capability {capability}")));
        }
        if self.read_only_root && wanted.read_only_root == Some(false) {
            return Err(weaker("a root that can be written".to_owned()));
        }
        let sandbox = match (&self.sandbox, &wanted.sandbox) {
            (Some(mode), Some(wanted)) if mode != wanted => return Err(weaker(format!("the sandbox {wanted:?}"))),
            (mode, wanted) => mode.clone().or_else(|| wanted.clone()),
        };
        Ok(Wanted {
            read_only_root: if self.read_only_root { Some(true) } else { wanted.read_only_root },
            capabilities: wanted.capabilities.clone(),
            sandbox,
        })
    }

    /// Refuses a network that is asked for and would be weaker.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn check_network(&self, asked: &Network) -> Result<()> {
        if let (Some(egress), Some(most)) = (&asked.egress, &self.egress)
            && !egress.is_within(most)
        {
            return Err(self.weaker(&format!("the egress {egress}")));
        }
        Ok(())
    }

    /// A network in this mode. Which of both is stricter need not be known: what it holds is held by both.
    pub(crate) fn hold(&self, network: &Network) -> Network {
        let egress = match &self.egress {
            Some(most) => Some(network.reach().and(most)),
            None => network.egress.clone(),
        };
        Network { egress, ..self.meet.hold(network) }
    }

    fn weaker(&self, what: &str) -> Error {
        Error::new(ErrorKind::Forbidden, format!("{what} is weaker than the isolation mode {:?}", self.name))
            .hint("leave it out, or ask whoever runs this host for another mode (`Host::set_isolation`)")
    }
}

impl HostInner {
    /// The mode of a team's next container; none where the host has no modes.
    ///
    /// # Errors
    /// `Forbidden` when the team has one that the host's policy doesn't have any more: nothing weaker is used.
    pub(crate) async fn isolation_of(&self, team: Option<&str>) -> Result<Option<Isolation>> {
        let Some(default) = &self.policy.default_isolation else { return Ok(None) };
        let name = match team {
            Some(team) => self.store.isolation(team, default).await?,
            None => default.clone(),
        };
        match self.policy.isolation_named(&name) {
            Some(isolation) => Ok(Some(isolation.clone())),
            None => Err(Error::new(ErrorKind::Forbidden, format!("this host has no isolation mode {name:?} any more"))
                .hint("whoever runs this host gives the team another one by `Host::set_isolation`")),
        }
    }
}

impl Host {
    /// Gives a team an isolation mode, for every container that is made from now on; those there are stay as they are. `None` takes it back:
    /// its next workspace brings it the default of then.
    /// Dropping the future leaves it written or not; calling it again sees to that.
    ///
    /// # Errors
    /// `NotFound` for a mode that the host's [`Policy`](super::Policy) doesn't have, `Invalid` for a team that can't be.
    pub async fn set_isolation(&self, team: &str, mode: Option<&str>) -> Result<()> {
        check_name("a team", team)?;
        let policy = &self.inner.policy;
        if let Some(mode) = mode
            && policy.isolation_named(mode).is_none()
        {
            let names: Vec<&str> = policy.isolations.iter().map(|isolation| isolation.name.as_str()).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("there is no isolation mode named {mode:?}"))
                .hint(format!("this host has: {}", names.join(", "))));
        }
        self.inner.store.set_isolation(team, mode.map(str::to_owned)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_least_and_never_less() {
        let mode = Isolation::new("strict").sandbox("runsc").read_only_root(true).capability(Capability::Chown);
        let wanted = |read_only_root, sandbox: Option<&str>, capabilities: &[Capability]| Wanted {
            read_only_root,
            sandbox: sandbox.map(str::to_owned),
            capabilities: capabilities.iter().copied().collect(),
        };
        let strictest = wanted(Some(true), Some("runsc"), &[]);
        for fine in [Wanted::default(), wanted(Some(true), None, &[]), wanted(None, Some("runsc"), &[])] {
            assert_eq!(mode.apply(&fine).unwrap(), strictest);
        }
        for weaker in [
            wanted(Some(false), None, &[]),
            wanted(None, Some("runc"), &[]),
            wanted(None, None, &[Capability::Chown, Capability::Kill]),
        ] {
            let error = mode.apply(&weaker).unwrap_err();
            assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("strict"), "{error}");
        }
        // Nor what a network lets out, or whether its members meet.
        let mode = mode.egress(Egress::Internet).meet(Meet::Nobody);
        for (fine, held) in [
            (Network::shared(), Network::shared().egress(Egress::Internet)),
            (Network::team().egress(Egress::Internet), Network::team().egress(Egress::Internet)),
            (Network::none(), Network::none()),
        ] {
            mode.check_network(&fine).unwrap();
            assert_eq!(mode.hold(&fine), held);
        }
        let private = Network::owner().meet().egress("10.0.0.0/8,203.0.113.7".parse().unwrap());
        for weaker in [Network::shared().egress(Egress::Open), private.clone()] {
            let error = mode.check_network(&weaker).unwrap_err();
            assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("strict"), "{error}");
        }
        assert_eq!(mode.hold(&private), Network::owner().egress("203.0.113.7".parse().unwrap()));
        // What a mode doesn't say is the request's.
        let loose = Isolation::new("loose");
        assert_eq!(loose.apply(&strictest).unwrap(), strictest);
        assert_eq!(loose.apply(&wanted(Some(false), None, &[])).unwrap().read_only_root, Some(false));
        loose.check_network(&private).unwrap();
        assert_eq!(loose.hold(&private), private);
    }
}
