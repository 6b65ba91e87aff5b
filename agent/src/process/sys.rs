//! The kernel calls of this room that rustix doesn't wrap, each as a safe function.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

/// A child that has ended and is no zombie any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    /// Its process id, free to be used again.
    pub(super) pid: i32,
    /// How it ended, as `wait(2)` encodes it.
    pub(super) status: i32,
    /// CPU time, user and system, of it and the children it waited for.
    pub(super) cpu: Duration,
    /// Largest resident size in bytes of it and the children it waited for, or of who spawned it if that was larger.
    pub(super) peak_memory_bytes: u64,
}

/// Reaps a child that has ended, if there is one.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub(super) fn reap_any() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live locals of the right type; WNOHANG makes it return at once.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match pid {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: zeroed bytes are a valid rusage, and the kernel has filled it in.
            let usage = unsafe { usage.assume_init() };
            Ok(Some(Reaped {
                pid,
                status,
                cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
                peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            }))
        }
    }
}

/// Waits for one child whose end is certain and near, and forgets its status.
pub(super) fn reap(pid: i32) {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live local.
        let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if result != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// The largest resident size that the agent itself has had, in bytes.
pub(super) fn own_peak_memory_bytes() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live local of the right type.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: zeroed bytes are a valid rusage, whether the kernel filled it in or not.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

/// A set of signals.
#[derive(Clone, Copy)]
pub(super) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Those that are named.
    pub(super) fn of(signals: &[i32]) -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: sigemptyset initializes the set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: the set was initialized above; an invalid number is refused by the call.
            unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
        }
        // SAFETY: initialized above.
        Self(unsafe { set.assume_init() })
    }

    /// All there are.
    pub(super) fn full() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: sigfillset initializes the set that it is given.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: initialized above.
        Self(unsafe { set.assume_init() })
    }

    /// Blocks them in this thread and in those that it will start.
    pub(super) fn block(&self) -> io::Result<()> {
        // SAFETY: the set is initialized; the old mask isn't asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// A descriptor, never blocking, from which these signals are read instead of being delivered.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the set is initialized.
        let fd = unsafe { libc::signalfd(-1, &raw const self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// A signal that came, and who sent it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Its number.
    pub(super) signal: i32,
    /// Whether `kill(2)` sent it: the kernel lets nobody forge that, unlike everything `sigqueue(3)` sends.
    pub(super) by_kill: bool,
    /// The sender's process id; 0 when it lives outside of our pid namespace.
    pub(super) sender: u32,
}

impl Received {
    /// Whether the agent, as init of its container or not, is told by this to end.
    ///
    /// As init: commands may ask, but only who is outside of the container may tell.
    pub(super) fn tells_to_end(self, is_init: bool) -> bool {
        matches!(self.signal, libc::SIGTERM | libc::SIGINT) && (!is_init || (self.by_kill && self.sender == 0))
    }
}

/// The next signal from a [`SignalSet::descriptor`], if one is pending.
pub(super) fn next_signal(fd: BorrowedFd<'_>) -> Option<Received> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is a live local of exactly this size.
    let read = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if usize::try_from(read) != Ok(size) {
        return None;
    }
    // SAFETY: the kernel has filled it in.
    let info = unsafe { info.assume_init() };
    Some(Received {
        signal: i32::try_from(info.ssi_signo).unwrap_or(0),
        by_kill: info.ssi_code == libc::SI_USER,
        sender: info.ssi_pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_a_container_only_who_is_outside_tells_to_end() {
        let term = Received { signal: libc::SIGTERM, by_kill: true, sender: 0 };
        assert!(term.tells_to_end(true));
        assert!(!Received { sender: 7, ..term }.tells_to_end(true), "a command");
        assert!(!Received { by_kill: false, ..term }.tells_to_end(true), "whoever sends it can choose the sender's id");
        assert!(Received { sender: 7, ..term }.tells_to_end(false), "a supervisor on the same machine");
        assert!(!Received { signal: libc::SIGCHLD, ..term }.tells_to_end(false));
    }
}
