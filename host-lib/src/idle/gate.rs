//! The gate before a workspace: whoever calls it passes, and who finds it closed has the workspace woken first.
//!
//! While the workspace is known to run the gate stands open, and passing costs an atomic read: no inspection for each call. It is closed
//! by whoever puts the workspace into another state, and by the engine's word that somebody else did. There is one gate
//! for all handles of a workspace in a process. One waker works for all who wait, in a task of its own: nobody who
//! gives up waiting cuts it off.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};

/// What a waker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// It runs, and goes on running until somebody says otherwise.
    Runs,
    /// It doesn't, and isn't to be woken; a call will say why it can't be made.
    LeftAlone,
}

/// What became of a waking, for all who waited.
type Outcome = Option<std::result::Result<(), Arc<Error>>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    open: bool,
    /// Counts the closings: what a waker found before one is of the past.
    closings: u64,
    /// Calls on their way.
    passing: usize,
    waking: Option<watch::Receiver<Outcome>>,
    /// This process pauses it, or has: the engine's word of that is still to come.
    expects_pause: bool,
    knocking: bool,
    /// Somebody makes sure that nobody is on the way; dropped with that.
    barred: Option<watch::Receiver<()>>,
}

/// A call on its way.
pub(crate) struct Pass(Arc<Gate>);

/// Somebody has it woken.
pub(crate) struct Knock(Arc<Gate>);

/// Nobody passes while it is held.
pub(crate) struct Bar {
    gate: Arc<Gate>,
    _held: watch::Sender<()>,
}

enum Step {
    Pass(Pass),
    Wait(watch::Receiver<Outcome>),
    Barred(watch::Receiver<()>),
}

impl Gate {
    /// Passes, waking the workspace if it isn't known to run. Cancel-safe: a waking that was begun goes on.
    ///
    /// # Errors
    /// Why it could not be woken; each of those who waited is told.
    pub(crate) async fn pass<F>(self: &Arc<Self>, tasks: &TaskTracker, wake: impl Fn() -> F) -> Result<Pass>
    where
        F: Future<Output = Result<Woken>> + Send + 'static,
    {
        loop {
            match self.step(tasks, &wake) {
                Step::Pass(pass) => return Ok(pass),
                // An error: its holder is gone, which is what was waited for.
                Step::Barred(mut barred) => drop(barred.changed().await),
                Step::Wait(mut outcome) => match outcome.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Err(error))) => return Err(copy(error)),
                    Ok(_) => {
                        let mut state = self.lock();
                        if state.barred.is_none() {
                            return Ok(self.enter(&mut state));
                        }
                    }
                    Err(_) => return Err(Error::new(ErrorKind::Io, "waking the workspace was cut off")),
                },
            }
        }
    }

    fn step<F>(self: &Arc<Self>, tasks: &TaskTracker, wake: impl Fn() -> F) -> Step
    where
        F: Future<Output = Result<Woken>> + Send + 'static,
    {
        let mut state = self.lock();
        if let Some(barred) = &state.barred {
            return Step::Barred(barred.clone());
        }
        if state.open {
            return Step::Pass(self.enter(&mut state));
        }
        if let Some(waking) = &state.waking {
            return Step::Wait(waking.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.waking = Some(receiver.clone());
        let waking = Waking { gate: self.clone(), closings: state.closings };
        let wake = wake();
        tasks.spawn(async move {
            let result = wake.await;
            waking.done(&result);
            // Nobody may be waiting any more.
            let _ = sender.send(Some(result.map(|_| ()).map_err(Arc::new)));
        });
        Step::Wait(receiver)
    }

    fn enter(self: &Arc<Self>, state: &mut State) -> Pass {
        state.passing += 1;
        Pass(self.clone())
    }

    /// It may not run any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.closings += 1;
    }

    /// This process is about to pause it.
    pub(crate) fn expect_pause(&self) {
        self.close();
        self.lock().expects_pause = true;
    }

    /// The engine says that it was paused. True when another process did it under calls that are on their way: they hang.
    pub(crate) fn was_paused(&self) -> bool {
        self.close();
        let mut state = self.lock();
        !std::mem::take(&mut state.expects_pause) && state.passing > 0
    }

    /// To be held by who has it woken without waiting for it; none while it runs, or somebody is at that.
    pub(crate) fn knock(self: &Arc<Self>) -> Option<Knock> {
        let mut state = self.lock();
        if state.open || state.waking.is_some() || state.knocking {
            return None;
        }
        state.knocking = true;
        Some(Knock(self.clone()))
    }

    /// It is known to run.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Holds back all who come, closing the gate; none while calls are on their way, or somebody else has barred it.
    pub(crate) fn bar(self: &Arc<Self>) -> Option<Bar> {
        let mut state = self.lock();
        if state.passing > 0 || state.waking.is_some() || state.barred.is_some() {
            return None;
        }
        let (held, barred) = watch::channel(());
        state.barred = Some(barred);
        state.open = false;
        state.closings += 1;
        Some(Bar { gate: self.clone(), _held: held })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().passing -= 1;
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        self.0.lock().knocking = false;
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.gate.lock().barred = None;
    }
}

/// A waking under way. However it ends, the next who comes may wake again.
struct Waking {
    gate: Arc<Gate>,
    closings: u64,
}

impl Waking {
    fn done(&self, result: &Result<Woken>) {
        let mut state = self.gate.lock();
        // What happened meanwhile is newer than what was found.
        state.open = matches!(result, Ok(Woken::Runs)) && state.closings == self.closings;
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.gate.lock().waking = None;
    }
}

/// For one of many who are told the same.
fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    match error.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Wakes when it is let.
    struct Waker {
        gate: Arc<Gate>,
        tasks: TaskTracker,
        times: Arc<AtomicUsize>,
        may: Arc<Semaphore>,
    }

    impl Waker {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                gate: Arc::default(),
                tasks: TaskTracker::new(),
                times: Arc::default(),
                may: Arc::new(Semaphore::new(0)),
            })
        }

        async fn pass(&self, result: fn() -> Result<Woken>) -> Result<Pass> {
            let wake = || {
                let (times, may) = (self.times.clone(), self.may.clone());
                async move {
                    times.fetch_add(1, Ordering::Relaxed);
                    may.acquire().await.unwrap().forget();
                    result()
                }
            };
            self.gate.pass(&self.tasks, wake).await
        }

        fn times(&self) -> usize {
            self.times.load(Ordering::Relaxed)
        }
    }

    fn runs() -> Result<Woken> {
        Ok(Woken::Runs)
    }

    fn fails() -> Result<Woken> {
        Err(Error::new(ErrorKind::Engine, "no engine").hint("start one"))
    }

    async fn many(waker: &Arc<Waker>, result: fn() -> Result<Woken>) -> Vec<tokio::task::JoinHandle<Result<Pass>>> {
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let waker = waker.clone();
                tokio::spawn(async move { waker.pass(result).await })
            })
            .collect();
        // On one thread: all run up to where they wait.
        tokio::task::yield_now().await;
        waiters
    }

    #[tokio::test]
    async fn one_wakes_for_all_who_wait_and_then_nobody_does() {
        let waker = Waker::new();
        let waiters = many(&waker, runs).await;
        waker.may.add_permits(1);
        let mut passes = Vec::new();
        for waiter in waiters {
            passes.push(waiter.await.unwrap().unwrap());
        }
        assert_eq!(waker.times(), 1);
        assert!(waker.gate.bar().is_none(), "calls are on their way");
        drop(passes);
        drop(waker.pass(runs).await.unwrap());
        assert_eq!(waker.times(), 1, "it is known to run");
        waker.gate.close();
        waker.may.add_permits(1);
        drop(waker.pass(runs).await.unwrap());
        assert_eq!(waker.times(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_and_the_next_one_tries_again() {
        let waker = Waker::new();
        let waiters = many(&waker, fails).await;
        waker.may.add_permits(1);
        for waiter in waiters {
            let error = waiter.await.unwrap().err().unwrap();
            assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Engine, Some("start one")));
        }
        assert_eq!(waker.times(), 1);
        waker.may.add_permits(1);
        assert!(waker.pass(runs).await.is_ok());
        assert_eq!(waker.times(), 2);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_cuts_off_nobody() {
        let waker = Waker::new();
        let mut waiters = many(&waker, runs).await;
        // The first is the one for whom the waking was begun.
        waiters.remove(0).abort();
        waker.may.add_permits(1);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(waker.times(), 1);
    }

    #[tokio::test]
    async fn what_was_closed_meanwhile_is_not_open_when_the_waker_is_done() {
        let waker = Waker::new();
        let waiters = many(&waker, runs).await;
        waker.gate.close();
        waker.may.add_permits(1);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        waker.may.add_permits(1);
        drop(waker.pass(runs).await.unwrap());
        assert_eq!(waker.times(), 2, "somebody paused it while it was woken, so the next one looks again");
    }

    #[tokio::test]
    async fn what_is_left_alone_is_asked_about_each_time() {
        let waker = Waker::new();
        waker.may.add_permits(2);
        for times in 1..=2 {
            drop(waker.pass(|| Ok(Woken::LeftAlone)).await.unwrap());
            assert_eq!(waker.times(), times);
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_those_who_wait_and_the_gate_works_on() {
        let waker = Waker::new();
        let waiters = many(&waker, || panic!("as a bug would")).await;
        waker.may.add_permits(1);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().err().unwrap().kind(), ErrorKind::Io);
        }
        waker.may.add_permits(1);
        assert!(waker.pass(runs).await.is_ok());
    }

    #[tokio::test]
    async fn only_who_was_paused_by_others_under_a_call_is_to_be_woken() {
        let waker = Waker::new();
        waker.gate.open();
        assert!(!waker.gate.was_paused(), "nobody calls it");
        waker.gate.open();
        let pass = waker.pass(runs).await.unwrap();
        assert!(waker.gate.was_paused());
        waker.gate.expect_pause();
        assert!(!waker.gate.was_paused(), "we did it, and meant it");
        drop(pass);
    }

    #[tokio::test]
    async fn one_knocks_for_all_and_nobody_while_it_runs() {
        let waker = Waker::new();
        let knock = waker.gate.knock().unwrap();
        assert!(waker.gate.knock().is_none());
        drop(knock);
        assert!(waker.gate.knock().is_some());
        waker.gate.open();
        assert!(waker.gate.knock().is_none());
    }

    #[tokio::test]
    async fn a_bar_waits_for_nobody_and_holds_back_all_who_come() {
        let waker = Waker::new();
        waker.may.add_permits(1);
        let pass = waker.pass(runs).await.unwrap();
        assert!(waker.gate.bar().is_none(), "a call is on its way");
        drop(pass);
        let bar = waker.gate.bar().unwrap();
        assert!(waker.gate.bar().is_none(), "one at a time");
        let waiters = many(&waker, runs).await;
        assert_eq!(waker.times(), 1, "they wait for the bar before anything is woken");
        drop(bar);
        waker.may.add_permits(1);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(waker.times(), 2, "what was done behind the bar is looked at");
    }
}
