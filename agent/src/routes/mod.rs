//! What each route does, in a file named after its path.

pub(crate) mod archive;
pub(crate) mod audited;
mod counted;
pub(crate) mod files;
pub(crate) mod health;
mod query;
pub(crate) mod repeated;
pub(crate) mod tools;
pub(crate) mod tunnel;
