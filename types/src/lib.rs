//! Everything that crosses a wire between a Corehold agent and whoever talks to it: requests, responses, events,
//! errors, token claims, and the names of the environment variables both sides agree on.
//!
//! This crate is a leaf. It knows serde, ts-rs and schemars and no runtime: no tokio, no HTTP library, no engine.
//! What is here is append-only within protocol version [`PROTOCOL`]; `types/bindings/` is generated from it.

mod content;
mod data;
pub mod env_vars;
mod escape;
mod path;
mod patterns;
pub mod policy;
mod problem;
pub mod relay;
pub mod rpc;
mod time;
mod token;
pub mod tool;
pub mod tools;
pub mod wire;

pub use content::Content;
pub use data::{CollectedOutput, Data};
pub(crate) use path::PathAsAsked;
pub use path::{InvalidPath, WorkspacePath};
pub use problem::{Code, Problem};
pub use time::Timestamp;
pub use token::{Claims, HEADER as TOKEN_HEADER, Scope, Scopes};
pub use tool::{Event, EventBytes, NoEvent, Standing, Tool};

/// Version of the contract that this crate describes. It changes only when an old client could misread a new agent.
pub const PROTOCOL: u32 = 1;
