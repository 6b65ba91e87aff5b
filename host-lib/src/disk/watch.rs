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
const SLACK: Slack = Slack { bytes: 16 << 20, files: 1_000, rounds: 6 };
/// Of those that nobody gave a limit, at least, which is far away for most: a part of it, and so many rounds in a row.
const PARTS_OF_LIMIT: u64 = 16;
const ROUNDS_OF_OTHERS: u32 = 60;

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
    /// When those were looked at that have a limit of their own, and volumes.
    limited: Last,
    /// When all others were.
    others: Last,
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
        let all = host.store.all().await?;
        // Who was paused for it is looked at as soon as he runs again.
        self.over.retain(|id| all.iter().any(|entry| entry.id == *id));
        let (limited, mut others): (Vec<Entry>, Vec<Entry>) =
            all.into_iter().filter(runs).partition(|entry| entry.recipe.disk_bytes.is_some());
        if host.disk.bytes.is_none() && host.disk.files.is_none() {
            others.clear();
        }
        if limited.is_empty() && others.is_empty() && host.disk.volume_bytes.is_none() {
            (self.limited, self.others) = (Last::default(), Last::default());
            return Ok(false);
        }
        let space = match host.runtime.disk_space().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            space => Some(space?),
        };
        let mut looked = false;
        if limited.is_empty() && host.disk.volume_bytes.is_none() {
            self.limited = Last::default();
        } else if self.limited.is_over(space, SLACK) {
            looked = true;
            self.look_at(host, &limited).await;
            if let Some(limit) = host.disk.volume_bytes {
                self.look_at_volumes(host, limit).await?;
            }
        } else {
            looked |= self.look_again(host, &limited).await;
        }
        if others.is_empty() {
            self.others = Last::default();
        } else if space.is_some() && self.others.is_over(space, slack_of_others(host)) {
            looked = true;
            self.look_at(host, &others).await;
        } else {
            looked |= self.look_again(host, &others).await;
        }
        Ok(looked)
    }

    /// Looks at those that are over their limits until they aren't. Of a volume that is so, it was told, and nothing more is done.
    async fn look_again(&mut self, host: &Arc<HostInner>, entries: &[Entry]) -> bool {
        let over: Vec<_> = entries.iter().filter(|entry| self.over.contains(&entry.id)).cloned().collect();
        self.look_at(host, &over).await;
        !over.is_empty()
    }

    async fn look_at(&mut self, host: &Arc<HostInner>, entries: &[Entry]) {
        for entry in entries {
            // One after another: nobody waits for it, and the disk is others' too.
            if let Err(error) = self.look(host, entry).await
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(workspace = %entry.id, %error, "what a workspace has on disk could not be looked after");
            }
        }
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
                limit_bytes: limit_bytes(host, entry),
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
                // A pause ends nothing that would need a grace.
                let (verb, cause) = (Verb::Pause, TransitionCause::Disk);
                life::perform_unchanged(host, entry.clone(), verb, Duration::ZERO, cause).await.map(|_| ())
            }
        }
    }
}

/// How much fuller the disk may become before it is looked at who wrote that.
#[derive(Debug, Clone, Copy)]
struct Slack {
    bytes: u64,
    files: u64,
    /// How many rounds are left out in a row: somebody else may have removed as much as one has written.
    rounds: u32,
}

/// The last look at some, and how the disk was then.
#[derive(Default)]
struct Last {
    space: Option<DiskSpace>,
    left_out: u32,
}

impl Last {
    /// Whether it is time for another one, which begins then.
    fn is_over(&mut self, space: Option<DiskSpace>, slack: Slack) -> bool {
        let fewer = |last: Option<u64>, now: Option<u64>| last.unwrap_or(0).saturating_sub(now.unwrap_or(0));
        let is_as_before = self.space.zip(space).is_some_and(|(last, now)| {
            last.free_bytes.saturating_sub(now.free_bytes) <= slack.bytes
                && fewer(last.free_files, now.free_files) <= slack.files
        });
        if is_as_before && self.left_out < slack.rounds {
            self.left_out += 1;
            return false;
        }
        (self.space, self.left_out) = (space, 0);
        true
    }
}

fn slack_of_others(host: &HostInner) -> Slack {
    let part = |limit: Option<u64>, least: u64| limit.map_or(u64::MAX, |limit| (limit / PARTS_OF_LIMIT).max(least));
    Slack {
        bytes: part(host.disk.bytes, SLACK.bytes),
        files: part(host.disk.files, SLACK.files),
        rounds: ROUNDS_OF_OTHERS,
    }
}

/// What doesn't run writes nothing.
fn runs(entry: &Entry) -> bool {
    entry.state == WorkspaceState::Ready && entry.actor.is_none() && entry.container.is_some()
}

/// What it may have: its own limit, else everybody's.
fn limit_bytes(host: &HostInner, entry: &Entry) -> Option<u64> {
    entry.recipe.disk_bytes.or(host.disk.bytes)
}

fn exceeds(host: &HostInner, entry: &Entry, used: &DiskUse) -> bool {
    let more = |used: Option<u64>, limit: Option<u64>| used.zip(limit).is_some_and(|(used, limit)| used > limit);
    more(Some(used.bytes), limit_bytes(host, entry)) || more(used.files, host.disk.files)
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
