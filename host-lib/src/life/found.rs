//! What sleeps: found again where the store was lost, and kept from being deleted by mistake.

use std::sync::Arc;

use corehold_types::Timestamp;

use super::{
    TransitionCause, WorkspaceState,
    reconcile::{guessed, recover},
    turn::{Taking, Turn, is_attended, wait_for_others},
};
use crate::{
    archive::{ArchiveRef, Sleeper},
    error::{Error, ErrorKind, Result},
    host::HostInner,
    state::{Durability, Entry, Recipe},
    workspace::WorkspaceId,
};

/// Takes those into the store that sleep and that it doesn't know. Once for each store: one that is new may follow one that was lost, and
/// from then on it knows them. The archive store is asked for all of its manifests.
pub(super) async fn sleepers(host: &Arc<HostInner>) -> Result<Vec<WorkspaceId>> {
    if host.store.knows_sleepers().await? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (id, archive, sleeper) in host.bed().sleepers().await? {
        if take_in(host, &id, archive, sleeper).await? {
            tracing::info!(workspace = %id, "a sleeping workspace that the store didn't know is taken into it; variables of its own are lost");
            found.push(id);
        }
    }
    host.store.set_knows_sleepers().await?;
    Ok(found)
}

async fn take_in(host: &Arc<HostInner>, id: &WorkspaceId, archive: String, sleeper: Sleeper) -> Result<bool> {
    let Sleeper { owner, created, recipe, policy, .. } = sleeper;
    let env = guessed(host, recipe.template.clone(), recipe.preview_port).await.env;
    let mut entry = Entry {
        id: id.clone(),
        owner,
        state: WorkspaceState::Asleep,
        reason: None,
        engine: host.engine_identity().await?.to_owned(),
        container: None,
        instance: String::new(),
        recipe: Recipe { env, ..recipe },
        archive: Some(archive.clone()),
        created,
        entered_at: Timestamp::now(),
        generation: 0,
        actor: None,
        policy,
    };
    if host.store.insert(entry.clone()).await?.is_ok() {
        return Ok(true);
    }
    match host.store.get(id).await? {
        // It has a container too, and was adopted by that: from this it woke, or would have slept in it.
        Some(known) => {
            if known.archive.is_none() && known.actor.is_none() {
                host.store.put(Entry { archive: Some(archive), ..known }, Durability::Process).await?;
            }
            Ok(false)
        }
        // Its owner has another one by now.
        None => {
            entry.owner = None;
            Ok(host.store.insert(entry).await?.is_ok())
        }
    }
}

/// Deletes an archive in which a workspace may sleep: not while it does, and with nobody in between who puts it to sleep.
///
/// # Errors
/// `Conflict` while its workspace sleeps in it.
pub(crate) async fn give_up(
    host: &Arc<HostInner>,
    archive: &ArchiveRef,
    delete: impl Future<Output = Result<()>>,
) -> Result<()> {
    loop {
        let Some(entry) = host.store.get(&archive.workspace).await? else { return delete.await };
        if entry.actor.is_some() {
            match is_attended(host, &entry) {
                true => wait_for_others(host).await,
                false => drop(recover(host, entry).await?),
            }
            continue;
        }
        let used = entry.archive.as_ref().is_some_and(|used| *used == archive.to_string());
        if used && entry.container.is_none() {
            let id = &entry.id;
            let message = format!("workspace {id} sleeps in archive {archive}: it would be lost with it");
            return Err(Error::new(ErrorKind::Conflict, message)
                .hint(format!("wake it first by `corehold wake {id}`, or remove it by `corehold down {id}`")));
        }
        let (state, reason) = (entry.state, entry.reason.clone());
        match Turn::take(host, entry, state, TransitionCause::Asked).await? {
            Taking::Late => wait_for_others(host).await,
            Taking::Taken(turn) => {
                let deleted = delete.await;
                let given_up = used && deleted.is_ok();
                let finished = turn.finish_with(state, Durability::Process, |entry| {
                    entry.reason = reason;
                    entry.archive = entry.archive.take().filter(|_| !given_up);
                });
                return deleted.and(finished.await.map(|_| ()));
            }
        }
    }
}
