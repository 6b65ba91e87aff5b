//! When a search ends before it has seen everything: caps, callers that leave, and what it says about that.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use corehold_agent::search::{Control, Stop};
use corehold_types::{
    Data,
    tools::{SearchEvent, SearchReport, SearchRequest, SearchTruncation},
};

use crate::support::{paths, pattern, search, search_with};

/// Folders with so many files each.
fn files(folder: &Path, folders: usize, files: usize, content: &str) {
    for outer in 0..folders {
        let folder = folder.join(format!("d{outer}"));
        fs::create_dir(&folder).unwrap();
        for inner in 0..files {
            fs::write(folder.join(format!("f{inner}")), content).unwrap();
        }
    }
}

#[test]
fn a_cap_ends_the_search_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 4, 100, "foo\nfoo\nbar\n");
    let (response, events) = search(folder.path(), &SearchRequest { max_matches: Some(7), ..pattern("foo") }).unwrap();
    assert_eq!((events.len(), response.matched_lines), (7, 7));
    assert_eq!(response.truncated, [SearchTruncation::MaxMatches]);
    assert!(response.searched_files < 400, "the walk ends too");

    let exactly = SearchRequest { max_matches: Some(800), ..pattern("foo") };
    let (response, events) = search(folder.path(), &exactly).unwrap();
    assert_eq!((events.len(), response.truncated), (800, vec![]), "as many as there are is not cut");

    let per_file = SearchRequest { max_matches_per_file: Some(1), ..pattern("foo") };
    let (response, events) = search(folder.path(), &per_file).unwrap();
    assert_eq!((events.len(), response.truncated), (400, vec![SearchTruncation::MaxMatchesPerFile]));
}

/// grep-searcher, left alone with this, takes all behind the last match for inverted; with context it panics or never ends,
/// deaf to every time-out.
#[test]
fn an_inverted_search_over_lines_ends_at_its_cap() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "foo\nbar\na\nb\nfoo\nbar\nc\nd\nfoo\nbar\n").unwrap();
    let inverted = |cap, after| SearchRequest {
        multiline: Some(true),
        invert: Some(true),
        max_matches_per_file: cap,
        after: Some(after),
        ..pattern(r"foo\nbar")
    };
    for (request, told, truncated) in [
        (inverted(None, 0), "3 4 7 8", false),
        (inverted(Some(1), 0), "3", true),
        (inverted(Some(2), 0), "3 4", true),
        // As ripgrep has it line by line: what matches within the context is told as a match.
        (inverted(Some(1), 1), "3 4", true),
        (inverted(Some(1), 2), "3 4 5-", true),
        (inverted(Some(2), 3), "3 4 5- 6- 7", true),
        (inverted(Some(3), 9), "3 4 5- 6- 7 8 9- 10-", true),
        (inverted(Some(9), 1), "3 4 5- 7 8 9-", false),
    ] {
        let (response, events) = search(folder.path(), &request).unwrap();
        let shown = events.iter().map(|event| match event {
            SearchEvent::Match(hit) => hit.line.line.to_string(),
            SearchEvent::Context(hit) => format!("{}-", hit.line.line),
            other => panic!("{other:?}"),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), told, "{request:?}");
        assert_eq!(response.truncated.is_empty(), !truncated, "{request:?}");
    }
    let all_match = SearchRequest { report: Some(SearchReport::Files), ..inverted(None, 0) };
    fs::write(folder.path().join("f"), "foo\nbar\nfoo\nbar\n").unwrap();
    assert_eq!(search(folder.path(), &all_match).unwrap().0.matched_files, 0);
}

#[test]
fn files_and_counts_are_reported_without_lines() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 2, 3, "foo\nbar\nfoo foo\n");
    fs::write(folder.path().join("none"), "bar\n").unwrap();
    let report = |report| SearchRequest { report: Some(report), max_matches: Some(6), ..pattern("foo") };
    let counts = |request| -> Vec<u64> {
        let (response, events) = search(folder.path(), &request).unwrap();
        assert_eq!((response.matched_files, response.truncated), (6, vec![]));
        let count = |event: &SearchEvent| match event {
            SearchEvent::File { matched_lines, .. } => *matched_lines,
            other => panic!("{other:?}"),
        };
        events.iter().map(count).collect()
    };
    assert_eq!(counts(report(SearchReport::Counts)), [2; 6]);
    assert_eq!(counts(report(SearchReport::Files)), [1; 6]);
    let two = SearchRequest { max_matches: Some(2), ..report(SearchReport::Counts) };
    let (response, events) = search(folder.path(), &two).unwrap();
    assert_eq!((events.len(), response.truncated), (2, vec![SearchTruncation::MaxMatches]), "files are capped then");
}

/// The first event comes while the search can't have ended: its deliverer holds it up until the event was seen.
#[test]
fn the_first_match_comes_before_the_walk_ends() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 1, 300, "foo\n");
    let (sender, receiver) = mpsc::sync_channel::<usize>(0);
    let control = Control::new(u64::MAX);
    std::thread::scope(|scope| {
        let folder = folder.path();
        scope.spawn(move || {
            // Each delivery waits until somebody takes it.
            search_with(folder, &pattern("foo"), &control, &|batch| sender.send(batch.len()).is_ok()).unwrap();
        });
        assert_eq!(receiver.recv().unwrap(), 1, "the first goes out alone and at once");
        let rest: usize = receiver.iter().sum();
        assert_eq!(rest, 299);
    });
}

#[test]
fn a_caller_who_leaves_ends_the_search_at_once() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 8, 200, "foo\n");
    let delivered = AtomicUsize::new(0);
    let control = Control::new(u64::MAX);
    let response = search_with(folder.path(), &pattern("foo"), &control, &|_| {
        delivered.fetch_add(1, Ordering::Relaxed);
        false
    })
    .unwrap();
    assert_eq!(control.why(), Some(Stop::Cancelled));
    assert!(delivered.into_inner() <= 4, "each thread may have been delivering");
    assert!(response.searched_files < 200, "{response:?}");
}

/// Whether this process has a file open.
fn is_open(path: &Path) -> bool {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
}

/// A large file is left in the middle: a match far behind its beginning is what tells where the search is.
#[test]
fn a_search_stops_in_the_middle_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("large")).unwrap();
    // Sparse and without a line's end, searched as text: minutes in a debug build.
    file.set_len(16 << 30).unwrap();
    drop(file);
    let request = SearchRequest { binary: Some(corehold_types::tools::SearchBinary::Search), ..pattern("foo") };
    let control = Control::new(u64::MAX);
    std::thread::scope(|scope| {
        let search = scope.spawn(|| search_with(folder.path(), &request, &control, &|_| true));
        let large = folder.path().join("large");
        // Once it is open, minutes of searching lie ahead.
        while !is_open(&large) && !search.is_finished() {
            std::thread::yield_now();
        }
        control.stop(Stop::Timeout);
        // A search that went on to the end would not say that it was cut.
        let response = search.join().unwrap().unwrap();
        assert_eq!(response.truncated, [SearchTruncation::Timeout]);
    });
}

#[test]
fn the_events_of_a_file_come_together_however_many_they_are() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 10, 5, &"foo\n".repeat(1_000));
    let batches = Mutex::new(Vec::new());
    let control = Control::new(u64::MAX);
    search_with(folder.path(), &pattern("foo"), &control, &|batch| {
        batches.lock().unwrap().extend(batch);
        true
    })
    .unwrap();
    let mut paths = paths(&batches.into_inner().unwrap());
    assert_eq!(paths.len(), 50_000);
    paths.dedup();
    assert_eq!(paths.len(), 50, "a file's lines were torn apart");
}

#[test]
fn a_line_that_is_too_large_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = vec![b'y'; 65 << 20];
    content.extend(b"foo\n");
    fs::write(folder.path().join("line"), content).unwrap();
    fs::write(folder.path().join("other"), "foo\n").unwrap();
    for multiline in [false, true] {
        let request = SearchRequest { multiline: Some(multiline), ..pattern(r"fo\w+[\n]?") };
        let request = if multiline { request } else { pattern("foo") };
        let (response, events) = search(folder.path(), &request).unwrap();
        assert_eq!(paths(&events), ["other"]);
        assert_eq!(response.skipped.too_large, 1, "{response:?}");
        assert!(response.troubles[0].detail.contains("67108864"), "{response:?}");
    }
}

#[test]
fn a_minified_line_is_cut_around_the_match() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("min.js"), format!("{}needle{}", "a;".repeat(50_000), "b;".repeat(50_000))).unwrap();
    let (_, events) = search(folder.path(), &pattern("needle")).unwrap();
    let [SearchEvent::Match(hit)] = &events[..] else { panic!("{events:?}") };
    let Data::Text(text) = &hit.line.data else { panic!("{hit:?}") };
    let cut = hit.line.cut.unwrap();
    assert!(text.contains("needle") && text.len() == 1_024, "{text}");
    assert_eq!((cut.start, cut.length, hit.line.ranges[0]), (100_000 - 256, 200_006, [100_000, 100_006]));
}

#[test]
fn what_is_left_out_is_counted_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write(".gitignore", b"node_modules\n");
    write("node_modules/x/y", b"foo");
    write("a.rs", b"foo");
    write("a.bin", b"foo\0");
    write("late.bin", &[&[b'\n'; 70_000][..], b"foo\0"].concat());
    write("large", &[b'f'; 100_000]);
    write("a.min.js", b"foo");
    std::os::unix::fs::symlink("a.rs", folder.path().join("link")).unwrap();
    let request = SearchRequest { globs: vec!["!*.min.js".to_owned()], max_file_bytes: Some(90_000), ..pattern("foo") };
    let (response, events) = search(folder.path(), &request).unwrap();
    assert_eq!(paths(&events), ["a.rs"]);
    let skipped = response.skipped;
    assert_eq!((skipped.ignored, skipped.hidden, skipped.filtered), (1, 1, 1), "{skipped:?}");
    assert_eq!((skipped.binary, skipped.too_large, skipped.symlinks), (2, 1, 1), "{skipped:?}");
    assert_eq!((response.searched_files, response.matched_files), (3, 1));
}

/// A long line once made the searcher's buffer larger for good, and so the pieces in which the next file was looked at for a
/// NUL byte: whether lines in front of it were found depended on the files before.
#[test]
fn what_is_found_in_a_file_does_not_depend_on_those_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = b"foo\n".to_vec();
    content.extend(b"x".repeat(99).into_iter().chain([b'\n']).cycle().take(70_000));
    content.extend_from_slice(b"\0\nfoo\n");
    fs::write(folder.path().join("b"), content).unwrap();
    let request = SearchRequest { sorted: Some(true), ..pattern("foo") };
    let (_, alone) = search(folder.path(), &request).unwrap();
    assert_eq!(paths(&alone), ["b", "b"], "a line, and where it stopped");

    fs::write(folder.path().join("a"), "y".repeat(300_000) + "\nz\n").unwrap();
    let (_, behind_a_long_line) = search(folder.path(), &request).unwrap();
    assert_eq!(behind_a_long_line, alone);
}
