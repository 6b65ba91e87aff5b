//! Who may be connected: so many at once. Whoever has shown a valid token stays. Of the others the one that came first has to go when
//! somebody new comes and no place is free: else a command could keep the host out by connections on which it says nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All places.
pub(super) struct Places {
    free: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

/// Connections that have shown no valid token, by the order in which they came.
#[derive(Default)]
struct Strangers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    came: u64,
    to_go: BTreeMap<u64, CancellationToken>,
}

/// A connection's place, free again when it is dropped.
pub(super) struct Place {
    number: u64,
    strangers: Arc<Strangers>,
    to_go: CancellationToken,
    kept: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(free: Arc<Semaphore>) -> Self {
        Self { free, strangers: Arc::default() }
    }

    /// A place for somebody new. While all are taken by who has shown a token, it is waited for. None when there are to be no more.
    pub(super) async fn take(&self) -> Option<Place> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.strangers.send_first_away();
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        let to_go = CancellationToken::new();
        let number = self.strangers.add(to_go.clone());
        let strangers = Arc::clone(&self.strangers);
        Some(Place { number, strangers, to_go, kept: AtomicBool::new(false), _permit: permit })
    }
}

impl Place {
    /// Whoever has it keeps it from now on if a valid token is shown, which is asked until one was.
    pub(super) fn keep_if(&self, is_shown: impl FnOnce() -> bool) {
        if !self.kept.load(Ordering::Relaxed) && is_shown() {
            self.kept.store(true, Ordering::Relaxed);
            self.strangers.lock().to_go.remove(&self.number);
        }
    }

    /// Ends when somebody else is to have it.
    pub(super) async fn wanted(&self) {
        self.to_go.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep_if(|| true);
    }
}

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, to_go: CancellationToken) -> u64 {
        let mut waiting = self.lock();
        waiting.came += 1;
        let number = waiting.came;
        waiting.to_go.insert(number, to_go);
        number
    }

    fn send_first_away(&self) {
        if let Some((_, first)) = self.lock().to_go.pop_first() {
            first.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_came_first_and_has_shown_no_token_has_to_go() {
        let places = Places::new(Arc::new(Semaphore::new(3)));
        let kept = places.take().await.unwrap();
        kept.keep_if(|| true);
        kept.keep_if(|| unreachable!("it has shown one"));
        let (first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        second.keep_if(|| false);
        {
            let mut third = Box::pin(places.take());
            assert!(third.as_mut().now_or_never().is_none(), "it has not gone yet");
            first.wanted().await;
            assert!(second.wanted().now_or_never().is_none() && kept.wanted().now_or_never().is_none());
            drop(first);
            third.await.unwrap().keep_if(|| true);
        }
        // That one is free again; then only strangers go, and who is kept is waited for.
        let _third = places.take().now_or_never().expect("there is one").unwrap();
        let mut fourth = Box::pin(places.take());
        assert!(fourth.as_mut().now_or_never().is_none());
        second.wanted().await;
        drop(second);
        fourth.await.unwrap().keep_if(|| true);
        assert!(kept.wanted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn while_all_are_kept_a_place_is_waited_for() {
        let places = Places::new(Arc::new(Semaphore::new(1)));
        let kept = places.take().await.unwrap();
        kept.keep_if(|| true);
        let mut next = Box::pin(places.take());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(kept.wanted().now_or_never().is_none());
        drop(kept);
        next.await.unwrap();
    }
}
