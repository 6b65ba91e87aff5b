//! Who may meet whom: nobody by default but an owner with himself.

use super::{Isolation, Policy};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Network, With},
};

/// Whose workspaces may reach each other, where a request or the host's default network wants them to [meet](Network::meet).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Meet {
    /// Nobody's.
    Nobody,
    /// Those of one owner, who runs in each what he likes anyway. The default.
    #[default]
    Owner,
    /// Those of one team too, whoever of it owns them.
    Team,
}

impl Meet {
    fn allows(self, with: With) -> bool {
        match with {
            With::All => false,
            With::Owner => self >= Self::Owner,
            With::Team => self >= Self::Team,
        }
    }

    /// A network whose members meet only if they may.
    pub(crate) fn hold(self, network: &Network) -> Network {
        Network { meet: network.meet && self.allows(network.with), ..network.clone() }
    }
}

impl Policy {
    /// Whose workspaces may reach each other where a team has no isolation mode; a mode says so itself ([`Isolation::meet`]). Default:
    /// [`Meet::Owner`].
    pub fn meet(mut self, whose: Meet) -> Self {
        self.meet = whose;
        self
    }

    /// Who may meet whom in a team's mode, or where there are none.
    pub(crate) fn meeting(&self, isolation: Option<&Isolation>) -> Meet {
        isolation.map_or(self.meet, |isolation| isolation.meet)
    }

    /// Refuses a network whose members would meet and may not.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(crate) fn check_meeting(&self, asked: &Network, isolation: Option<&Isolation>) -> Result<()> {
        if !asked.meet || asked.with == With::All || self.meeting(isolation).allows(asked.with) {
            return Ok(());
        }
        let whose = if asked.with == With::Team { "a team" } else { "an owner" };
        let by = isolation
            .map_or_else(|| "this host's policy".to_owned(), |mode| format!("the isolation mode {:?}", mode.name));
        Err(Error::new(ErrorKind::Forbidden, format!("workspaces of {whose} may not meet by {by}")).hint(
            "ask for a network without `meet`; whoever runs this host allows it by `Policy::meet` or `Isolation::meet`",
        ))
    }

    /// Refuses a default network of the host's that would never be as it says.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check_default(&self, network: &Network) -> Result<()> {
        let mut modes = self.isolations.iter().map(Some).collect::<Vec<_>>();
        if modes.is_empty() {
            modes.push(None);
        }
        if modes.into_iter().any(|mode| self.check_meeting(network, mode).is_ok()) {
            return Ok(());
        }
        let message = "the host's network is one whose members meet, which its policy allows nobody";
        Err(Error::new(ErrorKind::Invalid, message).hint("say `Policy::meet(Meet::Team)`, or leave `meet` out"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_meet_whom_is_the_policys_to_say() {
        let (owner, team) = (Network::owner().meet(), Network::team().meet());
        for (most, owners, teams) in
            [(Meet::Nobody, false, false), (Meet::Owner, true, false), (Meet::Team, true, true)]
        {
            let (policy, mode) = (Policy::new().meet(most), Isolation::new("mode").meet(most));
            let other = if most == Meet::Team { Meet::Nobody } else { Meet::Team };
            for (network, may) in
                [(&owner, owners), (&team, teams), (&Network::owner(), true), (&Network::team(), true)]
            {
                for checked in [
                    policy.check_meeting(network, None),
                    Policy::new().meet(other).check_meeting(network, Some(&mode)),
                    policy.check_default(network),
                    Policy::new().meet(other).isolation(mode.clone()).check_default(network),
                ] {
                    assert_eq!(checked.is_ok(), may, "{most:?} {network:?}: {checked:?}");
                }
                assert_eq!(most.hold(network).meet, network.meet && may, "{most:?} {network:?}");
            }
        }
        assert_eq!((Meet::default(), Isolation::new("x").meet), (Meet::Owner, Meet::Owner));
        let error = Policy::new().check_meeting(&team, None).unwrap_err();
        assert!(error.kind() == ErrorKind::Forbidden && error.hint_text().unwrap().contains("Policy::meet"), "{error}");
        let error = Policy::new().check_default(&team).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
