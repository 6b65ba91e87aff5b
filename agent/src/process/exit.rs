//! How a command ended, from what the kernel says and what the agent did.

use std::time::Instant;

use corehold_types::tools::CommandExit;

use super::sys::Reaped;

/// What is known about a command's end, gathered while it runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) timed_out: bool,
    pub(super) stalled: bool,
    /// Whether the agent has sent SIGKILL to it.
    pub(super) sent_kill: bool,
    started: Instant,
    own_peak_memory_bytes: u64,
    ended: Option<(Reaped, Instant)>,
}

impl Facts {
    pub(super) fn new(started: Instant, own_peak_memory_bytes: u64) -> Self {
        Self { timed_out: false, stalled: false, sent_kill: false, started, own_peak_memory_bytes, ended: None }
    }

    /// The leader was reaped.
    pub(super) fn ended(&mut self, child: Reaped) {
        self.ended = Some((child, Instant::now()));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The exit as it is told.
    pub(super) fn to_exit(&self, survivors: Vec<u32>, oom_killed: Option<bool>) -> CommandExit {
        let (child, at) = match &self.ended {
            Some((child, at)) => (Some(child), *at),
            None => (None, Instant::now()),
        };
        let status = child.map_or(0, |child| child.status);
        // A process that the agent spawned begins with the agent's own peak as its: only more than that is its own.
        let peak = child.map(|child| child.peak_memory_bytes).filter(|peak| *peak > self.own_peak_memory_bytes);
        CommandExit {
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| signal_name(libc::WTERMSIG(status))),
            timed_out: self.timed_out,
            stalled: self.stalled,
            oom_killed,
            duration_ms: millis(at.duration_since(self.started)),
            peak_memory_bytes: peak,
            cpu_ms: child.map(|child| millis(child.cpu)),
            survivors,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A signal's name, such as `SIGKILL`; real-time signals count from `SIGRTMIN`.
pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSTKFLT => "SIGSTKFLT",
        libc::SIGCHLD => "SIGCHLD",
        libc::SIGCONT => "SIGCONT",
        libc::SIGSTOP => "SIGSTOP",
        libc::SIGTSTP => "SIGTSTP",
        libc::SIGTTIN => "SIGTTIN",
        libc::SIGTTOU => "SIGTTOU",
        libc::SIGURG => "SIGURG",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGWINCH => "SIGWINCH",
        libc::SIGIO => "SIGIO",
        libc::SIGPWR => "SIGPWR",
        libc::SIGSYS => "SIGSYS",
        real_time if real_time >= libc::SIGRTMIN() => return format!("SIGRTMIN+{}", real_time - libc::SIGRTMIN()),
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn exit(status: i32, peak: u64) -> CommandExit {
        let mut facts = Facts::new(Instant::now(), 6 << 20);
        facts.ended(Reaped { pid: 1, status, cpu: Duration::from_micros(2_500), peak_memory_bytes: peak });
        facts.to_exit(Vec::new(), None)
    }

    #[test]
    fn a_code_or_a_signal() {
        let ended = exit(255 << 8, 0);
        assert_eq!((ended.code, ended.signal, ended.cpu_ms), (Some(255), None, Some(2)));
        let killed = exit(libc::SIGKILL, 0);
        assert_eq!((killed.code, killed.signal.as_deref()), (None, Some("SIGKILL")));
        assert_eq!(exit(libc::SIGSEGV | 0x80, 0).signal.as_deref(), Some("SIGSEGV"), "with a core dump");
    }

    #[test]
    fn what_is_not_known_is_absent() {
        assert_eq!(exit(0, 6 << 20).peak_memory_bytes, None, "it may be the agent's");
        assert_eq!(exit(0, 7 << 20).peak_memory_bytes, Some(7 << 20));
    }
}
