//! `auditRead`: every call leaves one record, and no secret in it.

use axum::body::Body;
use corehold_types::{
    Code,
    tools::{AuditOutcome, AuditReadResponse, AuditRecord},
};
use http::{Method, Request};

use super::support::TestAgent;

pub(crate) async fn read(agent: &TestAgent, request: &str) -> AuditReadResponse {
    serde_json::from_slice(&agent.tool("auditRead", request.to_owned()).await.assert_ok().body).unwrap()
}

pub(crate) async fn records(agent: &TestAgent) -> Vec<AuditRecord> {
    read(agent, "{}").await.records
}

pub(crate) fn hash(text: &str) -> Option<String> {
    Some(blake3::hash(text.as_bytes()).to_hex().to_string())
}

#[tokio::test]
async fn changes_leave_hashes_before_and_after() {
    let agent = TestAgent::new();
    let write = r#"{"files": [{"path": "a", "content": "one"}]}"#;
    agent.tool("write", write).await.assert_ok();
    let edit = r#"{"files": [{"path": "a", "operations": [{"type": "replace", "old": "one", "new": "two"}]}]}"#;
    agent.tool("edit", edit).await.assert_ok();
    agent.tool("edit", edit).await.assert_problem(409, Code::NoMatch);
    let delete = r#"{"files": [{"path": "a", "operations": [{"type": "delete"}]}]}"#;
    agent.tool("edit", delete).await.assert_ok();
    let records = records(&agent).await;
    let shown: Vec<_> = records
        .iter()
        .map(|record| (record.seq, record.paths[0].before.clone(), record.paths[0].after.clone(), record.code))
        .collect();
    assert_eq!(
        shown,
        [
            (1, None, hash("one"), None),
            (2, hash("one"), hash("two"), None),
            (3, None, None, Some(Code::NoMatch)),
            (4, hash("two"), None, None),
        ]
    );
    assert!(records.iter().all(|record| record.subject.as_deref() == Some("standalone")));
    assert_eq!(records[2].outcome, AuditOutcome::Failed);
}

#[tokio::test]
async fn files_and_archives_are_recorded_too() {
    let agent = TestAgent::new();
    agent.put("/v1/files/dir/caf%C3%A9", "x").await.assert_ok();
    agent.get("/v1/files/gone", &[]).await.assert_problem(404, Code::NotFound);
    agent.get("/v1/archive?path=dir", &[]).await.assert_ok();
    agent.call(Method::DELETE, "/v1/files/dir/caf%C3%A9", &[], "").await.assert_ok();
    let records = records(&agent).await;
    let shown: Vec<_> =
        records.iter().map(|record| (record.tool.as_str(), record.paths[0].path.to_string(), record.code)).collect();
    assert_eq!(
        shown,
        [
            ("PUT /v1/files", "dir/café".to_owned(), None),
            ("GET /v1/files", "gone".to_owned(), Some(Code::NotFound)),
            ("GET /v1/archive", "dir".to_owned(), None),
            ("DELETE /v1/files", "dir/café".to_owned(), None),
        ]
    );
    assert_eq!((records[0].paths[0].before.clone(), records[0].paths[0].after.clone()), (None, hash("x")));
    assert_eq!((records[3].paths[0].before.clone(), records[3].paths[0].after.clone()), (hash("x"), None));
    assert_eq!((records[0].bytes_in, records[0].bytes_out), (Some(1), None));
    assert!(records[2].bytes_out.unwrap() > 0);
    let under = read(&agent, r#"{"path": "dir", "tool": "PUT /v1/files"}"#).await.records;
    assert_eq!(under, records[..1]);
}

#[tokio::test]
async fn secrets_do_not_land_in_it() {
    let agent = TestAgent::new();
    let command = r#"{"line": "cat >&2; echo $KEY", "env": {"KEY": "hunter2"}, "stdin": {"text": "hunter2"}}"#;
    agent.tool("command", command).await.assert_ok();
    agent.tool("write", r#"{"files": [{"path": "a", "content": "hunter2"}]}"#).await.assert_ok();
    agent.put("/v1/files/b", "hunter2").await.assert_ok();
    agent.tool("write", r#"{"files": "hunter2"}"#).await.assert_problem(400, Code::InvalidRequest);
    let all = agent.tool("auditRead", "{}").await;
    assert!(!all.text().contains("hunter2"), "{}", all.text());
    assert_eq!(records(&agent).await[0].detail.as_deref(), Some("cat >&2; echo $KEY"));
    // Where they stand in a line after all, those of telling names and forms are masked.
    for request in [
        r#"{"line": "TOKEN=hunter2 true; : --password 'hunter2' https://ada:hunter2@localhost/?sig=hunter2"}"#,
        r#"{"argv": ["true", "-H", "Authorization: Bearer hunter2", "--api-key", "hunter2"]}"#,
        r#"{"line": "TOKEN=hunter2 true", "detach": true}"#,
    ] {
        agent.tool("command", request).await.assert_ok();
    }
    agent.tool("search", r#"{"pattern": "password=hunter2"}"#).await.assert_ok();
    agent.get("/token=hunter2?token=hunter2", &[]).await.assert_problem(404, Code::UnknownRoute);
    let all = agent.tool("auditRead", "{}").await;
    assert!(!all.text().contains("hunter2"), "{}", all.text());
    let shown: Vec<_> =
        read(&agent, r#"{"tool": "command"}"#).await.records.into_iter().map(|record| record.detail.unwrap()).collect();
    assert_eq!(shown[1], "TOKEN=*** true; : --password '***' https://***@localhost/?sig=***");
    assert_eq!(shown[2], "true -H Authorization: *** --api-key ***");
}

#[tokio::test]
async fn refusals_and_repeats_are_told_apart() {
    let agent = TestAgent::new();
    let stranger = Request::post("/v1/tools/remove").header("authorization", "Bearer guess").body("{}".into()).unwrap();
    agent.send(stranger).await.assert_problem(401, Code::Unauthorized);
    let keyed = [("content-type", "application/json"), ("idempotency-key", "k"), ("x-request-id", "mine")];
    for _ in 0..2 {
        agent.call(Method::POST, "/v1/tools/mkdir", &keyed, r#"{"path": "d"}"#).await.assert_ok();
    }
    agent
        .call(Method::POST, "/v1/tools/mkdir", &keyed, r#"{"path": "e"}"#)
        .await
        .assert_problem(422, Code::IdempotencyMismatch);
    let records = records(&agent).await;
    let shown: Vec<_> = records.iter().map(|record| (record.outcome, record.replayed, record.code)).collect();
    assert_eq!(
        shown,
        [
            (AuditOutcome::Refused, false, Some(Code::Unauthorized)),
            (AuditOutcome::Ok, false, None),
            (AuditOutcome::Ok, true, None),
            (AuditOutcome::Refused, false, Some(Code::IdempotencyMismatch)),
        ]
    );
    assert_eq!((records[0].subject.as_deref(), records[1].request_id.as_str()), (None, "mine"));
}

#[tokio::test]
async fn pages_end_and_bad_requests_are_refused() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_AUDIT_BYTES", "100000")]);
    for _ in 0..3 {
        agent.tool("list", "{}").await.assert_ok();
    }
    let first = read(&agent, r#"{"tool": "list", "limit": 2}"#).await;
    assert_eq!((first.records.len(), first.cursor.as_deref()), (2, Some("2")));
    let second = read(&agent, r#"{"tool": "list", "limit": 2, "cursor": "2"}"#).await;
    assert_eq!((second.records.len(), second.cursor), (1, None));
    for bad in [r#"{"limit": 0}"#, r#"{"limit": 1001}"#, r#"{"cursor": "x"}"#, r#"{"cursor": "1", "after": 1}"#] {
        agent.tool("auditRead", bad).await.assert_problem(400, Code::InvalidRequest);
    }
    for _ in 0..500 {
        agent.tool("list", "{}").await.assert_ok();
    }
    let gap = read(&agent, "{}").await.gap.unwrap();
    assert!(gap.from == 1 && gap.to > 10);
}

#[tokio::test]
async fn a_follower_sees_records_as_they_are_made_until_the_agent_ends() {
    use futures_util::StreamExt as _;
    use tower::ServiceExt as _;

    let agent = TestAgent::new();
    agent.tool("list", "{}").await.assert_ok();
    let request = Request::post("/v1/tools/auditRead")
        .header("authorization", "Bearer token")
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson")
        .body(Body::from("{}"))
        .unwrap();
    let mut stream = agent.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut next = async || String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(next().await.contains(r#""tool":"list""#));
    agent.tool("stat", r#"{"paths": ["."]}"#).await.assert_ok();
    assert!(next().await.contains(r#""tool":"stat""#));
    agent.agent.begin_shutdown();
    assert!(next().await.contains(r#""type":"end""#));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_record() {
    let agent = TestAgent::new();
    {
        let request = r#"{"line": "exec sleep 60", "label": "sleeper"}"#;
        let mut call = std::pin::pin!(agent.tool("command", request));
        let mut running = std::pin::pin!(async {
            while agent.agent.processes.running().is_empty() {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            () = &mut running => {}
            answer = &mut call => panic!("it can't have ended: {answer:?}"),
        }
        let reason = agent.tool("activity", "{}").await.json()["sources"][1]["reason"].clone();
        assert_eq!(reason, "1 command runs: sleeper");
    }
    let record = &read(&agent, r#"{"tool": "command"}"#).await.records[0];
    assert_eq!((record.outcome, record.detail.as_deref()), (AuditOutcome::CallerGone, Some("exec sleep 60")));
    let activity = agent.tool("activity", "{}").await.json();
    assert_eq!(activity["sources"].as_array().unwrap().len(), 1, "the command goes on, the call doesn't: {activity}");
    let id = agent.agent.processes.running()[0].id().to_owned();
    agent.tool("commandSignal", format!(r#"{{"id": "{id}", "signal": "SIGKILL"}}"#)).await.assert_ok();
}
