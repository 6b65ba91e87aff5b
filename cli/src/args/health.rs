//! What `corehold health` takes: how a workspace is checked, and when it is restarted.

use std::time::Duration;

use clap::{Args, ValueEnum};
use corehold_host::{HealthPolicy, RestartPolicy};

use super::value::parse_time;

/// Flags of `health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold health demo                                        whether it is well, and how it is watched
  corehold health demo --command 'curl -fsS localhost:4321'   besides its agent's answer, this must exit with 0
  corehold health demo --every 10s --failures 2 --restart on-failure
  corehold health demo --restart no                           checked, and told of by `corehold events`, but left alone
  corehold health demo --reset                                no policy of its own: the backend's holds, if it has one

A workspace whose agent doesn't answer, or whose command fails, --failures times in a row is unhealthy. It is restarted, with its dev server;
after --restarts of those without its being well in between there is an alert (`corehold events`) instead of one more. What ended by
itself is started again too. What is paused, asleep or stopped isn't checked.

The policy is kept with the workspace, and works while some host of its home folder runs: a backend, or `corehold supervise`.")]
pub(crate) struct Health {
    /// The workspaces
    #[arg(required = true)]
    pub(crate) workspaces: Vec<String>,
    /// Check it each time that so long has passed (a time such as 10s or 5m); 30 s to begin with
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) every: Option<Duration>,
    /// How long a check may take; 5 s to begin with
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy; 3 to begin with
    #[arg(long, value_name = "NUMBER")]
    pub(crate) failures: Option<u32>,
    /// Restarts in a row before an alert; 3 to begin with
    #[arg(long, value_name = "NUMBER")]
    pub(crate) restarts: Option<u32>,
    /// A shell line that is run in it at each check, and must exit with 0; an empty one for none
    #[arg(long, value_name = "LINE")]
    pub(crate) command: Option<String>,
    /// Whether it is started again when it has ended, or is unhealthy; unless-stopped to begin with
    #[arg(long, value_name = "WHEN")]
    pub(crate) restart: Option<Restart>,
    /// Take its own policy away
    #[arg(long, conflicts_with_all = ["every", "timeout", "failures", "restarts", "command", "restart"])]
    pub(crate) reset: bool,
}

/// When a workspace is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// Never
    No,
    /// Whenever it has ended; what was stopped on purpose, when a host begins
    Always,
    /// Whenever it has ended, unless it was stopped on purpose
    UnlessStopped,
    /// When it ended with another exit code than 0 or for want of memory, or is unhealthy
    OnFailure,
}

impl Restart {
    fn policy(self) -> RestartPolicy {
        match self {
            Self::No => RestartPolicy::No,
            Self::Always => RestartPolicy::Always,
            Self::UnlessStopped => RestartPolicy::UnlessStopped,
            Self::OnFailure => RestartPolicy::OnFailure,
        }
    }
}

impl Health {
    /// The policy that this makes of another one; none where only to be looked.
    pub(crate) fn change(&self, before: &HealthPolicy) -> Option<HealthPolicy> {
        let mut policy = before.clone();
        policy.every = self.every.unwrap_or(policy.every);
        policy.timeout = self.timeout.unwrap_or(policy.timeout);
        policy.failures = self.failures.unwrap_or(policy.failures);
        policy.restarts = self.restarts.unwrap_or(policy.restarts);
        policy.restart = self.restart.map_or(policy.restart, Restart::policy);
        if let Some(line) = &self.command {
            policy.command = Some(line.clone()).filter(|line| !line.is_empty());
        }
        let said = [self.every.is_some(), self.timeout.is_some(), self.failures.is_some(), self.restarts.is_some()];
        (said.contains(&true) || self.command.is_some() || self.restart.is_some()).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{
        super::{Arguments, Command},
        *,
    };

    #[test]
    fn of_how_it_is_checked_only_what_is_said_changes() {
        let changed = |arguments: &[&str], policy: &HealthPolicy| {
            let said = ["corehold", "health", "demo"].iter().chain(arguments);
            let Command::Health(said) = Arguments::parse_from(said).command else { panic!("not health") };
            said.change(policy)
        };
        let before = HealthPolicy::default().restarts(7).command("true");
        assert_eq!(changed(&[], &before), None);
        // Also where it is what it was: it is the workspace's own from then on.
        assert_eq!(changed(&["--every", "30s"], &before), Some(before.clone()));
        let after =
            changed(&["--every", "10s", "--timeout", "500ms", "--failures", "2", "--restart", "on-failure"], &before);
        let expected = before.every(Duration::from_secs(10)).timeout(Duration::from_millis(500)).failures(2);
        let expected = expected.restart(RestartPolicy::OnFailure);
        assert_eq!(after, Some(expected.clone()));
        let after = changed(&["--command", "", "--restarts", "0", "--restart", "no"], &expected).unwrap();
        assert_eq!((after.command.as_ref(), after.restarts, after.restart), (None, 0, RestartPolicy::No));
        for wrong in [
            &["health"][..],
            &["health", "demo", "--reset", "--every", "1h"],
            &["health", "demo", "--restart", "sometimes"],
            &["health", "demo", "--failures", "-1"],
        ] {
            assert!(Arguments::try_parse_from(["corehold"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
