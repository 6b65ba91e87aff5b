//! `search`, `find`.

use corehold_types::{Data, WorkspacePath, tools::*};

use super::{LARGEST, Sample, event, sample};

fn path_of_bytes() -> WorkspacePath {
    WorkspacePath::from_bytes(b"caf\xe9")
}

fn whole_line() -> SearchLine {
    SearchLine { line: LARGEST, data: Data::Text("let x;".to_owned()), ranges: vec![[0, 3], [4, LARGEST]], cut: None }
}

fn cut_line() -> SearchLine {
    SearchLine {
        line: 1,
        data: Data::from_bytes(vec![0xff, 0xfe]),
        ranges: Vec::new(),
        cut: Some(SearchCut { start: 7, length: LARGEST, hidden_matches: 2 }),
    }
}

fn response() -> SearchResponse {
    let lines = vec![SearchFileLine::Match(whole_line()), SearchFileLine::Context(cut_line())];
    let file = SearchFile { path: "a.rs".into(), matched_lines: 1, lines, binary_offset: None };
    let counted =
        SearchFile { path: path_of_bytes(), matched_lines: LARGEST, lines: Vec::new(), binary_offset: Some(LARGEST) };
    SearchResponse {
        files: vec![file, counted],
        matched_lines: LARGEST,
        matched_files: 2,
        searched_files: LARGEST,
        searched_bytes: LARGEST,
        skipped: SearchSkipped { ignored: 1, binary: LARGEST, ..SearchSkipped::default() },
        truncated: vec![
            SearchTruncation::MaxMatches,
            SearchTruncation::MaxMatchesPerFile,
            SearchTruncation::Timeout,
            SearchTruncation::AnswerBytes,
        ],
        troubles: vec![SearchTrouble { path: path_of_bytes(), detail: "permission denied".to_owned() }],
        elapsed_ms: LARGEST,
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let full = SearchRequest {
        pattern: "foo".to_owned(),
        literal: Some(true),
        paths: vec!["src".into(), path_of_bytes()],
        case: Some(SearchCase::Smart),
        word: Some(true),
        whole_line: Some(false),
        multiline: Some(true),
        dot_all: Some(true),
        crlf: Some(true),
        invert: Some(false),
        before: Some(1),
        after: Some(u32::MAX),
        globs: vec!["*.rs".to_owned()],
        types: vec!["rust".to_owned()],
        types_not: vec!["js".to_owned()],
        hidden: Some(true),
        ignore_files: Some(false),
        require_git: Some(true),
        follow: Some(true),
        max_depth: Some(1),
        max_file_bytes: Some(LARGEST),
        binary: Some(SearchBinary::Text),
        encoding: Some("utf-16le".to_owned()),
        report: Some(SearchReport::Counts),
        sorted: Some(true),
        columns: Some(SearchColumns::Utf16),
        max_matches: Some(LARGEST),
        max_matches_per_file: Some(1),
        max_line_bytes: Some(1),
        timeout_ms: Some(LARGEST),
    };
    let found = FoundEntry {
        path: "src/main.rs".into(),
        kind: EntryKind::File,
        score: Some(u32::MAX),
        positions: Some(vec![0, 1]),
    };
    let unranked = FoundEntry { path: path_of_bytes(), kind: EntryKind::Directory, score: None, positions: None };
    let page = FindResponse {
        entries: vec![found, unranked],
        total: LARGEST,
        considered: LARGEST,
        timed_out: false,
        troubles: vec![SearchTrouble { path: "x".into(), detail: "permission denied".to_owned() }],
        cursor: Some("x".to_owned()),
        elapsed_ms: 1,
    };
    vec![
        sample(&SearchRequest { pattern: "foo".to_owned(), ..SearchRequest::default() }),
        sample(&full),
        sample(&SearchResponse::default()),
        sample(&response()),
        sample(&FindRequest::default()),
        sample(&FindRequest {
            query: Some("main".to_owned()),
            globs: vec!["*.rs".to_owned()],
            types: vec!["rust".to_owned()],
            path: Some(path_of_bytes()),
            kind: Some(FindKind::Any),
            hidden: Some(true),
            ignore_files: Some(false),
            require_git: Some(true),
            follow: Some(true),
            max_depth: Some(1),
            positions: Some(true),
            limit: Some(1),
            cursor: Some("x".to_owned()),
            timeout_ms: Some(LARGEST),
        }),
        sample(&page),
        sample(&FindResponse { entries: Vec::new(), troubles: Vec::new(), cursor: None, ..page }),
    ]
}

pub(super) fn events() -> Vec<Sample> {
    vec![
        event(&SearchEvent::Match(SearchHit { path: "a.rs".into(), line: whole_line() })),
        event(&SearchEvent::Context(SearchHit { path: path_of_bytes(), line: cut_line() })),
        event(&SearchEvent::File { path: path_of_bytes(), matched_lines: LARGEST }),
        event(&SearchEvent::Binary { path: "a".into(), offset: LARGEST }),
    ]
}
