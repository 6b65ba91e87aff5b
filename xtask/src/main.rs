//! Developer commands of Corehold.
fn main() {}
