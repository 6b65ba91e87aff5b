//! Tokens that were verified lately: checking a signature costs 50 µs or so, and every request shows one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::Caller;

/// Tokens kept. A host uses a handful of them at a time.
const TOKENS: usize = 256;

/// Keyed by the token's BLAKE3, so that a look-up takes the same time however much of a token somebody has guessed.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<blake3::Hash, Arc<Caller>>>);

impl Cache {
    /// The caller whose token this is, as long as it has not expired.
    pub(super) fn get(&self, key: &blake3::Hash, now: i64) -> Option<Arc<Caller>> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match callers.get(key) {
            Some(caller) if caller.expires > now => Some(Arc::clone(caller)),
            Some(_) => {
                callers.remove(key);
                None
            }
            None => None,
        }
    }

    /// Remembers a caller. When there is no room, expired tokens go first, then the one that expires next.
    pub(super) fn insert(&self, key: blake3::Hash, caller: Arc<Caller>, now: i64) {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= TOKENS {
            callers.retain(|_, caller| caller.expires > now);
        }
        if callers.len() >= TOKENS {
            let next = callers.iter().min_by_key(|(_, caller)| caller.expires).map(|(key, _)| *key);
            if let Some(next) = next {
                callers.remove(&next);
            }
        }
        callers.insert(key, caller);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
