//! What a record says of content: hashes, counts, bytes, and how commands ended.

use axum::body::{Body, BodyDataStream};
use corehold_types::tools::{AuditChanged, AuditCommand, AuditEvent, AuditExit, AuditOutcome, AuditRecord};
use futures_util::StreamExt as _;
use http::{Method, Request};
use tower::ServiceExt as _;

use crate::{
    audit::{hash, read, records},
    support::TestAgent,
};

/// Path, before and after of a record's paths.
fn paths(record: &AuditRecord) -> Vec<(String, Option<String>, Option<String>)> {
    record.paths.iter().map(|path| (path.path.to_string(), path.before.clone(), path.after.clone())).collect()
}

#[tokio::test]
async fn what_is_moved_copied_and_removed_is_told_by_its_hash_or_counted() {
    let agent = TestAgent::new();
    for (path, content) in [("a", "one"), ("b", "two"), ("dir/x", "12345"), ("dir/y", "678")] {
        agent.put(&format!("/v1/files/{path}"), content).await.assert_ok();
    }
    let named = |path: &str, before: &str, after: &str| {
        let hash = |text: &str| hash(text).filter(|_| !text.is_empty());
        (path.to_owned(), hash(before), hash(after))
    };
    let counted = |entries, bytes| Some(AuditChanged { entries, bytes });
    for (tool, request, shown, changed) in [
        (
            "move",
            r#"{"from": "a", "to": "b", "overwrite": true}"#,
            vec![named("a", "one", ""), named("b", "two", "one")],
            None,
        ),
        (
            "copy",
            r#"{"from": "b", "to": "new/c"}"#,
            vec![named("b", "", ""), named("new/c", "", "one")],
            counted(1, Some(3)),
        ),
        (
            "copy",
            r#"{"from": "dir", "to": "dir2", "recursive": true}"#,
            vec![named("dir", "", ""), named("dir2", "", "")],
            counted(3, Some(8)),
        ),
        ("move", r#"{"from": "dir2", "to": "dir3"}"#, vec![named("dir2", "", ""), named("dir3", "", "")], None),
        ("remove", r#"{"path": "b"}"#, vec![named("b", "one", "")], counted(1, None)),
        ("remove", r#"{"path": "dir3", "recursive": true}"#, vec![named("dir3", "", "")], counted(3, None)),
        ("mkdir", r#"{"path": "m/n"}"#, vec![named("m/n", "", "")], counted(2, None)),
        ("remove", r#"{"path": "gone", "missingOk": true}"#, vec![named("gone", "", "")], counted(0, None)),
    ] {
        agent.tool(tool, request).await.assert_ok();
        let record = records(&agent).await.pop().unwrap();
        assert_eq!((record.tool.as_str(), paths(&record), record.changed), (tool, shown, changed), "{request}");
    }
}

#[tokio::test]
async fn a_large_file_is_told_by_its_version_so_that_nothing_is_read_for_the_log_only() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_AUDIT_HASH_BYTES", "4")]);
    let etag = agent.put("/v1/files/a", "12345").await.assert_ok().header("etag").trim_matches('"').to_owned();
    // Until the file is old enough for its version to be none that has a hash in it.
    let version = loop {
        let stat = agent.tool("stat", r#"{"paths": ["a"]}"#).await.assert_ok().json();
        let version = stat["entries"][0]["version"].as_str().unwrap_or_else(|| panic!("{stat}")).to_owned();
        if !version.contains('-') {
            break version;
        }
    };
    agent.call(Method::DELETE, "/v1/files/a", &[], "").await.assert_ok();
    agent.put("/v1/files/b", "1234").await.assert_ok();
    agent.tool("remove", r#"{"path": "b"}"#).await.assert_ok();
    let of = async |tool: &str| paths(&read(&agent, &format!(r#"{{"tool": "{tool}"}}"#)).await.records[0]).remove(0);
    assert_eq!(of("PUT /v1/files").await, ("a".to_owned(), None, Some(etag)));
    assert_eq!(of("DELETE /v1/files").await, ("a".to_owned(), Some(version), None));
    assert_eq!(of("remove").await, ("b".to_owned(), hash("1234"), None));
}

#[tokio::test]
async fn bytes_of_content_are_counted_and_an_archives_entries() {
    let agent = TestAgent::new();
    agent.tool("write", r#"{"files": [{"path": "a", "content": "12345"}, {"path": "b", "content": "678"}]}"#).await;
    agent.tool("read", r#"{"files": [{"path": "a"}, {"path": "b"}]}"#).await.assert_ok();
    agent.get("/v1/files/a", &[("range", "bytes=1-2")]).await.assert_ok();
    agent.tool("search", r#"{"pattern": "3"}"#).await.assert_ok();
    let edit = r#"{"files": [{"path": "b", "operations": [{"type": "replace", "old": "6", "new": "4a"}]}]}"#;
    agent.tool("edit", edit).await.assert_ok();
    agent.call(Method::HEAD, "/v1/files/a", &[], "").await.assert_ok();
    agent.tool("command", r#"{"line": "cat; echo 12", "stdin": {"base64": "AAEC"}}"#).await.assert_ok();
    let archive = agent.get("/v1/archive?format=tar", &[]).await.assert_ok().body.clone();
    let bytes = archive.len() as u64;
    agent.put("/v1/archive?path=out", archive).await.assert_ok();
    let large = "x".repeat(1_000_000);
    agent.put("/v1/files/large", large).await.assert_ok();
    agent.get("/v1/files/large", &[]).await.assert_ok();
    let shown: Vec<_> =
        records(&agent).await.into_iter().map(|record| (record.tool, record.bytes_in, record.bytes_out)).collect();
    let shown: Vec<_> = shown.iter().map(|(tool, into, out)| (tool.as_str(), *into, *out)).collect();
    assert_eq!(
        shown,
        [
            ("write", Some(8), None),
            ("read", None, Some(8)),
            ("GET /v1/files", None, Some(2)),
            ("search", None, Some(5)),
            ("edit", Some(2), None),
            ("HEAD /v1/files", None, None),
            ("command", Some(3), Some(6)),
            ("GET /v1/archive", None, Some(bytes)),
            ("PUT /v1/archive", Some(bytes), None),
            ("PUT /v1/files", Some(1_000_000), None),
            ("GET /v1/files", None, Some(1_000_000)),
        ]
    );
    let received = &read(&agent, r#"{"tool": "PUT /v1/archive"}"#).await.records[0];
    assert_eq!(received.changed, Some(AuditChanged { entries: 2, bytes: Some(9) }));
}

#[tokio::test]
async fn a_download_that_is_broken_off_says_how_far_it_came() {
    let agent = TestAgent::new();
    agent.put("/v1/files/large", "x".repeat(1_000_000)).await.assert_ok();
    let request = Request::get("/v1/files/large").header("authorization", "Bearer token").body(Body::empty()).unwrap();
    let mut body = agent.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap().len() as u64;
    drop(body);
    let record = records(&agent).await.pop().unwrap();
    assert_eq!((record.outcome, record.bytes_out), (AuditOutcome::CallerGone, Some(first)));
}

/// What a tool streams.
async fn follow(agent: &TestAgent, tool: &str, request: impl Into<Body>) -> BodyDataStream {
    let request = Request::post(format!("/v1/tools/{tool}"))
        .header("authorization", "Bearer token")
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson")
        .body(request.into())
        .unwrap();
    agent.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream()
}

/// The next record of a command's end, as a follower sees it.
async fn end_of(agent: &TestAgent, id: &str) -> AuditRecord {
    let mut stream = follow(agent, "auditRead", format!(r#"{{"command": "{id}"}}"#)).await;
    let mut text = String::new();
    loop {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        let complete = text.lines().filter_map(|line| serde_json::from_str::<AuditEvent>(line).ok());
        for event in complete {
            if let AuditEvent::Record { record } = event
                && record.outcome == AuditOutcome::Ended
            {
                return *record;
            }
        }
    }
}

#[tokio::test]
async fn every_command_leaves_its_name_and_its_end_once() {
    let agent = TestAgent::new();
    let waited = agent.tool("command", r#"{"line": "echo 12; exit 3"}"#).await.assert_ok().json();
    let id = waited["id"].as_str().unwrap();
    let all = read(&agent, &format!(r#"{{"command": "{id}"}}"#)).await.records;
    let exit = |code, signal: Option<&str>| AuditExit {
        code,
        signal: signal.map(str::to_owned),
        timed_out: false,
        stalled: false,
    };
    assert_eq!(all.len(), 1, "the call's own record says it all: {all:?}");
    assert_eq!(all[0].command, Some(AuditCommand { id: id.to_owned(), exit: Some(exit(Some(3), None)) }));
    assert_eq!((all[0].outcome, all[0].bytes_out), (AuditOutcome::Ok, Some(3)));

    let detached = agent.tool("command", r#"{"line": "echo 12; exec sleep 60", "detach": true}"#).await;
    let id = detached.assert_ok().json()["id"].as_str().unwrap().to_owned();
    let first = &read(&agent, &format!(r#"{{"command": "{id}"}}"#)).await.records[0];
    assert_eq!(first.command, Some(AuditCommand { id: id.clone(), exit: None }));
    assert_eq!((first.outcome, first.bytes_out), (AuditOutcome::Ok, None));
    let output = format!(r#"{{"id": "{id}", "follow": true, "maxOutputBytes": 3, "offset": 0}}"#);
    let signal = format!(r#"{{"id": "{id}", "signal": "SIGKILL"}}"#);
    let (followed, _) = tokio::join!(agent.tool("commandOutput", output), async {
        while agent.agent.processes.find(&id).unwrap().end() < 3 {
            tokio::task::yield_now().await;
        }
        agent.tool("commandSignal", signal).await.assert_ok();
    });
    assert_eq!(followed.assert_ok().json()["exit"]["signal"], "SIGKILL");
    let end = end_of(&agent, &id).await;
    assert_eq!(end.command, Some(AuditCommand { id: id.clone(), exit: Some(exit(None, Some("SIGKILL"))) }));
    assert_eq!((end.tool.as_str(), end.request_id, end.bytes_out), ("command", first.request_id.clone(), Some(3)));
    assert_eq!(end.detail.as_deref(), Some("echo 12; exec sleep 60"));
    let mut tools: Vec<_> = read(&agent, &format!(r#"{{"command": "{id}"}}"#)).await.records;
    tools.sort_by(|a, b| a.tool.cmp(&b.tool));
    let tools: Vec<_> = tools.iter().map(|record| (record.tool.as_str(), record.bytes_out)).collect();
    assert_eq!(tools[..2], [("command", None), ("command", Some(3))]);
    assert_eq!(tools[2..], [("commandOutput", Some(3)), ("commandSignal", None)]);
}

#[tokio::test]
async fn the_end_of_a_command_is_told_whose_caller_went_away_or_had_a_key() {
    let agent = TestAgent::new();
    let keyed = [("content-type", "application/json"), ("idempotency-key", "k")];
    let answer = agent.call(Method::POST, "/v1/tools/command", &keyed, r#"{"line": "exit 4"}"#).await;
    let end = end_of(&agent, answer.assert_ok().json()["id"].as_str().unwrap()).await;
    assert_eq!(end.command.unwrap().exit.unwrap().code, Some(4));
    let request = r#"{"line": "while ! test -e go; do sleep 0.01; done"}"#;
    let running = || agent.agent.processes.running().first().map(|command| command.id().to_owned());
    // Who goes away while the command is being started, or just after.
    {
        let mut call = std::pin::pin!(agent.tool("command", request));
        let mut started = std::pin::pin!(async {
            while running().is_none() {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            () = &mut started => {}
            answer = &mut call => panic!("it can't have ended: {answer:?}"),
        }
    }
    let first = running().unwrap();
    std::fs::write(agent.root().join("go"), "").unwrap();
    assert_eq!(end_of(&agent, &first).await.command.unwrap().exit.unwrap().code, Some(0));
    std::fs::remove_file(agent.root().join("go")).unwrap();
    // Who goes away while it runs.
    let mut stream = follow(&agent, "command", request).await;
    stream.next().await.unwrap().unwrap();
    let id = running().unwrap();
    drop(stream);
    let gone = read(&agent, &format!(r#"{{"command": "{id}"}}"#)).await.records;
    assert_eq!((gone.len(), gone[0].outcome), (1, AuditOutcome::CallerGone), "what it had done by then is known");
    std::fs::write(agent.root().join("go"), "").unwrap();
    assert_eq!(end_of(&agent, &id).await.command.unwrap().exit.unwrap().code, Some(0));
}

#[tokio::test]
async fn an_upload_under_a_key_that_outlives_its_caller_says_what_it_changed() {
    let agent = TestAgent::new();
    agent.put("/v1/files/a", "one").await.assert_ok();
    // It waits for its turn, and its caller doesn't.
    let transfers = std::sync::Arc::clone(&agent.agent.transfers);
    let all = u32::try_from(transfers.available_permits()).unwrap();
    let turns = transfers.acquire_many_owned(all).await.unwrap();
    let keyed = [("idempotency-key", "k"), ("x-request-id", "mine")];
    let mut upload = Box::pin(agent.call(Method::PUT, "/v1/files/a", &keyed, "two!"));
    assert!(futures_util::poll!(&mut upload).is_pending());
    drop(upload);
    drop(turns);
    let mut stream = follow(&agent, "auditRead", r#"{"tool": "PUT /v1/files"}"#).await;
    let mut text = String::new();
    while text.matches("\"record\"").count() < 6 {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    let records = read(&agent, r#"{"tool": "PUT /v1/files", "after": 1}"#).await.records;
    let shown: Vec<_> = records
        .iter()
        .map(|record| (record.outcome, paths(record), record.bytes_in, record.request_id.as_str()))
        .collect();
    let (nothing, changed) = (("a".to_owned(), None, None), ("a".to_owned(), hash("one"), hash("two!")));
    assert_eq!(
        shown,
        [
            (AuditOutcome::CallerGone, vec![nothing], None, "mine"),
            (AuditOutcome::Ended, vec![changed], Some(4), "mine"),
        ]
    );
    assert_eq!(std::fs::read_to_string(agent.root().join("a")).unwrap(), "two!");
}
