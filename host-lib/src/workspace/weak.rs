//! A workspace as those hold it who must not keep its host in being: tasks that end with the host.

use std::sync::{Arc, Weak};

use super::{Labelled, Workspace};
use crate::{
    client::{AgentClient, TokenSource},
    host::HostInner,
    runtime::ContainerId,
};

#[derive(Clone)]
pub(crate) struct WeakWorkspace {
    host: Weak<HostInner>,
    container: ContainerId,
    labelled: Arc<Labelled>,
    client: Arc<AgentClient>,
    tokens: Arc<TokenSource>,
}

impl Workspace {
    pub(crate) fn downgrade(&self) -> WeakWorkspace {
        WeakWorkspace {
            host: Arc::downgrade(&self.host),
            container: self.container.clone(),
            labelled: self.labelled.clone(),
            client: self.client.clone(),
            tokens: self.tokens.clone(),
        }
    }
}

impl WeakWorkspace {
    /// The workspace; none when its host has ended.
    pub(crate) fn upgrade(&self) -> Option<Workspace> {
        Some(Workspace {
            host: self.host.upgrade()?,
            container: self.container.clone(),
            labelled: self.labelled.clone(),
            client: self.client.clone(),
            tokens: self.tokens.clone(),
        })
    }

    /// Whether it is this workspace, not another one that was given the same name later.
    pub(crate) fn is(&self, workspace: &Workspace) -> bool {
        self.container == workspace.container
    }
}
