//! What keeps a workspace awake, and what becomes of one that nothing does.

use std::time::Duration;

use corehold_types::tools::ActivitySource;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The shortest time after which something may happen by itself: a mistake in units shall not freeze every workspace at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// When a workspace is paused, archived or removed by itself, and what keeps it from that. It is kept with the workspace, so it
/// holds whichever host process is there.
///
/// Default: nothing happens by itself. What counts as activity by default: calls and transfers, commands but the dev server,
/// terminals, watches, tunnels, WebSockets on which something was asked, and previews. Pings, reconnects, health checks and
/// whoever only asks how things are never count.
///
/// All times are counted by a clock that nobody sets and that stands while the machine is suspended.
///
/// ```
/// use std::time::Duration;
/// use corehold_host::IdlePolicy;
///
/// let policy = IdlePolicy::default()
///     .pause_after(Duration::from_secs(10 * 60))
///     .archive_after(Duration::from_secs(24 * 60 * 60))
///     .cpu_above(Some(50));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct IdlePolicy {
    /// Whether calls of tools, and files and archives on their way, count. Default: yes.
    pub requests: bool,
    /// Whether commands that run count, detached ones too. Default: yes.
    pub commands: bool,
    /// Whether the dev server counts as a command. It runs always, so a workspace with one would never be idle. Default: no.
    pub dev_server: bool,
    /// Whether commands on a terminal count. Default: yes.
    pub terminals: bool,
    /// Whether subscriptions to changes of files or ports count. Default: yes.
    pub watches: bool,
    /// Whether open tunnels and forwarded ports count; previews that other processes carry are tunnels too. Default: yes.
    pub tunnels: bool,
    /// Whether a WebSocket counts on which something was asked. Default: yes.
    pub sockets: bool,
    /// Whether connections to a preview count that this process carries, while they carry something: from a minute without a byte on
    /// the workspace is idle since the last one. A later byte wakes it. Default: yes.
    pub previews: bool,
    /// CPU time that counts, in thousandths of one CPU, on average since the workspace was last looked at. Default: it doesn't.
    pub cpu_above: Option<u32>,
    /// Time without activity after which it is paused. Default: never.
    #[serde(with = "millis")]
    pub pause_after: Option<Duration>,
    /// Time without activity after which it is put to sleep or removed, as [`expiry`](Self::expiry) says; the time that it was
    /// paused or stopped counts. Default: never.
    #[serde(with = "millis")]
    pub archive_after: Option<Duration>,
    /// Age at which it is put to sleep or removed, active or not. Default: any.
    #[serde(with = "millis")]
    pub max_lifetime: Option<Duration>,
    /// What becomes of it then. Default: its files are archived.
    pub expiry: Expiry,
    /// Whether a call starts a workspace that was stopped. Default: no, who stopped it meant it.
    pub wake_stopped: bool,
}

/// What becomes of a workspace whose time is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Expiry {
    /// Its files are archived and it sleeps until the next call.
    #[default]
    Archive,
    /// It is removed with its files.
    Remove,
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self {
            requests: true,
            commands: true,
            dev_server: false,
            terminals: true,
            watches: true,
            tunnels: true,
            sockets: true,
            previews: true,
            cpu_above: None,
            pause_after: None,
            archive_after: None,
            max_lifetime: None,
            expiry: Expiry::Archive,
            wake_stopped: false,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name.into();
            self
        }
    )+};
}

impl IdlePolicy {
    setters! {
        /// Sets [`requests`](field@Self::requests).
        requests: bool,
        /// Sets [`commands`](field@Self::commands).
        commands: bool,
        /// Sets [`dev_server`](field@Self::dev_server).
        dev_server: bool,
        /// Sets [`terminals`](field@Self::terminals).
        terminals: bool,
        /// Sets [`watches`](field@Self::watches).
        watches: bool,
        /// Sets [`tunnels`](field@Self::tunnels).
        tunnels: bool,
        /// Sets [`sockets`](field@Self::sockets).
        sockets: bool,
        /// Sets [`previews`](field@Self::previews).
        previews: bool,
        /// Sets [`cpu_above`](field@Self::cpu_above).
        cpu_above: Option<u32>,
        /// Sets [`pause_after`](field@Self::pause_after).
        pause_after: Duration,
        /// Sets [`archive_after`](field@Self::archive_after).
        archive_after: Duration,
        /// Sets [`max_lifetime`](field@Self::max_lifetime).
        max_lifetime: Duration,
        /// Sets [`expiry`](field@Self::expiry).
        expiry: Expiry,
        /// Sets [`wake_stopped`](field@Self::wake_stopped).
        wake_stopped: bool,
    }

    /// Whether anything can ever happen by itself.
    pub(crate) fn is_off(&self) -> bool {
        self.pause_after.is_none() && self.archive_after.is_none() && self.max_lifetime.is_none()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let times = [
            ("pause_after", self.pause_after),
            ("archive_after", self.archive_after),
            ("max_lifetime", self.max_lifetime),
        ];
        match times.iter().find(|(_, time)| time.is_some_and(|time| time < SHORTEST)) {
            Some((name, _)) => Err(Error::new(ErrorKind::Invalid, format!("{name} of the idle policy is too short"))
                .hint(format!("the shortest is {} ms; leave it away for never", SHORTEST.as_millis()))),
            None => Ok(()),
        }
    }

    /// Whether something that the agent tells of counts. What a newer agent tells of and this host doesn't know does.
    pub(crate) fn counts(&self, source: ActivitySource) -> bool {
        match source {
            ActivitySource::Call | ActivitySource::Transfer => self.requests,
            ActivitySource::Command => self.commands,
            ActivitySource::Terminal => self.terminals,
            ActivitySource::Watch => self.watches,
            ActivitySource::Tunnel => self.tunnels,
            ActivitySource::Socket => self.sockets,
            _ => true,
        }
    }
}

/// Durations as whole milliseconds, as everywhere on the wire.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_stored_and_read_by_older_and_newer_hosts() {
        let policy = IdlePolicy::default().pause_after(Duration::from_millis(1500)).cpu_above(Some(50)).commands(false);
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.contains("\"pauseAfter\":1500"), "{json}");
        assert_eq!(serde_json::from_str::<IdlePolicy>(&json).unwrap(), policy);
        let newer = r#"{"pauseAfter":1500,"ofTomorrow":true}"#;
        let read: IdlePolicy = serde_json::from_str(newer).unwrap();
        assert_eq!(read, IdlePolicy::default().pause_after(Duration::from_millis(1500)));
    }

    #[test]
    fn nothing_happens_by_itself_unless_it_is_asked_for_and_no_time_is_a_mistake_in_units() {
        assert!(IdlePolicy::default().is_off());
        assert!(IdlePolicy::default().check().is_ok());
        for policy in [
            IdlePolicy::default().pause_after(Duration::ZERO),
            IdlePolicy::default().archive_after(Duration::from_millis(10)),
            IdlePolicy::default().max_lifetime(Duration::from_nanos(1)),
        ] {
            assert!(!policy.is_off());
            assert_eq!(policy.check().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
