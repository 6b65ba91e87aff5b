//! Diffs against GNU `diff` and `patch`, which are the measure (Debian packages diffutils and patch).

use std::{
    path::Path,
    process::{Command, Stdio},
};

use corehold_types::{Code, tools::DisplacedHunk};
use proptest::prelude::*;

use super::{apply::Applied, *};

const NAMES: Names<'static> = Names { old: Some("file"), new: Some("file") };

fn run(program: &str, arguments: &[&str], folder: &Path) -> (i32, Vec<u8>) {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; this test needs GNU diffutils and patch"));
    (output.status.code().unwrap(), output.stdout)
}

/// What GNU patch makes of a text, or nothing where it rejects a hunk.
fn gnu_patch(text: &[u8], diff: &[u8], fuzz: usize) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    std::fs::write(folder.path().join("file"), text).unwrap();
    std::fs::write(folder.path().join("diff"), diff).unwrap();
    let fuzz = format!("--fuzz={fuzz}");
    let arguments = ["--binary", "--force", &fuzz, "--no-backup-if-mismatch", "-o", "out", "-r", "-", "file", "diff"];
    let (code, _) = run("patch", &arguments, folder.path());
    (code == 0).then(|| std::fs::read(folder.path().join("out")).unwrap())
}

fn gnu_diff(old: &[u8], new: &[u8], context: usize) -> Vec<u8> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    std::fs::write(folder.path().join("old"), old).unwrap();
    std::fs::write(folder.path().join("new"), new).unwrap();
    let context = format!("-U{context}");
    run("diff", &["--text", &context, "old", "new"], folder.path()).1
}

fn ours(text: &[u8], diff: &[u8], fuzz: usize) -> Result<Applied, corehold_types::Problem> {
    apply(text, &parse(diff)?, fuzz)
}

/// Lines of few words, so that they repeat and hunks are ambiguous; both endings; sometimes none at the end.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![Just("a"), Just("b"), Just("c"), Just(""), Just("}"), Just("+x"), Just("- y"), Just("ž")];
    let ending = prop_oneof![6 => Just("\n"), 1 => Just("\r\n")];
    (prop::collection::vec((line, ending), 0..24), prop::bool::ANY).prop_map(|(lines, ended)| {
        let mut text = lines.iter().map(|(line, ending)| format!("{line}{ending}")).collect::<String>().into_bytes();
        if !ended && text.ends_with(b"\n") {
            text.pop();
        }
        text
    })
}

/// A text with some lines changed, added and removed.
fn edited(text: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let change = (0_usize..26, 0_u8..4, prop_oneof![Just("a\n"), Just("new\n"), Just("\r\n"), Just("}\n")]);
    prop::collection::vec(change, 0..5).prop_map(move |changes| {
        let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for (at, what, line) in changes {
            let at = at.min(lines.len());
            match what {
                0 if at < lines.len() => drop(lines.remove(at)),
                1 if at < lines.len() => lines[at] = line.into(),
                _ => lines.insert(at, line.into()),
            }
        }
        lines.concat()
    })
}

fn old_and_new() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    text().prop_flat_map(|old| (Just(old.clone()), edited(old)))
}

/// An old and a new text, and what became of the old one meanwhile.
fn old_new_and_other() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>)> {
    text().prop_flat_map(|old| (Just(old.clone()), edited(old.clone()), edited(old)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_diffs_are_applied_by_gnu_patch_and_by_us((old, new) in old_and_new(), context in 0_u32..5) {
        let made = difference(&old, &new, NAMES, context, usize::MAX);
        if old == new {
            prop_assert_eq!(made, Difference::default());
        } else {
            let diff = made.unified.unwrap().into_bytes();
            let gnu = gnu_patch(&old, &diff, 0);
            prop_assert_eq!(gnu.as_deref(), Some(&new[..]), "{}", String::from_utf8_lossy(&diff));
            let applied = ours(&old, &diff, 0).unwrap();
            prop_assert_eq!(applied, Applied { bytes: new, displaced: Vec::new() });
            let lines = |sign: u8| diff.split(|byte| *byte == b'\n').skip(2).filter(|line| line.first() == Some(&sign)).count();
            prop_assert_eq!((made.added as usize, made.removed as usize), (lines(b'+'), lines(b'-')));
        }
    }

    #[test]
    fn gnu_diffs_are_applied_by_us((old, new) in old_and_new(), context in 0_usize..5) {
        let diff = gnu_diff(&old, &new, context);
        if !diff.is_empty() {
            let applied = ours(&old, &diff, 0);
            prop_assert_eq!(applied, Ok(Applied { bytes: new, displaced: Vec::new() }), "{}", String::from_utf8_lossy(&diff));
        }
    }

    /// The text changed since the diff was made: we do what patch does, or refuse where patch rejects.
    #[test]
    fn a_changed_text_is_patched_or_refused_as_gnu_patch_does(
        (old, new, other) in old_new_and_other(),
        context in 1_usize..4,
        fuzz in 0_usize..4,
    ) {
        // Where line endings differ, or are missing, we are more lenient than `patch --binary` on purpose; see the tests below.
        let plain = |text: &[u8]| {
            let mut text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\r').collect();
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text
        };
        let (old, new, other) = (plain(&old), plain(&new), plain(&other));
        let diff = gnu_diff(&old, &new, context);
        if !diff.is_empty() {
            let gnu = gnu_patch(&other, &diff, fuzz);
            // Exact places come first with us, so a hunk of ours may need less fuzz than patch took: compare like with like.
            let applied = ours(&other, &diff, fuzz).ok().map(|applied| applied.bytes);
            let diff = String::from_utf8_lossy(&diff);
            prop_assert_eq!(applied.map(|b| String::from_utf8(b).unwrap()), gnu.map(|b| String::from_utf8(b).unwrap()), "{}\nto {:?}", diff, String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn no_diff_makes_us_panic(text in text(), diff in "(@@ -[0-9]{1,3}(,[0-4])? \\+[0-9](,[0-4])? @@\n|[ +-][ab]\n|\\\\ No\n|--- a\n|\\+\\+\\+ b\n|\n|x){0,12}", fuzz in 0_usize..4) {
        let _ = ours(&text, diff.as_bytes(), fuzz);
    }
}

#[test]
fn line_endings_of_the_file_win_over_those_of_the_diff() {
    let diff = b"@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
    assert_eq!(ours(b"a\r\nb\r\nc\r\n", diff, 0).unwrap().bytes, b"a\r\nB\r\nc\r\n");
    assert_eq!(ours(b"a\r\nb\r\nc", diff, 0).unwrap().bytes, b"a\r\nB\r\nc");
    let diff = b"@@ -1,2 +1,2 @@\r\n a\r\n-b\r\n+B\r\n";
    assert_eq!(ours(b"a\nb\n", diff, 0).unwrap().bytes, b"a\nB\n");
    assert_eq!(ours(b"a\nb", diff, 0).unwrap().bytes, b"a\nB", "the missing last ending stays missing");
    assert_eq!(ours(b"\xef\xbb\xbfa\nb\n", b"@@ -1 +1 @@\n-a\n+x\n", 0).unwrap().bytes, b"\xef\xbb\xbfx\nb\n");
    let unix = b"@@ -1,2 +1,2 @@\n-a\r\n-b\r\n+a\n+b\n";
    assert_eq!(ours(b"a\r\nb\r\n", unix, 0).unwrap().bytes, b"a\nb\n", "a diff that changes endings does so");
}

#[test]
fn a_hunk_elsewhere_says_where() {
    let displaced = |line, offset, fuzz| vec![DisplacedHunk { hunk: 1, line, offset, fuzz }];
    let diff = b"--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@ fn x()\n a\n-b\n+B\n c\n";
    let applied = ours(b"1\n2\na\nb\nc\n", diff, 0).unwrap();
    assert_eq!(applied, Applied { bytes: b"1\n2\na\nB\nc\n".into(), displaced: displaced(3, 2, 0) });
    let applied = ours(b"1\nother\nb\nc\n", diff, 1).unwrap();
    assert_eq!(applied, Applied { bytes: b"1\nother\nB\nc\n".into(), displaced: displaced(2, 1, 1) });
    assert!(ours(b"1\nother\nb\nc\n", diff, 0).is_err(), "fuzz is only taken when asked for");
}

/// Found by fuzzing: all lines between the end of the text and that number were tried, one after the other.
#[test]
fn a_hunk_far_beyond_the_end_takes_no_time() {
    let diff = b"@@ -1099511627776,1 +1 @@\n-a\n+b\n";
    assert_eq!(ours(b"x\na\nx\n", diff, 2).unwrap().bytes, b"x\nb\nx\n", "the nearest place");
    assert_eq!(ours(b"x\n", diff, 2).unwrap_err().code, Code::NoMatch);
    assert_eq!(ours(b"", diff, 2).unwrap_err().code, Code::NoMatch);
}

/// The time is that of the lines, not of each addition times all lines before it; nor do hunks that fit only with fuzz look
/// through the whole text for hours.
#[test]
fn many_lines_take_no_time() {
    const LINES: usize = 200_000;
    let text = b"a\r\n".repeat(LINES);
    let diff = format!("@@ -{LINES},1 +{LINES},{} @@\n a\n{}", LINES + 1, "+b\n".repeat(LINES));
    let applied = ours(&text, diff.as_bytes(), 0).unwrap();
    assert_eq!(applied.bytes, [&text[..], &b"b\r\n".repeat(LINES)[..]].concat());
    let text = b"a\nb\nc\n".repeat(LINES);
    let hunks =
        |count| (0..count).map(|hunk| format!("@@ -{},3 +1,3 @@\n x\n-b\n+B\n c\n", hunk * 3 + 1)).collect::<String>();
    assert_eq!(ours(&text, hunks(10).as_bytes(), 1).unwrap().bytes[..6], b"a\nB\nc\n"[..]);
    assert_eq!(ours(&text, hunks(20_000).as_bytes(), 1).unwrap_err().code, Code::NoMatch);
}

#[test]
fn refusals_name_hunk_lines_and_what_to_do() {
    let diff = b"@@ -2,3 +2,3 @@\n a\n-b\n+B\n c\n@@ -10,3 +10,3 @@\n x\n-y\n+Y\n z\n";
    let problem = ours(b"0\na\nb\nc\nx\nwhy\nz\n", diff, 0).unwrap_err();
    assert_eq!(problem.code, Code::NoMatch);
    assert_eq!(
        problem.detail,
        "hunk 2 of 2 does not fit; nearest is line 5, where line 6 should be \"y\" and is \"why\""
    );
    assert_eq!(problem.context["hunk"], 2);
    let problem = ours(b"0\na\nB\nc\nx\ny\nz\n", diff, 0).unwrap_err();
    assert!(problem.suggestion.unwrap().contains("seems to be applied"));
    let problem = ours(b"", diff, 0).unwrap_err();
    assert_eq!(problem.detail, "hunk 1 of 2 does not fit; line 1 should be \"a\", and the file has 0 lines");
}

#[test]
fn malformed_diffs_are_refused_with_their_line() {
    for (diff, line, what) in [
        ("", 1, "no hunk"),
        ("just text\n", 1, "no hunk"),
        ("@@ -1 +1 @@\n-a\n", 2, "ends here with 1 old and 0 new lines"),
        ("@@ -1 +1 @@\n-a\n+b\n+c\n", 4, "more lines"),
        ("@@ -1 +1,1 @@\n-a\n-b\n", 3, "more lines"),
        ("@@ -x +1 @@\n", 1, "not a hunk's header"),
        ("@@ -99999999999999999999 +1 @@\n", 1, "not a hunk's header"),
        ("@@ -1 +1 @@\n-a\n+b\n--- a/c\n+++ b/c\n@@ -1 +1 @@\n-a\n+b\n", 4, "a second file"),
    ] {
        let problem = ours(b"a\n", diff.as_bytes(), 0).unwrap_err();
        assert_eq!(
            (problem.code, problem.context["diffLine"].as_u64()),
            (Code::InvalidRequest, Some(line)),
            "{diff:?}"
        );
        assert!(problem.detail.contains(what), "{diff:?}: {}", problem.detail);
    }
    assert_eq!(ours(b"\xff", b"@@ -1 +1 @@\n-a\n+b\n", 0).unwrap_err().code, Code::NotText);
}

#[test]
fn a_diff_is_cut_after_a_whole_hunk() {
    let old: String = (0..100).map(|line| format!("{line}\n")).collect();
    let new = old.replace("10\n", "ten\n").replace("90\n", "ninety\n");
    let whole = difference(old.as_bytes(), new.as_bytes(), NAMES, 3, usize::MAX);
    let cut = difference(old.as_bytes(), new.as_bytes(), NAMES, 3, whole.unified.as_ref().unwrap().len() - 1);
    assert!(cut.truncated && !whole.truncated);
    assert_eq!(parse(cut.unified.unwrap().as_bytes()).unwrap().len(), 1);
    assert_eq!((cut.added, cut.removed), (2, 2));
    let none = difference(old.as_bytes(), new.as_bytes(), NAMES, 3, 10);
    assert!(none.truncated && none.unified.is_none());
    assert_eq!(difference(b"\xff", b"a", NAMES, 3, 1000).unified, None, "not text, no diff");
}
