//! The engine of `search` and `find`: a walk over the tree with ripgrep's rules, beneath the root. Knows nothing of HTTP.
//!
//! What decides is ripgrep's own: `ignore` compiles ignore files, globs and types, `grep-regex` the pattern, and
//! `grep-searcher` finds lines. The walk is ours, since theirs goes by path: this one opens every directory and file
//! beneath the root in the kernel, so that a link that is swapped in while it walks leads nowhere; it never opens what
//! isn't a regular file; it counts what it leaves out; it stops when it is told to; and it is faster, as it reads small
//! files once and asks the pattern first whether it occurs at all.
//!
//! `control` is how a search is stopped. `filter` and `pattern` turn a request into matchers, or say what is wrong with
//! it. `rules` are the ignore files. `listing` reads a directory, `walk` the tree, on the few threads of `queue`. `file` searches one
//! file, `lines` makes what is found into lines, `output` brings them out, `buffers` is
//! memory for long lines. `run` and `find` put these together. `kept` is what later
//! searches know from earlier ones.

pub(crate) mod beneath;
pub mod buffers;
pub mod control;
mod file;
pub mod filter;
pub mod find;
pub mod kept;
mod lines;
pub(crate) mod listing;
mod output;
pub mod pattern;
pub mod plan;
mod queue;
pub(crate) mod rules;
pub mod run;
pub(crate) mod troubles;
mod walk;

pub use beneath::Beneath;
pub use control::{Control, Stop};
pub(crate) use lines::line_alone;
pub(crate) use output::memory_of;
pub use run::LineOptions;
pub use walk::WalkOptions;
