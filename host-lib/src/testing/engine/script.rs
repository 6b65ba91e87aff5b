//! What goes wrong in the fake engine, as a test wants it.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// What goes wrong in the engine.
#[derive(Default, Clone)]
pub(crate) struct EngineScript {
    /// Creating fails so, and nothing is made.
    pub(crate) create: Option<ErrorKind>,
    /// Creating makes the container, and then fails to say so.
    pub(crate) create_then_fail: bool,
    /// Creating waits for this.
    pub(crate) create_gate: Option<Arc<Notify>>,
    /// Starting fails.
    pub(crate) start: bool,
    /// The container ends right after its start.
    pub(crate) dies: bool,
    /// Nothing that happens is told.
    pub(crate) no_events: bool,
    /// Renaming fails.
    pub(crate) rename: bool,
    /// Limits can't be changed.
    pub(crate) limits_are_fixed: bool,
    /// It has a quota for what each container writes.
    pub(crate) quotas: bool,
    /// Changing limits fails.
    pub(crate) update_limits: bool,
    /// Removing fails as many times.
    pub(crate) remove_failures: usize,
    /// Its containers have no address.
    pub(crate) through_runtime: bool,
    /// Connecting to a port inside fails so.
    pub(crate) connect: Option<ErrorKind>,
}

impl EngineScript {
    /// Creates nothing, or fails to.
    pub(super) fn create(&self) -> Result<()> {
        self.create.map_or(Ok(()), |kind| Err(Error::new(kind, "no such thing")))
    }
}
