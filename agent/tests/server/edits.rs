//! The tools that change files, over HTTP: what crosses the wire, malformed requests, and that nothing leads outside.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use corehold_types::Code;
use serde_json::json;

use crate::support::TestAgent;

#[tokio::test]
async fn an_edit_goes_from_reading_to_reading() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("a.txt"), "one\r\ntwo\r\n").unwrap();
    let read = agent.tool("read", json!({ "files": [{ "path": "a.txt" }] }).to_string()).await.assert_ok().json();
    let version = &read["files"][0]["version"];
    let replace = json!({ "type": "replace", "old": "one\ntwo", "new": "one\nand\ntwo" });
    let edit = json!({ "files": [{ "path": "a.txt", "expected": version, "operations": [replace] }] }).to_string();
    let edited = agent.tool("edit", edit.clone()).await.assert_ok().json();
    let file = &edited["files"][0];
    assert_eq!((&file["change"], &file["linesAdded"]), (&"modified".into(), &1.into()));
    assert_eq!(file["diff"], "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,3 @@\n one\r\n+and\r\n two\r\n");
    let read = agent.get("/v1/files/a.txt", &[]).await;
    assert_eq!(read.text(), "one\r\nand\r\ntwo\r\n");
    assert_eq!(read.header("etag"), format!("\"{}\"", file["version"].as_str().unwrap()));
    let problem = agent.tool("edit", edit).await.assert_problem(409, Code::VersionMismatch);
    assert_eq!(problem.context["version"], file["version"], "the current version comes along");
}

#[tokio::test]
async fn trees_are_made_copied_moved_described_and_removed() {
    let agent = TestAgent::new();
    let call =
        async |tool: &str, request: serde_json::Value| agent.tool(tool, request.to_string()).await.assert_ok().json();
    assert_eq!(call("mkdir", json!({ "path": "a/b" })).await["created"], 2);
    let file = json!({ "path": "a/b/c", "content": { "base64": "/w==" }, "mode": 493 });
    assert_eq!(call("write", json!({ "files": [file] })).await["files"][0]["status"], "ok");
    assert_eq!(call("copy", json!({ "from": "a", "to": "d", "recursive": true })).await["directories"], 2);
    assert_eq!(call("move", json!({ "from": "d/b", "to": "e" })).await["replaced"], false);
    let stat = call("stat", json!({ "paths": ["e/c", "gone"], "hash": true })).await;
    assert_eq!((&stat["entries"][0]["size"], &stat["entries"][0]["mode"]), (&1.into(), &493.into()));
    assert_eq!(stat["entries"][1]["problem"]["code"], "NOT_FOUND");
    assert_eq!(call("remove", json!({ "path": "a", "recursive": true })).await["removed"], 3);
    assert_eq!(agent.names(), ["d", "e", "e/c"]);
}

#[tokio::test]
async fn malformed_requests_are_refused_by_every_tool() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("a"), "x").unwrap();
    let entry = |operation: serde_json::Value| json!({ "files": [{ "path": "a", "operations": [operation] }] });
    let cases = [
        ("edit", json!({})),
        ("edit", json!({ "files": [] })),
        ("edit", json!({ "files": {} })),
        ("edit", json!({ "files": [], "dryrun": true })),
        ("edit", json!({ "files": [{ "path": "a" }] })),
        ("edit", json!({ "files": [{ "path": 1, "operations": [] }] })),
        ("edit", entry(json!({ "type": "explode" }))),
        ("edit", entry(json!({ "old": "x", "new": "y" }))),
        ("edit", entry(json!({ "type": "replace", "old": "x" }))),
        ("edit", entry(json!({ "type": "replace", "old": 1, "new": "y" }))),
        ("edit", entry(json!({ "type": "replace", "old": "x", "new": "y", "count": -1 }))),
        ("edit", entry(json!({ "type": "replace", "old": "x", "new": "y", "count": 1.5 }))),
        ("edit", entry(json!({ "type": "replace", "old": "x", "new": "y", "regex": true }))),
        ("edit", entry(json!({ "type": "lines", "start": 0, "text": "" }))),
        ("edit", entry(json!({ "type": "lines", "start": 1, "end": 9_007_199_254_740_991_u64, "text": "" }))),
        ("edit", entry(json!({ "type": "insert", "line": 4, "text": "" }))),
        ("edit", entry(json!({ "type": "create", "content": { "base64": "*" }, "overwrite": true }))),
        ("edit", entry(json!({ "type": "delete", "recursive": true }))),
        ("write", json!({ "files": [] })),
        ("write", json!({ "files": [{ "path": "a" }] })),
        ("write", json!({ "files": [{ "path": "a", "content": ["x"] }] })),
        ("stat", json!({ "paths": [] })),
        ("stat", json!({ "paths": "a" })),
        ("mkdir", json!({})),
        ("mkdir", json!({ "path": "b", "mode": "755" })),
        ("mkdir", json!({ "path": "b", "mode": 4_294_967_296_u64 })),
        ("move", json!({ "from": "a" })),
        ("copy", json!({ "from": "a", "to": null })),
        ("remove", json!({ "path": "a", "force": true })),
        ("remove", json!({ "path": { "base64": "*" } })),
    ];
    for (tool, request) in cases {
        let answer = agent.tool(tool, request.to_string()).await;
        assert_eq!(answer.problem().code, Code::InvalidRequest, "{tool} {request}: {answer:?}");
    }
    assert_eq!(agent.names(), ["a"]);
}

/// Somebody exchanges a directory and a link to the outside, again and again, while every tool works through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_comes_in_the_middle_leads_nowhere() {
    let agent = TestAgent::new();
    let (inside, outside) = (agent.root().join("dir"), agent.outside().join("outside"));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "x\n").unwrap();
    }
    std::os::unix::fs::symlink(&outside, agent.root().join("link")).unwrap();
    let requests = [
        (
            "edit",
            json!({ "files": [{ "path": "dir/file", "operations": [{ "type": "insert", "line": 1, "text": "y" }] }] }),
        ),
        (
            "edit",
            json!({ "files": [{ "path": "dir/new/file", "operations": [{ "type": "create", "content": "y" }] }] }),
        ),
        (
            "edit",
            json!({ "files": [{ "path": "dir/file", "operations": [{ "type": "rename", "to": "dir/b", "overwrite": true }] }] }),
        ),
        ("write", json!({ "files": [{ "path": "dir/file", "content": "z\n" }, { "path": "dir/x/y", "content": "" }] })),
        ("mkdir", json!({ "path": "dir/made/deep" })),
        ("copy", json!({ "from": "dir/file", "to": "dir/copy", "overwrite": true })),
        ("move", json!({ "from": "dir/copy", "to": "dir/moved", "overwrite": true })),
        ("remove", json!({ "path": "dir/new", "recursive": true })),
        ("remove", json!({ "path": "dir/made", "recursive": true })),
    ];
    let done = AtomicBool::new(false);
    let mut succeeded = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(Ordering::Relaxed) {
                let link = agent.root().join("link");
                rustix::fs::renameat_with(rustix::fs::CWD, &link, rustix::fs::CWD, &inside, exchange).unwrap();
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..60 {
                    for (tool, request) in &requests {
                        succeeded += usize::from(agent.tool(tool, request.to_string()).await.status.is_success());
                    }
                }
            });
        });
        done.store(true, Ordering::Relaxed);
    });
    assert!(succeeded > 60, "only {succeeded} succeeded, so little was tried");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left.len(), fs::read(outside.join("file")).unwrap()), (1, b"x\n".to_vec()), "outside now: {left:?}");
}
