//! One handler for each tool, in a file named after it.

mod activity;
mod audit_read;
mod claim;
mod command;
mod command_end;
mod command_get;
mod command_input;
mod command_list;
mod command_output;
mod command_resize;
mod command_search;
mod command_signal;
#[cfg(test)]
mod command_tests;
mod copy;
mod edit;
mod extract;
mod find;
mod info;
mod list;
mod mkdir;
mod move_;
mod ports;
mod read;
mod remove;
mod search;
mod stat;
mod watch;
#[cfg(test)]
mod watch_tests;
mod write;

pub(crate) use command_input::no_input as input_closed;
pub(crate) use command_output::find as find_command;
