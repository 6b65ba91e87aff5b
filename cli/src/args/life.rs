//! What the commands of the life cycle take: which workspaces, how long they have, when something happens by itself.

use std::time::Duration;

use clap::{ArgGroup, Args};
use corehold_host::{Expiry, IdlePolicy};

use super::value::parse_time;

/// Which workspaces to change.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// The workspaces
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) workspaces: Vec<String>,
    /// All of them that this would change
    #[arg(long)]
    pub(crate) all: bool,
}

/// Which workspaces to change, and how long what runs in them has to end.
#[derive(Debug, Args)]
pub(crate) struct Graced {
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Time for what runs inside to end before it is killed, such as 30s or 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub(crate) grace: Duration,
}

/// When something becomes of a workspace by itself. Its own flags, and those of `supervise` for those without any.
#[derive(Debug, Args)]
#[command(next_help_heading = "When it is idle (times such as 30s, 10m, 24h or 7d; default: never)")]
#[group(skip)]
#[command(group(ArgGroup::new("expiring").multiple(true)))]
pub(crate) struct Idle {
    /// Pause it after so long without activity; the next call or connection wakes it
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) pause_after: Option<Duration>,
    /// Put it to sleep after so long without activity, paused or not; the next call wakes it
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "expiring")]
    pub(crate) archive_after: Option<Duration>,
    /// Put it to sleep at this age, active or not
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "expiring")]
    pub(crate) max_lifetime: Option<Duration>,
    /// After --archive-after or --max-lifetime: put it to sleep (the default), or remove it with its files
    #[arg(long, value_name = "WHAT", value_parser = ["archive", "remove"], requires = "expiring")]
    pub(crate) expiry: Option<String>,
}

impl Idle {
    /// The policy; none where nothing was said.
    pub(crate) fn policy(&self) -> Option<IdlePolicy> {
        let times = [self.pause_after, self.archive_after, self.max_lifetime];
        if times.iter().all(Option::is_none) {
            return None;
        }
        let mut policy = IdlePolicy::default().expiry(match self.expiry.as_deref() {
            Some("remove") => Expiry::Remove,
            _ => Expiry::Archive,
        });
        [policy.pause_after, policy.archive_after, policy.max_lifetime] = times;
        Some(policy)
    }
}

/// Flags of `supervise`.
#[derive(Debug, Args)]
#[command(after_help = "\
A workspace's own policy (`corehold up --pause-after …`) goes before the flags here, which are for those without one.
Policies are kept with the workspaces, and work while some host of their home folder runs: a backend, or this command.")]
pub(crate) struct Supervise {
    #[command(flatten)]
    pub(crate) idle: Idle,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Arguments, Command};

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            &["stop"][..],
            &["stop", "--all", "demo"],
            &["pause", "demo", "--grace", "1"],
            &["stop", "demo", "--grace", "soon"],
            &["up", "t", "--pause-after", "1h", "--expiry", "remove"],
            &["up", "t", "--max-lifetime", "1h", "--expiry", "keep"],
        ] {
            assert!(Arguments::try_parse_from(["corehold"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
        let arguments = Arguments::parse_from(["corehold", "sleep", "one", "two", "--grace", "2m"]);
        let Command::Sleep(sleep) = arguments.command else { panic!("not sleep") };
        assert_eq!((sleep.chosen.workspaces.len(), sleep.chosen.all, sleep.grace.as_secs()), (2, false, 120));
    }

    #[test]
    fn a_policy_is_only_where_a_time_was_said() {
        let policy = |arguments: &[&str]| {
            let Command::Up(up) = Arguments::parse_from(["corehold", "up", "t"].iter().chain(arguments)).command else {
                panic!("not up")
            };
            up.idle.policy()
        };
        assert_eq!(policy(&[]), None);
        let said = policy(&["--pause-after", "10m", "--max-lifetime", "7d", "--expiry", "remove"]).unwrap();
        assert_eq!(said.pause_after.unwrap().as_secs(), 600);
        assert_eq!((said.archive_after, said.max_lifetime.unwrap().as_secs()), (None, 7 * 86_400));
        assert_eq!(said.expiry, corehold_host::Expiry::Remove);
    }
}
