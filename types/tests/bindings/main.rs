//! The files that are made from the types: TypeScript in `types/bindings`, JSON Schemas in `types/schema`, the tools as
//! models see them in `types/mcp`, the OpenAPI document in `types/openapi`, and the samples
//! of real JSON that `tests/typescript.rs` type-checks.
//!
//! They are committed so that a change of the wire shows in review. These tests compare them with what the types say;
//! `cargo xtask gen` (these tests with `COREHOLD_UPDATE=1`) writes them anew.

mod committed;
mod openapi;
mod samples;
mod schema;
mod typescript;
mod wire_rules;
