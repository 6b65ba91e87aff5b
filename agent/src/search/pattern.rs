//! The pattern of a search, compiled as ripgrep does it, and what is wrong with one that can't be.

use corehold_types::{Code, Problem, tools::SearchCase};
use grep_regex::{ErrorKind, RegexMatcher, RegexMatcherBuilder};

/// Bytes of a pattern.
const PATTERN_BYTES: usize = 64 << 10;
/// Bytes of a compiled pattern. ripgrep allows 100 MiB; a pattern larger than this takes seconds to compile.
const COMPILED_BYTES: usize = 32 << 20;
/// Bytes of the states that each thread may keep of a pattern while it searches.
const STATES_BYTES: usize = 16 << 20;

/// How a pattern is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct PatternOptions {
    /// Literally.
    pub literal: bool,
    /// Whether letter case matters.
    pub case: SearchCase,
    /// As whole words.
    pub word: bool,
    /// As whole lines.
    pub whole_line: bool,
    /// Over several lines.
    pub multiline: bool,
    /// `.` matches a line's end.
    pub dot_all: bool,
    /// `\r\n` is a line's end.
    pub crlf: bool,
    /// Whether a NUL byte is text like any other.
    pub nul_is_text: bool,
}

/// Compiles a pattern.
///
/// # Errors
/// A [`Problem`] that says what is wrong with it and where: `context.offset` is in bytes of the pattern.
pub fn compile(pattern: &str, options: &PatternOptions) -> Result<RegexMatcher, Problem> {
    if pattern.len() > PATTERN_BYTES {
        return Err(bad(format!("the pattern has {} bytes; at most {PATTERN_BYTES} are possible", pattern.len())));
    }
    if !options.literal {
        parse(pattern)?;
    }
    // As `matcher_rust` in ripgrep's `crates/core/flags/hiargs.rs`.
    let mut builder = RegexMatcherBuilder::new();
    builder.multi_line(true).unicode(true).octal(false).fixed_strings(options.literal);
    builder.size_limit(COMPILED_BYTES).dfa_size_limit(STATES_BYTES);
    match options.case {
        SearchCase::Sensitive => {}
        SearchCase::Insensitive => {
            builder.case_insensitive(true);
        }
        SearchCase::Smart => {
            builder.case_smart(true);
        }
    }
    if options.whole_line {
        builder.whole_line(true);
    } else if options.word {
        builder.word(true);
    }
    if options.multiline {
        builder.dot_matches_new_line(options.dot_all);
        if options.crlf {
            builder.crlf(true).line_terminator(None);
        }
    } else {
        builder.line_terminator(Some(b'\n')).dot_matches_new_line(false);
        if options.crlf {
            builder.crlf(true);
        }
    }
    if !options.nul_is_text {
        builder.ban_byte(Some(0));
    }
    builder.build_many(&[pattern]).map_err(|error| not_compiled(&error))
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::InvalidRequest, detail).with("field", "pattern")
}

/// Finds syntax errors, with their place. What is found later has none.
fn parse(pattern: &str) -> Result<(), Problem> {
    let parser = regex_syntax::ast::parse::ParserBuilder::new().nest_limit(250).build().parse(pattern);
    let Err(error) = parser else { return Ok(()) };
    let span = error.span();
    let (start, end) = (span.start.offset, span.end.offset);
    let piece = pattern.get(start..end).unwrap_or_default();
    let place = if piece.is_empty() { String::new() } else { format!(" ({piece:?})") };
    Err(bad(format!("the regular expression can't be understood at byte {start}{place}: {}", error.kind()))
        .with("offset", start)
        .with("end", end)
        .suggest("set literal to true to look for the text as it is, or put \\ before what is meant literally"))
}

fn not_compiled(error: &grep_regex::Error) -> Problem {
    match error.kind() {
        ErrorKind::NotAllowed(literal) => {
            bad(format!("the pattern contains {literal:?}, a line's end, but each line is searched by itself"))
                .suggest("set multiline to true to find matches that span lines")
        }
        ErrorKind::Banned(byte) => {
            bad(format!("the pattern contains the byte {byte:#04x}, but files with it are binary"))
                .suggest("set binary to text to search them like any other file")
        }
        ErrorKind::Regex(why) => {
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            let problem = bad(format!("the regular expression can't be compiled: {why}"));
            if why.contains("size limit") {
                problem
                    .with("limit", COMPILED_BYTES)
                    .suggest("repeat less: each repetition of \\w or . takes room for all of Unicode")
            } else {
                problem
            }
        }
        other => bad(format!("the pattern can't be used: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str) -> Problem {
        compile(pattern, &PatternOptions::default()).unwrap_err()
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let problem = refused("ok(x");
        assert_eq!((problem.code, &problem.context["offset"]), (Code::InvalidRequest, &2.into()));
        assert!(problem.detail.contains("unclosed group"), "{problem}");
        assert!(refused("a{2,1}").detail.contains("byte 1"));
        assert!(refused(r"(?=x)").detail.contains("look-around"));
        assert!(refused(r"\p{Nope}").detail.contains("nicode property"), "found by the translator");
    }

    #[test]
    fn what_only_other_options_allow_is_said() {
        assert!(refused(r"a\nb").suggestion.unwrap().contains("multiline"));
        assert!(refused(r"\x00").suggestion.unwrap().contains("binary"));
        compile(r"a\nb", &PatternOptions { multiline: true, ..PatternOptions::default() }).unwrap();
        compile(r"\x00", &PatternOptions { nul_is_text: true, ..PatternOptions::default() }).unwrap();
    }

    #[test]
    fn too_large_patterns_are_refused_and_not_compiled_for_minutes() {
        assert!(refused(&"x".repeat(PATTERN_BYTES + 1)).detail.contains("at most 65536"));
        assert!(refused(r"(\w{200}){200}").suggestion.unwrap().contains("repeat less"));
        assert!(refused(&"(".repeat(1_000)).detail.contains("understood"));
    }

    #[test]
    fn a_literal_is_never_a_syntax_error() {
        compile("ok(x", &PatternOptions { literal: true, ..PatternOptions::default() }).unwrap();
    }
}
