//! Whether workspaces are well, and what becomes of those that aren't: checks, restarts, alerts.
//!
//! [`policy`] is what the caller wants, [`monitor`] the decision as pure code, [`attend`] asks and acts. When that is, the scheduler
//! of `idle` knows; how a workspace is restarted, `life`.

mod attend;
mod monitor;
mod policy;
#[cfg(test)]
mod tests;

pub use self::{
    attend::Health,
    policy::{HealthPolicy, RestartPolicy},
};
pub(crate) use self::{attend::attend, monitor::Monitor};
