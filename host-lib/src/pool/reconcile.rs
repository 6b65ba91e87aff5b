//! What is found in a pool: after a restart, beside another host, or left behind by one that was killed.
//!
//! | what has a place's name | what becomes of it |
//! |---|---|
//! | created and never started, for more than a minute | removed: whoever made it is gone |
//! | ended | removed: a container of a pool is never started again |
//! | paused | left alone until it goes on |
//! | runs, claimed, and who claims it is at it | left to them |
//! | runs, claimed, and nobody is at it | removed: it has its workspace's name before it is ready, so it is nobody's workspace yet |
//! | runs, and has ended before | removed: it was restarted, and may hold what somebody left |
//! | runs, its agent does not answer for half a minute, without a record | removed |
//! | runs, nobody's, has waited longer than it may | removed, of whichever class |
//! | runs, nobody's | ready |

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use corehold_types::{
    Code, Timestamp,
    tools::{Claim, ClaimRequest, Info, InfoRequest},
};

use tokio::time::Instant;

use super::{Member, Pool, Record, Seat, claim::is};
use crate::{
    client::{AgentClient, Patience},
    create::{AGENT_TIMEOUT, agent},
    error::{Error, ErrorKind, Result},
    host::AGENT_PORT,
    labels,
    runtime::{ContainerId, ContainerState, ContainerStatus},
    workspace::{WorkspaceId, random_word},
};

/// Longer than a container is ever on its way from its making to its agent's first answer.
const UNDER_WAY_SECONDS: i64 = 60;
/// Between two looks at a claim that somebody is at: no event tells that they were killed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// In which workspace's name an agent is asked that may have none.
const NOBODY: &str = "nobody";
/// An agent that is to be drained and says nothing for so long is no more.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

impl Pool {
    /// Looks into a container that has a place here. Returns it if it can be claimed.
    pub(super) async fn examine(&self, state: &ContainerState) -> Result<Option<Member>> {
        let seat = &self.seat;
        let age = age(state)?;
        match state.status {
            ContainerStatus::Running => {}
            ContainerStatus::Created if age < UNDER_WAY_SECONDS => return Ok(None),
            ContainerStatus::Paused => return Ok(None),
            ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Dead => {
                tracing::info!(container = state.name, "removing a container of a pool that does not run");
                return seat.runtime.remove(&state.id).await.map(|()| None);
            }
        }
        let blank = self.blank();
        if !blank.is_of(state) {
            // Of an image that was built anew meanwhile.
            return Ok(None);
        }
        let instance = label(state, labels::INSTANCE)?.to_owned();
        let client = seat.client(state);
        tokio::time::timeout(AGENT_TIMEOUT, agent::answers(&client)).await.map_err(|_| silent())??;
        let info =
            tokio::time::timeout(AGENT_TIMEOUT, client.call::<Info>(&seat.tokens(&instance, NOBODY), &InfoRequest {}))
                .await
                .map_err(|_| silent())?;
        match info {
            Ok(_) => {}
            Err(error) if is(&error, Code::NotClaimed) => {
                if !seat.settle_claimed(state).await? {
                    self.look_again();
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        // Only now: it may have been restarted until it answered.
        if seat.runtime.inspect(&state.id).await?.restarted {
            tracing::warn!(container = state.name, "removing a container of a pool that was restarted");
            return seat.remove_unclaimed(state).await.map(|_| None);
        }
        Ok(Some(blank.member(state.id.clone(), instance, client)))
    }

    /// Has the pool looked at again before its time, where no event will tell.
    pub(super) fn look_again(&self) {
        let then = Instant::now() + LOOK_AGAIN;
        let mut state = self.state();
        state.recheck = Some(state.recheck.map_or(then, |before| before.min(then)));
        drop(state);
        self.wanted.notify_one();
    }
}

impl Seat {
    fn client(&self, state: &ContainerState) -> Arc<AgentClient> {
        Arc::new(AgentClient::new(self.runtime.clone(), state.id.clone(), AGENT_PORT, Patience::default()))
    }

    /// A container that is claimed and had its place's name when it was listed: whoever claimed it is about to rename it, or was
    /// killed before. Says whether that is settled.
    async fn settle_claimed(&self, state: &ContainerState) -> Result<bool> {
        // Each claim is recorded before it is made.
        let records = self.records.all().await;
        if records.iter().any(|record| record.container == state.id.0 && self.is_under_way(record)) {
            return Ok(false);
        }
        // Only now: they may have finished since it was listed. Nobody else gives it a name.
        match self.runtime.inspect(&state.id).await {
            Ok(now) if now.name.starts_with(labels::POOL_NAME_PREFIX) => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(true),
        }
        tracing::warn!(container = state.name, "removing a container whose claim was cut off");
        self.runtime.remove(&state.id).await?;
        for record in records.into_iter().filter(|record| record.container == state.id.0) {
            self.records.forget(&state.id, &record.workspace).await;
        }
        Ok(true)
    }

    /// Whether somebody is at a claim: of this process a task, of another one nothing is known but that it lives.
    fn is_under_way(&self, record: &Record) -> bool {
        match record.host == self.process.name() {
            true => self.turns.has(&record.workspace),
            false => self.process.lives(&record.host),
        }
    }

    /// Undoes what was claimed for a workspace that never came to be: whatever is claimed for it and has its place's name still.
    pub(crate) async fn undo_claims(&self, workspace: &WorkspaceId) -> Result<()> {
        for record in self.records.all().await.into_iter().filter(|record| record.workspace == *workspace) {
            let id = ContainerId(record.container);
            let state = match self.runtime.inspect(&id).await {
                Ok(state) => Some(state),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if let Some(state) = state {
                let instance = label(&state, labels::INSTANCE)?;
                let (client, tokens) = (self.client(&state), self.tokens(instance, workspace.as_str()));
                let asked = tokio::time::timeout(DRAIN_PATIENCE, client.call::<Info>(&tokens, &InfoRequest {})).await;
                // One that can't say whose it is may be this workspace's; nobody else's is lost with it, since none was handed out.
                let others = match asked {
                    Ok(Ok(info)) => info.workspace.as_ref().is_none_or(|owner| owner != workspace.as_str()),
                    Ok(Err(error)) => is(&error, Code::NotClaimed),
                    Err(_) => false,
                };
                if !others {
                    self.runtime.remove(&id).await?;
                }
            }
            self.records.forget(&id, workspace).await;
        }
        Ok(())
    }

    /// Removes the records of what isn't among all containers of the home that came from a pool.
    pub(super) async fn sweep_records(&self, states: &[ContainerState]) {
        let there: HashSet<String> = states.iter().map(|state| state.id.0.clone()).collect();
        let age = Duration::from_secs(UNDER_WAY_SECONDS.unsigned_abs());
        self.records.sweep(move |container| there.contains(container), age).await;
    }

    /// Removes a container that has waited long enough, unless somebody claims it first.
    pub(super) async fn retire(&self, id: &ContainerId) {
        let retired = async {
            let state = self.runtime.inspect(id).await?;
            match state.name.starts_with(labels::POOL_NAME_PREFIX) {
                true => self.remove_unclaimed(&state).await,
                false => Ok(false),
            }
        };
        match retired.await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(container = id.0, %error, "a container of a pool could not be replaced");
            }
            _ => {}
        }
    }

    /// What to do with a container that could not be looked into.
    pub(super) async fn give_up(&self, state: &ContainerState, error: &Error) {
        tracing::debug!(container = state.name, %error, "a container of a pool could not be looked into");
        let hangs = matches!(error.kind(), ErrorKind::AgentUnavailable | ErrorKind::Timeout | ErrorKind::Unsupported);
        // With a record it may be somebody's: then it is looked at again.
        if hangs && !self.records.all().await.iter().any(|record| record.container == state.id.0) {
            tracing::warn!(container = state.name, %error, "removing a container of a pool whose agent does not answer");
            if let Err(error) = self.runtime.remove(&state.id).await {
                tracing::warn!(container = state.name, %error, "it could not be removed");
            }
        }
    }

    /// Removes a container that waits, unless somebody claims it first. Says whether it is gone.
    async fn remove_unclaimed(&self, state: &ContainerState) -> Result<bool> {
        if state.status == ContainerStatus::Running {
            let client = self.client(state);
            let instance = label(state, labels::INSTANCE)?;
            // Ours first: from now on nobody else's.
            let request =
                ClaimRequest { workspace: NOBODY.to_owned(), claim_id: random_word(24)?, env: BTreeMap::new() };
            let tokens = self.tokens(instance, NOBODY);
            let claimed = tokio::time::timeout(DRAIN_PATIENCE, client.call::<Claim>(&tokens, &request)).await;
            if let Ok(Err(error)) = &claimed
                && is(error, Code::AlreadyClaimed)
            {
                self.settle_claimed(state).await?;
                return Ok(false);
            }
        }
        self.runtime.remove(&state.id).await.map(|()| true)
    }
}

/// Removes what waits in any pool of a home, and the records of what is gone. Returns how many were removed.
pub(crate) async fn drain(seat: &Seat, fingerprint: &str) -> Result<usize> {
    let wanted = labels::of_kind_at_home(labels::KIND_POOL, fingerprint);
    let states = seat.runtime.list(&wanted).await?;
    let waiting = states.iter().filter(|state| state.name.starts_with(labels::POOL_NAME_PREFIX));
    let removals = futures_util::future::join_all(waiting.map(|state| seat.remove_unclaimed(state))).await;
    let mut removed = 0;
    for removal in removals {
        removed += usize::from(removal?);
    }
    seat.sweep_records(&states).await;
    Ok(removed)
}

/// Whether a container has waited longer than it may.
pub(super) fn expired(state: &ContainerState) -> bool {
    let until = state.labels.get(labels::EXPIRES).and_then(|until| until.parse::<Timestamp>().ok());
    until.is_some_and(|until| seconds_since(until) > 0)
}

fn label<'a>(state: &'a ContainerState, name: &str) -> Result<&'a str> {
    let missing = || Error::new(ErrorKind::Invalid, format!("the container {} has no label {name}", state.name));
    state.labels.get(name).map(String::as_str).ok_or_else(missing)
}

/// Seconds since a container was made, by the clock of whoever made it.
fn age(state: &ContainerState) -> Result<i64> {
    let damaged = |_| Error::new(ErrorKind::Invalid, format!("the container {} has a damaged label", state.name));
    Ok(seconds_since(label(state, labels::CREATED)?.parse().map_err(damaged)?))
}

fn seconds_since(then: Timestamp) -> i64 {
    Timestamp::now().as_unix_seconds().saturating_sub(then.as_unix_seconds())
}

fn silent() -> Error {
    Error::new(ErrorKind::Timeout, "the agent did not answer in time")
}
