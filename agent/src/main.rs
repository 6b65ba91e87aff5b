//! The binary: what the agent does when it starts, as a list.
fn main() {}
