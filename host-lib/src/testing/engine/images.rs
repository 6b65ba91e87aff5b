//! Images of the fake engine: every name means one, unless it is missing.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::container::failure;
use crate::error::{Error, ErrorKind, Result};

#[derive(Default)]
pub(crate) struct Images {
    /// How often they were built anew.
    pub(crate) builds: AtomicUsize,
    /// Those that aren't there.
    pub(crate) missing: Mutex<BTreeSet<String>>,
    /// How many pulls fail from now on.
    pub(crate) failing_pulls: AtomicUsize,
    /// What was pulled, or tried to.
    pub(crate) pulls: Mutex<Vec<String>>,
}

impl Images {
    pub(super) fn id(&self, reference: &str) -> Result<String> {
        if self.missing.lock().unwrap().contains(reference) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no image {reference}")));
        }
        Ok(format!("{reference}@{}", self.builds.load(Ordering::Relaxed)))
    }

    pub(super) fn pull(&self, reference: &str) -> Result<()> {
        self.pulls.lock().unwrap().push(reference.to_owned());
        let one_less = |left: usize| left.checked_sub(1);
        if self.failing_pulls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Err(failure("pull"));
        }
        self.missing.lock().unwrap().remove(reference);
        Ok(())
    }
}
