//! The Docker runtime: the only room that knows bollard.
