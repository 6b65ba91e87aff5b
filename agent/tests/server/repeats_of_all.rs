//! `Idempotency-Key` on everything that changes something: each tool and route is asked twice under one key, and what it did the first time
//! is undone in between. The second answer is the first one, and nothing is done. One that is added fails here until it is said how.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use corehold_types::{Tool, for_each_tool};
use http::Method;
use serde_json::{Value, json};

use super::{
    commands::{Viewer, detach},
    support::{Answer, TestAgent},
    tars::Tar,
};

/// The names of the tools that may change something.
fn changing_tools() -> Vec<&'static str> {
    macro_rules! names {
        ($($tool:ident),*) => {
            [$((corehold_types::tools::$tool::NAME, corehold_types::tools::$tool::CHANGES)),*]
        };
    }
    for_each_tool!(names).into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
}

/// The routes besides tools and protocols that change something, by the OpenAPI document.
fn changing_routes() -> BTreeSet<(String, String)> {
    let document: Value = serde_json::from_str(include_str!("../../../types/openapi/openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method, path)));
    let changing = methods.filter(|(method, path)| {
        ["put", "delete", "patch", "post"].contains(&method.as_str())
            && !path.starts_with("/v1/tools/")
            && *path != "/mcp"
    });
    changing.map(|(method, path)| (method.clone(), path.clone())).collect()
}

/// The workspace as it is before a call, and again before it is repeated.
fn plant(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    fs::write(root.join("a"), "one").unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("archive.tar"), archive()).unwrap();
}

fn archive() -> Vec<u8> {
    Tar::default().file("unpacked", "content").end()
}

fn contents(agent: &TestAgent) -> BTreeMap<String, Option<Vec<u8>>> {
    agent.names().into_iter().map(|name| (name.clone(), fs::read(agent.root().join(name)).ok())).collect()
}

async fn ask(agent: &TestAgent, key: &str, tool: &str, request: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    agent.call(Method::POST, &format!("/v1/tools/{tool}"), &headers, request.to_string()).await
}

#[track_caller]
fn assert_replayed(what: &str, first: &Answer, second: &Answer) {
    let replayed = |answer: &Answer| answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true");
    assert!(first.status.is_success(), "{what}: {first:?}");
    assert!(!replayed(first) && replayed(second), "{what} was done again: {second:?}");
    assert_eq!((first.status, &first.body), (second.status, &second.body), "{what} is answered otherwise");
    let told = |answer: &Answer, name: &str| answer.headers.get(name).cloned();
    for name in ["content-type", "etag"] {
        assert_eq!(told(first, name), told(second, name), "{what} has another {name}");
    }
}

/// Asks for a change of the workspace, undoes it, and asks again.
async fn assert_changed_once(what: &str, ask: impl AsyncFn(&TestAgent) -> Answer) {
    let agent = TestAgent::new();
    plant(agent.root());
    let before = contents(&agent);
    let first = ask(&agent).await;
    assert!(first.status.is_success(), "{what}: {first:?}");
    assert_ne!(contents(&agent), before, "{what} changed nothing, so nothing can be undone");
    plant(agent.root());
    let second = ask(&agent).await;
    assert_replayed(what, &first, &second);
    assert_eq!(contents(&agent), before, "{what} was done again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tool_that_changes_something_does_it_once_under_a_key() {
    for tool in changing_tools() {
        let request = match tool {
            "write" => json!({"files": [{"path": "new", "content": "written"}]}),
            "edit" => {
                json!({"files": [{"path": "a", "operations": [{"type": "lines", "start": 1, "text": "edited"}]}]})
            }
            "mkdir" => json!({"path": "made"}),
            "move" | "copy" => json!({"from": "a", "to": "b"}),
            "remove" => json!({"path": "a"}),
            "extract" => json!({"archive": {"path": "archive.tar"}, "destination": "dir"}),
            "command" => json!({"line": "echo ran >> runs"}),
            "commandInput" => {
                typed_once().await;
                continue;
            }
            "commandSignal" => {
                signalled_once().await;
                continue;
            }
            "commandResize" => {
                resized_once().await;
                continue;
            }
            "claim" => {
                claimed_once().await;
                continue;
            }
            other => panic!("say here how {other} is repeated"),
        };
        assert_changed_once(tool, async |agent| ask(agent, "k", tool, &request).await).await;
    }
}

#[tokio::test]
async fn every_route_that_changes_something_does_it_once_under_a_key() {
    let routes = [
        ("put", "/v1/files/{path}", "/v1/files/new", b"put".to_vec()),
        ("delete", "/v1/files/{path}", "/v1/files/a", Vec::new()),
        ("put", "/v1/archive", "/v1/archive?path=dir", archive()),
    ];
    // The root itself, which is neither replaced nor removed.
    let root = ["put", "delete"].into_iter().flat_map(|method| ["/v1/files", "/v1/files/"].map(|path| (method, path)));
    let all = routes.iter().map(|(method, path, ..)| (*method, *path)).chain(root.clone());
    let named = all.map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(changing_routes(), named, "say here how each is repeated");
    let agent = TestAgent::new();
    for (method, path) in root {
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = agent.call(method, path, &[("idempotency-key", "k")], "x").await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
    }
    for (method, _, uri, body) in routes {
        let method: Method = method.to_uppercase().parse().unwrap();
        let what = format!("{method} {uri}");
        assert_changed_once(&what, async |agent| {
            agent.call(method.clone(), uri, &[("idempotency-key", "k")], body.clone()).await
        })
        .await;
    }
}

/// What a command reads, in its order, tells how often each was typed.
async fn typed_once() {
    let agent = TestAgent::new();
    let line = "while read -r word; do echo got=$word; done";
    let id = detach(&agent, json!({"line": line, "interactive": true})).await;
    let mut viewer = Viewer::open(&agent, &id, 0).await;
    let once = json!({"id": id, "data": {"text": "once\n"}});
    let first = ask(&agent, "k", "commandInput", &once).await;
    assert_replayed("commandInput", &first, &ask(&agent, "k", "commandInput", &once).await);
    let last = json!({"id": id, "data": {"text": "last\n"}, "end": true});
    ask(&agent, "l", "commandInput", &last).await.assert_ok();
    assert_eq!(viewer.all().await, "got=once\ngot=last\n");
}

/// A second signal would be seen before one of a higher number that comes after it.
async fn signalled_once() {
    let agent = TestAgent::new();
    let line = "trap 'echo once' USR1; trap 'echo last; exit' USR2; echo ready; while :; do sleep 1000 & wait $!; done";
    let id = detach(&agent, json!({"line": line})).await;
    let mut viewer = Viewer::open(&agent, &id, 0).await;
    viewer.until("ready").await;
    let once = json!({"id": id, "signal": "SIGUSR1"});
    let first = ask(&agent, "k", "commandSignal", &once).await;
    viewer.until("once").await;
    assert_replayed("commandSignal", &first, &ask(&agent, "k", "commandSignal", &once).await);
    ask(&agent, "l", "commandSignal", &json!({"id": id, "signal": "SIGUSR2"})).await.assert_ok();
    let text = viewer.all().await;
    assert_eq!(text.matches("once").count(), 1, "{text}");
}

/// The size that was set in between stays.
async fn resized_once() {
    let agent = TestAgent::new();
    let id = detach(&agent, json!({"line": "read -r word; stty size", "pty": {"columns": 80, "rows": 24}})).await;
    let resized = json!({"id": id, "columns": 100, "rows": 30});
    let first = ask(&agent, "k", "commandResize", &resized).await;
    ask(&agent, "l", "commandResize", &json!({"id": id, "columns": 90, "rows": 20})).await.assert_ok();
    assert_replayed("commandResize", &first, &ask(&agent, "k", "commandResize", &resized).await);
    let mut viewer = Viewer::open(&agent, &id, 0).await;
    ask(&agent, "m", "commandInput", &json!({"id": id, "data": {"text": "go\r"}})).await.assert_ok();
    let text = viewer.all().await;
    assert!(text.contains("20 90"), "{text}");
}

async fn claimed_once() {
    let agent = TestAgent::new();
    let claim = json!({"workspace": "shop", "claimId": "claim-of-shop", "env": {"WHOSE": "first"}});
    let first = ask(&agent, "k", "claim", &claim).await;
    assert_replayed("claim", &first, &ask(&agent, "k", "claim", &claim).await);
}
