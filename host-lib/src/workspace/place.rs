//! Where a workspace is: its container now, and how that is reached. Behind the handles, which stay valid while it changes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{Labelled, WorkspaceId};
use crate::{
    client::{AgentClient, Patience, TokenSource},
    host::{AGENT_PORT, HostInner},
    idle::{Gate, Pass},
    runtime::ContainerId,
};

/// A container that is a workspace's, and the way to its agent.
pub(crate) struct Place {
    pub(crate) container: ContainerId,
    /// The agent's name in tokens.
    pub(crate) instance: String,
    pub(crate) client: Arc<AgentClient>,
    /// Tokens in the host's own name.
    pub(crate) tokens: Arc<TokenSource>,
}

impl Place {
    pub(crate) fn new(host: &HostInner, id: &WorkspaceId, container: ContainerId, instance: String) -> Self {
        let client = AgentClient::new(host.runtime.clone(), container, AGENT_PORT, Patience::default());
        Self::over(host, id, Arc::new(client), instance)
    }

    /// Over a client that has its connections already.
    pub(crate) fn over(host: &HostInner, id: &WorkspaceId, client: Arc<AgentClient>, instance: String) -> Self {
        let tokens = TokenSource::new(host.key.clone(), instance.clone(), id.to_string(), host.subject.clone());
        Self { container: client.container().clone(), instance, client, tokens: Arc::new(tokens) }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Place").field("container", &self.container.0).field("instance", &self.instance).finish()
    }
}

/// A place on the way to which somebody is: as long as this is held, the workspace isn't taken for idle.
pub(crate) struct Entered {
    pub(crate) place: Arc<Place>,
    pub(crate) pass: Option<Pass>,
    /// Whether it is the second way in: the first led to an agent that was about to end, or to a container that was gone.
    pub(crate) again: bool,
}

impl Entered {
    /// Without passing a gate.
    pub(crate) fn past(place: Arc<Place>) -> Self {
        Self { place, pass: None, again: false }
    }
}

impl std::ops::Deref for Entered {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// Where a workspace is, for all handles of it in this process.
pub(crate) struct Whereabouts {
    pub(crate) labelled: Labelled,
    /// Before it.
    pub(crate) gate: Arc<Gate>,
    place: Mutex<Option<Arc<Place>>>,
}

impl Whereabouts {
    /// The place that is known; it may be gone meanwhile.
    pub(crate) fn place(&self) -> Option<Arc<Place>> {
        self.lock().clone()
    }

    /// All handles go there from now on. Who is on the way to the old place stays on it.
    pub(crate) fn moved(&self, place: Option<Arc<Place>>) {
        *self.lock() = place;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Place>>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The whereabouts of all workspaces that have a handle.
#[derive(Default)]
pub(crate) struct Directory(Mutex<HashMap<WorkspaceId, Weak<Whereabouts>>>);

impl Directory {
    /// Of a workspace, as it is known now. Handles that there are go where this says; one of another home, or another one of the same
    /// name that was made since, has whereabouts of its own.
    pub(crate) fn of(&self, labelled: Labelled, place: Option<Arc<Place>>) -> Arc<Whereabouts> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &Arc<Whereabouts>| {
            known.labelled.created == labelled.created && known.labelled.home == labelled.home
        };
        if let Some(known) = all.get(&labelled.id).and_then(Weak::upgrade).filter(same) {
            let stays = match (known.place(), &place) {
                (Some(old), Some(new)) => old.container == new.container,
                (None, None) => true,
                _ => false,
            };
            if !stays {
                known.moved(place);
            }
            return known;
        }
        all.retain(|_, known| known.strong_count() > 0);
        let id = labelled.id.clone();
        let new = Arc::new(Whereabouts { labelled, gate: Arc::default(), place: Mutex::new(place) });
        all.insert(id, Arc::downgrade(&new));
        new
    }

    /// Nobody knows any more which of them run.
    pub(crate) fn close_gates(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter_map(Weak::upgrade).for_each(|about| about.gate.close());
    }

    /// Of a workspace that has a handle.
    pub(crate) fn known(&self, id: &WorkspaceId) -> Option<Arc<Whereabouts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade()
    }
}
