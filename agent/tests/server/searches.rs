//! `search` and `find` over HTTP: the forms of their answers, callers that go away, malformed requests. What they find is
//! tested in `tests/search`.

use std::{fs, time::Duration};

use corehold_types::{Code, rpc::codes};
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    served::{PATIENCE, Served, read_until, serve, until},
    sockets::open,
    support::TestAgent,
};

fn with_files() -> TestAgent {
    let agent = TestAgent::new();
    for (path, content) in [
        ("src/main.rs", "fn main() {}\n// žluťoučký main\n"),
        ("src/lib.rs", "pub mod main;\n"),
        ("node_modules/main.js", "main()\n"),
        (".gitignore", "node_modules\n"),
    ] {
        let path = agent.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    agent
}

async fn in_form(agent: &TestAgent, accept: &str, request: &Value) -> String {
    let headers = [("accept", accept), ("content-type", "application/json")];
    let answer = agent.call(Method::POST, "/v1/tools/search", &headers, request.to_string()).await;
    assert_eq!(answer.assert_ok().header("content-type"), accept);
    answer.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_gives_the_same_in_every_form() {
    let agent = with_files();
    let request = json!({ "pattern": "main", "sorted": true, "columns": "utf16" });
    let collected: Value = serde_json::from_str(&in_form(&agent, "application/json", &request).await).unwrap();
    let files = collected["files"].as_array().unwrap();
    assert_eq!(files.iter().map(|file| &file["path"]).collect::<Vec<_>>(), ["src/lib.rs", "src/main.rs"]);
    assert_eq!((&collected["matchedLines"], &collected["matchedFiles"]), (&3.into(), &2.into()));

    let lines = in_form(&agent, "application/x-ndjson", &request).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let matches = lines.iter().filter(|line| line["type"] == "match").count();
    let end = lines.last().unwrap();
    assert_eq!((matches, &end["type"], &end["response"]["matchedLines"]), (3, &"end".into(), &3.into()));
    assert!(end["response"].get("files").is_none_or(|files| files == &json!([])), "the events had them: {end}");

    let events = in_form(&agent, "text/event-stream", &request).await;
    assert_eq!(events.matches("event: match\n").count(), 3);
    assert!(events.split_terminator("\n\n").last().unwrap().starts_with("event: end\n"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_ends_the_search() {
    let served = serve(&[]).await;
    // More than the sockets between the two hold, so the search can't end while nobody reads on.
    let line = format!("needle {}\n", "x".repeat(200));
    fs::write(served.agent.root().join("hay"), line.repeat(150_000)).unwrap();
    let body = r#"{"pattern":"needle","maxMatches":1000000}"#;
    let request = format!(
        "POST /v1/tools/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nAccept: application/x-ndjson\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = served.send(request).await;
    read_until(&mut stream, "\"type\":\"match\"").await;
    let searches = &served.agent.agent.searches;
    let turns = u32::try_from(served.agent.agent.config.limits.searches.value).unwrap();
    assert_eq!(searches.available_permits(), turns as usize - 1, "a first match comes before the search has ended");
    drop(stream);
    let _all = timeout(PATIENCE, searches.acquire_many(turns)).await.expect("the search has ended").unwrap();
}

/// What takes hours to look through, and ends with this: a search of it that goes on fails its test and not the machine.
struct Endless(std::path::PathBuf);

impl Endless {
    /// A file that is searched at once, then one of a tebibyte without a match; and directories of which each is in the one before
    /// twice, so that there are 2^40 paths.
    fn within(agent: &TestAgent) -> Self {
        let root = agent.root();
        fs::write(root.join("a"), "needle\n").unwrap();
        fs::File::create(root.join("large")).unwrap().set_len(1 << 40).unwrap();
        for number in 0..40 {
            let directory = root.join(format!("d/{number}"));
            fs::create_dir_all(&directory).unwrap();
            for name in ["x", "y"] {
                std::os::unix::fs::symlink(format!("../{}", number + 1), directory.join(name)).unwrap();
            }
        }
        fs::create_dir(root.join("d/40")).unwrap();
        Self(root.to_owned())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = fs::File::create(self.0.join("large"));
        let _ = fs::remove_dir_all(self.0.join("d"));
    }
}

/// Requests that take hours, the first with a match at once.
fn endless_requests() -> [(&'static str, Value); 3] {
    [
        ("search", json!({ "pattern": "needle", "paths": ["a", "large"], "sorted": true, "binary": "search" })),
        ("search", json!({ "pattern": "needle", "paths": ["d"], "follow": true })),
        ("find", json!({ "query": "needle", "path": "d", "follow": true })),
    ]
}

/// Runs while a search has its turn.
fn turns(served: &Served) -> usize {
    usize::try_from(served.agent.agent.config.limits.searches.value).unwrap()
}

async fn begun(served: &Served) {
    until(|| served.agent.agent.searches.available_permits() < turns(served)).await;
}

/// The threads of a search hold its turn until the last of them has ended.
async fn ended(served: &Served, what: &Value) {
    let all = served.agent.agent.searches.acquire_many(turns(served) as u32);
    drop(timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{what} went on, though nobody waits")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_the_connection_ends_a_search_that_finds_nothing() {
    let served = serve(&[]).await;
    let _endless = Endless::within(&served.agent);
    for (tool, request) in endless_requests() {
        for accept in ["application/json", "application/x-ndjson"] {
            let body = request.to_string();
            let head = format!(
                "POST /v1/tools/{tool} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nAccept: {accept}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = served.send(head).await;
            if request.get("sorted").is_some() && accept == "application/x-ndjson" {
                read_until(&mut stream, "\"type\":\"match\"").await;
            }
            begun(&served).await;
            drop(stream);
            ended(&served, &request).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_the_call_ends_a_search_that_finds_nothing() {
    let served = serve(&[]).await;
    let _endless = Endless::within(&served.agent);
    let mut client = open(&served).await;
    for (id, (tool, request)) in (1..).zip(endless_requests()) {
        if request.get("sorted").is_some() {
            client.ask_stream(id, tool, request.clone()).await;
            while client.text().await["params"]["event"]["type"] != "match" {}
        } else {
            client.ask(id, tool, request.clone()).await;
        }
        begun(&served).await;
        client.tell("$/cancelRequest", json!({ "id": id })).await;
        assert_eq!(client.answer(id).await["error"]["code"], codes::CANCELLED);
        ended(&served, &request).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn find_answers_by_glob_by_query_and_page_by_page() {
    let agent = with_files();
    let find = async |request: Value| agent.tool("find", request.to_string()).await.assert_ok().json();
    let paths = |answer: &Value| -> Vec<String> {
        let entries = answer["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(&find(json!({ "globs": ["*.rs"] })).await), ["src/lib.rs", "src/main.rs"]);
    assert_eq!(paths(&find(json!({ "query": "mainrs" })).await), ["src/main.rs"]);
    let first = find(json!({ "limit": 1 })).await;
    assert_eq!((paths(&first), &first["total"]), (vec!["src/lib.rs".to_owned()], &2.into()));
    let second = find(json!({ "limit": 1, "cursor": first["cursor"] })).await;
    assert_eq!((paths(&second), second.get("cursor")), (vec!["src/main.rs".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let agent = with_files();
    let cases = [
        ("search", json!({})),
        ("search", json!({ "pattern": 1 })),
        ("search", json!({ "pattern": "(" })),
        ("search", json!({ "pattern": "a", "globs": ["["] })),
        ("search", json!({ "pattern": "a", "types": ["no such type"] })),
        ("search", json!({ "pattern": "a", "maxMatches": -1 })),
        ("search", json!({ "pattern": "a", "timeoutMs": 18_446_744_073_709_551_615_u64 })),
        ("search", json!({ "pattern": "a", "colour": true })),
        ("find", json!({ "query": ["a"] })),
        ("find", json!({ "globs": ["{a"] })),
        ("find", json!({ "kind": "unicorns" })),
        ("find", json!({ "cursor": "none of yours" })),
        ("find", json!({ "limit": 1.5 })),
    ];
    for (tool, request) in cases {
        let answer = agent.tool(tool, request.to_string()).await;
        assert!(matches!(answer.problem().code, Code::InvalidRequest | Code::LimitExceeded), "{request}: {answer:?}");
    }
    for tool in ["search", "find"] {
        let outside = json!({ "pattern": "root", "paths": ["../.."] });
        let outside = if tool == "find" { json!({ "path": "../.." }) } else { outside };
        agent.tool(tool, outside.to_string()).await.assert_problem(403, Code::PathOutsideRoot);
    }
    let nothing =
        timeout(Duration::from_secs(20), agent.tool("search", json!({ "pattern": "zzzz" }).to_string())).await;
    assert_eq!(nothing.unwrap().assert_ok().json()["matchedFiles"], 0, "and it goes on");
}
