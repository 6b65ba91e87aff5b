//! A container in the making, which nobody forgets: it is kept, or it is removed.
//!
//! The engine may have made a container although nobody waits for its answer any more. So the call runs in a task of its
//! own, and whoever gives up on the creation, by an error or by dropping it, waits for that task before removing. So does a
//! claim: only its own answer says whether the container is ours to remove.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
    labels,
    life::{Turn, WorkspaceState},
    pool::{Outcome, Record, Records},
    runtime::{ContainerId, ContainerSpec, Runtime},
    state::{Durability, Entry},
};

/// Removes its container when it is dropped, unless [`keep`](Self::keep) was called.
pub(crate) struct Reservation {
    held: Held,
    cleanups: TaskTracker,
}

/// What the engine was asked for.
struct Held {
    runtime: Arc<dyn Runtime>,
    fate: Fate,
    /// What was written about a container that came from a pool.
    record: Option<(Records, Record)>,
    /// What the store has of the workspace that it is made for.
    entered: Entered,
}

enum Entered {
    /// It waits in a pool, or belongs to a workspace that there is without it.
    Nothing,
    /// It is being made, by us.
    Open(Box<Turn>),
    /// It is made, and nobody has it yet.
    Ready(Arc<HostInner>, Box<Entry>),
}

enum Fate {
    /// Nothing was asked of the engine, or nothing is left of it.
    Nothing,
    /// The engine is making it; its labels tell it from all others.
    Creating { task: JoinHandle<Result<ContainerId>>, labels: BTreeMap<String, String> },
    /// A container of a pool is being claimed: whose it is then, the task knows.
    Claiming { task: JoinHandle<Outcome>, records: Records },
    /// It is there, and its agent's name in tokens is this.
    Made(ContainerId, String),
    /// The call failed in a way that leaves open whether it is there.
    Doubtful { labels: BTreeMap<String, String> },
}

impl Reservation {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, cleanups: TaskTracker) -> Self {
        Self { held: Held { runtime, fate: Fate::Nothing, record: None, entered: Entered::Nothing }, cleanups }
    }

    /// Whose workspace it is: what the store has of that goes with the container.
    pub(crate) fn of_workspace(mut self, turn: Turn) -> Self {
        self.held.entered = Entered::Open(Box::new(turn));
        self
    }

    /// Writes down that the workspace is ready. Until it is kept it is removed nevertheless.
    ///
    /// # Errors
    /// `Conflict` when somebody has removed it meanwhile.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let Fate::Made(id, instance) = &self.held.fate else { return Ok(()) };
        let Entered::Open(turn) = &mut self.held.entered else { return Ok(()) };
        turn.note(Durability::Process, |entry| {
            entry.state = WorkspaceState::Ready;
            entry.actor = None;
            entry.container = Some(id.0.clone());
            entry.instance.clone_from(instance);
        })
        .await?;
        if let Entered::Open(turn) = std::mem::replace(&mut self.held.entered, Entered::Nothing) {
            let (host, entry) = turn.release();
            self.held.entered = Entered::Ready(host, Box::new(entry));
        }
        Ok(())
    }

    /// Keeps the container for looking at, and writes down why.
    pub(crate) async fn fail(mut self, error: &Error) -> Result<()> {
        // It is there, or will be in a moment.
        let _ = self.held.outcome().await;
        self.held.fail(error.to_string()).await?;
        self.keep();
        Ok(())
    }

    /// Has the engine make the container.
    pub(crate) async fn create(&mut self, spec: ContainerSpec) -> Result<ContainerId> {
        let instance = spec.labels.get(labels::INSTANCE).cloned().unwrap_or_default();
        let labels = BTreeMap::from([(labels::INSTANCE.to_owned(), instance)]);
        let runtime = self.held.runtime.clone();
        let task = self.cleanups.spawn(async move { runtime.create(&spec).await });
        self.held.fate = Fate::Creating { task, labels };
        match self.held.outcome().await? {
            Some(id) => Ok(id),
            None => Err(Error::new(ErrorKind::Engine, "the engine made no container")),
        }
    }

    /// Claims a container of a pool. None when the claim was cut off.
    pub(crate) async fn claim(
        &mut self,
        records: &Records,
        claim: impl Future<Output = Outcome> + Send + 'static,
    ) -> Option<Outcome> {
        self.held.fate = Fate::Claiming { task: self.cleanups.spawn(claim), records: records.clone() };
        self.held.decided().await
    }

    /// Whether a container is there, or may be.
    pub(crate) fn is_something(&self) -> bool {
        !matches!(self.held.fate, Fate::Nothing)
    }

    /// Leaves the container alone from now on.
    pub(crate) fn keep(mut self) {
        self.held.fate = Fate::Nothing;
        self.held.entered = Entered::Nothing;
    }

    /// Removes the container and waits until it is gone. Dropped meanwhile, it is removed nevertheless.
    pub(crate) async fn discard(mut self) -> Result<()> {
        let result = self.held.clear().await;
        // Whoever is told that it failed decides what comes next.
        self.held.fate = Fate::Nothing;
        if let Err(error) = &result
            && let Err(writing) = self.held.fail(format!("its container could not be removed: {error}")).await
        {
            tracing::warn!(error = %writing, "what is left of a creation could not be written down");
        }
        self.held.entered = Entered::Nothing;
        result
    }
}

impl Held {
    /// Waits for the call that makes the container. Cancel-safe.
    async fn outcome(&mut self) -> Result<Option<ContainerId>> {
        if let Fate::Creating { task, labels } = &mut self.fate {
            let result = task.await;
            let labels = std::mem::take(labels);
            let (fate, result) = match result {
                Ok(Ok(id)) => (Fate::Made(id, labels.get(labels::INSTANCE).cloned().unwrap_or_default()), Ok(())),
                Ok(Err(error)) => match error.kind() {
                    ErrorKind::NotFound
                    | ErrorKind::AlreadyExists
                    | ErrorKind::Conflict
                    | ErrorKind::Invalid
                    | ErrorKind::Unsupported => (Fate::Nothing, Err(error)),
                    _ => (Fate::Doubtful { labels }, Err(error)),
                },
                Err(error) => {
                    let error = Error::new(ErrorKind::Engine, "making the container was cut off").caused_by(error);
                    (Fate::Doubtful { labels }, Err(error))
                }
            };
            self.fate = fate;
            result?;
        }
        Ok(match &self.fate {
            Fate::Made(id, _) => Some(id.clone()),
            _ => None,
        })
    }

    /// Waits for the claim. Cancel-safe.
    async fn decided(&mut self) -> Option<Outcome> {
        let Fate::Claiming { task, records } = &mut self.fate else { return None };
        let outcome = task.await;
        match &outcome {
            Ok(Outcome::Won(won)) => {
                self.record = Some((records.clone(), won.record.clone()));
                self.fate = Fate::Made(won.container.clone(), won.instance.clone());
            }
            _ => self.fate = Fate::Nothing,
        }
        outcome.ok()
    }

    async fn clear(&mut self) -> Result<()> {
        // Why the call failed was said already, to whom it concerns.
        let _ = self.outcome().await;
        self.decided().await;
        match &self.fate {
            Fate::Nothing | Fate::Creating { .. } | Fate::Claiming { .. } => {}
            Fate::Made(id, _) => {
                self.runtime.remove(id).await?;
                if let Some((records, record)) = self.record.take() {
                    records.forget(id, &record.workspace).await;
                }
            }
            Fate::Doubtful { labels } => {
                for state in self.runtime.list(labels).await? {
                    self.runtime.remove(&state.id).await?;
                }
            }
        }
        self.fate = Fate::Nothing;
        match std::mem::replace(&mut self.entered, Entered::Nothing) {
            Entered::Nothing => Ok(()),
            Entered::Open(turn) => turn.forget().await,
            // Unless somebody has found it meanwhile, and does something with it.
            Entered::Ready(host, entry) => host.store.delete(&entry).await.map(|_| ()),
        }
    }

    /// Writes down that the workspace failed, and why.
    async fn fail(&mut self, reason: String) -> Result<()> {
        let container = match &self.fate {
            Fate::Made(id, instance) => Some((id.0.clone(), instance.clone())),
            _ => None,
        };
        let Entered::Open(turn) = std::mem::replace(&mut self.entered, Entered::Nothing) else { return Ok(()) };
        let failed = turn.finish_with(WorkspaceState::Failed, Durability::Process, |entry| {
            entry.reason = Some(reason);
            if let Some((container, instance)) = container {
                (entry.container, entry.instance) = (Some(container), instance);
            }
        });
        failed.await.map(|_| ())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Without a runtime nothing can be done here; the next reconcile finds it.
        let entered = std::mem::replace(&mut self.held.entered, Entered::Nothing);
        let nothing = !self.is_something() && matches!(entered, Entered::Nothing);
        if nothing || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let fate = std::mem::replace(&mut self.held.fate, Fate::Nothing);
        let mut held = Held { runtime: self.held.runtime.clone(), fate, record: self.held.record.take(), entered };
        self.cleanups.spawn(async move {
            if let Err(error) = held.clear().await {
                tracing::warn!(%error, "the container of an abandoned creation could not be removed");
            }
        });
    }
}
