//! What goes wrong while the host lives: every call of the engine fails in turn, before or after it has done what it was asked for;
//! and every write to the state store, as where the disk is full for a moment, or until somebody frees some room.

use std::sync::Arc;

use super::{
    invariants::{Stage, Step},
    kept::Kept,
};
use crate::testing::EngineFault;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Call { done: bool },
    Write,
    AllWritesFrom,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Call { done: false }, Self::Call { done: true }, Self::Write, Self::AllWritesFrom];

    fn set(self, stage: &Stage, at: usize) {
        let writes = match self {
            Self::Call { done } => return stage.engine.fail(Some(EngineFault { at, done })),
            Self::Write => at..at + 1,
            Self::AllWritesFrom => at..usize::MAX,
        };
        stage.host.inner.store.faults.fail(Some(writes));
    }

    /// How many calls or writes there were since it was set.
    fn count(self, stage: &Stage) -> usize {
        match self {
            Self::Call { .. } => stage.engine.calls(),
            Self::Write | Self::AllWritesFrom => stage.host.inner.store.faults.count(),
        }
    }

    fn end(stage: &Stage) {
        stage.engine.fail(None);
        stage.host.inner.store.faults.fail(None);
    }
}

async fn fails_everywhere(step: Step) {
    for fault in Fault::ALL {
        for at in 0.. {
            // In boxes, as below: together they are too large for a test's stack.
            let stage = Box::pin(Stage::before(step, Kept::Bed(Arc::default()))).await;
            println!("{step:?}: {fault:?} at {at}");
            fault.set(&stage, at);
            let result = Box::pin(step.go(&stage)).await;
            stage.host.settled().await;
            let met = fault.count(&stage) > at;
            Fault::end(&stage);
            println!("{step:?}: {fault:?} at {at}: {result:?}");
            Box::pin(stage.reconcile()).await;
            Box::pin(stage.holds(step, result.is_ok())).await;
            Box::pin(stage.clear()).await;
            if !met {
                assert!(at > 1, "{step:?} meets no {fault:?}");
                result.unwrap();
                break;
            }
        }
    }
}

macro_rules! every_failure_of {
    ($($name:ident: $step:ident,)*) => {
        $(#[tokio::test]
        async fn $name() {
            fails_everywhere(Step::$step).await;
        })*

        #[test]
        fn each_step_has_its_test() {
            assert_eq!([$(Step::$step),*], Step::ALL);
        }
    };
}

for_each_step!(every_failure_of);
