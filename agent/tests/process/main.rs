//! The process room, on this machine's kernel. As PID 1 it is tried by `init.rs`.
//!
//! No test in here may use `std::process::Command`: the room reaps every child of the process.

// Time-outs, signals, survivors, shutdown.
mod endings;
// Nothing lost, nothing doubled, nobody slowed down.
mod output;
// What can be started, and what is said when it can't.
mod starting;
// A room, and sentences about it.
mod screen;
mod support;
mod terminal;
// Thousands of commands, and 100 MB of output.
mod throughput;
