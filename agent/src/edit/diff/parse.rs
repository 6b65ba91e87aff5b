//! Reads a unified diff of one file.

use corehold_types::{Code, Problem};

use crate::edit::{lines, nearest::shorten};

/// A hunk as the diff gives it. Lines keep their endings; one that has none ends its file without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hunk<'a> {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The first old line, from 1. Of a hunk without old lines: the line after which the new ones go.
    pub(crate) start: usize,
    /// The lines in their order.
    pub(crate) lines: Vec<Line<'a>>,
    /// Whether any line says that its file ends without a line ending.
    pub(crate) marked_end: bool,
}

/// A line of a hunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Context(&'a [u8]),
    Removed(&'a [u8]),
    Added(&'a [u8]),
}

impl<'a> Line<'a> {
    /// The line, if the old file has it.
    pub(crate) fn old(self) -> Option<&'a [u8]> {
        match self {
            Self::Context(text) | Self::Removed(text) => Some(text),
            Self::Added(_) => None,
        }
    }

    pub(crate) fn is_context(self) -> bool {
        matches!(self, Self::Context(_))
    }

    fn without_ending(self) -> Self {
        let cut = |text: &'a [u8]| text.strip_suffix(b"\n").unwrap_or(text);
        match self {
            Self::Context(text) => Self::Context(cut(text)),
            Self::Removed(text) => Self::Removed(cut(text)),
            Self::Added(text) => Self::Added(cut(text)),
        }
    }
}

impl Hunk<'_> {
    /// Lines of context before the first change.
    pub(crate) fn context_before(&self) -> usize {
        self.lines.iter().take_while(|line| line.is_context()).count()
    }

    /// Lines of context after the last change.
    pub(crate) fn context_after(&self) -> usize {
        self.lines.iter().rev().take_while(|line| line.is_context()).count()
    }
}

/// Reads the hunks. What stands before the first one, and between a finished hunk and the next, is not looked at, as by
/// `patch`; but a line that looks as if it belonged to a hunk that is full already is an error, not noise.
///
/// # Errors
/// `INVALID_REQUEST` with the diff's line: no hunk, a malformed header, counts that don't fit, a second file.
pub(crate) fn parse(diff: &[u8]) -> Result<Vec<Hunk<'_>>, Problem> {
    let mut hunks = Vec::new();
    let mut numbered = lines::split(diff).enumerate().map(|(index, line)| (index + 1, line)).peekable();
    while let Some((number, line)) = numbered.next() {
        if !line.starts_with(b"@@ -") {
            let after_hunk = !hunks.is_empty();
            if after_hunk
                && line.starts_with(b"--- ")
                && matches!(numbered.peek(), Some((_, next)) if next.starts_with(b"+++ "))
            {
                return Err(refused(number, "a second file begins here; give each file its own entry"));
            }
            // A mail's signature ("-- ") may follow; anything else with a sign is a hunk longer than its header says.
            let signature = lines::content(line) == b"-- " || lines::content(line) == b"--";
            if after_hunk && !signature && matches!(line.first(), Some(b'+' | b'-' | b' ')) {
                let hunk = hunks.len();
                return Err(refused(number, &format!("hunk {hunk} has more lines than its header says")));
            }
            continue;
        }
        let (start, old_count, new_count) = header(line).ok_or_else(|| {
            refused(
                number,
                &format!("{:?} is not a hunk's header; `@@ -1,2 +1,3 @@` is one", shorten(lines::content(line))),
            )
        })?;
        let mut hunk = Hunk { number: hunks.len() + 1, start, lines: Vec::new(), marked_end: false };
        let (mut old, mut new) = (0, 0);
        while old < old_count || new < new_count {
            let short = || {
                format!(
                    "hunk {} ends here with {old} old and {new} new lines; its header says {old_count} and {new_count}",
                    hunks.len() + 1
                )
            };
            let Some((number, line)) = numbered.next() else { return Err(refused(diff_lines(diff), &short())) };
            let parsed = match line {
                [b' ', text @ ..] => Line::Context(text),
                [b'-', text @ ..] => Line::Removed(text),
                [b'+', text @ ..] => Line::Added(text),
                // Some tools strip the space of an empty line of context; `patch` takes it too.
                b"\n" | b"\r\n" => Line::Context(line),
                [b'\\', ..] => {
                    mark_end(&mut hunk);
                    continue;
                }
                _ => return Err(refused(number, &short())),
            };
            old += usize::from(!matches!(parsed, Line::Added(_)));
            new += usize::from(!matches!(parsed, Line::Removed(_)));
            if old > old_count || new > new_count {
                return Err(refused(number, &format!("hunk {} has more lines than its header says", hunks.len() + 1)));
            }
            hunk.lines.push(parsed);
        }
        if matches!(numbered.peek(), Some((_, line)) if line.starts_with(b"\\")) {
            mark_end(&mut hunk);
            numbered.next();
        }
        hunks.push(hunk);
    }
    if hunks.is_empty() {
        return Err(refused(1, "there is no hunk in it; a hunk begins with `@@ -1,2 +1,3 @@`"));
    }
    Ok(hunks)
}

/// `\ No newline at end of file`: the line before has no ending.
fn mark_end(hunk: &mut Hunk<'_>) {
    if let Some(last) = hunk.lines.last_mut() {
        *last = last.without_ending();
        hunk.marked_end = true;
    }
}

/// Start of the old lines, their count, count of the new lines.
fn header(line: &[u8]) -> Option<(usize, usize, usize)> {
    let line = std::str::from_utf8(line.get(..line.len().min(200))?)
        .or_else(|error| std::str::from_utf8(&line[..error.valid_up_to()]))
        .ok()?;
    let (spans, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = spans.split_once(" +")?;
    let (start, old_count) = span(old)?;
    let (_, new_count) = span(new)?;
    // An impossible start would only be found out by arithmetic that overflows.
    (start <= 1 << 40).then_some((start, old_count, new_count))
}

fn span(text: &str) -> Option<(usize, usize)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match text.split_once(',') {
        Some((start, count)) => Some((number(start)?, number(count)?)),
        None => Some((number(text)?, 1)),
    }
}

fn diff_lines(diff: &[u8]) -> usize {
    lines::split(diff).count()
}

fn refused(line: usize, what: &str) -> Problem {
    Problem::new(Code::InvalidRequest, format!("line {line} of the diff: {what}")).with("diffLine", line as u64)
}
