//! What could not be read or understood on the way.

use std::sync::{Mutex, PoisonError};

use corehold_types::{WorkspacePath, tools::SearchTrouble};

/// Troubles that are told; more say nothing new.
const MOST: usize = 20;

/// Told by the threads of a search, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<Vec<SearchTrouble>>);

impl Troubles {
    pub(crate) fn add(&self, path: &[u8], detail: impl FnOnce() -> String) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < MOST {
            troubles.push(SearchTrouble { path: WorkspacePath::from_bytes(path), detail: detail() });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<SearchTrouble> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
