//! Patterns of rules: one word against one pattern, and a list of arguments against a list of patterns. What a word is worth
//! when the shell will expand it is decided here, what follows from a match is not.

use super::line::Word;

/// What stands for any number of arguments.
pub(super) const ANY_ARGUMENTS: &str = "**";

/// Whether text is what the pattern says: `*` any characters, `?` one, `\` takes the next as it is. Takes at most the
/// product of both lengths.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = compile(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut position) = (0, 0);
    // Where the last `*` stood, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                star = Some((at, position));
                at += 1;
                continue;
            }
            Some(Piece::One) => {}
            Some(Piece::Char(char)) if *char == text[position] => {}
            _ => match &mut star {
                Some((back, taken)) => {
                    *taken += 1;
                    (at, position) = (*back + 1, *taken);
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
        position += 1;
    }
    pattern[at..].iter().all(|piece| *piece == Piece::Any)
}

#[derive(PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Char(char),
}

fn compile(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        pieces.push(match char {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => Piece::Char(chars.next().unwrap_or('\\')),
            other => Piece::Char(other),
        });
    }
    pieces
}

/// How sure a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// It isn't one, whatever the shell expands.
    No,
    /// It may be one.
    Perhaps,
    /// It is one, whatever the shell expands.
    Yes,
}

/// Arguments against patterns. A word that the shell will expand may become any number of any words.
pub(super) fn arguments(patterns: &[String], words: &[Word]) -> Match {
    let inexact = words.iter().any(|word| !word.exact);
    if reaches(patterns, words, Expanded::ToWhatAnyTakes) {
        Match::Yes
    } else if inexact && reaches(patterns, words, Expanded::ToAnything) {
        Match::Perhaps
    } else {
        Match::No
    }
}

/// The same for a denial: a word that is denied as it is written (`rm /*`) is denied.
pub(super) fn denied_arguments(patterns: &[String], words: &[Word]) -> Match {
    if reaches(patterns, words, Expanded::NotAtAll) { Match::Yes } else { arguments(patterns, words) }
}

/// What words become that aren't exact.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expanded {
    /// They stay as they are written.
    NotAtAll,
    /// Only `**` takes them.
    ToWhatAnyTakes,
    /// None, one or many words that fit.
    ToAnything,
}

/// Whether the patterns take all words.
fn reaches(patterns: &[String], words: &[Word], expanded: Expanded) -> bool {
    // `row[i]`: the first `i` patterns can have taken the words so far.
    let mut row = vec![false; patterns.len() + 1];
    row[0] = true;
    close(patterns, &mut row);
    for word in words {
        let as_written = word.exact || expanded == Expanded::NotAtAll;
        let mut next = vec![false; row.len()];
        if !as_written && expanded == Expanded::ToAnything {
            let first = row.iter().position(|reached| *reached).unwrap_or(row.len());
            next[first..].fill(true);
        } else {
            for (index, pattern) in patterns.iter().enumerate().filter(|(index, _)| row[*index]) {
                if pattern == ANY_ARGUMENTS {
                    next[index] = true;
                } else if as_written && matches(pattern, &word.text) {
                    next[index + 1] = true;
                }
            }
        }
        row = next;
        close(patterns, &mut row);
    }
    row[patterns.len()]
}

/// `**` may take nothing.
fn close(patterns: &[String], row: &mut [bool]) {
    for (index, pattern) in patterns.iter().enumerate() {
        row[index + 1] |= row[index] && pattern == ANY_ARGUMENTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<Word> {
        words.iter().map(|word| Word { text: (*word).to_owned(), exact: !word.contains('$') }).collect()
    }

    fn check(patterns: &[&str], given: &[&str]) -> Match {
        arguments(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), &words(given))
    }

    #[test]
    fn words_match_as_written() {
        for (pattern, text, expected) in [
            ("rm", "rm", true),
            ("rm", "rmdir", false),
            ("npm*", "npm", true),
            ("*a*b", "xaxbab", true),
            ("*a*b", "xaxba", false),
            ("/\\*", "/*", true),
            ("/\\*", "/tmp", false),
            ("?", "é", true),
            ("", "", true),
            ("*", "", true),
            ("\\", "\\", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_long_time() {
        assert!(!matches(&"*a".repeat(50), &"a".repeat(10_000).replace("aa", "ab")[..49]));
        assert!(!matches(&format!("{}b", "a*".repeat(100)), &"a".repeat(10_000)));
    }

    #[test]
    fn arguments_match_in_order() {
        assert_eq!(check(&[], &[]), Match::Yes);
        assert_eq!(check(&[], &["a"]), Match::No);
        assert_eq!(check(&["**"], &["a", "$b"]), Match::Yes);
        assert_eq!(check(&["install", "**"], &["install"]), Match::Yes);
        assert_eq!(check(&["**", "/", "**"], &["-rf", "/"]), Match::Yes);
        assert_eq!(check(&["**", "/", "**"], &["-rf", "/tmp"]), Match::No);
        assert_eq!(check(&["**", "/", "**"], &["-rf", "$X"]), Match::Perhaps);
        assert_eq!(check(&["install", "*"], &["install", "$X"]), Match::Perhaps, "it may become many words, or none");
        assert_eq!(check(&["test"], &["install", "$X"]), Match::No);
    }
}
