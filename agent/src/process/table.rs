//! The spawn table: which children of this process are commands, and whose.
//!
//! Children belong to the process, so the table does too. Its lock is held from before a command's process is made until it
//! is entered here, and while processes are reaped: so nothing is ever reaped that isn't known, and no status is lost.

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

static TABLE: Mutex<Option<HashMap<i32, Arc<Inbox>>>> = Mutex::new(None);

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

/// The table, locked.
pub(super) struct Table(MutexGuard<'static, Option<HashMap<i32, Arc<Inbox>>>>);

impl Table {
    /// Waits for the lock.
    pub(super) fn lock() -> Self {
        Self(TABLE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enters a process that was just started.
    pub(super) fn enter(&mut self, owner: &Arc<Inbox>, arrival: Arrival) {
        self.0.get_or_insert_default().insert(arrival.command.leader(), Arc::clone(owner));
        owner.lock().push(Delivery::Started(Box::new(arrival)));
    }

    /// Reaps all children that have ended: tells the owners of commands, and returns the others, which are orphans.
    pub(super) fn reap_all(&mut self, reaper: &Arc<Inbox>) -> Vec<i32> {
        let mut orphans = Vec::new();
        loop {
            match sys::reap_any() {
                Ok(Some(child)) => match self.0.as_mut().and_then(|table| table.remove(&child.pid)) {
                    Some(owner) => {
                        owner.lock().push(Delivery::Ended(child));
                        if !Arc::ptr_eq(&owner, reaper) {
                            owner.wake();
                        }
                    }
                    None => orphans.push(child.pid),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // None has ended, or there is no child at all.
                Ok(None) | Err(_) => return orphans,
            }
        }
    }
}
