//! `Idempotency-Key`: a repeated change gets the first one's answer, and is made once.

use corehold_types::Code;
use futures_util::future::join_all;
use http::Method;

use super::support::{Answer, TestAgent};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn keyed(agent: &TestAgent, tool: &str, key: &str, accept: &str, body: &str) -> Answer {
    let headers = [JSON, ("idempotency-key", key), ("accept", accept)];
    agent.call(Method::POST, &format!("/v1/tools/{tool}"), &headers, body.to_owned()).await
}

async fn json(agent: &TestAgent, tool: &str, key: &str, body: &str) -> Answer {
    keyed(agent, tool, key, "*/*", body).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_repeated_change_is_answered_and_not_made_again() {
    let agent = TestAgent::new();
    let first = json(&agent, "mkdir", "one", r#"{"path": "dir"}"#).await;
    assert!(!is_replayed(first.assert_ok()));
    std::fs::remove_dir(agent.root().join("dir")).unwrap();
    // The same request, spelt otherwise.
    let second = json(&agent, "mkdir", "one", r#"{ "path":"dir" }"#).await;
    assert!(is_replayed(second.assert_ok()));
    assert_eq!(second.json(), first.json());
    assert!(agent.names().is_empty(), "it was not made again");
    json(&agent, "mkdir", "two", r#"{"path": "dir"}"#).await.assert_ok();
    assert_eq!(agent.names(), ["dir"]);
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let agent = TestAgent::new();
    json(&agent, "mkdir", "one", r#"{"path": "dir"}"#).await.assert_ok();
    json(&agent, "mkdir", "one", r#"{"path": "other"}"#).await.assert_problem(422, Code::IdempotencyMismatch);
    json(&agent, "remove", "one", r#"{"path": "dir"}"#).await.assert_problem(422, Code::IdempotencyMismatch);
    assert_eq!(agent.names(), ["dir"]);
}

#[tokio::test]
async fn what_failed_for_good_is_kept_and_keys_that_are_none_are_refused() {
    let agent = TestAgent::new();
    let remove = r#"{"path": "gone"}"#;
    let first = json(&agent, "remove", "k", remove).await;
    first.assert_problem(404, Code::NotFound);
    std::fs::write(agent.root().join("gone"), "back").unwrap();
    let second = json(&agent, "remove", "k", remove).await;
    second.assert_problem(404, Code::NotFound);
    assert!(is_replayed(&second) && !is_replayed(&first));
    for key in ["", "\u{e9}", &"x".repeat(256)] {
        json(&agent, "remove", key, remove).await.assert_problem(400, Code::InvalidRequest);
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    let twice = agent.call(Method::POST, "/v1/tools/remove", &twice, remove).await;
    twice.assert_problem(400, Code::InvalidRequest);
    // A tool that changes nothing may be repeated at will.
    let list = json(&agent, "list", "k", "{}").await;
    assert!(!is_replayed(list.assert_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_run_once() {
    let agent = TestAgent::new();
    let request = r#"{"line": "echo ran >> runs; echo out; sleep 0.1; exit 3"}"#;
    let answers = join_all((0..50).map(|_| json(&agent, "command", "one", request))).await;
    assert_eq!(std::fs::read_to_string(agent.root().join("runs")).unwrap(), "ran\n");
    for answer in &answers {
        assert_eq!(answer.assert_ok().json(), answers[0].json());
        assert_eq!(answer.json()["stdout"]["text"], "out\n");
        assert_eq!(answer.json()["exit"]["code"], 3);
    }
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
}

#[tokio::test]
async fn a_repeated_command_streams_what_the_first_one_writes() {
    let agent = TestAgent::new();
    let request = r#"{"line": "echo ran >> runs; echo out"}"#;
    let first = keyed(&agent, "command", "k", "application/x-ndjson", request).await;
    let second = keyed(&agent, "command", "k", "application/x-ndjson", request).await;
    assert_eq!(first.text(), second.text());
    assert!(second.text().contains(r#""type":"stdout""#) && second.text().contains(r#""type":"end""#));
    assert!(is_replayed(&second) && !is_replayed(&first));
    assert_eq!(std::fs::read_to_string(agent.root().join("runs")).unwrap(), "ran\n");
}

#[tokio::test]
async fn a_caller_who_goes_away_finds_the_answer_when_it_comes_again() {
    let agent = TestAgent::new();
    let pipe = agent.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let request = r#"{"line": "echo ran >> runs; read go < pipe; echo $go"}"#;
    {
        let mut first = std::pin::pin!(json(&agent, "command", "k", request));
        // Until the command waits for the pipe's other end, which it then has; then the caller goes away.
        let opened = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(pipe).unwrap());
        let mut writer = tokio::select! {
            writer = opened => writer.unwrap(),
            answer = &mut first => panic!("it can't have ended: {answer:?}"),
        };
        std::io::Write::write_all(&mut writer, b"on\n").unwrap();
    }
    let second = json(&agent, "command", "k", request).await;
    assert!(is_replayed(second.assert_ok()));
    assert_eq!(second.json()["stdout"]["text"], "on\n");
    assert_eq!(std::fs::read_to_string(agent.root().join("runs")).unwrap(), "ran\n");
}

async fn put(agent: &TestAgent, uri: &str, key: &str, body: &str) -> Answer {
    agent.call(Method::PUT, uri, &[("idempotency-key", key)], body.to_owned()).await
}

#[tokio::test]
async fn a_repeated_upload_gets_the_first_answer_and_writes_nothing() {
    let agent = TestAgent::new();
    let first = put(&agent, "/v1/files/a", "k", "one").await;
    assert!(!is_replayed(first.assert_ok()));
    std::fs::write(agent.root().join("a"), "changed since").unwrap();
    let second = put(&agent, "/v1/files/a", "k", "one").await;
    assert!(is_replayed(&second));
    assert_eq!((second.status, second.json()), (first.status, first.json()));
    assert_eq!((second.header("etag"), second.header("content-type")), (first.header("etag"), "application/json"));
    assert_eq!(std::fs::read_to_string(agent.root().join("a")).unwrap(), "changed since");
    for (uri, body) in [("/v1/files/a", "two"), ("/v1/files/a", ""), ("/v1/files/b", "one"), ("/v1/archive", "one")] {
        put(&agent, uri, "k", body).await.assert_problem(422, Code::IdempotencyMismatch);
    }
    let tool = json(&agent, "mkdir", "k", r#"{"path": "dir"}"#).await;
    tool.assert_problem(422, Code::IdempotencyMismatch);
    assert_eq!(agent.names(), ["a"]);
}

#[tokio::test]
async fn an_upload_that_failed_may_be_tried_again_under_its_key() {
    let agent = TestAgent::new();
    std::fs::create_dir(agent.root().join("a")).unwrap();
    put(&agent, "/v1/files/a", "k", "one").await.assert_problem(409, Code::NotAFile);
    std::fs::remove_dir(agent.root().join("a")).unwrap();
    put(&agent, "/v1/files/a", "k", "one").await.assert_ok();
    let delete = [("idempotency-key", "d")];
    for is_repeat in [false, true] {
        let answer = agent.call(Method::DELETE, "/v1/files/a", &delete, "").await;
        assert_eq!((answer.status.as_u16(), is_replayed(&answer)), (204, is_repeat));
    }
    put(&agent, "/v1/files/a", "", "x").await.assert_problem(400, Code::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_uploads_at_once_are_one() {
    let agent = TestAgent::new();
    let answers = join_all((0..50).map(|_| put(&agent, "/v1/files/a", "k", "one"))).await;
    assert!(answers.iter().all(|answer| answer.assert_ok().json() == answers[0].json()));
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
}
