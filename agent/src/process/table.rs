//! The spawn table: which children of this process are commands, and whose.
//!
//! Children belong to the process, so the table does too. All is done under its lock, which is never held while a process
//! is being made: that takes as long as a file system takes to hand out the program. What ends before it is entered is kept
//! until it is, so no status is lost.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    arrival::Arrival,
    sys::{self, Reaped},
};

static TABLE: Mutex<Option<Entries>> = Mutex::new(None);

#[derive(Default)]
struct Entries {
    /// Whose a child is, by its pid.
    owners: HashMap<i32, Arc<Inbox>>,
    /// Processes that are being made.
    starting: usize,
    /// Children that were reaped meanwhile and are in no entry: orphans, or one that was made and ended at once.
    unclaimed: HashMap<i32, Reaped>,
}

fn locked<T>(work: impl FnOnce(&mut Entries) -> T) -> T {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    work(table.get_or_insert_default())
}

/// What happens to a keeper's processes, in the order in which it happens: a pid can come back as another's.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A process was started.
    Started(Box<Arrival>),
    /// It has ended and was reaped.
    Ended(Reaped),
}

/// Where a keeper is told of its processes.
#[derive(Debug)]
pub(super) struct Inbox {
    deliveries: Mutex<Vec<Delivery>>,
    wake: OwnedFd,
}

impl Inbox {
    /// An inbox that wakes its owner by an eventfd.
    pub(super) fn new(wake: OwnedFd) -> Self {
        Self { deliveries: Mutex::default(), wake }
    }

    /// Readable when the owner is to look.
    pub(super) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// Wakes the owner.
    pub(super) fn wake(&self) {
        // It could only fail if it was written 2^64 times without being read.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Everything since the last time.
    pub(super) fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process is being made: until this is dropped, what is reaped and not known is kept for [`Starting::enter`].
pub(super) struct Starting(());

impl Starting {
    /// Called before the process is made.
    pub(super) fn begin() -> Self {
        locked(|entries| entries.starting += 1);
        Self(())
    }

    /// Enters the process. It may have ended already.
    pub(super) fn enter(self, owner: &Arc<Inbox>, arrival: Arrival) {
        locked(|entries| {
            let pid = arrival.command.leader();
            owner.lock().push(Delivery::Started(Box::new(arrival)));
            match entries.unclaimed.remove(&pid) {
                Some(ended) => owner.lock().push(Delivery::Ended(ended)),
                None => _ = entries.owners.insert(pid, Arc::clone(owner)),
            }
        });
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        locked(|entries| {
            entries.starting -= 1;
            if entries.starting == 0 {
                entries.unclaimed.clear();
            }
        });
    }
}

/// Reaps all children that have ended: tells the owners of commands, and returns the others, which are orphans.
pub(super) fn reap_all(reaper: &Arc<Inbox>) -> Vec<i32> {
    locked(|entries| {
        let mut orphans = Vec::new();
        loop {
            match sys::reap_any() {
                Ok(Some(child)) => match entries.owners.remove(&child.pid) {
                    Some(owner) => {
                        owner.lock().push(Delivery::Ended(child));
                        if !Arc::ptr_eq(&owner, reaper) {
                            owner.wake();
                        }
                    }
                    None => {
                        if entries.starting > 0 {
                            entries.unclaimed.insert(child.pid, child);
                        }
                        orphans.push(child.pid);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // None has ended, or there is no child at all.
                Ok(None) | Err(_) => return orphans,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, Instant},
    };

    use rustix::{
        event::{EventfdFlags, eventfd},
        pipe::pipe,
    };

    use super::*;
    use crate::{
        config::Limits,
        process::{
            command::{Command, Identity},
            registry::Registry,
            store::Store,
        },
    };

    #[test]
    fn a_process_that_ends_before_it_is_entered_keeps_its_status() {
        // Larger than any pid there is.
        const PID: i32 = i32::MAX;
        let inbox = Arc::new(Inbox::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
        let slot = Arc::new(Registry::default()).reserve(Limits::default().commands).unwrap();
        let store = Store::within(File::from(pipe().unwrap().0), 1, 1);
        let identity = Identity { id: "c".into(), number: slot.number, label: None, line: String::new() };
        let arrival = Arrival {
            command: Arc::new(Command::new(identity, PID, store.file(), None)),
            slot,
            handle: None,
            output: pipe().unwrap().0,
            error: Some(pipe().unwrap().0),
            feed: None,
            timeout: None,
            stall_timeout: None,
            started: Instant::now(),
            own_peak_memory_bytes: 0,
            kills_before: None,
        };
        let starting = Starting::begin();
        let ended = Reaped { pid: PID, status: 7 << 8, cpu: Duration::ZERO, peak_memory_bytes: 0 };
        locked(|entries| entries.unclaimed.insert(PID, ended));
        starting.enter(&inbox, arrival);
        let deliveries = inbox.take();
        let [Delivery::Started(_), Delivery::Ended(told)] = &deliveries[..] else { panic!("{deliveries:?}") };
        assert_eq!(told.status, 7 << 8);
    }
}
