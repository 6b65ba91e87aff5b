//! What the agent forbids about itself before it reads anything.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// A guard can't be put up.
#[derive(Debug, thiserror::Error)]
#[error("the process can't be made non-dumpable: {0}")]
pub struct GuardError(rustix::io::Errno);

/// Makes the process non-dumpable: others of the same user can't trace it, nor read its memory and environment in
/// `/proc` (prctl(2), `PR_SET_DUMPABLE`).
///
/// # Errors
/// The kernel refuses, which no known one does.
pub fn forbid_dumping() -> Result<(), GuardError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(GuardError)
}
