//! What keeps commands from the agent, though they run as the same user: set once, in the thread that spawns them all.
//!
//! A command can't be kept apart by its user, so the kernel is told what no command may do to another process:
//!
//! - **seccomp**: `prlimit64` may not *set* a limit of a process that is named by its id. Seen: `prlimit --pid 1 --cpu=1:1`
//!   kills the agent after a second of CPU, `--nofile=3:3` leaves it with `EMFILE` for ever. A filter can't tell whose id
//!   it is given (each thread of the agent has one, and any of them reaches all), so only 0, the caller itself, may be
//!   set. glibc's `setrlimit`, shells' `ulimit` and `prlimit COMMAND` use 0; `prlimit --pid $$ --nofile=…` is refused,
//!   reading limits of others is not.
//! - **Landlock's signal scope**: no signal leaves the domain. It is one domain for all commands, since a thread that
//!   restricts itself hands it on; set for each command it would break signals among them. The agent is outside and
//!   may signal in. Landlock also refuses `ptrace` out of the domain.
//! - **no new privileges**: no set-user-id program gives back what the filter took.
//!
//! What is not guarded: commands share the agent's user, so they may lower its scheduling priority and use up memory, disk
//! and processes of the container. The container's limits are the guard against that.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

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

/// Restricts the calling thread, and with it all that it will ever start. Returns the names of the guards that hold.
///
/// A kernel or an engine that refuses one doesn't keep the agent from starting: `info` says which are there.
pub(super) fn restrict_this_thread() -> Vec<&'static str> {
    let mut guards = Vec::new();
    // In this order: the kernel lets an unprivileged thread restrict itself only when it has no privileges to gain.
    for (name, result) in [
        ("no-new-privileges", refuse_new_privileges()),
        ("landlock-signal", scope_signals()),
        ("seccomp-prlimit", filter_prlimit()),
    ] {
        match result {
            Ok(()) => guards.push(name),
            Err(error) => tracing::warn!(guard = name, %error, "a guard against commands is not to be had here"),
        }
    }
    guards
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

/// The architectures whose system calls a process on this kernel can make, each with its numbers of `prlimit64`.
#[cfg(target_arch = "x86_64")]
const PRLIMIT64: &[(u32, &[u32])] = &[
    // AUDIT_ARCH_X86_64; the second number is the same call of the x32 ABI.
    (0xc000_003e, &[302, 302 | 0x4000_0000]),
    // AUDIT_ARCH_I386: `int 0x80`, which 64-bit programs can use as well.
    (0x4000_0003, &[340]),
];
#[cfg(target_arch = "aarch64")]
const PRLIMIT64: &[(u32, &[u32])] = &[
    // AUDIT_ARCH_AARCH64
    (0xc000_00b7, &[261]),
    // AUDIT_ARCH_ARM
    (0x4000_0028, &[369]),
];

/// The filter in classic BPF (`seccomp(2)`, `struct seccomp_data`): by hand, since a library for one rule is larger.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn prlimit_filter() -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets in `struct seccomp_data` on a little-endian machine, as both architectures are.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const FIRST_ARGUMENT_LOW: u32 = 16;
    const THIRD_ARGUMENT_LOW: u32 = 32;
    const THIRD_ARGUMENT_HIGH: u32 = 36;
    let instruction = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };

    let per_architecture = |numbers: &[u32]| 1 + 1 + numbers.len() + 1;
    let check_at = 1 + PRLIMIT64.iter().map(|(_, numbers)| per_architecture(numbers)).sum::<usize>() + 1;
    // The check below is six instructions, then come "allow" and "refuse".
    let allow_at = check_at + 6;
    let refuse_at = allow_at + 1;

    let mut program = vec![instruction(LOAD, ARCHITECTURE, 0, 0)];
    for (architecture, numbers) in PRLIMIT64 {
        let skip = per_architecture(numbers) - 1;
        program.push(instruction(EQUALS, *architecture, 0, skip as u8));
        program.push(instruction(LOAD, NUMBER, 0, 0));
        for number in *numbers {
            let to_check = check_at - program.len() - 1;
            program.push(instruction(EQUALS, *number, to_check as u8, 0));
        }
        let to_allow = allow_at - program.len() - 1;
        program.push(instruction(JUMP, to_allow as u32, 0, 0));
    }
    // An architecture that this kernel doesn't have: nothing of it is let through.
    let to_refuse = refuse_at - program.len() - 1;
    program.push(instruction(JUMP, to_refuse as u32, 0, 0));
    // The pid is 32 bits wide for the kernel: what a caller leaves in the upper half doesn't count.
    program.push(instruction(LOAD, FIRST_ARGUMENT_LOW, 0, 0));
    program.push(instruction(EQUALS, 0, 4, 0));
    program.push(instruction(LOAD, THIRD_ARGUMENT_LOW, 0, 0));
    program.push(instruction(EQUALS, 0, 0, 3));
    program.push(instruction(LOAD, THIRD_ARGUMENT_HIGH, 0, 0));
    program.push(instruction(EQUALS, 0, 0, 1));
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0));
    program
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn filter_prlimit() -> io::Result<()> {
    let mut filter = prlimit_filter();
    let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // The flag keeps kernels before 5.16 from slowing down every command for having a filter.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program and its instructions live until the call returns; the kernel copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn filter_prlimit() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "no seccomp filter for this architecture"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on a system call as the kernel would.
    fn verdict(architecture: u32, number: u32, first: u64, third: u64) -> u32 {
        let mut data = [0_u32; 16];
        data[0] = number;
        data[1] = architecture;
        (data[4], data[5]) = (first as u32, (first >> 32) as u32);
        (data[8], data[9]) = (third as u32, (third >> 32) as u32);
        let program = prlimit_filter();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => accumulator = data[step.k as usize / 4],
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => at += step.k as usize,
                _ => return step.k,
            }
        }
    }

    #[test]
    fn only_the_caller_itself_may_be_limited() {
        const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        for (architecture, numbers) in PRLIMIT64 {
            for number in *numbers {
                assert_eq!(verdict(*architecture, *number, 1, 0x7fff_0000_0000), REFUSED);
                assert_eq!(verdict(*architecture, *number, 1, 0x1000), REFUSED);
                // The kernel ignores the pid's upper half, so the filter must not be fooled by it.
                assert_eq!(verdict(*architecture, *number, 0xdead_0000_0001, 0x1000), REFUSED);
                assert_eq!(verdict(*architecture, *number, 0xdead_0000_0000, 0x1000), libc::SECCOMP_RET_ALLOW);
                assert_eq!(verdict(*architecture, *number, 0, 0x1000), libc::SECCOMP_RET_ALLOW);
                // Reading another's limits sets nothing.
                assert_eq!(verdict(*architecture, *number, 1, 0), libc::SECCOMP_RET_ALLOW);
                assert_eq!(verdict(*architecture, number + 1, 1, 0x1000), libc::SECCOMP_RET_ALLOW);
            }
        }
        assert_eq!(verdict(0x1234_5678, 0, 0, 0), REFUSED);
    }
}
