//! What a pattern can't match without: runs of three bytes that a file must have.
//!
//! After the idea of Russ Cox, "Regular Expression Matching with a Trigram Index" (2012), simplified: what isn't obvious
//! from the expression is not asked for, which costs time and never a match.

use corehold_types::tools::SearchCase;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::digest::{Digest, Trigram, trigrams};
use crate::search::pattern::PatternOptions;

/// Expressions that are nested deeper are not looked into.
const DEPTH: usize = 50;

/// What a file must have so that a pattern can match in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs(Need);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    Nothing,
    Trigrams(Box<[Trigram]>),
    All(Vec<Need>),
    OneOf(Vec<Need>),
}

impl Needs {
    /// Of a pattern that was compiled with these options; none if it may match in any file.
    pub(crate) fn of(pattern: &str, options: &PatternOptions) -> Option<Self> {
        let escaped;
        let pattern = if options.literal {
            escaped = regex_syntax::escape(pattern);
            &escaped
        } else {
            pattern
        };
        // A pattern whose case matters matches no more than one whose case doesn't. What stands for lines and words only
        // takes matches away.
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .multi_line(true)
            .case_insensitive(options.case != SearchCase::Sensitive)
            .build()
            .parse(pattern)
            .ok()?;
        match need(&hir, DEPTH) {
            Need::Nothing => None,
            need => Some(Self(need)),
        }
    }

    /// Whether a file may have it all.
    pub(super) fn may_be_in(&self, digest: &Digest) -> bool {
        self.0.may_be_in(digest)
    }
}

impl Need {
    fn of(text: &[u8]) -> Self {
        let trigrams: Box<[Trigram]> = trigrams(text).collect();
        if trigrams.is_empty() { Self::Nothing } else { Self::Trigrams(trigrams) }
    }

    fn may_be_in(&self, digest: &Digest) -> bool {
        match self {
            Self::Nothing => true,
            Self::Trigrams(trigrams) => trigrams.iter().all(|trigram| digest.may_have(*trigram)),
            Self::All(needs) => needs.iter().all(|need| need.may_be_in(digest)),
            Self::OneOf(needs) => needs.iter().any(|need| need.may_be_in(digest)),
        }
    }
}

fn need(hir: &Hir, depth: usize) -> Need {
    let Some(deeper) = depth.checked_sub(1) else { return Need::Nothing };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => Need::Nothing,
        HirKind::Literal(literal) => Need::of(&literal.0),
        HirKind::Capture(capture) => need(&capture.sub, deeper),
        HirKind::Repetition(repetition) if repetition.min == 0 => Need::Nothing,
        HirKind::Repetition(repetition) => need(&repetition.sub, deeper),
        HirKind::Alternation(branches) => {
            let needs: Vec<Need> = branches.iter().map(|branch| need(branch, deeper)).collect();
            if needs.contains(&Need::Nothing) { Need::Nothing } else { Need::OneOf(needs) }
        }
        HirKind::Concat(parts) => {
            let mut needs = Vec::new();
            let mut run = Vec::new();
            for part in parts {
                if !append_exact(part, &mut run, deeper) {
                    needs.push(Need::of(&run));
                    run.clear();
                    needs.push(need(part, deeper));
                }
            }
            needs.push(Need::of(&run));
            needs.retain(|need| *need != Need::Nothing);
            match needs.len() {
                0 => Need::Nothing,
                1 => needs.remove(0),
                _ => Need::All(needs),
            }
        }
    }
}

/// Appends what this part matches, if that is one text, letter case apart. What was appended stays otherwise too: the part
/// begins with it.
fn append_exact(hir: &Hir, run: &mut Vec<u8>, depth: usize) -> bool {
    let Some(deeper) = depth.checked_sub(1) else { return false };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            run.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => append_exact(&capture.sub, run, deeper),
        HirKind::Concat(parts) => parts.iter().all(|part| append_exact(part, run, deeper)),
        HirKind::Class(class) => match one_letter(class) {
            Some(letter) => {
                run.push(letter);
                true
            }
            None => false,
        },
        HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

/// The one ASCII letter that a class matches in both cases.
fn one_letter(class: &Class) -> Option<u8> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect(),
    };
    let [(upper, upper_end), (lower, lower_end)] = ranges[..] else { return None };
    let letter = u8::try_from(lower).ok().filter(u8::is_ascii_lowercase)?;
    let is_both = upper == upper_end && lower == lower_end && upper == u32::from(letter.to_ascii_uppercase());
    is_both.then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::{super::digest::Builder, *};

    fn digest(text: &str) -> Digest {
        let mut builder = Builder::default();
        builder.begin(text.len() as u64);
        builder.add(text.as_bytes());
        builder.finish().unwrap()
    }

    fn may_match(pattern: &str, case: SearchCase, text: &str) -> bool {
        let options = PatternOptions { case, ..PatternOptions::default() };
        Needs::of(pattern, &options).is_none_or(|needs| needs.may_be_in(&digest(text)))
    }

    #[test]
    fn what_must_be_there_is_found_in_the_expression() {
        use SearchCase::{Insensitive, Sensitive, Smart};
        let text = "fn value_from(x: u8) { ready!() }";
        for (pattern, case, expected) in [
            (r"fn \w+_from\w*\(", Sensitive, true),
            (r"fn \w+_into\w*\(", Sensitive, false),
            ("(read|write)y", Sensitive, true),
            ("(stop|write)y", Sensitive, false),
            ("(stop|write|.)", Sensitive, true),
            ("(?:absent)*", Sensitive, true),
            ("(?:absent)+", Sensitive, false),
            ("va(lu)e", Sensitive, true),
            ("va(lo)e", Sensitive, false),
            (r"^\bvalue\b$", Sensitive, true),
            ("VALUE", Sensitive, true),
            ("VALUE", Insensitive, true),
            ("ABROAD", Insensitive, false),
            ("abroad", Smart, false),
            ("ab", Sensitive, true),
            ("", Sensitive, true),
            (r"\w{3,}", Sensitive, true),
        ] {
            assert_eq!(may_match(pattern, case, text), expected, "{pattern}");
        }
    }

    #[test]
    fn letters_that_others_fold_to_are_not_asked_for() {
        // The Kelvin sign is a `k`, and the long s an `s`, where case doesn't matter.
        assert!(may_match("task", SearchCase::Insensitive, "ta\u{17f}\u{212a}"));
        assert!(may_match("maskedvalue", SearchCase::Insensitive, "ma\u{17f}\u{212a}edvalue"));
        assert!(!may_match("maskedvalue", SearchCase::Insensitive, "masked"));
    }

    #[test]
    fn a_literal_is_taken_as_it_is() {
        let options = PatternOptions { literal: true, ..PatternOptions::default() };
        let needs = Needs::of("a.*b(", &options).unwrap();
        assert!(needs.may_be_in(&digest("x a.*b( y")));
        assert!(!needs.may_be_in(&digest("x axxxb( y")));
    }

    #[test]
    fn deep_nesting_ends() {
        let deep = format!("{}abc{}", "(".repeat(200), ")".repeat(200));
        assert_eq!(Needs::of(&deep, &PatternOptions::default()), None);
    }
}
