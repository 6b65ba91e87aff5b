//! What the benchmarks share: figures, and an agent of their own, an engine spoken to without any library of ours, as the peer to compare with.
//!
//! Benchmarks print ratios of what was measured side by side in one run; absolute figures depend on the machine.

pub mod agent;
pub mod engine;
pub mod figures;
pub mod files;
pub mod http;
pub mod socket;
