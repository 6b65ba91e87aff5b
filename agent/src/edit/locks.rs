//! Who changes which file now. All locks of a transaction are taken at once or it waits, so nobody waits while holding
//! something and there is no deadlock; those who wait are served in turn, so nobody starves.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// A place where a file is or may be: device and inode of the directory, then the name beneath it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) device: u64,
    pub(crate) directory: u64,
    pub(crate) name: Vec<u8>,
}

/// The locks of all files.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: HashSet<Key>,
    waiting: VecDeque<(u64, HashSet<Key>)>,
    next: u64,
}

/// Locks that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    locks: &'a Locks,
    keys: HashSet<Key>,
}

impl Locks {
    /// Waits until all keys are free and no one who waited longer wants any of them, then holds them.
    pub(crate) fn hold(&self, keys: impl IntoIterator<Item = Key>) -> Held<'_> {
        let keys: HashSet<Key> = keys.into_iter().collect();
        let mut state = self.state();
        let turn = state.next;
        state.next += 1;
        state.waiting.push_back((turn, keys.clone()));
        loop {
            let free = state.held.is_disjoint(&keys)
                && state
                    .waiting
                    .iter()
                    .take_while(|(other, _)| *other < turn)
                    .all(|(_, wanted)| wanted.is_disjoint(&keys));
            if free {
                break;
            }
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.retain(|(other, _)| *other != turn);
        state.held.extend(keys.iter().cloned());
        Held { locks: self, keys }
    }

    /// The state is whole between any two statements that could panic, so poison says nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        for key in &self.keys {
            state.held.remove(key);
        }
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn key(name: u8) -> Key {
        Key { device: 1, directory: 1, name: vec![name] }
    }

    #[test]
    fn overlapping_holders_exclude_each_other_in_any_order() {
        let locks = Locks::default();
        let inside: [AtomicU32; 4] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let (locks, inside) = (&locks, &inside);
                scope.spawn(move || {
                    for round in 0..200_u8 {
                        let pair = [thread.wrapping_add(round) % 4, thread.wrapping_mul(3).wrapping_add(round / 2) % 4];
                        let _held = locks.hold(pair.map(key));
                        let distinct: HashSet<u8> = pair.into();
                        for name in &distinct {
                            assert_eq!(inside[usize::from(*name)].fetch_add(1, Ordering::SeqCst), 0);
                        }
                        for name in &distinct {
                            inside[usize::from(*name)].fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let state = locks.state();
        assert!(state.held.is_empty() && state.waiting.is_empty());
    }
}
