//! Work that blocks a thread, and ends when its caller goes away.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use corehold_types::{Code, Problem};

/// Tells blocking work whether anybody still wants its result.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether the caller went away. Long work asks between its steps.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells the work that its caller went away.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The problem of work that ended for this reason. Nobody reads it, but the work has to return something.
    #[must_use]
    pub fn problem() -> Problem {
        Problem::new(Code::Cancelled, "the caller went away")
    }
}

struct SetOnDrop(Cancelled);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs work on a thread that may block. Dropping the future tells the work to end; it ends at its next question.
///
/// # Errors
/// What the work says; `INTERNAL` when it panicked.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce(&Cancelled) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let cancelled = Cancelled::default();
    let _set_on_drop = SetOnDrop(cancelled.clone());
    match tokio::task::spawn_blocking(move || work(&cancelled)).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(Code::Internal, "the work ended in a panic; the agent's log says where")),
    }
}

/// Threads at most. Each takes memory, and more of them only queue at the disk.
pub const THREADS: usize = 64;

/// How long an idle thread is kept: for ever. Commands can use up the container's processes, and then there is no new
/// thread to be had.
pub const KEEP_ALIVE: Duration = Duration::from_secs(u32::MAX as u64);

/// Makes threads that will be there when no more can be made. Returns at once; call it within the runtime.
pub fn keep_ready() {
    const READY: usize = 2;
    let barrier = Arc::new(Barrier::new(READY));
    for _ in 0..READY {
        let barrier = Arc::clone(&barrier);
        // Each waits for the other, so that one thread can't do the work of both.
        tokio::task::spawn_blocking(move || barrier.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_learns_that_its_caller_went_away() {
        let (started, wait_for_start) = mpsc::sync_channel(1);
        let (ended, wait_for_end) = mpsc::sync_channel(1);
        let task = tokio::spawn(run(move |cancelled| {
            started.send(()).unwrap();
            while !cancelled.is_set() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Ok(())
        }));
        tokio::task::spawn_blocking(move || wait_for_start.recv().unwrap()).await.unwrap();
        task.abort();
        tokio::task::spawn_blocking(move || wait_for_end.recv().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_a_problem() {
        let result: Result<(), Problem> = run(|_| panic!("deliberate")).await;
        assert_eq!(result.unwrap_err().code, Code::Internal);
    }
}
