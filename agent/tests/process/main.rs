//! The process room, on this machine's kernel: without a container, and as PID 1 of a pid namespace (which needs root).

// Time-outs, signals, survivors, shutdown.
mod endings;
// As PID 1 and another user: what commands can't do to the agent.
mod guards;
// Nothing lost, nothing doubled, nobody slowed down.
mod output;
// What can be started, and what is said when it can't.
mod starting;
// A room, and sentences about it.
mod support;
// Thousands of commands, and 100 MB of output.
mod throughput;
