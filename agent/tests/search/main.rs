//! `search` and `find` as a whole, without a server: against ripgrep over generated and real trees, beneath a root that
//! others change meanwhile, stopped half-way, and with requests that are wrong.
//!
//! The tests whose names contain `ripgrep` need ripgrep 15 and get it themselves; `--skip ripgrep` leaves them out.

// As in the crate: a `Problem` is made at most once a request.
#![allow(clippy::result_large_err)]

mod confinement;
mod differential;
mod find;
mod kept;
mod requests;
mod ripgrep;
mod stopping;
mod support;
mod trees;
