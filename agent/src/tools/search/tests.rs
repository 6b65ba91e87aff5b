//! What the handler adds to the engine: collected answers, the clock, turns, and callers that go away.

use std::{fs, time::Duration};

use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::testing::{self, TestAgent};

fn call(agent: &TestAgent) -> Call {
    crate::testing::call(agent)
}

fn request(pattern: &str) -> SearchRequest {
    SearchRequest { pattern: pattern.to_owned(), ..SearchRequest::default() }
}

fn with_files(agent: &TestAgent, count: usize, content: &str) {
    for index in 0..count {
        fs::write(agent.root.path().join(format!("f{index}")), content).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_answer_has_each_file_with_its_lines() {
    let agent = testing::agent();
    with_files(&agent, 2, "one\nfoo\ntwo\nfoo\n");
    fs::write(agent.root.path().join("g"), [&b"foo\n"[..], &[b'\n'; 70_000], b"\0"].concat()).unwrap();
    let request = SearchRequest { before: Some(1), sorted: Some(true), ..request("foo") };
    let response = Search::handle(call(&agent), request, Events::none()).await.unwrap();
    assert_eq!(response.files.iter().map(|file| file.matched_lines).collect::<Vec<_>>(), [2, 2, 1]);
    let kinds = response.files[0].lines.iter().map(|line| match line {
        SearchFileLine::Match(line) => ("match", line.line),
        SearchFileLine::Context(line) => ("context", line.line),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [("context", 1), ("match", 2), ("context", 3), ("match", 4)]);
    assert_eq!(response.files[2].binary_offset, Some(70_004));
    assert_eq!((response.matched_lines, response.truncated), (5, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_leaves_out_what_the_events_carried() {
    let agent = testing::agent();
    with_files(&agent, 3, "foo\n");
    let (sender, mut receiver) = mpsc::channel(100);
    let response = Search::handle(call(&agent), request("foo"), Events::into_channel(sender)).await.unwrap();
    assert_eq!((response.files, response.matched_files), (vec![], 3));
    let mut events = 0;
    while receiver.try_recv().is_ok() {
        events += 1;
    }
    assert_eq!(events, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_answer_has_a_bound() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_SEARCH_BYTES", "2000")]);
    with_files(&agent, 20, &format!("foo {}\n", "x".repeat(300)));
    let response = Search::handle(call(&agent), request("foo"), Events::none()).await.unwrap();
    assert_eq!(response.truncated, [SearchTruncation::AnswerBytes]);
    assert!((4..=6).contains(&response.files.len()), "{}", response.files.len());
    let (sender, mut receiver) = mpsc::channel(100);
    let response = Search::handle(call(&agent), request("foo"), Events::into_channel(sender)).await.unwrap();
    assert_eq!((response.truncated, receiver.recv_many(&mut Vec::new(), 100).await), (vec![], 20), "a stream has none");
}

/// Nobody takes the events, so the search can't end by itself.
#[tokio::test(flavor = "multi_thread")]
async fn time_ends_a_search_with_what_it_has() {
    let agent = testing::agent();
    let file = fs::File::create(agent.root.path().join("large")).unwrap();
    file.set_len(16 << 30).unwrap();
    fs::write(agent.root.path().join("a"), "foo\n").unwrap();
    let binary = Some(corehold_types::tools::SearchBinary::Search);
    let request = SearchRequest { timeout_ms: Some(300), sorted: Some(true), binary, ..request("foo") };
    let response = Search::handle(call(&agent), request, Events::none()).await.unwrap();
    assert_eq!((response.truncated, response.files.len()), (vec![SearchTruncation::Timeout], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_gives_the_turn_back() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_SEARCHES", "1")]);
    with_files(&agent, 2_000, "foo\n");
    let (sender, mut receiver) = mpsc::channel(1);
    let request_all = SearchRequest { max_matches: Some(10_000), ..request("foo") };
    let search = tokio::spawn(Search::handle(call(&agent), request_all, Events::into_channel(sender)));
    receiver.recv().await.unwrap();
    assert_eq!(agent.searches.available_permits(), 0, "it searches, and nobody else may");
    search.abort();
    assert!(search.await.unwrap_err().is_cancelled());
    let turn = tokio::time::timeout(Duration::from_secs(10), turn(&agent)).await;
    drop(turn.expect("the threads of the search went on").unwrap());
    while !matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pattern_is_the_callers_mistake() {
    let agent = testing::agent();
    let problem = Search::handle(call(&agent), request("("), Events::none()).await.unwrap_err();
    assert_eq!((problem.code, &problem.context["offset"]), (Code::InvalidRequest, &0.into()));
    assert_eq!(agent.searches.available_permits(), 4);
}
