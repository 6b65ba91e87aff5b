//! `find` as a whole: every path that the rules allow, ranked, and the best of them kept.

use std::{
    collections::BinaryHeap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{EntryKind, FindKind, FindResponse, FoundEntry, SearchSkipped},
};
use nucleo_matcher::{
    Config, Matcher, Utf32Str,
    pattern::{CaseMatching, Normalization, Pattern},
};
use rustix::fs::FileType;

use super::{
    beneath::Beneath,
    control::{Control, Stop},
    filter::Filter,
    troubles::Troubles,
    walk::{self, Found, Visitor, WalkOptions},
};

/// Bytes of a query: more is no name.
const QUERY_BYTES: usize = 1_024;

/// What is to be found.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Fuzzy, if there is one.
    pub query: Option<Pattern>,
    /// Files, directories or both.
    pub kind: FindKind,
    /// Entries in the answer.
    pub limit: usize,
    /// The last entry of the page before.
    pub after: Option<Rank>,
    /// Whether to say which characters matched.
    pub positions: bool,
}

/// An entry's place in the order: the better, the smaller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Its score, so that a greater one is smaller; 0 without a query.
    score: std::cmp::Reverse<u32>,
    /// Length of the path with a query, where a short path is more likely meant; 0 without.
    length: usize,
    path: Vec<u8>,
}

impl Rank {
    fn new(score: Option<u32>, path: Vec<u8>) -> Self {
        let length = score.map_or(0, |_| path.len());
        Self { score: std::cmp::Reverse(score.unwrap_or(0)), length, path }
    }

    fn to_cursor(&self) -> String {
        format!("{}.{}", self.score.0, URL_SAFE_NO_PAD.encode(&self.path))
    }

    /// Reads a cursor. `ranked` is whether there is a query.
    ///
    /// # Errors
    /// A [`Problem`] when it is none of ours.
    pub fn from_cursor(cursor: &str, ranked: bool) -> Result<Self, Problem> {
        let parts = cursor
            .split_once('.')
            .and_then(|(score, path)| Some((score.parse().ok()?, URL_SAFE_NO_PAD.decode(path).ok()?)));
        match parts {
            Some((score, path)) if ranked || score == 0 => Ok(Self::new(ranked.then_some(score), path)),
            _ => Err(Problem::new(Code::InvalidRequest, "the cursor is not one that this request's answer had")
                .with("field", "cursor")
                .suggest("leave the cursor out to begin anew")),
        }
    }
}

/// Reads a query. An empty one is none.
///
/// # Errors
/// A [`Problem`] when it is too long.
pub fn parse_query(query: &str) -> Result<Option<Pattern>, Problem> {
    if query.len() > QUERY_BYTES {
        let detail = format!("the query has {} bytes; at most {QUERY_BYTES} are possible", query.len());
        return Err(Problem::new(Code::InvalidRequest, detail).with("field", "query"));
    }
    let pattern = Pattern::parse(query, CaseMatching::Smart, Normalization::Smart);
    Ok((!pattern.atoms.is_empty()).then_some(pattern))
}

/// Finds; blocks until it is done or `control` stops it. `start` is a path beneath the root.
///
/// # Errors
/// The starting path can't be opened.
pub fn run(
    root: &dyn Beneath,
    start: &[u8],
    wanted: &Wanted,
    filter: &Filter,
    options: &WalkOptions,
    control: &Control,
) -> Result<FindResponse, Problem> {
    let begun = Instant::now();
    let troubles = Troubles::default();
    let shared = Shared { wanted, best: Mutex::default(), total: AtomicU64::new(0), considered: AtomicU64::new(0) };
    let visitor = || Ranker {
        shared: &shared,
        matcher: Matcher::new(Config::DEFAULT.match_paths()),
        characters: Vec::new(),
        best: BinaryHeap::new(),
        total: 0,
        considered: 0,
    };
    walk::walk(root, &[start.to_vec()], filter, options, control, &troubles, visitor)?;
    let mut best = shared.best.into_inner().unwrap_or_else(PoisonError::into_inner);
    best.sort_unstable();
    let more = best.len() > wanted.limit;
    best.truncate(wanted.limit);
    let cursor = if more { best.last().map(|(rank, _)| rank.to_cursor()) } else { None };
    let mut matcher = Matcher::new(Config::DEFAULT.match_paths());
    Ok(FindResponse {
        entries: best.into_iter().map(|(rank, kind)| entry(rank, kind.0, wanted, &mut matcher)).collect(),
        total: shared.total.into_inner(),
        considered: shared.considered.into_inner(),
        timed_out: control.why() == Some(Stop::Timeout),
        troubles: troubles.into_vec(),
        cursor,
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn entry(rank: Rank, kind: EntryKind, wanted: &Wanted, matcher: &mut Matcher) -> FoundEntry {
    let score = wanted.query.is_some().then_some(rank.score.0);
    let positions = wanted.query.as_ref().filter(|_| wanted.positions).map(|query| {
        let (text, mut characters, mut positions) = (String::from_utf8_lossy(&rank.path), Vec::new(), Vec::new());
        query.indices(Utf32Str::new(&text, &mut characters), matcher, &mut positions);
        positions.sort_unstable();
        positions.dedup();
        positions
    });
    FoundEntry { path: WorkspacePath::from_bytes(&rank.path), kind, score, positions }
}

/// What an entry is, without a say in the order.
#[derive(Debug, Clone, Copy)]
struct Kind(EntryKind);

impl PartialEq for Kind {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Kind {}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kind {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

struct Shared<'a> {
    wanted: &'a Wanted,
    best: Mutex<Vec<(Rank, Kind)>>,
    total: AtomicU64,
    considered: AtomicU64,
}

/// One thread's share of the paths.
struct Ranker<'a> {
    shared: &'a Shared<'a>,
    matcher: Matcher,
    characters: Vec<char>,
    /// The best so far, one more than asked for, the worst of them on top.
    best: BinaryHeap<(Rank, Kind)>,
    total: u64,
    considered: u64,
}

impl Visitor for Ranker<'_> {
    fn visit(&mut self, found: &Found<'_>, _skipped: &mut SearchSkipped) {
        let wanted = self.shared.wanted;
        let is_directory = found.kind == FileType::Directory;
        match wanted.kind {
            FindKind::Files if is_directory => return,
            FindKind::Directories if !is_directory => return,
            _ => {}
        }
        self.considered += 1;
        let mut score = None;
        if let Some(query) = &wanted.query {
            let text = String::from_utf8_lossy(found.path);
            score = query.score(Utf32Str::new(&text, &mut self.characters), &mut self.matcher);
            if score.is_none() {
                return;
            }
        }
        self.total += 1;
        // Only what can be on the page becomes a path of its own.
        let is_worse = |than: &Rank| {
            let length = score.map_or(0, |_| found.path.len());
            (std::cmp::Reverse(score.unwrap_or(0)), length, found.path) >= (than.score, than.length, &than.path)
        };
        let is_before = |after: &Rank| !is_worse(after) || found.path == after.path;
        if wanted.after.as_ref().is_some_and(is_before) {
            return;
        }
        if self.best.len() > wanted.limit && self.best.peek().is_some_and(|(worst, _)| is_worse(worst)) {
            return;
        }
        let kind = Kind(match found.kind {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink,
            _ => EntryKind::Special,
        });
        self.best.push((Rank::new(score, found.path.to_vec()), kind));
        if self.best.len() > wanted.limit + 1 {
            self.best.pop();
        }
    }
}

impl Drop for Ranker<'_> {
    fn drop(&mut self) {
        self.shared.total.fetch_add(self.total, Ordering::Relaxed);
        self.shared.considered.fetch_add(self.considered, Ordering::Relaxed);
        self.shared.best.lock().unwrap_or_else(PoisonError::into_inner).extend(self.best.drain());
    }
}
