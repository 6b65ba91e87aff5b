//! One module per tool: its request, response and events, and the [`Tool`](crate::Tool) that ties them together.

mod activity;
mod command;
mod command_list;
mod command_output;
mod command_signal;
mod copy;
mod edit;
mod extract;
mod find;
mod info;
mod list;
mod mkdir;
mod move_;
mod read;
mod remove;
mod search;
mod stat;
mod write;

pub use activity::*;
pub use command::*;
pub use command_list::*;
pub use command_output::*;
pub use command_signal::*;
pub use copy::*;
pub use edit::*;
pub use extract::*;
pub use find::*;
pub use info::*;
pub use list::*;
pub use mkdir::*;
pub use move_::*;
pub use read::*;
pub use remove::*;
pub use search::*;
pub use stat::*;
pub use write::*;
