//! What keeps commands from the agent, though they run as the same user: set once, in the thread that spawns them all.
//!
//! A command can't be kept apart by its user, so the kernel is told what no command may do to another process:
//!
//! - **seccomp**: `prlimit64` may not *set* a limit of a process that is named by its id. Seen: `prlimit --pid 1 --cpu=1:1`
//!   kills the agent after a second of CPU, `--nofile=3:3` leaves it with `EMFILE` for ever. A filter can't tell whose id
//!   it is given (each thread of the agent has one, and any of them reaches all), so only 0, the caller itself, may be
//!   set. glibc's `setrlimit`, shells' `ulimit` and `prlimit COMMAND` use 0; `prlimit --pid $$ --nofile=…` is refused,
//!   reading limits of others is not.
//! - **seccomp, asking**: a call that changes the priority, the scheduling class, the processors or the place in the queue for
//!   the disk of a thread other than the caller waits until the agent has looked whether the thread is one of its own; then it
//!   is EPERM. `renice -n 19 -p 1` would slow the agent for good, since nobody may take that back. Others than the agent's are
//!   nobody's business: programs set the processors of their own threads by their ids.
//! - **seccomp**: no socket to the hypervisor of the machine (`AF_VSOCK`), which no rule of a network holds, and no io_uring, whose operations no
//!   filter sees. Newer engines refuse both to every container; so they are refused on each.
//! - **Landlock's signal scope**: no signal leaves the domain. It is one domain for all commands, since a thread that
//!   restricts itself hands it on; set for each command it would break signals among them. The agent is outside and
//!   may signal in. Landlock also refuses `ptrace` out of the domain.
//! - **no new privileges**: no set-user-id program gives back what the filter took.
//!
//! What is not guarded: commands share the agent's user, so they may use up memory, disk, processor time and processes of the
//! container. The container's limits are the guard against that.

mod asked;
mod filter;

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

pub(super) use asked::{Answered, answer};

/// Makes the process one that its own user can't look into: no `ptrace`, no `/proc/<pid>/mem` and `environ`.
pub(super) fn make_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Whether a thread or its process has no new privileges to gain; inherited by what it starts.
fn refuse_new_privileges() -> io::Result<()> {
    // SAFETY: this prctl takes plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The guards that hold for a thread, and where the kernel asks about calls that are for the agent to judge.
pub(super) struct Restricted {
    pub(super) guards: Vec<&'static str>,
    pub(super) questions: Option<OwnedFd>,
}

/// Restricts the calling thread, and with it all that it will ever start.
///
/// A kernel or an engine that refuses a guard doesn't keep the agent from starting: `info` says which are there.
pub(super) fn restrict_this_thread() -> Restricted {
    let mut guards = Vec::new();
    let mut hold = |name, result: io::Result<()>| match result {
        Ok(()) => guards.push(name),
        Err(error) => tracing::warn!(guard = name, %error, "a guard against commands is not to be had here"),
    };
    // In this order: the kernel lets an unprivileged thread restrict itself only when it has no privileges to gain.
    hold("no-new-privileges", refuse_new_privileges());
    hold("landlock-signal", scope_signals());
    // The first attempt fails where something around the agent, such as another agent, is asked already.
    let asking = asked::can_answer().and_then(|()| filter::install_asking());
    let questions = match asking {
        Ok(questions) => {
            // One filter has both.
            hold("seccomp-prlimit", Ok(()));
            hold("seccomp-closed", Ok(()));
            hold("seccomp-priority", Ok(()));
            Some(questions)
        }
        Err(error) => {
            match filter::install() {
                Ok(()) => {
                    hold("seccomp-prlimit", Ok(()));
                    hold("seccomp-closed", Ok(()));
                }
                Err(error) => hold("seccomp-prlimit", Err(error)),
            }
            hold("seccomp-priority", Err(error));
            None
        }
    };
    Restricted { guards, questions }
}

/// `struct landlock_ruleset_attr` of ABI 6.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `LANDLOCK_SCOPE_SIGNAL`, since ABI 6 (Linux 6.12).
const SCOPE_SIGNAL: u64 = 1 << 1;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: libc::c_int = 1;

fn scope_signals() -> io::Result<()> {
    // SAFETY: with this flag the call takes no pointer and only answers the ABI's version.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, ASK_VERSION) };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    if version < 6 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("Landlock ABI {version} has no signal scope")));
    }
    let attributes = RulesetAttributes { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    // SAFETY: the pointer is to a live local of the size that is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0 as libc::c_int,
        )
    };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the call takes a descriptor and a number.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0 as libc::c_int) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
