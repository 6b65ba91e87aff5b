//! Taking a container from a pool. The agent decides who owns it; here it is asked, and believed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use corehold_types::{
    Code,
    tools::{Claim, ClaimRequest},
};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Member, Pool, Record, State};
use crate::{
    client::AgentClient,
    error::{Error, ErrorKind, Result},
    runtime::{ContainerId, Resources},
    workspace::{WorkspaceId, random_word},
};

/// An agent that has not answered a claim in this time is asked again, and then left to the keeper. It needs a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;

/// What a claim brings.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) workspace: WorkspaceId,
    pub(crate) template: Option<String>,
    pub(crate) created: corehold_types::Timestamp,
    pub(crate) preview_port: Option<u16>,
    pub(crate) env: BTreeMap<String, String>,
}

/// What came of a claim.
pub(crate) enum Outcome {
    /// It is ours.
    Won(Won),
    /// Somebody else was faster, or it is gone.
    Lost,
    /// Its agent doesn't take such a claim, and no other will.
    Refused(Error),
}

/// A container that is ours.
pub(crate) struct Won {
    pub(crate) container: ContainerId,
    /// Id of its image.
    pub(crate) image: String,
    /// Its limits.
    pub(crate) limits: Resources,
    pub(crate) instance: String,
    pub(crate) client: Arc<AgentClient>,
    pub(crate) record: Record,
}

/// Counts a claim that waits, however it ends.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.state().waiting += 1;
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// Longest time for which nothing is started because workspaces are being handed over: a dev server is there by then.
const HOLD: Duration = Duration::from_secs(2);
/// The same while no other is ready: who comes next waits for it.
const SHORT_HOLD: Duration = Duration::from_millis(250);

/// A container is on its way to its owner, until it is ready. While there is one, nothing is started: an engine that starts a container
/// takes ten times as long to rename another, and both wait for the disk, as the dev server does.
pub(crate) struct HandOver(Arc<Pool>);

impl Drop for HandOver {
    fn drop(&mut self) {
        self.0.state().handing_over -= 1;
        self.0.wanted.notify_one();
    }
}

impl State {
    /// Until when nothing is started because of a hand-over.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let hold = if self.ready.is_empty() { SHORT_HOLD } else { HOLD };
        let held = self.handing_over > 0 && self.waiting == 0;
        self.held_since.filter(|_| held).map(|since| since + hold)
    }
}

impl Pool {
    /// Takes one that is ready, or waits for one that is on its way, if it isn't already for somebody else. Cancel-safe:
    /// what was not returned is still there.
    pub(crate) async fn take(self: &Arc<Self>, until: Instant) -> Option<(Member, HandOver)> {
        let mut waiting = None;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(member) = state.ready.pop_front() {
                    if state.handing_over == 0 {
                        state.held_since = Some(Instant::now());
                    }
                    state.handing_over += 1;
                    drop(state);
                    self.wanted.notify_one();
                    return Some((member, HandOver(self.clone())));
                }
                let others = state.waiting - usize::from(waiting.is_some());
                if state.closed || others >= state.starting.len() {
                    return None;
                }
            }
            waiting.get_or_insert_with(|| Waiting::begin(self));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => return None,
            }
        }
    }

    /// Until when a claim that begins now waits.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.wait
    }

    /// A claim found nothing: one more is kept ready from now on.
    pub(crate) fn missed(&self) {
        let mut state = self.state();
        state.missed += 1;
        state.missed_at = Instant::now();
        // Who comes next must not find it empty too.
        state.held_since = None;
        state.target = (state.target + 1).min(self.options.most());
        self.wanted.notify_one();
    }

    /// Claims a container. Once begun it is to be brought to its end: nobody else can tell whose the container is.
    pub(crate) async fn claim(self: Arc<Self>, member: Member, wish: Wish) -> Outcome {
        let span = tracing::info_span!("claim", workspace = %wish.workspace, container = %member.container.0);
        let outcome = self.attempt(&member, wish).instrument(span).await;
        let mut state = self.state();
        match &outcome {
            Outcome::Won(_) => state.claimed += 1,
            Outcome::Lost => {
                state.attended.remove(&member.container.0);
                drop(state);
                // Whoever was faster may be killed before they finish.
                self.look_again();
                return outcome;
            }
            Outcome::Refused(_) => {
                // Nothing happened to it.
                state.ready.push_front(member);
                drop(state);
                self.changed.notify_waiters();
                return outcome;
            }
        }
        state.attended.remove(&member.container.0);
        outcome
    }

    async fn attempt(&self, member: &Member, wish: Wish) -> Outcome {
        let workspace = wish.workspace.clone();
        let record = Record {
            container: member.container.0.clone(),
            workspace: workspace.clone(),
            host: self.seat.process.name().to_owned(),
            template: wish.template,
            created: wish.created,
            preview_port: wish.preview_port,
        };
        let claim_id = match random_word(24) {
            Ok(word) => word,
            Err(error) => return Outcome::Refused(error),
        };
        // Before the claim: a host that is killed right after it leaves word of whose the container is.
        if let Err(error) = self.seat.records.write(record.clone()).await {
            return Outcome::Refused(error);
        }
        let request = ClaimRequest { workspace: workspace.to_string(), claim_id, env: wish.env };
        let lost = match self.ask(member, &request).await {
            Ok(()) => {
                let Member { container, image, limits, instance, client } = member.clone();
                return Outcome::Won(Won { container, image, limits, instance, client, record });
            }
            Err(error) if is(&error, Code::AlreadyClaimed) || error.kind() == ErrorKind::NotFound => Outcome::Lost,
            Err(error) if error.kind() == ErrorKind::Agent || error.problem().is_some() => Outcome::Refused(error),
            Err(error) => {
                // Whether it took the claim nobody knows. The record stays for the keeper's next survey.
                tracing::warn!(container = member.container.0, %error, "a claim was not answered");
                return Outcome::Lost;
            }
        };
        self.seat.records.forget(&member.container, &workspace).await;
        lost
    }

    /// Asks as often as it takes to know, within reason: a repeated claim gets the first one's answer.
    async fn ask(&self, member: &Member, request: &ClaimRequest) -> Result<()> {
        let tokens = self.seat.tokens(&member.instance, &request.workspace);
        let mut attempt = 1;
        loop {
            let answer = tokio::time::timeout(PATIENCE, member.client.call::<Claim>(&tokens, request)).await;
            let error = match answer {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => Error::new(ErrorKind::AgentUnavailable, "the agent did not answer in time"),
            };
            if attempt == ATTEMPTS || error.kind() != ErrorKind::AgentUnavailable {
                return Err(error);
            }
            attempt += 1;
        }
    }
}

pub(super) fn is(error: &Error, code: Code) -> bool {
    error.problem().is_some_and(|problem| problem.code == code)
}
