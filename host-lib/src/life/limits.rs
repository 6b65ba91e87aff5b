//! Limits of a workspace that there is, changed while it runs.
//!
//! No transition: what it is doing stays as it is. They are written down before the container gets them, counted in the transaction that
//! writes them, with a mark that says that the container may have others yet. The mark goes when it has them. Whoever finds one that
//! was left gives the container what is written down; to do so twice does no harm.

use std::sync::Arc;

use super::{
    transition::{container, detached, existing},
    turn::wait_for_others,
};
use crate::{
    create::plan::resources,
    error::{Error, ErrorKind, Result},
    host::HostInner,
    runtime::{ContainerStatus, Resources},
    state::{Durability, Entry},
    workspace::{Workspace, WorkspaceId},
};

impl Workspace {
    /// Changes its limits: each that is given; those that are absent stay as they are, and one that there is can't be taken away. They hold
    /// for what runs at once, and for every container that it has later. What is paused stays so, and what is asleep has them when it wakes.
    ///
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Quota` when its owner's plan or a total has not that much, `Invalid` for a limit that can't be, `Conflict` when more memory is
    /// in use than is to be allowed, `Unsupported` by the runtime; it has the limits of before then. Where an engine doesn't say whether it
    /// has changed them, a limit that there was none of before stays.
    pub async fn set_resources(&self, limits: Resources) -> Result<()> {
        self.own()?;
        limits.check()?;
        let (host, id) = (self.host().clone(), self.id().clone());
        detached(self.host(), async move { change(&host, &id, limits).await }).await
    }
}

async fn change(host: &Arc<HostInner>, id: &WorkspaceId, asked: Resources) -> Result<()> {
    loop {
        let entry = existing(host, id).await?;
        let before = entry.recipe.resources();
        let after = resources(&[asked, before]);
        if after == before && !entry.recipe.limits_pending {
            return Ok(());
        }
        host.ceiling(entry.recipe.owner.as_deref()).await?.apply(asked)?;
        let has_container = entry.container.is_some();
        if has_container {
            check_use(host, &entry, &before, &after).await?;
        }
        let mut changed = entry;
        changed.recipe.set_resources(after);
        changed.recipe.limits_pending = has_container;
        let Some(written) = host.store.put_limits(changed, before).await? else {
            // Somebody was faster.
            wait_for_others(host).await;
            continue;
        };
        if !has_container {
            return Ok(());
        }
        let Err(error) = settle(host, written.clone()).await else { return Ok(()) };
        if let Err(undoing) = undo(host, written, before, &error).await {
            tracing::warn!(workspace = %id, error = %undoing, "limits that could not be changed are still written down");
        }
        return Err(error);
    }
}

/// Refuses to allow less memory than is in use: engines answer with a refusal, or kill what uses it.
async fn check_use(host: &HostInner, entry: &Entry, before: &Resources, after: &Resources) -> Result<()> {
    if !host.runtime.updates_limits() {
        return Err(Error::new(ErrorKind::Unsupported, "this runtime can't change the limits of a container")
            .hint("put it to sleep first: limits of what is asleep can be changed"));
    }
    let Some(limit) = after.memory_bytes.filter(|limit| before.memory_bytes.is_none_or(|before| *limit < before))
    else {
        return Ok(());
    };
    let container = container(entry)?;
    let runs = |status| matches!(status, ContainerStatus::Running | ContainerStatus::Paused);
    if !runs(host.runtime.inspect(&container).await?.status) {
        return Ok(());
    }
    let used = host.runtime.stats(&container).await?.memory_bytes;
    if used > limit {
        let message =
            format!("workspace {} uses {used} bytes of memory, more than {limit} that it is to have", entry.id);
        return Err(Error::new(ErrorKind::Conflict, message).hint("end what uses it, or stop the workspace first"));
    }
    Ok(())
}

/// Gives the container what is written down, until nobody has written anything else meanwhile.
pub(super) async fn settle(host: &Arc<HostInner>, mut entry: Entry) -> Result<()> {
    loop {
        if entry.container.is_some() {
            match host.runtime.update_limits(&container(&entry)?, &entry.recipe.resources()).await {
                // Its next one is made with them.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                updated => updated?,
            }
        }
        let id = entry.id.clone();
        entry.recipe.limits_pending = false;
        if host.store.put(entry, Durability::Process).await?.is_some() {
            return Ok(());
        }
        match existing(host, &id).await {
            Ok(newer) => entry = newer,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Writes down again what was before, and gives the container that, whichever it has now. Of what it had no limit before, none can be taken
/// away: where the container may have one by now, it keeps it.
async fn undo(host: &Arc<HostInner>, mut entry: Entry, before: Resources, refused: &Error) -> Result<()> {
    let left = resources(&[before, entry.recipe.resources()]);
    let has_none = matches!(
        refused.kind(),
        ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Unsupported | ErrorKind::NotFound
    );
    let tries = if has_none || left == before { vec![before] } else { vec![left, before] };
    let mut result = Ok(());
    for limits in tries {
        entry.recipe.set_resources(limits);
        match host.store.put(entry, Durability::Process).await? {
            Some(written) => entry = written,
            // Somebody wants something else by now.
            None => return Ok(()),
        }
        result = settle(host, entry.clone()).await;
        if result.is_ok() {
            break;
        }
    }
    result
}
