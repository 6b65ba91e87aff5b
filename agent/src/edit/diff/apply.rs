//! Applies a unified diff to a text, placing hunks as GNU `patch` does: where they say, shifted by what the hunks before
//! were shifted, else at the nearest place up or down where all their old lines are; a hunk with less context on one side
//! belongs to that end of the file. What `patch` would reject is refused as a whole.
//!
//! Tried in this order, the first that fits all hunks counts: bytes as they are; line endings (and a byte order mark that
//! the diff doesn't have) left out of the comparison, where added lines get the endings of the lines around; then both
//! again with the context at the edges that `fuzz` lets differ.

use std::{borrow::Cow, cell::Cell};

use corehold_types::{Code, Problem, tools::DisplacedHunk};
use serde_json::json;

use super::parse::{Hunk, Line};
use crate::edit::{
    lines::{self, BOM, ending_near},
    nearest::shorten,
};

/// Comparisons of lines that a refusal may spend on finding out where a hunk comes close.
const EFFORT: usize = 4_000_000;

/// Comparisons of lines that all hunks together may spend on the search of their places: less than a second. Many hunks that fit
/// only with fuzz, in a text of millions of lines, would take hours.
const SEARCH: usize = 20_000_000;

/// A text with a diff applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) bytes: Vec<u8>,
    /// The hunks that didn't fit exactly where they said.
    pub(crate) displaced: Vec<DisplacedHunk>,
}

/// Applies hunks.
///
/// # Errors
/// `NO_MATCH` naming the hunk, the line expected and the line found. `NOT_TEXT`.
pub(crate) fn apply(bytes: &[u8], hunks: &[Hunk<'_>], fuzz: usize) -> Result<Applied, Problem> {
    lines::require_text(bytes)?;
    let has_mark = |line: &Line<'_>| matches!(line, Line::Context(text) | Line::Removed(text) | Line::Added(text) if text.starts_with(BOM));
    let marked = hunks.iter().any(|hunk| hunk.lines.iter().any(has_mark));
    let body = if marked { bytes } else { bytes.strip_prefix(BOM).unwrap_or(bytes) };
    let exact = Text::new(bytes, Comparison::Bytes);
    let loose = Text::new(body, Comparison::WithoutEndings);
    let mut refusal = None;
    for fuzz in if fuzz == 0 { vec![0] } else { vec![0, fuzz] } {
        for text in [&exact, &loose] {
            match text.apply(hunks, fuzz) {
                Ok(mut applied) => {
                    if text.comparison == Comparison::WithoutEndings && body.len() < bytes.len() {
                        applied.bytes.splice(0..0, BOM.iter().copied());
                    }
                    return Ok(applied);
                }
                Err(hunk) => refusal = Some((text, hunk)),
            }
        }
    }
    // There is always at least one attempt, and the last one was the most lenient.
    let Some((text, hunk)) = refusal else { return Ok(Applied { bytes: bytes.to_vec(), displaced: Vec::new() }) };
    Err(text.refusal(&hunks[hunk], hunks.len()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Bytes,
    WithoutEndings,
}

struct Text<'a> {
    bytes: &'a [u8],
    lines: Vec<&'a [u8]>,
    comparison: Comparison,
}

/// Where hunks go, as they are placed one after the other.
#[derive(Default)]
struct Progress {
    /// How far hunks so far were from where they said.
    offset: i64,
    /// Old lines that are done: copied or removed.
    done: usize,
    /// Comparisons so far.
    compared: Cell<usize>,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8], comparison: Comparison) -> Self {
        Self { bytes, lines: lines::split(bytes).collect(), comparison }
    }

    fn same(&self, line: &[u8], wanted: &[u8]) -> bool {
        match self.comparison {
            Comparison::Bytes => line == wanted,
            Comparison::WithoutEndings => bare(line) == bare(wanted),
        }
    }

    /// The text with all hunks applied, or the index of the first that has no place.
    fn apply(&self, hunks: &[Hunk<'_>], most_fuzz: usize) -> Result<Applied, usize> {
        let mut output: Vec<Cow<'_, [u8]>> = Vec::with_capacity(self.lines.len());
        let mut displaced = Vec::new();
        let mut progress = Progress::default();
        let mut marked_end = false;
        let mut last_is_added = false;
        for (index, hunk) in hunks.iter().enumerate() {
            let (place, fuzz) = self.place(hunk, most_fuzz, &mut progress).ok_or(index)?;
            let said = first_line(hunk);
            if place as i64 != said || fuzz > 0 {
                displaced.push(DisplacedHunk {
                    hunk: hunk.number as u64,
                    line: place as u64,
                    offset: place as i64 - said,
                    fuzz: fuzz as u32,
                });
            }
            marked_end |= hunk.marked_end;
            // The old lines before the one at `old` (from 0) are copied as soon as something changes there.
            let mut old = place - 1;
            for line in &hunk.lines {
                match line {
                    Line::Context(_) => old += 1,
                    Line::Removed(_) => {
                        self.copy(&mut output, &mut progress.done, old, &mut last_is_added);
                        old += 1;
                        progress.done = old;
                    }
                    Line::Added(text) => {
                        self.copy(&mut output, &mut progress.done, old, &mut last_is_added);
                        output.push(self.added(text, old));
                        last_is_added = true;
                    }
                }
            }
        }
        self.copy(&mut output, &mut progress.done, self.lines.len(), &mut last_is_added);
        let bytes = self.join(output, last_is_added && !marked_end);
        Ok(Applied { bytes, displaced })
    }

    fn copy(&self, output: &mut Vec<Cow<'a, [u8]>>, done: &mut usize, until: usize, last_is_added: &mut bool) {
        if *done < until {
            output.extend(self.lines[*done..until].iter().map(|line| Cow::Borrowed(*line)));
            *done = until;
            *last_is_added = false;
        }
    }

    fn added<'b>(&self, text: &'b [u8], before: usize) -> Cow<'b, [u8]> {
        if self.comparison == Comparison::Bytes || !text.ends_with(b"\n") {
            return Cow::Borrowed(text);
        }
        let mut line = lines::content(text).to_vec();
        line.extend_from_slice(self.ending_at(before));
        Cow::Owned(line)
    }

    fn ending_at(&self, line: usize) -> &'static [u8] {
        // Each line is a piece of the bytes; to add up their lengths for each line that is added would take for ever.
        let start = |line: &&[u8]| line.as_ptr() as usize - self.bytes.as_ptr() as usize;
        ending_near(self.bytes, self.lines.get(line).map_or(self.bytes.len(), start)).bytes()
    }

    /// One text from lines. Only the last may be without an ending: where a line without one is no longer the last it gets
    /// one, and where the old text had none at its end, a new last line has none, unless the diff speaks of it.
    fn join(&self, output: Vec<Cow<'_, [u8]>>, last_follows_text: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let count = output.len();
        for (index, line) in output.into_iter().enumerate() {
            bytes.extend_from_slice(&line);
            if index + 1 < count && !line.ends_with(b"\n") {
                bytes.extend_from_slice(self.ending_at(self.lines.len()));
            }
        }
        let text_ends_without = !self.bytes.is_empty() && !self.bytes.ends_with(b"\n");
        if self.comparison == Comparison::WithoutEndings && last_follows_text && text_ends_without {
            bytes.truncate(lines::content(&bytes).len());
        }
        bytes
    }

    /// The line (from 1) where a hunk goes, and the fuzz that it took.
    fn place(&self, hunk: &Hunk<'_>, most_fuzz: usize, progress: &mut Progress) -> Option<(usize, usize)> {
        let (before, after) = (hunk.context_before(), hunk.context_after());
        let old: Vec<&[u8]> = hunk.lines.iter().filter_map(|line| line.old()).collect();
        let guess = first_line(hunk) + progress.offset;
        if old.is_empty() {
            // Nothing to compare, so it goes where it says or nowhere.
            let fits = guess > progress.done as i64 && guess <= self.lines.len() as i64 + 1;
            return fits.then_some((guess as usize, 0));
        }
        (0..=most_fuzz.min(before.max(after))).find_map(|fuzz| {
            let place = self.search(hunk, &old, guess, fuzz, progress)?;
            progress.offset += place - guess;
            Some((place as usize, fuzz))
        })
    }

    /// The nearest place to the guess where the old lines are, some lines of context at the edges left out.
    fn search(&self, hunk: &Hunk<'_>, old: &[&[u8]], guess: i64, fuzz: usize, progress: &mut Progress) -> Option<i64> {
        let (before, after) = (hunk.context_before() as i64, hunk.context_after() as i64);
        let (length, count, done) = (old.len() as i64, self.lines.len() as i64, progress.done as i64);
        let context = before.max(after);
        // The side with less context loses none of it as long as the other side has more; below zero, the hunk was made at
        // that end of its file and belongs there.
        let (skip_before, skip_after) = (fuzz as i64 + before - context, fuzz as i64 + after - context);
        let last = count - (length - skip_after.max(0)) + 1;
        let first = done + 1;
        let fits = |place: i64, skip_before: i64, skip_after: i64| {
            let range = skip_before as usize..(length - skip_after) as usize;
            place >= 1
                && range.clone().all(|index| {
                    progress.compared.update(|compared| compared + 1);
                    let line = self.lines.get((place - 1) as usize + index);
                    line.is_some_and(|line| self.same(line, old[index]))
                })
        };
        if skip_before < 0 && hunk.start <= 1 {
            if skip_after < 0 && length != count {
                return None;
            }
            // Lines of leading context may overlap what is done: they are not touched again.
            return (done <= before && fits(1, 0, skip_after.max(0))).then_some(1);
        }
        let skip_before = skip_before.max(0);
        if skip_after < 0 {
            let place = count - length + 1;
            return (place >= first && fits(place, skip_before, 0)).then_some(place);
        }
        // A hunk may say that it goes to line 10^12 of a short file: what lies between is no place for it.
        let (nearest, farthest) = ((guess - last).max(first - guess).max(0), (last - guess).max(guess - first));
        (nearest..=farthest).take_while(|_| progress.compared.get() < SEARCH).find_map(|distance| {
            let down = guess + distance;
            if down >= first && down <= last && fits(down, skip_before, skip_after) {
                return Some(down);
            }
            let up = guess - distance;
            (distance > 0 && up >= first && up <= last && fits(up, skip_before, skip_after)).then_some(up)
        })
    }

    /// Why a hunk has no place: where it comes closest, and the first line that differs there.
    fn refusal(&self, hunk: &Hunk<'_>, hunks: usize) -> Problem {
        let old: Vec<&[u8]> = hunk.lines.iter().filter_map(|line| line.old()).collect();
        let new: Vec<&[u8]> = hunk
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Context(text) | Line::Added(text) => Some(*text),
                Line::Removed(_) => None,
            })
            .collect();
        let (number, said) = (hunk.number, first_line(hunk).max(1) as usize);
        let mut detail = format!("hunk {number} of {hunks} does not fit");
        let place = self.closest(&old, said);
        let mismatch = (0..old.len())
            .find(|index| self.lines.get(place - 1 + index).is_none_or(|line| bare(line) != bare(old[*index])));
        let mut context = json!({ "hunk": number, "line": said });
        if let Some(index) = mismatch {
            let line = place + index;
            let expected = shorten(lines::content(old[index]));
            let found = self.lines.get(line - 1).map(|line| shorten(lines::content(line)));
            detail.push_str(&match &found {
                Some(found) => {
                    format!("; nearest is line {place}, where line {line} should be {expected:?} and is {found:?}")
                }
                None => format!("; line {line} should be {expected:?}, and the file has {} lines", self.lines.len()),
            });
            context["nearest"] = json!([{ "startLine": place, "line": line, "expected": expected, "found": found }]);
        } else if old.is_empty() {
            detail.push_str(&format!("; it goes after line {}, and the file has {} lines", said - 1, self.lines.len()));
        } else {
            detail.push_str(&format!("; its lines are at line {place}, which is before the end of the hunk above it, or not at the end of the file where it belongs"));
        }
        let applied = !new.is_empty() && new != old && {
            let place = self.closest(&new, said);
            (0..new.len())
                .all(|index| self.lines.get(place - 1 + index).is_some_and(|line| bare(line) == bare(new[index])))
        };
        let mut problem = Problem::new(Code::NoMatch, detail);
        if let serde_json::Value::Object(fields) = context {
            problem.context.extend(fields);
        }
        problem.suggest(if applied {
            "the new lines are there already: the diff seems to be applied"
        } else {
            "make the diff from the file as it is now; `fuzz` lets context at the edges of a hunk differ"
        })
    }

    /// The line from which most of the given lines are there, the nearest to `said` among equals.
    fn closest(&self, wanted: &[&[u8]], said: usize) -> usize {
        let last = self.lines.len().max(1);
        let reach = (EFFORT / wanted.len().max(1)).max(1);
        let from = said.min(last).saturating_sub(reach).max(1);
        (from..=last.min(from.saturating_add(reach * 2)))
            .max_by_key(|place| {
                let score = |(index, wanted): (usize, &&[u8])| {
                    let line = self.lines.get(place - 1 + index).copied().unwrap_or_default();
                    // Equal lines count, empty ones little.
                    usize::from(bare(line) == bare(wanted)) * if bare(wanted).is_empty() { 1 } else { 4 }
                };
                let total: usize = wanted.iter().enumerate().map(score).sum();
                (total, std::cmp::Reverse(place.abs_diff(said)))
            })
            .unwrap_or(1)
    }
}

/// A line without its ending, also one that lost its line feed to `\ No newline at end of file`.
fn bare(line: &[u8]) -> &[u8] {
    let content = lines::content(line);
    content.strip_suffix(b"\r").unwrap_or(content)
}

/// The line (from 1) of a hunk's first old line, or before which it inserts.
fn first_line(hunk: &Hunk<'_>) -> i64 {
    let inserts = hunk.lines.iter().all(|line| line.old().is_none());
    hunk.start as i64 + i64::from(inserts)
}
