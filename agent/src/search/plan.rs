//! What a request asks for, checked: defaults and bounds are decided here, and every mistake in it is said here.

use std::time::Duration;

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{FindRequest, SearchBinary, SearchReport, SearchRequest},
};
use grep_matcher::LineTerminator;
use grep_searcher::{BinaryDetection, Encoding, MmapChoice, SearcherBuilder};

use super::{
    filter::Filter,
    find::{Rank, Wanted, parse_query},
    kept::Needs,
    lines::LineOptions,
    pattern::{self, PatternOptions},
    rules::RuleOptions,
    run::{Query, SinkCap},
    walk::WalkOptions,
};
use crate::{
    config::{Limit, Limits},
    root::Root,
};

/// Lines of context on each side of a match.
const MAX_CONTEXT: u64 = 1_000;
/// Starting paths of a search.
const MAX_PATHS: usize = 1_000;
/// Entries in one answer of `find`, when the caller doesn't say.
pub(crate) const FOUND: u64 = 100;
/// Bytes of a line that are shown at most.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Threads of a search. More would not help: beyond a few, the kernel's locks are what is waited for.
const MAX_THREADS: usize = 4;

/// A search that can be run.
#[derive(Debug)]
pub struct SearchPlan {
    /// What is looked for.
    pub query: Query,
    /// In which paths.
    pub filter: Filter,
    /// How to walk.
    pub options: WalkOptions,
    /// Where to begin: paths beneath the root, the empty one for the root itself.
    pub starts: Vec<Vec<u8>>,
    /// What a file must have, if that can be told from the pattern.
    pub needs: Option<Needs>,
}

/// A `find` that can be run.
#[derive(Debug)]
pub struct FindPlan {
    /// What is to be found.
    pub wanted: Wanted,
    /// In which paths.
    pub filter: Filter,
    /// How to walk.
    pub options: WalkOptions,
    /// Where to begin: a path beneath the root.
    pub start: Vec<u8>,
}

/// How many matches a search may report.
///
/// # Errors
/// A [`Problem`] when the caller wants none or more than the limit.
pub fn max_matches(limits: &Limits, wanted: Option<u64>) -> Result<u64, Problem> {
    up_to(&limits.search_matches, "maxMatches", wanted, 1_000.min(limits.search_matches.value))
}

/// How long a search or `find` may take.
///
/// # Errors
/// A [`Problem`] when the caller wants no time or more than the limit.
pub fn timeout(limits: &Limits, timeout_ms: Option<u64>) -> Result<Duration, Problem> {
    up_to(&limits.search_ms, "timeoutMs", timeout_ms, limits.search_ms.value).map(Duration::from_millis)
}

impl SearchPlan {
    /// Checks a request and compiles what is in it, which may take some milliseconds.
    ///
    /// # Errors
    /// A [`Problem`] that names the field and what would be right.
    pub fn new(root: &Root, limits: &Limits, request: &SearchRequest) -> Result<Self, Problem> {
        if request.paths.len() > MAX_PATHS {
            return Err(out_of_range("paths", request.paths.len() as u64, 0, MAX_PATHS as u64));
        }
        let mut starts = request.paths.iter().map(|path| start(root, path)).collect::<Result<Vec<_>, _>>()?;
        if starts.is_empty() {
            starts.push(Vec::new());
        }
        let filter = Filter::new(&request.globs, &request.types, &request.types_not, request.hidden == Some(true))?;
        let options = WalkOptions {
            rules: rules(request.ignore_files, request.require_git),
            follow: request.follow == Some(true),
            max_depth: request.max_depth,
            sorted: request.sorted == Some(true),
            everything: false,
            threads: threads(),
        };
        let pattern_options = pattern_options(request);
        Ok(Self {
            query: query(limits, request, &pattern_options)?,
            filter,
            options,
            starts,
            needs: Needs::of(&request.pattern, &pattern_options),
        })
    }
}

impl FindPlan {
    /// Checks a request.
    ///
    /// # Errors
    /// A [`Problem`] that names the field and what would be right.
    pub fn new(root: &Root, limits: &Limits, request: &FindRequest) -> Result<Self, Problem> {
        let query = parse_query(request.query.as_deref().unwrap_or_default())?;
        let limit = up_to(&limits.list_entries, "limit", request.limit.map(u64::from), FOUND)?;
        let after = request.cursor.as_deref().map(|cursor| Rank::from_cursor(cursor, query.is_some())).transpose()?;
        let positions = request.positions == Some(true);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self {
            wanted: Wanted { query, kind: request.kind.unwrap_or_default(), limit, after, positions },
            filter: Filter::new(&request.globs, &request.types, &[], request.hidden == Some(true))?,
            options: WalkOptions {
                rules: rules(request.ignore_files, request.require_git),
                follow: request.follow == Some(true),
                max_depth: request.max_depth,
                sorted: false,
                everything: true,
                threads: threads(),
            },
            start: request.path.as_ref().map_or(Ok(Vec::new()), |path| start(root, path))?,
        })
    }
}

fn rules(ignore_files: Option<bool>, require_git: Option<bool>) -> RuleOptions {
    RuleOptions { ignore_files: ignore_files != Some(false), require_git: require_git == Some(true) }
}

/// Threads that a search or `find` has.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

fn pattern_options(request: &SearchRequest) -> PatternOptions {
    PatternOptions {
        literal: request.literal == Some(true),
        case: request.case.unwrap_or_default(),
        word: request.word == Some(true),
        whole_line: request.whole_line == Some(true),
        multiline: request.multiline == Some(true),
        dot_all: request.dot_all == Some(true),
        crlf: request.crlf == Some(true),
        nul_is_text: request.binary == Some(SearchBinary::Text),
    }
}

fn query(limits: &Limits, request: &SearchRequest, options: &PatternOptions) -> Result<Query, Problem> {
    let (multiline, crlf) = (options.multiline, options.crlf);
    let binary = request.binary.unwrap_or_default();
    if request.dot_all == Some(true) && !multiline {
        return Err(Problem::new(Code::InvalidRequest, "dotAll says what . matches in a search over several lines")
            .with("field", "dotAll")
            .suggest("set multiline to true too"));
    }
    let matcher = pattern::compile(&request.pattern, options)?;
    let report = request.report.unwrap_or_default();
    let mut max_matches_per_file = request.max_matches_per_file;
    if max_matches_per_file == Some(0) {
        return Err(out_of_range("maxMatchesPerFile", 0, 1, u64::MAX));
    }
    let (before, after) = (context("before", request.before)?, context("after", request.after)?);
    let inverted = request.invert == Some(true);
    // The searcher would count the matches between the inverted ones, take all behind the last of them for inverted, and with context
    // behind them go back and forth for ever (grep-searcher 0.1.17, `sink_matched_inverted` and `after_context_by_line`).
    let searcher_caps = !(multiline && inverted);
    let mut searcher = SearcherBuilder::new();
    // As `searcher` in ripgrep's `crates/core/flags/hiargs.rs`, but never by memory map: a file that is cut meanwhile
    // would kill the agent.
    searcher
        .memory_map(MmapChoice::never())
        .line_terminator(if crlf { LineTerminator::crlf() } else { LineTerminator::byte(b'\n') })
        .invert_match(inverted)
        .line_number(report == SearchReport::Lines)
        .multi_line(multiline);
    let mut most = max_matches_per_file;
    if report == SearchReport::Lines {
        searcher.before_context(before).after_context(after);
    } else if report == SearchReport::Files {
        // A file is left at its first match, which is what was asked for and nothing cut off.
        max_matches_per_file = None;
        most = Some(1);
    }
    searcher.max_matches(most.filter(|_| searcher_caps));
    let transcodes_only_by_mark = encoding(&mut searcher, request.encoding.as_deref())?;
    let max_line_bytes = u64::from(request.max_line_bytes.unwrap_or(1_024));
    if !(1..=MAX_LINE_BYTES).contains(&max_line_bytes) {
        return Err(out_of_range("maxLineBytes", max_line_bytes, 1, MAX_LINE_BYTES));
    }
    Ok(Query {
        matcher,
        searcher,
        binary: match binary {
            SearchBinary::Skip => BinaryDetection::quit(0),
            SearchBinary::Search => BinaryDetection::convert(0),
            SearchBinary::Text => BinaryDetection::none(),
        },
        transcodes_only_by_mark,
        max_file_bytes: request.max_file_bytes,
        max_matches_per_file,
        sink_caps: most.filter(|_| !searcher_caps).map(|matches| SinkCap { matches, after: after as u64 }),
        buffer_bytes: limits.search_buffer_bytes.value,
        report,
        lines: LineOptions {
            columns: request.columns.unwrap_or_default(),
            max_bytes: usize::try_from(max_line_bytes).unwrap_or(usize::MAX),
        },
    })
}

/// Sets the encoding; true if only a byte order mark leads to transcoding.
fn encoding(searcher: &mut SearcherBuilder, label: Option<&str>) -> Result<bool, Problem> {
    match label {
        None | Some("auto") => Ok(true),
        Some("none") => {
            searcher.bom_sniffing(false);
            Ok(true)
        }
        Some(label) => {
            let encoding = Encoding::new(label).map_err(|_| {
                Problem::new(Code::InvalidRequest, format!("no encoding is called {label:?}"))
                    .with("field", "encoding")
                    .suggest("labels are those of the Encoding Standard, such as latin1, utf-16le, shift_jis; or auto, or none")
            })?;
            searcher.encoding(Some(encoding));
            Ok(false)
        }
    }
}

fn context(field: &str, lines: Option<u32>) -> Result<usize, Problem> {
    let lines = u64::from(lines.unwrap_or(0));
    if lines > MAX_CONTEXT {
        return Err(out_of_range(field, lines, 0, MAX_CONTEXT));
    }
    Ok(usize::try_from(lines).unwrap_or(0))
}

fn up_to(limit: &Limit, field: &str, value: Option<u64>, default: u64) -> Result<u64, Problem> {
    match value {
        None => Ok(default),
        Some(0) => Err(out_of_range(field, 0, 1, limit.value)),
        Some(value) if value > limit.value => Err(limit.exceeded(&format!("{field}: {value}")).with("field", field)),
        Some(value) => Ok(value),
    }
}

pub(crate) fn out_of_range(field: &str, value: u64, least: u64, most: u64) -> Problem {
    let range = if most == u64::MAX { format!("at least {least}") } else { format!("from {least} to {most}") };
    Problem::new(Code::InvalidRequest, format!("{field} is {value}; it must be {range}")).with("field", field)
}

/// A starting path beneath the root, without `.` and `..`, so that what is found in it is named as anywhere else.
fn start(root: &Root, path: &WorkspacePath) -> Result<Vec<u8>, Problem> {
    let relative = root.relative(path)?;
    let mut components: Vec<&[u8]> = Vec::new();
    for component in relative.as_prefix().split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if components.pop().is_none() {
                    return Err(Problem::new(
                        Code::PathOutsideRoot,
                        format!("{path} leads outside of the workspace root"),
                    )
                    .with("path", path.to_string()));
                }
            }
            name => components.push(name),
        }
    }
    Ok(components.join(&b'/'))
}
