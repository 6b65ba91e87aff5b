//! A workspace as those hold it who must not keep its host in being: tasks that end with the host.

use std::sync::{Arc, Weak};

use super::{Subject, Whereabouts, Workspace};
use crate::host::HostInner;

#[derive(Clone)]
pub(crate) struct WeakWorkspace {
    host: Weak<HostInner>,
    about: Arc<Whereabouts>,
    subject: Option<Arc<Subject>>,
}

impl Workspace {
    pub(crate) fn downgrade(&self) -> WeakWorkspace {
        WeakWorkspace { host: Arc::downgrade(&self.host), about: self.about.clone(), subject: self.subject.clone() }
    }
}

impl WeakWorkspace {
    /// The workspace, as those have it who only look: a call doesn't wake it. None when its host has ended.
    pub(crate) fn upgrade(&self) -> Option<Workspace> {
        let host = self.host.upgrade()?;
        Some(Workspace { host, about: self.about.clone(), subject: self.subject.clone(), wakes: false })
    }

    /// Has it woken if it isn't known to run, and doesn't wait for it.
    pub(crate) fn knock(&self) {
        let Some(knock) = self.about.gate.knock() else { return };
        let Some(workspace) = self.upgrade().map(Workspace::waking) else { return };
        let tasks = workspace.host.cleanups.clone();
        tasks.spawn(async move {
            let _knock = knock;
            if let Err(error) = workspace.enter().await {
                tracing::debug!(workspace = %workspace.id(), %error, "it could not be woken for an open connection");
            }
        });
    }

    /// Whether it is this workspace, not another one that was given the same name later.
    pub(crate) fn is(&self, workspace: &Workspace) -> bool {
        Arc::ptr_eq(&self.about, &workspace.about)
    }
}
