//! The tool over real commands: what a log has and has dropped, both streams, stopping and going on.

use corehold_types::{
    Code,
    tools::{Command, CommandRequest, CommandSearchLine},
};
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::testing::{self, TestAgent};

/// Runs a line to its end. Returns the command's id.
async fn ran(agent: &TestAgent, line: &str) -> String {
    let request = CommandRequest { line: Some(line.to_owned()), ..CommandRequest::default() };
    Command::handle(testing::call(agent), request, Events::none()).await.unwrap().id
}

fn request(id: &str, pattern: &str) -> CommandSearchRequest {
    CommandSearchRequest { id: id.to_owned(), pattern: pattern.to_owned(), ..CommandSearchRequest::default() }
}

async fn search(agent: &TestAgent, request: CommandSearchRequest) -> CommandSearchResponse {
    CommandSearch::handle(testing::call(agent), request, Events::none()).await.unwrap()
}

fn matches(found: &[CommandSearchEvent]) -> Vec<&CommandSearchLine> {
    let lines = found.iter().filter_map(|event| match event {
        CommandSearchEvent::Match(line) => Some(line),
        _ => None,
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_have_lines_of_their_own() {
    let agent = testing::agent();
    let line =
        "printf 'one nee'; sleep 0.1; printf 'an error: need' >&2; sleep 0.1; printf 'dle\\n'; sleep 0.1; echo le >&2";
    let id = ran(&agent, line).await;
    let response = search(&agent, request(&id, "needle")).await;
    let found: Vec<_> =
        matches(&response.found).iter().map(|line| (line.stream, line.offset, line.data.clone())).collect();
    let text = |text: &str| Data::Text(text.to_owned());
    assert_eq!(
        found,
        [(OutputStream::Stdout, 0, text("one needle")), (OutputStream::Stderr, 7, text("an error: needle"))]
    );
    assert_eq!((response.matched_lines, response.offset, response.end), (2, 28, 28));
    assert_eq!((response.truncated, response.searched_bytes, response.long_lines), (vec![], 28, 0));
}

/// Its beginning and a match in it are gone; what comes behind is found, and where it stands is where `commandOutput` has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_dropped_is_told() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_COMMAND_LOG_BYTES", "524288")]);
    let line = "echo needle first; yes 'some line of no interest' | head -c 2000000; echo; echo needle last; echo end";
    let id = ran(&agent, line).await;
    let response = search(&agent, request(&id, "^needle")).await;
    let CommandSearchEvent::Gap { from: 0, to } = response.found[0] else { panic!("{:?}", response.found[0]) };
    let [last] = matches(&response.found)[..] else { panic!("{:?}", response.found) };
    assert_eq!(last.data, Data::Text("needle last".to_owned()));
    assert_eq!((last.offset, last.end, response.end), (2_000_014, 2_000_026, 2_000_030));
    assert_eq!(response.searched_bytes, response.end - to);
    // From behind the gap there is none.
    let behind = CommandSearchRequest { offset: Some(last.offset), ..request(&id, "^needle") };
    let response = search(&agent, behind).await;
    assert_eq!((response.found.len(), response.searched_bytes), (1, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_a_stream_have_all_that_one_answer_has() {
    let agent = testing::agent();
    let id = ran(&agent, "seq 1 5000").await;
    let whole =
        search(&agent, CommandSearchRequest { after: Some(1), max_matches: Some(5_000), ..request(&id, "7$") }).await;
    assert_eq!((whole.matched_lines, whole.found.len(), &whole.truncated[..]), (500, 1_000, &[][..]));
    let (mut offset, mut pages) = (0, Vec::new());
    loop {
        let page = CommandSearchRequest { offset: Some(offset), max_matches: Some(150), ..request(&id, "7$") };
        let page = search(&agent, page).await;
        assert!(page.offset > offset);
        offset = page.offset;
        pages.extend(page.found);
        if page.truncated.is_empty() {
            break;
        }
        assert_eq!(page.truncated, [SearchTruncation::MaxMatches]);
    }
    assert_eq!(matches(&pages), matches(&whole.found));
    assert_eq!(offset, whole.end);

    let (sender, mut receiver) = tokio::sync::mpsc::channel(2_000);
    let streamed = CommandSearchRequest { after: Some(1), max_matches: Some(5_000), ..request(&id, "7$") };
    let response = CommandSearch::handle(testing::call(&agent), streamed, Events::into_channel(sender)).await.unwrap();
    let mut events = Vec::new();
    receiver.recv_many(&mut events, 2_000).await;
    assert_eq!((events, response.found, response.matched_lines), (whole.found, vec![], 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_answer_has_a_bound() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_SEARCH_BYTES", "3000")]);
    let id = ran(&agent, "seq 1 100").await;
    let response = search(&agent, request(&id, "")).await;
    assert_eq!(response.truncated, [SearchTruncation::AnswerBytes]);
    assert!((5..20).contains(&response.found.len()), "{}", response.found.len());
    let rest = search(&agent, CommandSearchRequest { offset: Some(response.offset), ..request(&id, "") }).await;
    let number = |line: &CommandSearchLine| line.data.clone();
    let next = Data::Text((response.found.len() + 1).to_string());
    assert_eq!(number(matches(&rest.found)[0]), next, "it goes on there");
}

/// Nobody takes the events, so the search can't end by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_gives_the_turn_back() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_SEARCHES", "1")]);
    let id = ran(&agent, "seq 1 5000").await;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let all = CommandSearchRequest { max_matches: Some(5_000), ..request(&id, "") };
    let search = tokio::spawn(CommandSearch::handle(testing::call(&agent), all, Events::into_channel(sender)));
    receiver.recv().await.unwrap();
    assert_eq!(agent.searches.available_permits(), 0, "it searches, and nobody else may");
    search.abort();
    assert!(search.await.unwrap_err().is_cancelled());
    let turn = tokio::time::timeout(std::time::Duration::from_secs(10), turn(&agent)).await;
    drop(turn.expect("the search went on").unwrap());
    while !matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let agent = testing::agent();
    let id = ran(&agent, "echo one").await;
    let no = request(&id, "one");
    for (request, code, field) in [
        (request("none", "x"), Code::NotFound, None),
        (request(&id, "("), Code::InvalidRequest, Some("pattern")),
        (request(&id, "a\nb"), Code::InvalidRequest, Some("pattern")),
        (request(&id, &"x".repeat(70_000)), Code::InvalidRequest, Some("pattern")),
        (CommandSearchRequest { offset: Some(5), ..no.clone() }, Code::InvalidRequest, Some("offset")),
        (CommandSearchRequest { before: Some(101), ..no.clone() }, Code::InvalidRequest, Some("before")),
        (CommandSearchRequest { max_line_bytes: Some(0), ..no.clone() }, Code::InvalidRequest, Some("maxLineBytes")),
        (CommandSearchRequest { max_matches: Some(0), ..no.clone() }, Code::InvalidRequest, Some("maxMatches")),
        (CommandSearchRequest { max_matches: Some(1 << 40), ..no.clone() }, Code::LimitExceeded, Some("maxMatches")),
        (CommandSearchRequest { timeout_ms: Some(0), ..no.clone() }, Code::InvalidRequest, Some("timeoutMs")),
    ] {
        let shown = format!("{request:.200?}");
        let problem = CommandSearch::handle(testing::call(&agent), request, Events::none()).await.unwrap_err();
        let named = problem.context.get("field").and_then(|field| field.as_str());
        assert_eq!((problem.code, named), (code, field), "{shown}: {problem}");
    }
    assert_eq!(agent.searches.available_permits(), 4);
    assert_eq!(search(&agent, no).await.matched_lines, 1, "and it goes on");
}
