//! A container in the making, which nobody forgets: it is kept, or it is removed.
//!
//! The engine may have made a container although nobody waits for its answer any more. So the call runs in a task of its
//! own, and whoever gives up on the creation, by an error or by dropping it, waits for that task before removing.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, ErrorKind, Result},
    labels,
    runtime::{ContainerId, ContainerSpec, Runtime},
};

/// Removes its container when it is dropped, unless [`keep`](Self::keep) was called.
pub(super) struct Reservation {
    held: Held,
    cleanups: TaskTracker,
}

/// What the engine was asked for.
struct Held {
    runtime: Arc<dyn Runtime>,
    fate: Fate,
}

enum Fate {
    /// Nothing was asked of the engine, or nothing is left of it.
    Nothing,
    /// The engine is making it; its labels tell it from all others.
    Creating { task: JoinHandle<Result<ContainerId>>, labels: BTreeMap<String, String> },
    /// It is there.
    Made(ContainerId),
    /// The call failed in a way that leaves open whether it is there.
    Doubtful { labels: BTreeMap<String, String> },
}

impl Reservation {
    pub(super) fn new(runtime: Arc<dyn Runtime>, cleanups: TaskTracker) -> Self {
        Self { held: Held { runtime, fate: Fate::Nothing }, cleanups }
    }

    /// Has the engine make the container.
    pub(super) async fn create(&mut self, spec: ContainerSpec) -> Result<ContainerId> {
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

    /// Whether a container is there, or may be.
    pub(super) fn is_something(&self) -> bool {
        !matches!(self.held.fate, Fate::Nothing)
    }

    /// Leaves the container alone from now on.
    pub(super) fn keep(mut self) {
        self.held.fate = Fate::Nothing;
    }

    /// Removes the container and waits until it is gone. Dropped meanwhile, it is removed nevertheless.
    pub(super) async fn discard(mut self) -> Result<()> {
        let result = self.held.clear().await;
        // Whoever is told that it failed decides what comes next.
        self.held.fate = Fate::Nothing;
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
                Ok(Ok(id)) => (Fate::Made(id), Ok(())),
                Ok(Err(error)) => match error.kind() {
                    ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Unsupported => {
                        (Fate::Nothing, Err(error))
                    }
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
            Fate::Made(id) => Some(id.clone()),
            _ => None,
        })
    }

    async fn clear(&mut self) -> Result<()> {
        // Why the call failed was said already, to whom it concerns.
        let _ = self.outcome().await;
        match &self.fate {
            Fate::Nothing | Fate::Creating { .. } => {}
            Fate::Made(id) => self.runtime.remove(id).await?,
            Fate::Doubtful { labels } => {
                for state in self.runtime.list(labels).await? {
                    self.runtime.remove(&state.id).await?;
                }
            }
        }
        self.fate = Fate::Nothing;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Without a runtime nothing can be done here; the container's labels let a listing find it.
        if !self.is_something() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let fate = std::mem::replace(&mut self.held.fate, Fate::Nothing);
        let mut held = Held { runtime: self.held.runtime.clone(), fate };
        self.cleanups.spawn(async move {
            if let Err(error) = held.clear().await {
                tracing::warn!(%error, "the container of an abandoned creation could not be removed");
            }
        });
    }
}
