//! The filter of system calls in classic BPF (`seccomp(2)`, `struct seccomp_data`): by hand, since a library for so few rules is
//! larger. What is asked of the agent is answered in [`asked`](super::asked).

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// The numbers of the calls that are judged, for one way to make system calls.
pub(super) struct Calls {
    /// `AUDIT_ARCH_…`.
    pub(super) architecture: u32,
    /// `prlimit64`.
    pub(super) prlimit: &'static [u32],
    /// Those that are given a thread first: `sched_setparam`, `sched_setscheduler`, `sched_setaffinity`, `sched_setattr`.
    pub(super) schedule: &'static [u32],
    /// `setpriority`: a kind, and whom.
    pub(super) priority: &'static [u32],
    /// `ioprio_set`: another kind, and whom.
    pub(super) disk_priority: &'static [u32],
    /// `socket`: a family first.
    pub(super) socket: &'static [u32],
    /// `socketcall`, by which older 32-bit programs make sockets, of a family that a filter can't see.
    pub(super) socketcall: &'static [u32],
    /// What newer engines refuse every container, and older ones don't: `io_uring_setup`.
    pub(super) refused: &'static [u32],
}

/// The architectures whose system calls a process on this kernel can make.
#[cfg(target_arch = "x86_64")]
pub(super) const CALLS: &[Calls] = &[
    // AUDIT_ARCH_X86_64; the second number of each is the same call of the x32 ABI.
    Calls {
        architecture: 0xc000_003e,
        prlimit: &[302, 302 | X32],
        schedule: &[142, 144, 203, 314, 142 | X32, 144 | X32, 203 | X32, 314 | X32],
        priority: &[141, 141 | X32],
        disk_priority: &[251, 251 | X32],
        socket: &[41, 41 | X32],
        socketcall: &[],
        refused: &[425, 425 | X32],
    },
    // AUDIT_ARCH_I386: `int 0x80`, which 64-bit programs can use as well.
    Calls {
        architecture: 0x4000_0003,
        prlimit: &[340],
        schedule: &[154, 156, 241, 351],
        priority: &[97],
        disk_priority: &[289],
        socket: &[359],
        socketcall: &[102],
        refused: &[425],
    },
];
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

#[cfg(target_arch = "aarch64")]
pub(super) const CALLS: &[Calls] = &[
    // AUDIT_ARCH_AARCH64
    Calls {
        architecture: 0xc000_00b7,
        prlimit: &[261],
        schedule: &[118, 119, 122, 274],
        priority: &[140],
        disk_priority: &[30],
        socket: &[198],
        socketcall: &[],
        refused: &[425],
    },
    // AUDIT_ARCH_ARM
    Calls {
        architecture: 0x4000_0028,
        prlimit: &[369],
        schedule: &[154, 156, 241, 380],
        priority: &[97],
        disk_priority: &[314],
        socket: &[281],
        socketcall: &[],
        refused: &[425],
    },
];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const CALLS: &[Calls] = &[];

/// `PRIO_USER` and `IOPRIO_WHO_USER`.
pub(super) const PRIORITY_OF_USER: u32 = 2;
pub(super) const DISK_PRIORITY_OF_USER: u32 = 3;
/// The family of sockets to the hypervisor: past every rule that holds for networks.
const VSOCK: u32 = libc::AF_VSOCK as u32;
/// `SYS_SOCKET` of `socketcall(2)`.
const MAKES_SOCKET: u32 = 1;

/// What a system call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Prlimit,
    Schedule,
    Priority,
    DiskPriority,
    Socket,
    SocketCall,
    Ask,
    Allow,
    Refuse,
}

/// Where to go on.
#[derive(Debug, Clone, Copy)]
enum To {
    Next,
    /// Over so many.
    Skip(usize),
    Label(Label),
}

/// An instruction whose jumps are not counted yet.
struct Step {
    code: u32,
    operand: u32,
    yes: To,
    no: To,
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

// Offsets in `struct seccomp_data` on a little-endian machine, as both architectures are.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_LOW: u32 = 16;
const SECOND_LOW: u32 = 24;
const THIRD_LOW: u32 = 32;
const THIRD_HIGH: u32 = 36;

/// The filter. Without somebody to ask, what would be asked is allowed.
fn program(asks: bool) -> Vec<libc::sock_filter> {
    let (mut steps, mut labels) = (Vec::new(), Vec::new());
    let load = |operand| Step { code: LOAD, operand, yes: To::Next, no: To::Next };
    let equals = |operand, yes, no| Step { code: EQUALS, operand, yes, no };
    let returns = |operand| Step { code: RETURN, operand, yes: To::Next, no: To::Next };

    steps.push(load(ARCHITECTURE));
    for calls in CALLS {
        let sorts = [
            (calls.prlimit, Label::Prlimit),
            (calls.schedule, Label::Schedule),
            (calls.priority, Label::Priority),
            (calls.disk_priority, Label::DiskPriority),
            (calls.socket, Label::Socket),
            (calls.socketcall, Label::SocketCall),
            (calls.refused, Label::Refuse),
        ];
        let known = sorts.iter().map(|(numbers, _)| numbers.len()).sum::<usize>();
        steps.push(equals(calls.architecture, To::Next, To::Skip(1 + known + 1)));
        steps.push(load(NUMBER));
        for (numbers, label) in sorts {
            steps.extend(numbers.iter().map(|number| equals(*number, To::Label(label), To::Next)));
        }
        // Equal or not: all others.
        steps.push(equals(0, To::Label(Label::Allow), To::Label(Label::Allow)));
    }
    // An architecture that this kernel doesn't have: nothing of it is let through.
    steps.push(equals(0, To::Label(Label::Refuse), To::Label(Label::Refuse)));

    // The pid is 32 bits wide for the kernel: what a caller leaves in the upper half doesn't count. Without new limits the
    // call only reads.
    labels.push((Label::Prlimit, steps.len()));
    steps.push(load(FIRST_LOW));
    steps.push(equals(0, To::Label(Label::Allow), To::Next));
    steps.push(load(THIRD_LOW));
    steps.push(equals(0, To::Next, To::Label(Label::Refuse)));
    steps.push(load(THIRD_HIGH));
    steps.push(equals(0, To::Label(Label::Allow), To::Label(Label::Refuse)));

    labels.push((Label::Schedule, steps.len()));
    steps.push(load(FIRST_LOW));
    steps.push(equals(0, To::Label(Label::Allow), To::Label(Label::Ask)));

    // 0 is the caller itself, its group, or its user, who is the agent's too.
    for (label, user) in [(Label::Priority, PRIORITY_OF_USER), (Label::DiskPriority, DISK_PRIORITY_OF_USER)] {
        labels.push((label, steps.len()));
        steps.push(load(SECOND_LOW));
        steps.push(equals(0, To::Next, To::Label(Label::Ask)));
        steps.push(load(FIRST_LOW));
        steps.push(equals(user, To::Label(Label::Ask), To::Label(Label::Allow)));
    }

    for (label, first) in [(Label::Socket, VSOCK), (Label::SocketCall, MAKES_SOCKET)] {
        labels.push((label, steps.len()));
        steps.push(load(FIRST_LOW));
        steps.push(equals(first, To::Label(Label::Refuse), To::Label(Label::Allow)));
    }

    let asked = if asks { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    for (label, verdict) in [(Label::Ask, asked), (Label::Allow, libc::SECCOMP_RET_ALLOW), (Label::Refuse, refused)] {
        labels.push((label, steps.len()));
        steps.push(returns(verdict));
    }
    assemble(&steps, &labels)
}

/// Counts the jumps, all of which go forward. They reach 255 instructions, of which there are fewer (a test runs them all).
fn assemble(steps: &[Step], labels: &[(Label, usize)]) -> Vec<libc::sock_filter> {
    let jump = |from: usize, to| {
        let distance = match to {
            To::Next => 0,
            To::Skip(count) => count,
            To::Label(wanted) => {
                let at = labels.iter().find(|(label, _)| *label == wanted).map_or(steps.len(), |(_, at)| *at);
                at - from - 1
            }
        };
        distance as u8
    };
    let instruction = |(at, step): (usize, &Step)| libc::sock_filter {
        code: step.code as u16,
        jt: jump(at, step.yes),
        jf: jump(at, step.no),
        k: step.operand,
    };
    steps.iter().enumerate().map(instruction).collect()
}

/// Installs the filter without anybody to ask.
pub(super) fn install() -> io::Result<()> {
    load(false).map(drop)
}

/// Installs the filter. What it gives back is where the kernel asks.
pub(super) fn install_asking() -> io::Result<OwnedFd> {
    let fd = load(true)?;
    // SAFETY: with this flag the call answers a new descriptor, close-on-exec; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(asks: bool) -> io::Result<i32> {
    if CALLS.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no seccomp filter for this architecture"));
    }
    let mut filter = program(asks);
    let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // The first flag keeps kernels before 5.16 from slowing down every command for having a filter.
    let listener = if asks { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | listener;
    // SAFETY: the program and its instructions live until the call returns; the kernel copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        fd @ 0.. => i32::try_from(fd).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const ASKED: u32 = libc::SECCOMP_RET_USER_NOTIF;

    /// Runs the filter on a system call as the kernel would.
    fn verdict(asks: bool, architecture: u32, number: u32, arguments: [u64; 3]) -> u32 {
        let mut data = [0_u32; 16];
        data[0] = number;
        data[1] = architecture;
        for (index, argument) in arguments.into_iter().enumerate() {
            (data[4 + 2 * index], data[5 + 2 * index]) = (argument as u32, (argument >> 32) as u32);
        }
        let program = program(asks);
        assert!(program.len() < 255, "jumps reach no further");
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                LOAD => accumulator = data[step.k as usize / 4],
                EQUALS => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn only_the_caller_itself_may_be_limited() {
        for (calls, asks) in CALLS.iter().flat_map(|calls| [(calls, true), (calls, false)]) {
            let verdict = |number, first, third| verdict(asks, calls.architecture, number, [first, 7, third]);
            for number in calls.prlimit {
                assert_eq!(verdict(*number, 1, 0x7fff_0000_0000), REFUSED);
                assert_eq!(verdict(*number, 1, 0x1000), REFUSED);
                // The kernel ignores the pid's upper half, so the filter must not be fooled by it.
                assert_eq!(verdict(*number, 0xdead_0000_0001, 0x1000), REFUSED);
                assert_eq!(verdict(*number, 0xdead_0000_0000, 0x1000), ALLOWED);
                assert_eq!(verdict(*number, 0, 0x1000), ALLOWED);
                // Reading another's limits sets nothing.
                assert_eq!(verdict(*number, 1, 0), ALLOWED);
                assert_eq!(verdict(number + 1, 1, 0x1000), ALLOWED);
            }
            assert_eq!(verdict(0x3fff_ffff, 1, 1), ALLOWED);
        }
        assert_eq!(verdict(true, 0x1234_5678, 0, [0; 3]), REFUSED);
    }

    #[test]
    fn what_newer_engines_refuse_every_container_is_refused_on_each() {
        for (calls, asks) in CALLS.iter().flat_map(|calls| [(calls, true), (calls, false)]) {
            let verdict = |number, first| verdict(asks, calls.architecture, number, [first, 1, 0]);
            for number in calls.socket {
                assert_eq!([1, 2, 10, 16].map(|family| verdict(*number, family)), [ALLOWED; 4]);
                assert_eq!(verdict(*number, 40), REFUSED);
                // A family is 32 bits wide for the kernel.
                assert_eq!(verdict(*number, 0xdead_0000_0028), REFUSED);
            }
            // All else of it is about sockets that there are.
            for number in calls.socketcall {
                assert_eq!([1, 2, 3].map(|call| verdict(*number, call)), [REFUSED, ALLOWED, ALLOWED]);
            }
            assert!(!calls.refused.is_empty() && calls.refused.iter().all(|number| verdict(*number, 1) == REFUSED));
        }
    }

    #[test]
    fn about_another_ones_priority_the_agent_is_asked() {
        for calls in CALLS {
            let asked = |number, arguments| verdict(true, calls.architecture, number, arguments);
            for number in calls.schedule {
                for (first, expected) in
                    [(0, ALLOWED), (1, ASKED), (0xdead_0000_0001, ASKED), (0xdead_0000_0000, ALLOWED)]
                {
                    assert_eq!(asked(*number, [first, 8, 0x1000]), expected);
                    assert_eq!(verdict(false, calls.architecture, *number, [first, 8, 0x1000]), ALLOWED);
                }
            }
            // Process, group, user: another's, and the caller's own.
            for (numbers, kinds) in [(calls.priority, [0, 1, 2]), (calls.disk_priority, [1, 2, 3])] {
                for number in numbers {
                    assert!(kinds.iter().all(|kind| asked(*number, [*kind, 1, 19]) == ASKED));
                    assert_eq!(kinds.map(|kind| asked(*number, [kind, 0, 19])), [ALLOWED, ALLOWED, ASKED]);
                    assert_eq!(asked(*number, [kinds[0], 0xdead_0000_0000, 19]), ALLOWED);
                }
            }
        }
    }
}
