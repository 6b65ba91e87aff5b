//! Activity: what keeps the workspace awake, and since when.
//!
//! Whatever lasts (a call, a socket, a tunnel, a watch) holds a [`Guard`] while it does. Commands are not held here: the
//! process room knows which run. What to make of it, such as when to put a workspace to sleep, is the host's to decide.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use corehold_types::{Timestamp, tools::ActivitySource};

/// Everything that lasts now.
#[derive(Debug)]
pub struct Activity(Mutex<State>);

/// Held as long as something lasts.
#[derive(Debug)]
#[must_use = "what isn't held keeps nobody awake"]
pub struct Guard {
    activity: Arc<Activity>,
    source: ActivitySource,
    label: Cow<'static, str>,
}

#[derive(Debug)]
struct State {
    held: BTreeMap<(ActivitySource, Cow<'static, str>), Held>,
    last_request: Option<Timestamp>,
    /// When the last of them was let go.
    released: Timestamp,
    /// The same for each source.
    ended: BTreeMap<ActivitySource, Timestamp>,
}

/// Some of the same source and label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many there are.
    pub count: u64,
    /// Since when there has been one at any time.
    pub since: Timestamp,
}

/// What is held at a moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// By source and label.
    pub held: Vec<(ActivitySource, Cow<'static, str>, Held)>,
    /// When the last request came that counts; nothing when none has.
    pub last_request: Option<Timestamp>,
    /// When the last guard was let go, or the agent started.
    pub released: Timestamp,
    /// When the last guard of each source was let go.
    pub ended: BTreeMap<ActivitySource, Timestamp>,
}

impl Default for Activity {
    fn default() -> Self {
        let (held, ended) = (BTreeMap::new(), BTreeMap::new());
        Self(Mutex::new(State { held, last_request: None, released: Timestamp::now(), ended }))
    }
}

impl Activity {
    /// Holds the workspace awake until the guard is dropped. The label says what it is, for people: a tool's name, a port.
    pub fn hold(self: &Arc<Self>, source: ActivitySource, label: impl Into<Cow<'static, str>>) -> Guard {
        let label = label.into();
        self.state().hold(source, label.clone(), Timestamp::now());
        Guard { activity: Arc::clone(self), source, label }
    }

    /// The same, for what is a request too: it is remembered as the last one.
    pub fn request(self: &Arc<Self>, source: ActivitySource, label: impl Into<Cow<'static, str>>) -> Guard {
        let (label, now) = (label.into(), Timestamp::now());
        let mut state = self.state();
        state.hold(source, label.clone(), now);
        state.last_request = Some(now);
        Guard { activity: Arc::clone(self), source, label }
    }

    /// What is held now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let held = state.held.iter().map(|((source, label), held)| (*source, label.clone(), *held)).collect();
        Snapshot { held, last_request: state.last_request, released: state.released, ended: state.ended.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hold(&mut self, source: ActivitySource, label: Cow<'static, str>, now: Timestamp) {
        self.held.entry((source, label)).or_insert(Held { count: 0, since: now }).count += 1;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        let key = (self.source, std::mem::take(&mut self.label));
        if let Some(held) = state.held.get_mut(&key) {
            held.count -= 1;
            if held.count == 0 {
                state.held.remove(&key);
            }
        }
        state.released = Timestamp::now();
        let released = state.released;
        state.ended.insert(self.source, released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_from_the_first_to_the_last() {
        let activity = Arc::new(Activity::default());
        let first = activity.hold(ActivitySource::Tunnel, "port 4321");
        let since = activity.snapshot().held[0].2.since;
        let second = activity.request(ActivitySource::Tunnel, String::from("port 4321"));
        let other = activity.hold(ActivitySource::Call, "read");
        drop(first);
        let snapshot = activity.snapshot();
        assert_eq!(snapshot.held.len(), 2);
        let (source, label, held) = &snapshot.held[1];
        assert_eq!((*source, label.as_ref(), *held), (ActivitySource::Tunnel, "port 4321", Held { count: 1, since }));
        drop((second, other));
        let snapshot = activity.snapshot();
        assert!(snapshot.held.is_empty() && snapshot.last_request.unwrap() <= snapshot.released);
        let ended: Vec<_> = snapshot.ended.into_iter().collect();
        assert_eq!(
            ended.iter().map(|(source, _)| *source).collect::<Vec<_>>(),
            [ActivitySource::Call, ActivitySource::Tunnel]
        );
        assert!(ended.iter().any(|(_, at)| *at == snapshot.released));
    }
}
