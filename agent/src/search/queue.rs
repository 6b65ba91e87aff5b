//! Work for a few threads, each of which may bring more of it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::control::Control;

/// Tasks that wait, the last one that came to be done first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    stack: Vec<T>,
    /// Threads that work, and may bring more.
    busy: usize,
    /// Threads that wait.
    idle: usize,
}

impl<T> Queue<T> {
    /// A queue for so many threads. Each counts as busy until it asks for work.
    pub(super) fn new(threads: usize) -> Self {
        Self { state: Mutex::new(State { stack: Vec::new(), busy: threads, idle: 0 }), changed: Condvar::new() }
    }

    /// Puts work on the stack, the last of it to be done first.
    pub(super) fn push(&self, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.stack.extend(tasks);
        let wake = state.idle > 0 && !state.stack.is_empty();
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// The next task; waits while others may bring one. Nothing when all is done, or `control` has stopped it.
    pub(super) fn next(&self, control: &Control) -> Option<T> {
        let mut state = self.lock();
        loop {
            if control.is_stopped() {
                state.stack.clear();
            }
            if let Some(task) = state.stack.pop() {
                return Some(task);
            }
            state.busy -= 1;
            if state.busy == 0 {
                self.changed.notify_all();
                return None;
            }
            state.idle += 1;
            state = self
                .changed
                .wait_while(state, |state| state.stack.is_empty() && state.busy > 0)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            if state.stack.is_empty() {
                return None;
            }
            state.busy += 1;
        }
    }

    /// Some threads don't work any more.
    pub(super) fn leave(&self, threads: usize) {
        self.lock().busy -= threads;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is valid after each single change, so a panic elsewhere does it no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::search::Stop;

    /// Each task brings two smaller ones: all threads end, and only when all is done.
    #[test]
    fn threads_end_when_nobody_can_bring_more() {
        for threads in 1..5 {
            let (queue, control, done) = (Queue::new(threads), Control::new(0), AtomicU32::new(0));
            queue.push([10_u32]);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while let Some(task) = queue.next(&control) {
                            done.fetch_add(1, Ordering::Relaxed);
                            queue.push((0..2).filter(|_| task > 0).map(|_| task - 1));
                        }
                    });
                }
            });
            assert_eq!(done.into_inner(), 2_047);
        }
    }

    #[test]
    fn a_stopped_queue_is_empty() {
        let (queue, control) = (Queue::new(1), Control::new(0));
        queue.push([1, 2]);
        control.stop(Stop::Cancelled);
        assert_eq!(queue.next(&control), None);
    }
}
