//! Ownership: which workspace the agent serves. Decided once, by the environment it starts with or by the first claim.

use std::sync::OnceLock;

use corehold_types::Timestamp;

/// Whose the agent is, if it is anybody's yet.
#[derive(Debug, Default)]
pub struct Ownership(OnceLock<Owner>);

/// The workspace that an agent serves, for the rest of its life.
#[derive(Debug)]
pub struct Owner {
    /// Its name.
    pub workspace: String,
    /// Since when.
    pub since: Timestamp,
    /// The claim that won; none where the workspace was there from the start.
    claim: Option<blake3::Hash>,
}

impl Ownership {
    /// Of an agent that serves a workspace from its start, or none yet.
    #[must_use]
    pub fn from_start(workspace: Option<String>) -> Self {
        let owner = workspace.map(|workspace| Owner { workspace, since: Timestamp::now(), claim: None });
        Self(owner.map(OnceLock::from).unwrap_or_default())
    }

    /// The owner, once there is one. Costs one load.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.0.get()
    }

    /// Claims the agent: compare-and-set, so of any number of claims one wins. The winner's `hand_over` runs before anybody
    /// sees the new owner; nobody else's does. A repeated claim, of the same workspace with the same digest, wins again.
    ///
    /// Returns nothing to those who lost.
    pub fn claim(&self, workspace: &str, digest: blake3::Hash, hand_over: impl FnOnce()) -> Option<&Owner> {
        let owner = self.0.get_or_init(|| {
            hand_over();
            Owner { workspace: workspace.to_owned(), since: Timestamp::now(), claim: Some(digest) }
        });
        (owner.workspace == workspace && owner.claim == Some(digest)).then_some(owner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn one_of_many_wins_and_only_its_hand_over_runs_before_anybody_sees_it() {
        for _ in 0..100 {
            let (ownership, barrier) = (Ownership::default(), Barrier::new(8));
            let (won, handed) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let (ownership, barrier, won, handed) = (&ownership, &barrier, &won, &handed);
                    scope.spawn(move || {
                        barrier.wait();
                        let digest = blake3::hash(&[number]);
                        let claimed = ownership.claim("w", digest, || {
                            handed.fetch_add(1, Ordering::SeqCst);
                        });
                        assert_eq!(handed.load(Ordering::SeqCst), 1);
                        won.fetch_add(usize::from(claimed.is_some()), Ordering::SeqCst);
                    });
                }
            });
            assert_eq!(won.into_inner(), 1);
        }
    }

    #[test]
    fn the_winner_may_repeat_and_nobody_claims_what_is_served_from_its_start() {
        let digest = blake3::hash(b"claim");
        let ownership = Ownership::default();
        assert!(ownership.owner().is_none());
        let since = ownership.claim("w", digest, || ()).unwrap().since;
        assert_eq!(ownership.claim("w", digest, || panic!("handed over twice")).unwrap().since, since);
        assert!(ownership.claim("w", blake3::hash(b"other"), || ()).is_none());
        assert!(ownership.claim("x", digest, || ()).is_none());
        let served = Ownership::from_start(Some("w".to_owned()));
        assert!(served.claim("w", digest, || panic!("handed over")).is_none());
        assert_eq!(served.owner().unwrap().workspace, "w");
    }
}
