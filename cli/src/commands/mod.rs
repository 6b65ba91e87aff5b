//! One module a command, each with what its name says.

pub(crate) mod archives;
pub(crate) mod cache;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod image;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod stats;
pub(crate) mod template;
pub(crate) mod up;
pub(crate) mod why;
