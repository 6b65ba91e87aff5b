//! A search as a whole: what is looked for, and the threads that look.

use std::{sync::atomic::Ordering, time::Instant};

use corehold_types::{
    Problem,
    tools::{SearchReport, SearchResponse, SearchTruncation},
};
use grep_regex::RegexMatcher;
use grep_searcher::{BinaryDetection, SearcherBuilder};

use super::{
    beneath::Beneath,
    buffers::Lend,
    control::{Control, Stop},
    file::{FileSearch, Totals},
    kept::Lookup,
    output::{Outlet, Output},
    plan::SearchPlan,
    troubles::Troubles,
    walk,
};
pub use super::{lines::LineOptions, output::Deliver, rules::RuleOptions};

/// What is looked for in each file.
#[derive(Debug, Clone)]
pub struct Query {
    /// The pattern.
    pub matcher: RegexMatcher,
    /// How files are read and cut into lines, without `binary` and `buffer_bytes`.
    pub searcher: SearcherBuilder,
    /// What NUL bytes mean in files that were not named.
    pub binary: BinaryDetection,
    /// Whether a file is transcoded only if a byte order mark says so.
    pub transcodes_only_by_mark: bool,
    /// Larger files are skipped.
    pub max_file_bytes: Option<u64>,
    /// A file is left after so many matching lines; as in `searcher`, or in `sink_caps`.
    pub max_matches_per_file: Option<u64>,
    /// Where a file is left, if the searcher can't tell.
    pub sink_caps: Option<SinkCap>,
    /// Bytes that a line, or with several lines a file, may have.
    pub buffer_bytes: u64,
    /// What is reported.
    pub report: SearchReport,
    /// How lines are shown.
    pub lines: LineOptions,
}

/// Where a file is left by who is told of its lines.
#[derive(Debug, Clone, Copy)]
pub struct SinkCap {
    /// After so many matching lines,
    pub matches: u64,
    /// and so many behind them.
    pub after: u64,
}

/// Everything that the threads of a search read.
pub(super) struct Engine<'a> {
    pub(super) root: &'a dyn Beneath,
    pub(super) query: &'a Query,
    pub(super) control: &'a Control,
    /// What is known from earlier searches.
    pub(super) lookup: Option<&'a Lookup<'a>>,
    /// Memory for long lines.
    pub(super) lend: &'a Lend<'a>,
}

/// Searches; blocks until it is done or `control` stops it. What is found goes to `deliver`; the response counts it.
/// Files in which nothing can be found by `lookup` aren't opened, and directories that are known aren't listed; the answer is
/// the same without it. Memory for long lines is asked for by `lend`, which may wait.
///
/// # Errors
/// A starting path can't be opened.
pub fn run(
    root: &dyn Beneath,
    plan: &SearchPlan,
    lookup: Option<&Lookup<'_>>,
    control: &Control,
    deliver: &Deliver<'_>,
    lend: &Lend<'_>,
) -> Result<SearchResponse, Problem> {
    let begun = Instant::now();
    let known = lookup.map(|lookup| lookup.over(root));
    let root = known.as_ref().map_or(root, |known| known);
    let engine = Engine { root, query: &plan.query, control, lookup, lend };
    let totals = Totals::default();
    let troubles = Troubles::default();
    let output = Output::new(deliver, control);
    let visitor = || FileSearch::new(&engine, &totals, &troubles, Outlet::new(&output));
    let skipped = walk::walk(root, &plan.starts, &plan.filter, &plan.options, control, &troubles, visitor)?;
    let mut truncated = Vec::new();
    match control.why() {
        Some(Stop::MaxMatches) => truncated.push(SearchTruncation::MaxMatches),
        Some(Stop::Timeout) => truncated.push(SearchTruncation::Timeout),
        Some(Stop::AnswerBytes) => truncated.push(SearchTruncation::AnswerBytes),
        // Nobody is there to read it.
        Some(Stop::Cancelled | Stop::Failed) | None => {}
    }
    if totals.capped_files.into_inner() > 0 {
        truncated.push(SearchTruncation::MaxMatchesPerFile);
    }
    Ok(SearchResponse {
        files: Vec::new(),
        matched_lines: totals.matched_lines.load(Ordering::Relaxed),
        matched_files: totals.matched_files.load(Ordering::Relaxed),
        searched_files: totals.searched_files.load(Ordering::Relaxed),
        searched_bytes: totals.searched_bytes.load(Ordering::Relaxed),
        skipped,
        truncated,
        troubles: troubles.into_vec(),
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}
