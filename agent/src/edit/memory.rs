//! The memory that transactions hold for content, all together: those that are large take turns.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of content of a transaction that waits for nobody. As many as there are threads that may block, times this, is little.
const SMALL: u64 = 256 << 10;

/// What the transactions under way hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    /// Numbers of who came, and of whose turn it is: a large one would wait for ever for a moment without small ones.
    came: u64,
    turn: u64,
}

/// A transaction's part, until this is dropped.
#[derive(Debug)]
pub(super) struct Content<'a> {
    memory: &'a Memory,
    held: u64,
    bytes: u64,
}

impl Content<'_> {
    /// What the transaction may hold.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // At worst others wait for what was held when somebody panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is so much, of `most` for all, in the order of those who came. Who needs more than there is waits until
    /// nobody else holds any. Call it before any other lock is taken.
    pub(super) fn take(&self, bytes: u64, most: u64) -> Content<'_> {
        if bytes <= SMALL {
            return Content { memory: self, held: 0, bytes: SMALL.min(most) };
        }
        let bytes = bytes.min(most);
        let mut state = self.state();
        let number = state.came;
        state.came += 1;
        while state.turn != number || state.held + bytes > most {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.held += bytes;
        drop(state);
        self.changed.notify_all();
        Content { memory: self, held: bytes, bytes }
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        self.memory.state().held -= self.held;
        self.memory.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_ones_take_turns_and_small_ones_wait_for_nobody() {
        let memory = Memory::default();
        let first = memory.take(6 * MIB, 10 * MIB);
        let second = memory.take(4 * MIB, 10 * MIB);
        drop(memory.take(SMALL, 10 * MIB));
        thread::scope(|scope| {
            let (told, order) = mpsc::sync_channel(2);
            let memory = &memory;
            let begin = |name: &'static str, bytes| {
                let (told, before) = (told.clone(), memory.state().came);
                scope.spawn(move || {
                    let _held = memory.take(bytes, 10 * MIB);
                    told.send(name).unwrap();
                });
                while memory.state().came == before {
                    thread::yield_now();
                }
            };
            // More than there is: all of it. The one behind it doesn't overtake it, though it would fit.
            begin("whole", 100 * MIB);
            begin("behind", MIB);
            drop(first);
            assert!(order.recv_timeout(Duration::from_millis(50)).is_err());
            drop(second);
            assert_eq!((order.recv().unwrap(), order.recv().unwrap()), ("whole", "behind"));
        });
        assert_eq!(memory.state().held, 0);
    }
}
