//! The rounds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use corehold_types::{
    Code,
    tools::{CommandInfo, CommandList, CommandListRequest, CommandSignal, CommandSignalRequest, Signal},
};
use tokio::time::{Instant, MissedTickBehavior};

use super::DiskAction;
use crate::{
    error::{ErrorKind, Result},
    events::EventKind,
    host::HostInner,
    labels,
    life::{self, TransitionCause, Verb, WorkspaceState},
    runtime::{ContainerId, DiskSpace, DiskUse},
    state::Entry,
    workspace::{Workspace, WorkspaceId},
};

/// While the disk has become fuller by no more than this since the last round, a round is left out.
const SLACK_BYTES: u64 = 16 << 20;
const SLACK_FILES: u64 = 1_000;
/// But not more than so many in a row: somebody else may have removed as much as one has written.
const MOST_LEFT_OUT: u32 = 6;

/// Looks after the disk. Never ends by itself.
pub(crate) async fn watch(host: Arc<HostInner>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + host.disk.every, host.disk.every);
    // A round that took long is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = Rounds::default();
    loop {
        ticks.tick().await;
        if let Err(error) = rounds.next(&host).await {
            tracing::debug!(%error, "the disk could not be looked after");
        }
    }
}

/// What is known from one round to the next.
#[derive(Default)]
pub(super) struct Rounds {
    last: Option<DiskSpace>,
    left_out: u32,
    /// Those that had more than they may.
    over: BTreeSet<WorkspaceId>,
    /// Volumes that held more than they may, by the engine's names for them.
    full: BTreeSet<String>,
    /// Whether it was told that volumes aren't seen from here.
    unseen: bool,
}

impl Rounds {
    /// A round, unless it can be left out. Says whether there was one.
    pub(super) async fn next(&mut self, host: &Arc<HostInner>) -> Result<bool> {
        let watched: Vec<Entry> = host.store.all().await?.into_iter().filter(|entry| is_watched(host, entry)).collect();
        if watched.is_empty() && host.disk.volume_bytes.is_none() {
            (self.last, self.left_out) = (None, 0);
            self.over.clear();
            return Ok(false);
        }
        let space = match host.runtime.disk_space().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            space => Some(space?),
        };
        // Who is over its limit is looked at until it isn't. Of a volume that is so, it was told, and nothing more is done.
        if self.over.is_empty() && self.left_out < MOST_LEFT_OUT && self.is_as_before(space) {
            self.left_out += 1;
            return Ok(false);
        }
        (self.last, self.left_out) = (space, 0);
        let ids: BTreeSet<WorkspaceId> = watched.iter().map(|entry| entry.id.clone()).collect();
        self.over.retain(|id| ids.contains(id));
        for entry in watched {
            // One after another: nobody waits for it, and the disk is others' too.
            if let Err(error) = self.look(host, &entry).await
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(workspace = %entry.id, %error, "what a workspace has on disk could not be looked after");
            }
        }
        if let Some(limit) = host.disk.volume_bytes {
            self.look_at_volumes(host, limit).await?;
        }
        Ok(true)
    }

    /// Whether the disk as a whole has hardly become fuller since the last round.
    fn is_as_before(&self, space: Option<DiskSpace>) -> bool {
        let (Some(last), Some(space)) = (self.last, space) else { return false };
        let fewer = |last: Option<u64>, now: Option<u64>| last.unwrap_or(0).saturating_sub(now.unwrap_or(0));
        last.free_bytes.saturating_sub(space.free_bytes) <= SLACK_BYTES
            && fewer(last.free_files, space.free_files) <= SLACK_FILES
    }

    async fn look_at_volumes(&mut self, host: &HostInner, limit_bytes: u64) -> Result<()> {
        let volumes = host.runtime.volumes(&labels::of_home(&host.fingerprint)).await?;
        self.full.retain(|name| volumes.iter().any(|volume| volume.name == *name));
        for volume in volumes {
            let Some(name) = volume.labels.get(labels::VOLUME) else { continue };
            let bytes = match host.runtime.volume_use(&volume.name).await {
                Ok(used) => used.bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    // Once: it will not be otherwise in the next round.
                    if error.kind() != ErrorKind::Unsupported || !std::mem::replace(&mut self.unseen, true) {
                        tracing::warn!(volume = name, %error, "what a volume holds could not be looked after");
                    }
                    continue;
                }
            };
            if bytes <= limit_bytes {
                self.full.remove(&volume.name);
            } else if self.full.insert(volume.name.clone()) {
                host.events.emit(None, EventKind::VolumeExceeded { volume: name.clone(), bytes, limit_bytes });
            }
        }
        Ok(())
    }

    async fn look(&mut self, host: &Arc<HostInner>, entry: &Entry) -> Result<()> {
        let Some(container) = entry.container.clone().map(ContainerId) else { return Ok(()) };
        let used = host.runtime.disk_use(&container).await?;
        if !exceeds(host, entry, &used) {
            self.over.remove(&entry.id);
            return Ok(());
        }
        if self.over.insert(entry.id.clone()) {
            let kind = EventKind::DiskExceeded {
                bytes: used.bytes,
                limit_bytes: entry.recipe.disk_bytes,
                files: used.files,
                limit_files: host.disk.files,
                action: host.disk.action,
            };
            host.events.emit(Some(&entry.id), kind);
        }
        match host.disk.action {
            DiskAction::Tell => Ok(()),
            DiskAction::EndCommands => end_commands(host, entry).await,
            DiskAction::Pause => {
                let (verb, cause) = (Verb::Pause, TransitionCause::Disk);
                life::perform_unchanged(host, entry.clone(), verb, Duration::ZERO, cause).await
            }
        }
    }
}

/// What runs and has a limit. What doesn't run writes nothing.
fn is_watched(host: &HostInner, entry: &Entry) -> bool {
    let limited = entry.recipe.disk_bytes.is_some() || host.disk.files.is_some();
    limited && entry.state == WorkspaceState::Ready && entry.actor.is_none() && entry.container.is_some()
}

fn exceeds(host: &HostInner, entry: &Entry, used: &DiskUse) -> bool {
    let more = |used: Option<u64>, limit: Option<u64>| used.zip(limit).is_some_and(|(used, limit)| used > limit);
    more(Some(used.bytes), entry.recipe.disk_bytes) || more(used.files, host.disk.files)
}

/// Kills all commands, and what those left behind that have ended: one that goes on doesn't keep the others alive.
async fn end_commands(host: &Arc<HostInner>, entry: &Entry) -> Result<()> {
    let Some(workspace) = Workspace::of_entry(host, entry) else { return Ok(()) };
    let mut request = CommandListRequest { limit: Some(1_000), ..Default::default() };
    let mut failed = Ok(());
    loop {
        let listed = workspace.ask::<CommandList>(&request).await?;
        for command in listed.commands.into_iter().filter(has_processes) {
            let signal = CommandSignalRequest { id: command.id, signal: Signal::Kill };
            match workspace.ask::<CommandSignal>(&signal).await {
                // Forgotten meanwhile, so it has ended.
                Err(error) if error.problem().is_some_and(|problem| problem.code == Code::NotFound) => {}
                result => failed = failed.and(result.map(|_| ())),
            }
        }
        match listed.cursor {
            Some(cursor) => request.cursor = Some(cursor),
            None => return failed,
        }
    }
}

fn has_processes(command: &CommandInfo) -> bool {
    command.exit.as_ref().is_none_or(|exit| !exit.survivors.is_empty())
}
