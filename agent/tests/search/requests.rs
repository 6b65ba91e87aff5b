//! Requests that are wrong: each is refused before anything is searched, and the answer says what would be right.

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{FindRequest, SearchRequest},
};

use crate::support::{find, pattern, search};

fn refused(request: &SearchRequest) -> Problem {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "foo\n").unwrap();
    search(folder.path(), request).expect_err(&format!("{request:?} was accepted"))
}

#[test]
fn a_wrong_field_is_named_with_what_would_be_right() {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    for (request, field, says) in [
        (pattern("foo("), "pattern", "unclosed group"),
        (pattern(r"a\nb"), "pattern", "line's end"),
        (SearchRequest { globs: texts(&["[a"]), ..pattern("foo") }, "globs", "[a"),
        (SearchRequest { globs: vec!["*".to_owned(); 2_000], ..pattern("foo") }, "globs", "at most 1000"),
        (SearchRequest { types: texts(&["rustt"]), ..pattern("foo") }, "types", "rustt"),
        (SearchRequest { types_not: texts(&["nope"]), ..pattern("foo") }, "types", "nope"),
        (SearchRequest { encoding: Some("klingon".to_owned()), ..pattern("foo") }, "encoding", "klingon"),
        (SearchRequest { before: Some(1_001), ..pattern("foo") }, "before", "from 0 to 1000"),
        (SearchRequest { after: Some(u32::MAX), ..pattern("foo") }, "after", "from 0 to 1000"),
        (SearchRequest { max_line_bytes: Some(0), ..pattern("foo") }, "maxLineBytes", "from 1 to"),
        (SearchRequest { max_matches: Some(0), ..pattern("foo") }, "maxMatches", "from 1 to"),
        (SearchRequest { max_matches_per_file: Some(0), ..pattern("foo") }, "maxMatchesPerFile", "at least 1"),
        (SearchRequest { dot_all: Some(true), ..pattern("foo") }, "dotAll", "several lines"),
    ] {
        let problem = refused(&request);
        assert_eq!((problem.code, &problem.context["field"]), (Code::InvalidRequest, &field.into()), "{problem}");
        assert!(problem.detail.contains(says), "{problem}");
    }
}

#[test]
fn more_than_a_limit_allows_names_the_limit() {
    let problem = refused(&SearchRequest { max_matches: Some(1 << 52), ..pattern("foo") });
    assert_eq!(problem.code, Code::LimitExceeded);
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_SEARCH_MATCHES");
}

#[test]
fn starting_paths_must_be_there_and_inside() {
    let with_path = |path: WorkspacePath| SearchRequest { paths: vec![path], ..pattern("foo") };
    for (path, code) in [
        ("nowhere".into(), Code::NotFound),
        ("a/b".into(), Code::NotADirectory),
        ("..".into(), Code::PathOutsideRoot),
        ("x/../../y".into(), Code::PathOutsideRoot),
        ("/etc".into(), Code::PathOutsideRoot),
        ("a\0b".into(), Code::InvalidRequest),
        (WorkspacePath::Bytes { base64: "*".to_owned() }, Code::InvalidRequest),
        ("x/".repeat(3_000).into(), Code::InvalidRequest),
    ] {
        let problem = refused(&with_path(path));
        assert_eq!(problem.code, code, "{problem}");
    }
    let many = SearchRequest { paths: vec!["a".into(); 1_001], ..pattern("foo") };
    assert_eq!(refused(&many).context["field"], "paths");
}

#[test]
fn a_wrong_find_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with_cursor = |cursor: &str| FindRequest { cursor: Some(cursor.to_owned()), ..FindRequest::default() };
    for (request, field) in [
        (FindRequest { limit: Some(0), ..FindRequest::default() }, "limit"),
        (FindRequest { query: Some("x".repeat(2_000)), ..FindRequest::default() }, "query"),
        (FindRequest { globs: vec!["{a".to_owned()], ..FindRequest::default() }, "globs"),
        (with_cursor("nonsense"), "cursor"),
        (with_cursor("7.YQ"), "cursor"),
        (with_cursor("0.*"), "cursor"),
    ] {
        let problem = find(folder.path(), &request).unwrap_err();
        assert_eq!((problem.code, &problem.context["field"]), (Code::InvalidRequest, &field.into()), "{problem}");
    }
    let problem = find(folder.path(), &FindRequest { limit: Some(u32::MAX), ..FindRequest::default() }).unwrap_err();
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_LIST_ENTRIES");
}
