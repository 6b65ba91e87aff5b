//! Notes: what a call's handler, its surface and its record tell one another while it lasts.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::Touched;

/// Notes of one call. Clones are the same notes.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    touched: Mutex<Touched>,
    replayed: AtomicBool,
}

impl Notes {
    /// Adds to what the call touches. A call that ends early is recorded with what was noted by then.
    pub fn note(&self, note: impl FnOnce(&mut Touched)) {
        // At worst a note is incomplete.
        note(&mut self.0.touched.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The call is answered with the answer of an earlier one.
    pub(crate) fn replay(&self) {
        self.0.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether it is, as far as is known by now.
    pub(crate) fn is_replayed(&self) -> bool {
        self.0.replayed.load(Ordering::Relaxed)
    }

    /// What was noted by now.
    pub(super) fn so_far(&self) -> Touched {
        self.0.touched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was noted. From now on there is nothing.
    pub(super) fn take(&self) -> Touched {
        std::mem::take(&mut self.0.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
