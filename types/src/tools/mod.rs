//! One module per tool: its request, response and events, and the [`Tool`](crate::Tool) that ties them together.

mod command;
mod command_list;
mod command_output;
mod command_signal;
mod extract;
mod find;
mod info;
mod list;
mod read;
mod search;

pub use command::*;
pub use command_list::*;
pub use command_output::*;
pub use command_signal::*;
pub use extract::*;
pub use find::*;
pub use info::*;
pub use list::*;
pub use read::*;
pub use search::*;
