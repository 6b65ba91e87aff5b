//! Ranges, limits and descriptions of what was read.

use std::{fs, io::Write as _, sync::Arc};

use corehold_types::{
    Data, WorkspacePath,
    tools::{ByteRange, Encoding, LineEnding, LineRange},
};

use super::*;
use crate::testing;

fn read_with(content: &[u8], target: ReadTarget, budget: u64) -> FileContent {
    let agent = testing::agent();
    fs::write(agent.root.path().join("f"), content).unwrap();
    read_one(&agent, &target, budget, &Cancelled::default(), &|_| true).unwrap().unwrap().0
}

/// Reads with all the room that there is.
fn all(
    agent: &Arc<Agent>,
    targets: &[ReadTarget],
    budget: u64,
    cancelled: &Cancelled,
) -> Result<Vec<ReadResult>, Problem> {
    match read_all(agent, targets, budget, cancelled, &Share::of(&agent.room))? {
        Gathered::All(results) => Ok(results),
        Gathered::NoRoom { needed } => panic!("there is no room for {needed} bytes"),
    }
}

fn whole() -> ReadTarget {
    ReadTarget { path: "f".into(), lines: None, bytes: None }
}

fn lines(start: u64, end: Option<u64>) -> ReadTarget {
    ReadTarget { lines: Some(LineRange { start, end }), ..whole() }
}

fn bytes(start: u64, length: Option<u64>) -> ReadTarget {
    ReadTarget { bytes: Some(ByteRange { start, length }), ..whole() }
}

fn text(content: &FileContent) -> &str {
    match &content.data {
        Data::Text(text) => text,
        Data::Base64(_) => panic!("text was expected: {content:?}"),
    }
}

#[test]
fn a_whole_file_comes_with_hash_and_lines() {
    let content = read_with(b"one\ntwo\nthree", whole(), 100);
    assert_eq!(text(&content), "one\ntwo\nthree");
    assert_eq!(content.hash.as_deref(), Some(blake3::hash(b"one\ntwo\nthree").to_hex().as_str()));
    assert_eq!((content.size, content.start_byte), (13, 0));
    assert_eq!((content.start_line, content.total_lines), (Some(1), Some(3)));
    assert_eq!((content.encoding, content.line_ending), (Encoding::Utf8, Some(LineEnding::Lf)));
    assert!(!content.binary && !content.truncated);
}

#[test]
fn an_empty_file_has_no_lines() {
    let content = read_with(b"", whole(), 100);
    assert_eq!((text(&content), content.total_lines, content.line_ending), ("", Some(0), None));
    let content = read_with(b"", lines(1, None), 100);
    assert_eq!((text(&content), content.total_lines), ("", Some(0)));
}

#[test]
fn lines_are_found_wherever_they_are() {
    let file = b"one\ntwo\nthree\n";
    for (target, expected, start_byte, total) in [
        (lines(1, Some(1)), "one\n", 0, None),
        (lines(2, Some(3)), "two\nthree\n", 4, None),
        (lines(2, None), "two\nthree\n", 4, Some(3)),
        (lines(3, Some(99)), "three\n", 8, Some(3)),
        (lines(4, None), "", 14, Some(3)),
        (lines(99, Some(100)), "", 14, Some(3)),
        (lines(1, Some(u64::MAX)), "one\ntwo\nthree\n", 0, Some(3)),
        (lines(u64::MAX, None), "", 14, Some(3)),
    ] {
        let content = read_with(file, target.clone(), 100);
        assert_eq!(text(&content), expected, "{target:?}");
        assert_eq!((content.start_byte, content.total_lines), (start_byte, total), "{target:?}");
        assert!(content.hash.is_none() && !content.truncated);
    }
}

/// Compares ranges over a file of several buffers with what a simple split of it gives.
#[test]
fn lines_across_buffers_are_those_of_a_simple_split() {
    let mut file = Vec::new();
    for number in 0..60_000 {
        writeln!(file, "line {number} {}", "x".repeat(number % 37)).unwrap();
    }
    let all: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    for (start, end) in [(1, 60_000), (30_000, 30_001), (59_999, 60_005), (12_345, 54_321)] {
        let expected = all[start - 1..end.min(all.len())].concat();
        let content = read_with(&file, lines(start as u64, Some(end as u64)), u64::MAX >> 1);
        assert_eq!(text(&content).as_bytes(), expected, "{start} to {end}");
        assert_eq!(content.start_byte as usize, all[..start - 1].concat().len());
    }
}

#[test]
fn bytes_are_exactly_those_asked_for() {
    let file = "aßc".as_bytes();
    assert_eq!(text(&read_with(file, bytes(0, Some(1)), 100)), "a");
    assert_eq!(text(&read_with(file, bytes(3, None), 100)), "c");
    assert_eq!(text(&read_with(file, bytes(4, Some(9)), 100)), "");
    assert_eq!(text(&read_with(file, bytes(u64::MAX, Some(u64::MAX)), 100)), "");
    let half = read_with(file, bytes(0, Some(2)), 100);
    assert_eq!(half.data, Data::Base64("YcM=".to_owned()), "half a character is what was asked for");
    assert_eq!((half.encoding, half.truncated), (Encoding::Utf8, false));
}

#[test]
fn the_budget_truncates_and_says_so_and_cuts_no_character() {
    let content = read_with("aßß".as_bytes(), whole(), 4);
    assert_eq!((text(&content), content.truncated, content.hash.clone()), ("aß", true, None));
    assert_eq!(content.size, 5);
    let content = read_with(b"one\ntwo\n", lines(1, None), 5);
    assert_eq!((text(&content), content.truncated, content.total_lines), ("one\nt", true, None));
    let content = read_with(b"12345", bytes(1, Some(2)), 3);
    assert_eq!((text(&content), content.truncated), ("23", false));
    let content = read_with(b"12345", bytes(1, None), 3);
    assert_eq!((text(&content), content.truncated), ("234", true));
    let content = read_with(b"123", whole(), 3);
    assert_eq!((text(&content), content.truncated), ("123", false));
}

#[test]
fn encodings_and_line_ends_are_named() {
    for (file, encoding, ending, binary) in [
        (&b"a\r\nb\r\n"[..], Encoding::Utf8, Some(LineEnding::CrLf), false),
        (b"a\r\nb\n", Encoding::Utf8, Some(LineEnding::Mixed), false),
        (b"a\rb", Encoding::Utf8, None, false),
        (b"\xef\xbb\xbfa", Encoding::Utf8Bom, None, false),
        (b"\xff\xfea\0", Encoding::Utf16Le, None, true),
        (b"\xfe\xff\0a", Encoding::Utf16Be, None, true),
        (b"caf\xe9!", Encoding::Unknown, None, false),
        (b"a\0b", Encoding::Utf8, None, true),
    ] {
        let content = read_with(file, whole(), 100);
        assert_eq!((content.encoding, content.line_ending, content.binary), (encoding, ending, binary));
        assert_eq!(content.data.to_bytes().unwrap(), file);
    }
    let behind_the_mark = read_with(b"\xff\xfea\0b\0", bytes(2, Some(2)), 100);
    assert_eq!((behind_the_mark.encoding, behind_the_mark.data), (Encoding::Utf16Le, Data::Base64("YQA=".into())));
}

#[test]
fn a_sparse_file_of_terabytes_costs_what_is_asked_for() {
    let agent = testing::agent();
    let file = fs::File::create(agent.root.path().join("f")).unwrap();
    file.set_len(4 << 40).unwrap();
    let read =
        |target: ReadTarget| read_one(&agent, &target, 1000, &Cancelled::default(), &|_| true).unwrap().unwrap().0;
    let content = read(bytes(4 << 40 >> 1, Some(10)));
    assert_eq!((content.size, content.data.to_bytes().unwrap().len()), (4 << 40, 10));
    assert!(read(whole()).truncated);
}

#[test]
fn ranges_that_mean_nothing_are_refused() {
    let agent = testing::agent();
    fs::write(agent.root.path().join("f"), "x").unwrap();
    for target in [
        lines(0, None),
        lines(3, Some(2)),
        ReadTarget { bytes: Some(ByteRange { start: 0, length: None }), ..lines(1, None) },
    ] {
        let problem = read_one(&agent, &target, 10, &Cancelled::default(), &|_| true).unwrap().unwrap_err();
        assert_eq!(problem.code, Code::InvalidRequest, "{target:?}");
    }
}

#[test]
fn one_missing_file_does_not_fail_the_others_and_the_budget_is_shared() {
    let agent = testing::agent();
    fs::write(agent.root.path().join("a"), "12345").unwrap();
    fs::write(agent.root.path().join("b"), "67890").unwrap();
    let targets = ["a", "missing", "../outside", "b"].map(|path| ReadTarget {
        path: WorkspacePath::from(path),
        lines: None,
        bytes: None,
    });
    let results = all(&agent, &targets, 8, &Cancelled::default()).unwrap();
    assert!(matches!(&results[0], ReadResult::Ok(content) if text(content) == "12345" && !content.truncated));
    assert!(matches!(&results[1], ReadResult::Error { problem, .. } if problem.code == Code::NotFound));
    assert!(matches!(&results[2], ReadResult::Error { problem, .. } if problem.code == Code::PathOutsideRoot));
    assert!(matches!(&results[3], ReadResult::Ok(content) if text(content) == "678" && content.truncated));
}

#[test]
fn work_ends_when_the_caller_is_gone() {
    let agent = testing::agent();
    let cancelled = Cancelled::default();
    cancelled.set();
    assert!(all(&agent, &[whole()], 8, &cancelled).is_err());
}

#[tokio::test]
async fn what_there_is_no_room_for_waits_until_there_is_and_not_for_more_than_it_needs() {
    let agent =
        testing::agent_with(&[("COREHOLD_LIMIT_ANSWER_BYTES", "4194304"), ("COREHOLD_LIMIT_ANSWER_MS", "20000")]);
    let large = "some line of it\n".repeat(64 << 10);
    fs::write(agent.root.path().join("f"), &large).unwrap();
    for target in [whole(), bytes(0, Some(1 << 20)), bytes(1, None), lines(1, None), lines(2, Some(99_999))] {
        let other = Share::of(&agent.room);
        other.gather(1500 << 10).await.unwrap();
        let request = ReadRequest { files: vec![target.clone()], max_bytes: None };
        let read = tokio::spawn(Read::handle(testing::call(&agent), request, Events::none()));
        while agent.room.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(other);
        let response = read.await.unwrap().unwrap();
        assert!(matches!(&response.files[0], ReadResult::Ok(content) if text(content).len() > 1 << 19), "{target:?}");
    }
    let small = ReadRequest { files: vec![lines(9, Some(19))], max_bytes: None };
    let other = Share::of(&agent.room);
    other.gather(1700 << 10).await.unwrap();
    assert!(Read::handle(testing::call(&agent), small, Events::none()).await.is_ok(), "it needs none");
}

#[test]
fn a_file_that_grew_or_shrank_since_it_was_opened_is_read_as_it_is() {
    for length in [0, 1, 5, 700_000] {
        let mut file = tempfile::tempfile().unwrap();
        let content = b"0123456789".repeat(length / 10 + 1)[..length].to_vec();
        file.write_all(&content).unwrap();
        for believed in [0, 1, 4, 5, 6, 699_999, 700_000, 700_001, 1 << 21] {
            let piece = range::whole(&file, believed, 1 << 22, &|_| true).unwrap();
            assert!(piece.is_whole && piece.bytes == content, "{length}, {believed}");
            let piece = range::whole(&file, believed, 4, &|_| true).unwrap();
            assert_eq!((piece.truncated, piece.bytes), (length > 4, content[..length.min(4)].to_vec()), "{believed}");
        }
    }
}
