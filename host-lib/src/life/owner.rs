//! One workspace for an owner: found, or made, whoever asks and however often at once.

use super::WorkspaceState;
use crate::{
    create::{CreateWorkspace, plan::check_name},
    error::{ErrorKind, Result},
    host::Host,
    runtime::ContainerId,
    state::Entry,
    workspace::{Labelled, Place, Workspace, WorkspaceId},
};

impl Host {
    /// The workspace of an owner, ready: it is started, resumed or woken where it isn't, and made by the request where there is none. Of
    /// any number of callers at once, in any number of processes on this home folder, one makes it, and the others get the same.
    /// The owner is any text of at most 256 bytes, such as a user's or an organization's id.
    ///
    /// Dropping the future while it makes the workspace undoes that, and whoever waits for it makes one.
    ///
    /// # Errors
    /// `Invalid` for an owner that is empty or too long; as a creation and [`Workspace::start`].
    pub async fn get_or_create(&self, owner: impl Into<String>, request: CreateWorkspace) -> Result<Workspace> {
        let owner = owner.into();
        check_name("an owner", &owner)?;
        let request = CreateWorkspace { owner: request.owner.or_else(|| Some(owner.clone())), ..request };
        let wanted: Option<WorkspaceId> = request.id.as_deref().map(str::parse).transpose()?;
        let wanted = wanted.as_ref();
        loop {
            let Some(entry) = self.inner.store.by_owner(&owner).await? else {
                match self.create_for(owner.clone(), request.clone()).await {
                    // Somebody else was faster with this owner, and may have failed since. A name that is another's stays so.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        if let Some(name) = wanted
                            && self.is_anothers(name, &owner).await?
                        {
                            return Err(error);
                        }
                        continue;
                    }
                    result => return result,
                }
            };
            match super::existing(&self.inner, &entry.id).await {
                Ok(entry) if entry.owner.as_ref() == Some(&owner) => {
                    let workspace = self.known(&entry);
                    if entry.state != WorkspaceState::Ready {
                        workspace.start().await?;
                    }
                    return Ok(workspace.waking());
                }
                Ok(_) => {}
                // It was undone, or removed.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    super::turn::wait_for_others(&self.inner).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a name is that of another workspace than the owner's.
    async fn is_anothers(&self, name: &WorkspaceId, owner: &str) -> Result<bool> {
        let entry = self.inner.store.get(name).await?;
        Ok(entry.is_none_or(|entry| entry.owner.as_deref() != Some(owner)))
    }

    /// A handle of what the store knows.
    pub(crate) fn known(&self, entry: &Entry) -> Workspace {
        let host = &self.inner;
        let place = entry
            .container
            .clone()
            .map(|container| Place::new(host, &entry.id, ContainerId(container), entry.instance.clone()));
        Workspace::at(host, Labelled::of_entry(host, entry), place)
    }
}
