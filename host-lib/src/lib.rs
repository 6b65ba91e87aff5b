//! Isolated workspaces for a backend: a core container in milliseconds, filled with a folder, worked on through the agent inside.

mod error;
pub mod runtime;

pub use error::{Error, ErrorKind, Result};
