//! What the end-to-end tests share: an engine to test against, a program that stands in for the agent, and the
//! conformance suite that every runtime passes.
//!
//! Everything that a test makes in an engine carries labels ([`engine::TEST_LABEL`], [`engine::RUN_LABEL`]) and is swept
//! when the test ends; what a killed run left behind is swept by the next one.

pub mod command_line;
pub mod conformance;
pub mod corehold;
pub mod elsewhere;
pub mod engine;
pub mod images;
pub mod own_engine;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod stand_in;
pub mod tree;
pub mod watching;
pub mod web;
