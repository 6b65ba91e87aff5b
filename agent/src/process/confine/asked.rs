//! What the kernel asks about the system calls of commands (`seccomp_unotify(2)`), and the agent's answers: whose thread is it?
//!
//! Only numbers are looked at, which the caller can't change any more. Memory, which it could, is nowhere looked at.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::filter::{CALLS, DISK_PRIORITY_OF_USER, PRIORITY_OF_USER};

/// How a question was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Answered {
    /// It was answered, or who asked for it is gone.
    Yes,
    /// There will be no more.
    NoMore,
}

/// Room for the kernel's structures, which may be larger than the ones that are known here.
#[repr(C, align(8))]
struct Room([u8; 256]);

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`: direction, size, `!`, number.
const RECEIVE: u64 = 0xc000_0000 | (size_of::<libc::seccomp_notif>() as u64) << 16 | 0x2100;
const SEND: u64 = 0xc000_0000 | (size_of::<libc::seccomp_notif_resp>() as u64) << 16 | 0x2101;

/// Whether the kernel takes "go on" for an answer, since Linux 5.5: asked by a call that came with 5.9.
pub(super) fn can_answer() -> io::Result<()> {
    // SAFETY: an empty range of descriptors, and no flag: nothing is closed.
    match unsafe { libc::syscall(libc::SYS_close_range, libc::c_uint::MAX, libc::c_uint::MAX, 0 as libc::c_uint) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Answers one question, which must be there: else it waits.
pub(in crate::process) fn answer(questions: BorrowedFd<'_>) -> Answered {
    let mut room = Room([0; 256]);
    // SAFETY: the kernel writes at most its structure's size, for which there is room, and wants zeros there.
    if unsafe { libc::ioctl(questions.as_raw_fd(), RECEIVE as _, room.0.as_mut_ptr()) } != 0 {
        return match io::Error::last_os_error().raw_os_error() {
            // Who made the call was killed, or a signal came.
            Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => Answered::Yes,
            _ => Answered::NoMore,
        };
    }
    // SAFETY: the kernel has filled it in, it is aligned, and all its fields are numbers.
    let question = unsafe { &*room.0.as_ptr().cast::<libc::seccomp_notif>() };
    // Not by rustix, which doesn't expect the 0 that a group outside of the pid namespace has.
    // SAFETY: the call takes nothing and can't fail.
    let own_group = unsafe { libc::getpgrp() };
    let refuse = reaches_the_agent(&question.data, own_group, is_own_thread);
    if refuse {
        // Not louder: a command may try as often as it likes.
        tracing::debug!(pid = question.pid, call = question.data.nr, "a command may not change the agent's priority");
    }
    let mut answer = Room([0; 256]);
    let response = libc::seccomp_notif_resp {
        id: question.id,
        val: 0,
        error: if refuse { -libc::EPERM } else { 0 },
        flags: if refuse { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
    };
    // SAFETY: there is room for it, and it is aligned.
    unsafe { answer.0.as_mut_ptr().cast::<libc::seccomp_notif_resp>().write(response) };
    // SAFETY: the kernel reads its structure's size, for which there is room. It fails when who asked is gone.
    unsafe { libc::ioctl(questions.as_raw_fd(), SEND as _, answer.0.as_mut_ptr()) };
    Answered::Yes
}

/// Whether a call that changes priorities means one of the agent's threads, or all of its user's.
fn reaches_the_agent(call: &libc::seccomp_data, own_group: i32, is_own: impl Fn(i32) -> bool) -> bool {
    let Some(calls) = CALLS.iter().find(|calls| calls.architecture == call.arch) else { return true };
    let number = call.nr as u32;
    // The kernel takes 32 bits of each.
    let [first, second] = [call.args[0] as u32, call.args[1] as u32];
    let (kind, user) = if calls.priority.contains(&number) {
        (first, PRIORITY_OF_USER)
    } else if calls.disk_priority.contains(&number) {
        (first, DISK_PRIORITY_OF_USER)
    } else {
        return is_own(first as i32);
    };
    // The kinds of both come in the order thread, group, user; who says something else is told so by the kernel.
    match user.wrapping_sub(kind) {
        0 => true,
        1 => second as i32 == own_group,
        _ => is_own(second as i32),
    }
}

/// Whether the agent has this thread. A thread that it makes a moment later has another number: numbers are given in turn.
fn is_own_thread(thread: i32) -> bool {
    // SAFETY: signal 0 is none; the call only looks.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(architecture: u32, number: u32, arguments: [u64; 2]) -> bool {
        let args = [arguments[0], arguments[1], 0, 0, 0, 0];
        let call = libc::seccomp_data { nr: number as i32, arch: architecture, instruction_pointer: 0, args };
        reaches_the_agent(&call, 5, |thread| thread == 3)
    }

    #[test]
    fn the_agents_threads_and_its_user_are_reached() {
        for calls in CALLS {
            let reaches = |number: u32, first, second| reaches(calls.architecture, number, [first, second]);
            for number in calls.schedule {
                assert_eq!([3, 4, 0xdead_0000_0003].map(|thread| reaches(*number, thread, 3)), [true, false, true]);
            }
            for (numbers, [process, group, user]) in [(calls.priority, [0, 1, 2]), (calls.disk_priority, [1, 2, 3])] {
                for number in numbers {
                    assert!(reaches(*number, process, 3) && !reaches(*number, process, 4));
                    assert!(reaches(*number, group, 5) && !reaches(*number, group, 3));
                    assert!(reaches(*number, user, 0) && reaches(*number, user, 1000));
                }
            }
        }
        assert!(reaches(1, 1, [4, 4]), "of another architecture than there is");
    }

    #[test]
    fn a_thread_is_ones_own_or_not() {
        // SAFETY: the call takes nothing and can't fail.
        let own = unsafe { libc::gettid() };
        assert!(is_own_thread(own) && !is_own_thread(1) && !is_own_thread(-1) && !is_own_thread(i32::MAX));
    }
}
