//! Starting one process, vfork-like: the child borrows the agent's memory until it runs its program.
//!
//! Why by hand: `fork` copies the agent's page tables (2.7 ms at 30 MB against 0.67), `std::process` and `tokio::process`
//! reap for themselves, and neither enters a directory by its descriptor. This is what `posix_spawn` does inside, with the
//! directory, session, limits and the exact errors that we need.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use super::{limits::Limit, sys};

/// What a process is started with.
pub(super) struct Plan<'a> {
    /// The file to run, relative to `directory` unless absolute.
    pub(super) program: &'a CStr,
    /// Its arguments, the first being its name.
    pub(super) arguments: &'a [CString],
    /// `NAME=value` each.
    pub(super) environment: &'a [&'a CStr],
    /// Where it starts.
    pub(super) directory: BorrowedFd<'a>,
    /// Its standard input, output and error. Each above 2.
    pub(super) streams: [BorrowedFd<'a>; 3],
    /// Whether its streams are a terminal, which it is to be controlled by.
    pub(super) is_terminal: bool,
    /// The limits that it gets, of which open files are one: the agent's own was raised.
    pub(super) limits: &'a [Limit],
    /// Of [`changed_signals`].
    pub(super) changed_signals: &'a [c_int],
}

/// A process that runs its program.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Its id: its session's and its process group's as well.
    pub(super) pid: i32,
    /// Readable when it has ended. Absent on kernels before 5.2.
    pub(super) handle: Option<OwnedFd>,
}

/// The step at which a start failed, and why.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) error: io::Error,
}

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Step {
    /// Making the process.
    Process,
    /// Its session, limits and streams.
    Setup,
    /// Entering its directory.
    Directory,
    /// Running its program.
    Program,
}

/// A stack for children, used by one at a time: the parent stands still while its child is on it.
pub(super) struct ChildStack {
    base: *mut c_void,
}

// SAFETY: the mapping belongs to this value alone and is used through `&mut` only.
unsafe impl Send for ChildStack {}

impl ChildStack {
    const SIZE: usize = 64 * 1024;
    const GUARD: usize = 4096 * 16;

    /// Maps a stack with an unmapped guard below.
    pub(super) fn new() -> io::Result<Self> {
        let length = Self::SIZE + Self::GUARD;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the range lies within the mapping made above. The guard (64 KiB, a whole number of any page) stays shut.
        let usable = unsafe { base.byte_add(Self::GUARD) };
        // SAFETY: as above.
        if unsafe { libc::mprotect(usable, Self::SIZE, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Its upper end, aligned as every ABI wants it: stacks grow downwards.
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.byte_add(Self::SIZE + Self::GUARD) }
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no child is on it: `spawn` holds `&mut`.
        unsafe { libc::munmap(self.base, Self::SIZE + Self::GUARD) };
    }
}

/// What a signal does, as the kernel has it, with room for more. All zeros is what it does by default, whatever the order of its fields.
type Action = [u64; 8];

const DEFAULT_ACTION: Action = [0; 8];

/// Sets or asks what a signal does. By the bare system call: the C library keeps the first real-time signals to itself and leaves them
/// as whoever started the agent had them.
///
/// # Safety
/// Each pointer is null or to an [`Action`] that lives; handlers that are set may be run at any time.
unsafe fn act(signal: c_int, new: *const u64, old: *mut u64) -> bool {
    const SET_SIZE: usize = 8;
    // SAFETY: as the caller promises; the kernel writes no more than its own fields, which are fewer.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, SET_SIZE) == 0 }
}

/// The signals that don't do what they do by default: they are ignored or handled. The agent changes none while it runs.
pub(super) fn changed_signals() -> Vec<c_int> {
    let is_changed = |signal: &c_int| {
        let mut action = DEFAULT_ACTION;
        // SAFETY: the pointer is to a live local, and nothing is set.
        let known = unsafe { act(*signal, ptr::null(), action.as_mut_ptr()) };
        // Its flags may be anything; the first field of all is the handler.
        known && action[0] != 0
    };
    (1..=64).filter(is_changed).collect()
}

/// What parent and child share. Plain numbers and pointers, made before the child is.
struct Shared {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    directory: c_int,
    streams: [c_int; 3],
    is_terminal: bool,
    limits: *const Limit,
    limit_count: usize,
    changed_signals: *const c_int,
    changed_signal_count: usize,
    failed_step: c_int,
    errno: c_int,
}

/// Starts a process in a session of its own, all signals at their default and none blocked.
///
/// A child that could not run its program is reaped, in here or by the keeper, and leaves no trace.
///
/// The calling thread must have all signals blocked: a handler that ran in the child would run in the agent's memory.
///
/// # Errors
/// [`Failed`] with the step and the kernel's error.
pub(super) fn spawn(stack: &mut ChildStack, plan: &Plan<'_>) -> Result<Spawned, Failed> {
    let end = [ptr::null::<c_char>()];
    let arguments: Vec<_> = plan.arguments.iter().map(|string| string.as_ptr()).chain(end).collect();
    let environment: Vec<_> = plan.environment.iter().map(|string| string.as_ptr()).chain(end).collect();
    let mut shared = Shared {
        program: plan.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        directory: plan.directory.as_raw_fd(),
        streams: plan.streams.map(|fd| fd.as_raw_fd()),
        is_terminal: plan.is_terminal,
        limits: plan.limits.as_ptr(),
        limit_count: plan.limits.len(),
        changed_signals: plan.changed_signals.as_ptr(),
        changed_signal_count: plan.changed_signals.len(),
        failed_step: -1,
        errno: 0,
    };
    let mut handle: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `child` runs on a stack that nothing else uses, in our memory, while this thread stands still (CLONE_VFORK)
    // until it has run its program or ended; so everything `shared` points to lives as long as it reads it. The child
    // writes only to `shared` and its stack, and calls nothing but async-signal-safe functions. With CLONE_PIDFD the
    // kernel writes the descriptor to the fifth argument.
    let pid = unsafe { libc::clone(child, stack.top(), flags, (&raw mut shared).cast(), &raw mut handle) };
    if pid < 0 {
        return Err(Failed { step: Step::Process, error: io::Error::last_os_error() });
    }
    let handle = (handle >= 0).then(|| {
        // SAFETY: the kernel has just given us this descriptor, close-on-exec; nobody else has it.
        unsafe { OwnedFd::from_raw_fd(handle) }
    });
    // SAFETY: the child wrote through a pointer that the compiler doesn't know of; it has ended or runs its own memory now.
    let (failed_step, errno) =
        unsafe { ((&raw const shared.failed_step).read_volatile(), (&raw const shared.errno).read_volatile()) };
    let step = match failed_step {
        -1 => return Ok(Spawned { pid, handle }),
        step if step == Step::Directory as c_int => Step::Directory,
        step if step == Step::Program as c_int => Step::Program,
        _ => Step::Setup,
    };
    sys::reap(pid);
    Err(Failed { step, error: io::Error::from_raw_os_error(errno) })
}

/// The child. It lives in the agent's memory: no allocation, no lock, no panic, nothing but system calls.
extern "C" fn child(shared: *mut c_void) -> c_int {
    let shared = shared.cast::<Shared>();
    // SAFETY: `spawn` passes a pointer to a `Shared` that lives until this child runs its program or exits.
    let step = unsafe { run(shared) };
    // SAFETY: as above; `run` returns only when a step failed, and errno is that step's.
    unsafe {
        (&raw mut (*shared).errno).write_volatile(*libc::__errno_location());
        (&raw mut (*shared).failed_step).write_volatile(step as c_int);
        libc::_exit(127)
    }
}

/// Returns the step that failed, or not at all.
///
/// # Safety
/// Only for `child`: `shared` is alive and its pointers are as `spawn` made them.
unsafe fn run(shared: *const Shared) -> Step {
    // SAFETY: the caller vouches for `shared`; every call below is async-signal-safe and given live pointers.
    unsafe {
        // Ignored signals stay ignored over exec, and Rust's runtime ignores SIGPIPE. Handlers are reset before signals
        // are let in, since one that ran now would run in the agent's memory.
        for index in 0..(*shared).changed_signal_count {
            act(*(*shared).changed_signals.add(index), DEFAULT_ACTION.as_ptr(), ptr::null_mut());
        }
        if libc::setsid() < 0 {
            return Step::Setup;
        }
        for (target, source) in (*shared).streams.iter().enumerate() {
            if libc::dup2(*source, target as c_int) < 0 {
                return Step::Setup;
            }
        }
        if (*shared).is_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return Step::Setup;
        }
        if libc::fchdir((*shared).directory) < 0 {
            return Step::Directory;
        }
        // The agent opens everything close-on-exec; this holds also if one place should forget. Kernels before 5.11
        // don't know the call, which is as well.
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
        for index in 0..(*shared).limit_count {
            let limit = (*shared).limits.add(index);
            if libc::setrlimit((*limit).resource, &raw const (*limit).value) < 0 {
                return Step::Setup;
            }
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve((*shared).program, (*shared).arguments, (*shared).environment);
        Step::Program
    }
}
