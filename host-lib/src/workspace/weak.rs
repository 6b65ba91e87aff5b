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
    /// The workspace; none when its host has ended.
    pub(crate) fn upgrade(&self) -> Option<Workspace> {
        Some(Workspace { host: self.host.upgrade()?, about: self.about.clone(), subject: self.subject.clone() })
    }

    /// Whether it is this workspace, not another one that was given the same name later.
    pub(crate) fn is(&self, workspace: &Workspace) -> bool {
        Arc::ptr_eq(&self.about, &workspace.about)
    }
}
