//! Waiting for what a host tells.

use std::time::Duration;

use corehold_host::{Event, EventKind, Events, TransitionCause, WorkspaceState};

/// Longer than anything takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first event of this kind.
///
/// # Panics
/// When it doesn't happen; what happened instead is told.
pub async fn until(events: &mut Events, what: impl Fn(&EventKind) -> bool) -> EventKind {
    let mut others = Vec::new();
    let wait = async {
        loop {
            let Event { kind, .. } = events.next().await.expect("the host lives");
            if what(&kind) {
                return kind;
            }
            others.push(kind);
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("it doesn't happen, only {others:?}"))
}

/// Waits until a workspace comes into a state, and returns why it did.
///
/// # Panics
/// When it doesn't.
pub async fn until_state(events: &mut Events, state: WorkspaceState) -> TransitionCause {
    match until(events, |kind| matches!(kind, EventKind::Transition { to, .. } if *to == state)).await {
        EventKind::Transition { cause, .. } => cause,
        other => unreachable!("{other:?}"),
    }
}
