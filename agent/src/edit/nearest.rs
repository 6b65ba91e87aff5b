//! Where text that isn't there comes close to being there, for the message of a miss.
//!
//! Bounded: the first [`LINES`] lines of a file are looked at, and of a long line its first [`LINE`] bytes.

use std::collections::{HashMap, HashSet};

use corehold_types::{Code, Problem};
use serde_json::json;

use super::lines;

const LINES: usize = 100_000;
const LINE: usize = 400;
/// Lines of one place that the message shows.
const SHOWN: usize = 12;
const PLACES: usize = 3;

/// The problem of a text that isn't there.
pub(crate) fn no_match(bytes: &[u8], old: &[u8]) -> Problem {
    let places = places(bytes, old);
    let mut detail = "the old text is not in the file".to_owned();
    if let Some(place) = places.first() {
        detail.push_str(&format!("; nearest is line {}: {}", place.start, place.differs));
    }
    let nearest: Vec<_> = places
        .iter()
        .map(|place| json!({ "startLine": place.start, "endLine": place.end, "text": place.text, "differs": place.differs }))
        .collect();
    let problem = Problem::new(Code::NoMatch, detail);
    if nearest.is_empty() {
        problem.suggest("read the file again; nothing in it resembles the old text")
    } else {
        problem.with("nearest", nearest).suggest("take the old text from `context.nearest`, or read the file again")
    }
}

struct Place {
    start: u64,
    end: u64,
    text: String,
    differs: String,
}

fn places(bytes: &[u8], old: &[u8]) -> Vec<Place> {
    let file: Vec<&[u8]> = lines::split(bytes).take(LINES).map(lines::content).collect();
    let old: Vec<&[u8]> = lines::split(old).take(LINES).map(lines::content).collect();
    let mut starts = by_equal_lines(&file, &old);
    if starts.is_empty() {
        starts = by_similar_line(&file, &old);
    }
    starts
        .into_iter()
        .take(PLACES)
        .map(|start| {
            let end = (start + old.len()).min(file.len());
            let found = &file[start..end];
            let shown: Vec<_> = found.iter().take(SHOWN).map(|line| shorten(line)).collect();
            let differs = differs(found, &old, start);
            Place { start: start as u64 + 1, end: end as u64, text: shown.join("\n"), differs }
        })
        .collect()
}

/// Places where most lines are the same but for white space, best first. Each equal line votes for where the text would
/// begin; lines that are everywhere (empty ones, a brace) vote for nothing.
fn by_equal_lines(file: &[&[u8]], old: &[&[u8]]) -> Vec<usize> {
    let mut wanted: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for (index, line) in old.iter().enumerate() {
        let key = without_space(line);
        if !key.is_empty() {
            wanted.entry(key).or_default().push(index);
        }
    }
    let mut votes: HashMap<usize, usize> = HashMap::new();
    for (number, line) in file.iter().enumerate() {
        if line.len() > LINE * 8 {
            continue;
        }
        for index in wanted.get(&without_space(line)).into_iter().flatten().take(8) {
            if let Some(start) = number.checked_sub(*index) {
                *votes.entry(start).or_default() += 1;
            }
        }
    }
    let mut ranked: Vec<_> = votes.into_iter().collect();
    ranked.sort_by_key(|(start, votes)| (std::cmp::Reverse(*votes), *start));
    ranked.into_iter().map(|(start, _)| start).collect()
}

/// Places whose line resembles the longest line of the text (pairs of letters in common), best first.
fn by_similar_line(file: &[&[u8]], old: &[&[u8]]) -> Vec<usize> {
    let Some((index, longest)) = old.iter().enumerate().max_by_key(|(_, line)| line.trim_ascii().len()) else {
        return Vec::new();
    };
    let wanted = pairs(longest);
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut ranked: Vec<(usize, usize)> = file
        .iter()
        .enumerate()
        .filter_map(|(number, line)| {
            let there = pairs(line);
            let common = wanted.intersection(&there).count();
            // Dice's coefficient in percent.
            let alike = 200 * common / (wanted.len() + there.len());
            (alike >= 50).then(|| (alike, number.saturating_sub(index)))
        })
        .collect();
    ranked.sort_by_key(|(alike, start)| (std::cmp::Reverse(*alike), *start));
    ranked.dedup_by_key(|(_, start)| *start);
    ranked.into_iter().map(|(_, start)| start).collect()
}

fn pairs(line: &[u8]) -> HashSet<[u8; 2]> {
    let line = line.trim_ascii();
    line[..line.len().min(LINE)]
        .windows(2)
        .map(|pair| [pair[0].to_ascii_lowercase(), pair[1].to_ascii_lowercase()])
        .collect()
}

fn without_space(line: &[u8]) -> Vec<u8> {
    line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

/// What sets the lines of a place apart from those that were looked for.
fn differs(found: &[&[u8]], old: &[&[u8]], start: usize) -> String {
    let Some(index) = (0..old.len()).find(|index| found.get(*index) != old.get(*index)) else {
        // All lines are the same, so it can only be where the text begins or ends within them.
        return "the lines are the same; the text begins or ends elsewhere in them".to_owned();
    };
    let Some(line) = found.get(index) else {
        return format!("the file ends before line {} of the old text", index + 1);
    };
    let (wanted, number) = (old[index], start + index + 1);
    let what = if line.trim_ascii() == wanted.trim_ascii() {
        indentation(line, wanted)
    } else if without_space(line) == without_space(wanted) {
        "white space inside the line differs".to_owned()
    } else if line.eq_ignore_ascii_case(wanted) {
        "upper and lower case differ".to_owned()
    } else {
        format!("the file has {:?}, the old text {:?}", shorten(line), shorten(wanted))
    };
    format!("on line {number} {what}")
}

fn indentation(line: &[u8], wanted: &[u8]) -> String {
    let lead = |line: &[u8]| line[..line.len() - line.trim_ascii_start().len()].to_vec();
    let (there, given) = (lead(line), lead(wanted));
    if there == given {
        return "white space at the end of the line differs".to_owned();
    }
    format!("the indentation is {} in the file and {} in the old text", describe(&there), describe(&given))
}

fn describe(space: &[u8]) -> String {
    let tabs = space.iter().filter(|byte| **byte == b'\t').count();
    match (tabs, space.len() - tabs) {
        (0, 0) => "nothing".to_owned(),
        (0, spaces) => format!("{spaces} spaces"),
        (tabs, 0) => format!("{tabs} tabs"),
        (tabs, spaces) => format!("{tabs} tabs and {spaces} spaces"),
    }
}

/// For messages: at most 200 characters, and what isn't UTF-8 replaced.
pub(crate) fn shorten(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(LINE)]).into_owned();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if line.len() > LINE => format!("{text}…"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(text: &str, old: &str) -> String {
        let problem = no_match(text.as_bytes(), old.as_bytes());
        assert_eq!(problem.code, Code::NoMatch);
        problem.detail
    }

    #[test]
    fn says_which_line_and_what_differs() {
        let text = "fn a() {\n\treturn 1;\n}\n\nfn b() {\n    return 2;\n}\n";
        let cases = [
            (
                "fn a() {\n    return 1;\n}\n",
                "line 1: on line 2 the indentation is 1 tabs in the file and 4 spaces in the old",
            ),
            ("    return  2;", "line 6: on line 6 white space inside the line differs"),
            ("fn B() {", "line 5: on line 5 upper and lower case differ"),
            (
                "fn b() {\n    return 3;\n}",
                "line 5: on line 6 the file has \"    return 2;\", the old text \"    return 3;\"",
            ),
            ("    return 2; \n", "line 6: on line 6 white space at the end of the line differs"),
        ];
        for (old, expected) in cases {
            let detail = miss(text, old);
            assert!(detail.contains(expected), "{old:?} gives {detail:?}");
        }
    }

    #[test]
    fn nothing_alike_and_nothing_at_all_are_fine() {
        assert_eq!(miss("alpha\nbeta\n", "0123456789"), "the old text is not in the file");
        assert_eq!(miss("", "a\nb"), "the old text is not in the file");
        assert_eq!(miss("\u{fffd}", "\n\n\n"), "the old text is not in the file");
        miss("a\n", "a\nb\nc\nd");
    }

    #[test]
    fn a_huge_file_and_a_huge_line_stay_quick() {
        let text = format!("{}\n{}", "x".repeat(1 << 20), "a b\n".repeat(200_000));
        let problem = no_match(text.as_bytes(), format!("{}y\na  b", "x".repeat(1 << 20)).as_bytes());
        assert!(serde_json::to_string(&problem).unwrap().len() < 8_000);
    }
}
