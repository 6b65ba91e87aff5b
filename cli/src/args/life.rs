//! What the commands of the life cycle take: which workspaces, how long they have, when something happens by itself.

use std::time::Duration;

use clap::{ArgGroup, Args};
use corehold_host::{Expiry, IdlePolicy, Shutdown};

use super::value::{When, parse_time, parse_when};

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
    /// What becomes of all workspaces when this ends, by TERM or Ctrl-C. They run on by default: what supervises is started anew with
    /// each update of it, and the next one finds them
    #[arg(long, value_name = "WHAT", default_value = "leave", value_parser = ["leave", "pause", "stop", "sleep"])]
    pub(crate) on_end: String,
    /// Time for all of that, such as 30s or 2m; to save what sleeps, give it more
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub(crate) grace: Duration,
}

impl Supervise {
    /// What becomes of workspaces at the end.
    pub(crate) fn on_end(&self) -> Shutdown {
        match self.on_end.as_str() {
            "pause" => Shutdown::Pause,
            "stop" => Shutdown::Stop,
            "sleep" => Shutdown::Sleep,
            _ => Shutdown::LeaveRunning,
        }
    }
}

/// Flags of `policy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold policy demo                                        what it is
  corehold policy demo --pause-after 10m                      the rest stays as it is
  corehold policy demo --archive-after never --wake-stopped yes
  corehold policy demo --reset                                none of its own: that of the host, or of `supervise`, holds
Policies are kept with the workspaces, and work while some host of their home folder runs: a backend, or `corehold supervise`.")]
pub(crate) struct Policy {
    /// The workspaces
    #[arg(required = true)]
    pub(crate) workspaces: Vec<String>,
    /// Pause it after so long without activity (a time such as 30s, 10m, 24h or 7d), or never
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub(crate) pause_after: Option<When>,
    /// Put it to sleep after so long without activity, or never
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub(crate) archive_after: Option<When>,
    /// Put it to sleep at this age, active or not, or never
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub(crate) max_lifetime: Option<When>,
    /// After --archive-after or --max-lifetime: put it to sleep, or remove it with its files
    #[arg(long, value_name = "WHAT", value_parser = ["archive", "remove"])]
    pub(crate) expiry: Option<String>,
    /// Whether CPU use of so many thousandths of one CPU keeps it awake; 0 for no
    #[arg(long, value_name = "THOUSANDTHS")]
    pub(crate) cpu_above: Option<u32>,
    /// Whether a call starts it when it was stopped
    #[arg(long, value_name = "YES|NO", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) wake_stopped: Option<bool>,
    /// Take its own policy away
    #[arg(long, conflicts_with_all = ["pause_after", "archive_after", "max_lifetime", "expiry", "cpu_above", "wake_stopped"])]
    pub(crate) reset: bool,
}

impl Policy {
    /// The policy that this makes of another one; none where only to be looked.
    pub(crate) fn change(&self, mut policy: IdlePolicy) -> Option<IdlePolicy> {
        let mut said = false;
        for (time, when) in [
            (&mut policy.pause_after, self.pause_after),
            (&mut policy.archive_after, self.archive_after),
            (&mut policy.max_lifetime, self.max_lifetime),
        ] {
            let Some(when) = when else { continue };
            said = true;
            *time = match when {
                When::After(after) => Some(after),
                When::Never => None,
            };
        }
        if let Some(expiry) = &self.expiry {
            said = true;
            policy.expiry = if expiry == "remove" { Expiry::Remove } else { Expiry::Archive };
        }
        if let Some(cpu) = self.cpu_above {
            said = true;
            policy.cpu_above = (cpu > 0).then_some(cpu);
        }
        if let Some(wake) = self.wake_stopped {
            said = true;
            policy.wake_stopped = wake;
        }
        said.then_some(policy)
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
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            &["stop"][..],
            &["stop", "--all", "demo"],
            &["pause", "demo", "--grace", "1"],
            &["stop", "demo", "--grace", "soon"],
            &["up", "t", "--pause-after", "1h", "--expiry", "remove"],
            &["up", "t", "--max-lifetime", "1h", "--expiry", "keep"],
            &["supervise", "--on-end", "remove"],
        ] {
            assert!(Arguments::try_parse_from(["corehold"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
        let arguments = Arguments::parse_from(["corehold", "sleep", "one", "two", "--grace", "2m"]);
        let Command::Sleep(sleep) = arguments.command else { panic!("not sleep") };
        assert_eq!((sleep.chosen.workspaces.len(), sleep.chosen.all, sleep.grace.as_secs()), (2, false, 120));
        for (said, means) in [
            (&[][..], Shutdown::LeaveRunning),
            (&["--on-end", "leave"], Shutdown::LeaveRunning),
            (&["--on-end", "pause"], Shutdown::Pause),
            (&["--on-end", "stop"], Shutdown::Stop),
            (&["--on-end", "sleep"], Shutdown::Sleep),
        ] {
            let arguments = Arguments::parse_from(["corehold", "supervise"].iter().chain(said));
            let Command::Supervise(supervise) = arguments.command else { panic!("not supervise") };
            assert_eq!((supervise.on_end(), supervise.grace), (means, corehold_host::Host::SHUTDOWN_GRACE));
        }
    }

    #[test]
    fn of_a_policy_that_there_is_only_what_is_said_changes() {
        let changed = |arguments: &[&str], policy: IdlePolicy| {
            let said = ["corehold", "policy", "demo"].iter().chain(arguments);
            let Command::Policy(said) = Arguments::parse_from(said).command else { panic!("not policy") };
            said.change(policy)
        };
        let hour = Duration::from_secs(3600);
        let before = IdlePolicy::default().pause_after(hour).archive_after(hour).commands(false);
        assert_eq!(changed(&[], before.clone()), None);
        let after = changed(&["--archive-after", "never", "--max-lifetime", "7d", "--cpu-above", "50"], before.clone());
        let expected = IdlePolicy::default().pause_after(hour).max_lifetime(7 * 24 * hour).commands(false);
        assert_eq!(after, Some(expected.clone().cpu_above(Some(50))));
        let after = changed(&["--expiry", "remove", "--wake-stopped", "yes", "--cpu-above", "0"], after.unwrap());
        assert_eq!(after, Some(expected.expiry(Expiry::Remove).wake_stopped(true)));
        for wrong in [
            &["policy"][..],
            &["policy", "demo", "--reset", "--pause-after", "1h"],
            &["policy", "d", "--pause-after", "x"],
        ] {
            assert!(Arguments::try_parse_from(["corehold"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
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
        assert_eq!(said.expiry, Expiry::Remove);
    }
}
