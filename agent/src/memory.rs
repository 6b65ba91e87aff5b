//! How the agent's allocator treats what is large: it goes back to the kernel as soon as it is given up.

/// Bytes from which an allocation has pages of its own. What is read or sent at a time over and over (256 KiB, 1 MiB) is less.
const LARGE: i32 = 2 << 20;

/// Bytes that each of the allocator's areas keeps, so that what is less than large is had again without asking the kernel.
const KEPT: i32 = 2 * LARGE;

/// Called once, before much is allocated.
///
/// Left alone, glibc takes the first large allocation that is freed for a sign that there will be more of its size, up to 32 MiB,
/// and keeps as much for each thread (mallopt(3), `M_MMAP_THRESHOLD`): an agent that has once answered some callers with 8 MiB
/// would be 100 MiB large from then on.
pub fn return_what_is_large() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: it sets a number of the allocator, which takes a lock of its own for it.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            tracing::debug!(parameter, "the allocator goes on as it likes");
        }
    }
}
