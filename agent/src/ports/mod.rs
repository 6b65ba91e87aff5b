//! Listening TCP ports, from the kernel's own tables: which there are, and whose. Knows nothing of the wire.
//!
//! `table` reads `/proc/self/net/tcp` and `tcp6`, the agent's own network namespace; `owners` finds the processes that hold
//! the sockets. The kernel tells nobody when a socket begins to listen, so whoever waits has to look again.

mod owners;
mod table;

pub use owners::holders;
pub use table::{Listener, listeners};
