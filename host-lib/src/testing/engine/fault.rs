//! Every call of the fake engine, one after the other: where the host may die in between, or one fails.

use std::{
    future::Future,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{FakeEngine, failure};
use crate::error::Result;

/// A call that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineFault {
    /// Which, counted from 0 since this was asked for.
    pub(crate) at: usize,
    /// Whether what was asked for is done nevertheless, as when the answer is lost.
    pub(crate) done: bool,
}

#[derive(Default)]
pub(super) struct Calls(Mutex<State>);

#[derive(Default)]
struct State {
    fault: Option<EngineFault>,
    count: usize,
    /// The last call that began.
    last: &'static str,
    /// The call that is never answered, and how many of it there were.
    hangs: Option<(&'static str, usize)>,
    /// The time that whatever was stopped last had for that.
    grace: Option<Duration>,
}

/// Whether one of so many calls is to fail: it counts them down.
pub(super) fn fails(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Calls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn graced(&self, grace: Duration) {
        self.state().grace = Some(grace);
    }

    /// Whoever watches the runtime sees the world before the call, and after it, when the answer is still on its way.
    pub(super) async fn through<T>(&self, what: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (fault, hangs) = {
            let mut state = self.state();
            state.last = what;
            let count = state.count;
            state.count += 1;
            let hangs = state.hangs.as_mut().filter(|(which, _)| *which == what);
            let hangs = hangs.map(|(_, count)| *count += 1).is_some();
            (state.fault.filter(|fault| fault.at == count), hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        if fault.is_some_and(|fault| !fault.done) {
            return Err(failure(what));
        }
        let result = call.await;
        tokio::task::yield_now().await;
        if fault.is_some() { Err(failure(what)) } else { result }
    }
}

impl FakeEngine {
    /// Lets one of the next calls fail; none from now on where there is no fault.
    pub(crate) fn fail(&self, fault: Option<EngineFault>) {
        *self.calls.state() = State { fault, ..State::default() };
    }

    /// Never answers a call from now on.
    pub(crate) fn hang(&self, what: &'static str) {
        self.calls.state().hangs = Some((what, 0));
    }

    /// The time that whatever was stopped last had for that.
    pub(crate) fn last_grace(&self) -> Option<Duration> {
        self.calls.state().grace
    }

    /// How many calls are not answered.
    pub(crate) fn hanging(&self) -> usize {
        self.calls.state().hangs.map_or(0, |(_, count)| count)
    }

    /// How many calls there were since a fault was asked for.
    pub(crate) fn calls(&self) -> usize {
        self.calls.state().count
    }

    /// The last call that began.
    pub(crate) fn last_call(&self) -> &'static str {
        self.calls.state().last
    }
}
