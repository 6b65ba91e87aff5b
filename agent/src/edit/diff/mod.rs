//! Unified diffs: made from two texts, read from a caller, applied to a text.

mod apply;
mod make;
mod parse;

pub(crate) use apply::apply;
pub(crate) use make::{Difference, Names, difference};
pub(crate) use parse::parse;

#[cfg(test)]
mod tests;
