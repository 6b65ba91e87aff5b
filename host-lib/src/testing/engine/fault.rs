//! Every call of the fake engine, one after the other: where the host may die in between, or one fails.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard},
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
}

impl Calls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Whoever watches the runtime sees the world before the call, and after it, when the answer is still on its way.
    pub(super) async fn through<T>(&self, what: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = {
            let mut state = self.state();
            state.last = what;
            let count = state.count;
            state.count += 1;
            state.fault.filter(|fault| fault.at == count)
        };
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

    /// How many calls there were since a fault was asked for.
    pub(crate) fn calls(&self) -> usize {
        self.calls.state().count
    }

    /// The last call that began.
    pub(crate) fn last_call(&self) -> &'static str {
        self.calls.state().last
    }
}
