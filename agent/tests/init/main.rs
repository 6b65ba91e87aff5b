//! The agent as it is in a container: PID 1 of a pid namespace, as a user with no capability. What its commands, which are
//! the same user, can't do to it, and what it does as init. Needs root, `unshare`, `setpriv` (util-linux), and perl.

mod claim; // what comes with a claim, and who can't see it
mod duties; // orphans, callers who go away, the end
mod guards; // what commands can't do to the agent
mod limits; // a command's own limits, as a user whom they bind
mod support; // an agent in a pid namespace
