//! `POST /mcp`: the protocol, what models are told and answered, and everything that is refused. The official client's word
//! stands in `tests/mcp`.

use corehold_types::{Code, Scope};
use futures_util::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::{
    access::{claims, sign},
    served::{PATIENCE, serve, until},
    support::{Answer, TestAgent},
};

async fn post(agent: &TestAgent, headers: &[(&str, &str)], body: impl Into<axum::body::Body>) -> Answer {
    let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
    agent.call(Method::POST, "/mcp", &headers, body).await
}

async fn ask(agent: &TestAgent, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer = post(agent, &[], body.to_string()).await.assert_ok().json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(1)));
    answer
}

/// The result of a tool: its text, and whether it is an error.
async fn tool(agent: &TestAgent, name: &str, arguments: Value) -> (String, bool) {
    let answer = ask(agent, "tools/call", json!({"name": name, "arguments": arguments})).await;
    let result = &answer["result"];
    assert_eq!(result["content"][0]["type"], "text", "{answer}");
    (result["content"][0]["text"].as_str().unwrap().to_owned(), result["isError"] == true)
}

#[tokio::test]
async fn a_version_that_both_speak_is_agreed_on() {
    let agent = TestAgent::new();
    for (wanted, got) in [("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("1999-01-01", "2025-11-25")] {
        let params =
            json!({"protocolVersion": wanted, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
        let result = ask(&agent, "initialize", params).await["result"].take();
        assert_eq!(result["protocolVersion"], got);
        assert_eq!(result["capabilities"], json!({"tools": {}}));
        assert_eq!(result["serverInfo"]["name"], "corehold-agent");
        assert!(result["instructions"].as_str().unwrap().contains("`find`"));
    }
    let body = r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#;
    let answer = post(&agent, &[("mcp-protocol-version", "2025-06-18")], body).await;
    assert_eq!(answer.assert_ok().json(), json!({"jsonrpc": "2.0", "id": "a", "result": {}}));
    let answer = post(&agent, &[("mcp-protocol-version", "2031-01-01")], body).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!(-32022)));
    let versions = json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]);
    assert_eq!(answer.json()["error"]["data"], json!({"supported": versions, "requested": "2031-01-01"}));
}

/// Asks as clients do since 2026-07-28: each request stands alone.
async fn ask_alone(agent: &TestAgent, method: &str, mut params: Value) -> Answer {
    const VERSION: &str = "2026-07-28";
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    let body = json!({"jsonrpc": "2.0", "id": "one", "method": method, "params": params}).to_string();
    let mut headers = vec![("mcp-protocol-version", VERSION), ("mcp-method", method)];
    if !name.is_empty() {
        headers.push(("mcp-name", &name));
    }
    post(agent, &headers, body).await
}

#[tokio::test]
async fn a_request_that_stands_alone_is_answered_as_one() {
    let agent = TestAgent::new();
    let answer = ask_alone(&agent, "server/discover", json!({})).await;
    assert!(answer.headers.get("mcp-session-id").is_none());
    let result = answer.assert_ok().json()["result"].take();
    assert_eq!(result["supportedVersions"][0], "2026-07-28");
    assert_eq!(result["capabilities"], json!({"tools": {}}));
    let list = ask_alone(&agent, "tools/list", json!({})).await.assert_ok().json()["result"].take();
    assert!(list["tools"].as_array().unwrap().len() > 20 && list["ttlMs"].is_u64() && list["cacheScope"] == "private");
    let call = json!({"name": "mkdir", "arguments": {"path": "d"}});
    let called = ask_alone(&agent, "tools/call", call).await.assert_ok().json()["result"].take();
    assert_eq!(called["structuredContent"]["created"], 1);
    for result in [result, list, called] {
        assert_eq!(result["resultType"], "complete");
        assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "corehold-agent");
    }
    // What the handshake had is gone, and those in between see it.
    for method in ["initialize", "ping", "resources/list"] {
        let answer = ask_alone(&agent, method, json!({})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!(-32601)), "{method}");
    }
    let answer = ask_alone(&agent, "tools/call", json!({"name": "nothing"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (200, &json!(-32602)));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let answer = post(&agent, &[("mcp-protocol-version", "2026-07-28")], body).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!(-32602)));
}

#[tokio::test]
async fn tools_are_listed_as_far_as_the_token_reaches() {
    let agent = TestAgent::new();
    let all = ask(&agent, "tools/list", json!({})).await["result"]["tools"].take();
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"command") && names.contains(&"auditRead") && !names.contains(&"claim"), "{names:?}");
    for tool in all.as_array().unwrap() {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert!(tool["description"].as_str().unwrap().len() > 10 && tool["annotations"].is_object());
    }
    let served = super::sockets::serve_signed().await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let authorization = format!("Bearer {}", sign(&claims(&[Scope::Read])));
    let request = http::Request::post("/mcp")
        .header("authorization", authorization)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let some = served.agent.send(request).await.assert_ok().json();
    let names: Vec<&str> =
        some["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"read") && !names.contains(&"edit") && !names.contains(&"command"), "{names:?}");
}

#[tokio::test]
async fn answers_are_text_that_a_model_reads() {
    let agent = TestAgent::new();
    std::fs::write(agent.root().join("a.rs"), "fn main() {}\n// end\n").unwrap();
    let (text, _) = tool(&agent, "read", json!({"files": [{"path": "a.rs"}, {"path": "absent"}]})).await;
    assert!(
        text.starts_with("== a.rs, lines 1 to 2 of 2 (20 bytes)\n     1\tfn main() {}\n     2\t// end\n== absent: "),
        "{text}"
    );
    let (text, _) = tool(&agent, "search", json!({"pattern": "fn \\w+"})).await;
    assert_eq!(text, "a.rs\n     1: fn main() {}\n[1 matching lines in 1 files; that is all]");
    let (text, _) = tool(&agent, "find", json!({"query": "ars"})).await;
    assert!(text.starts_with("a.rs\n[1 of 1 that match"), "{text}");
    let (text, _) = tool(&agent, "list", json!({})).await;
    assert_eq!(text, "a.rs\t20\n[1 entries]");
    let (text, _) = tool(&agent, "command", json!({"line": "echo out; echo err >&2; exit 3"})).await;
    assert!(text.starts_with("[exit code 3, ") && text.ends_with("]\nstdout:\nout\nstderr:\nerr\n"), "{text}");
    let (text, _) = tool(&agent, "command", json!({"line": "yes | head -c 300000"})).await;
    assert!(text.len() < 20_000 && text.contains("left out here; `commandOutput` with `id: "), "{}", text.len());
    let edit = json!({"files": [{"path": "a.rs", "operations": [{"type": "replace", "old": "main", "new": "other"}]}]});
    let (text, failed) = tool(&agent, "edit", edit).await;
    assert!(!failed && text.starts_with("modified a.rs (+1 -1)\n"), "{text}");
}

#[tokio::test]
async fn a_long_file_says_how_to_go_on_and_what_follows_is_the_next_line() {
    let agent = TestAgent::new();
    let lines: String = (1..=20_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(agent.root().join("long"), lines).unwrap();
    let (text, _) = tool(&agent, "read", json!({"files": [{"path": "long"}]})).await;
    let next = text.split_once("\"lines\":{\"start\":").unwrap().1.split_once('}').unwrap().0;
    assert!(text.contains(&format!("line {}\n", next.parse::<u64>().unwrap() - 1)), "{next}");
    let arguments = json!({"files": [{"path": "long", "lines": {"start": next.parse::<u64>().unwrap()}}]});
    let (text, _) = tool(&agent, "read", arguments).await;
    assert_eq!(text.lines().nth(1).unwrap().trim(), format!("{next}\tline {next}"));
}

#[tokio::test]
async fn a_failure_says_what_to_do_next() {
    let agent = TestAgent::new();
    let (text, failed) = tool(&agent, "list", json!({"path": "absent"})).await;
    assert!(failed && text.starts_with("NOT_FOUND: "), "{text}");
    let (text, failed) = tool(&agent, "list", json!({"depht": 1})).await;
    assert!(failed && text.starts_with("INVALID_REQUEST: ") && text.contains("depht"), "{text}");
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"pattern":"a","pattern":"b"}}}"#;
    let answer = post(&agent, &[], twice).await.json();
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("duplicate field"), "{answer}");
    let answer = ask(&agent, "tools/call", json!({"name": "claim", "arguments": {}})).await;
    assert_eq!(answer["error"]["code"], -32602);
}

#[tokio::test]
async fn a_repeat_with_a_key_is_not_done_again() {
    let agent = TestAgent::new();
    let call = async |name: &str, key: &str| {
        let params = json!({"name": name, "arguments": {"path": "d"}, "_meta": {"corehold/idempotencyKey": key}});
        ask(&agent, "tools/call", params).await["result"].take()
    };
    for repeats in [false, true] {
        let replayed = repeats.then(|| json!({"corehold/idempotencyReplayed": true}));
        let result = call("mkdir", "k").await;
        assert!(result["isError"].is_null() && result["structuredContent"].is_object(), "{result}");
        assert_eq!(result.get("_meta"), replayed.as_ref());
        let _ = std::fs::remove_dir(agent.root().join("d"));
        let result = call("remove", "r").await;
        assert_eq!((&result["isError"], result.get("_meta")), (&json!(true), replayed.as_ref()));
    }
    assert!(agent.names().is_empty());
}

#[tokio::test]
async fn who_asks_for_progress_gets_events_and_the_answer_last() {
    let agent = TestAgent::new();
    let params = json!({"name": "list", "arguments": {}, "_meta": {"progressToken": "p"}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string();
    let accept = [("accept", "application/json, text/event-stream")];
    let answer = post(&agent, &accept, body.clone()).await;
    assert_eq!(answer.assert_ok().header("content-type"), "text/event-stream");
    let last = answer.text().trim_end().rsplit("data: ").next().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["id"], 7);
    // Who takes no events gets the answer alone.
    assert_eq!(post(&agent, &[], body).await.json()["id"], 7);
}

#[tokio::test]
async fn who_subscribes_is_promised_nothing_and_told_so_until_the_agent_ends() {
    let agent = TestAgent::new();
    let asked = json!({"notifications": {"toolsListChanged": true}});
    let ending = async {
        // It is answered to the end, which comes with the agent's own.
        tokio::task::yield_now().await;
        agent.agent.begin_shutdown();
    };
    let both = async { tokio::join!(ask_alone(&agent, "subscriptions/listen", asked), ending) };
    let (answer, ()) = timeout(PATIENCE, both).await.expect("the stream ends");
    assert_eq!(answer.assert_ok().header("content-type"), "text/event-stream");
    let data = answer.text().strip_prefix("event: message\ndata: ").unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    assert_eq!(told["method"], "notifications/subscriptions/acknowledged");
    let meta = json!({"io.modelcontextprotocol/subscriptionId": "one"});
    assert_eq!(told["params"], json!({"_meta": meta, "notifications": {}}));
}

/// The messages of a streamed answer, as they come.
struct Messages(axum::body::BodyDataStream);

impl Messages {
    /// Calls a tool, with progress wanted.
    async fn of(agent: &TestAgent, session: &str, name: &str, arguments: Value) -> Self {
        let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": "p"}});
        let body = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params}).to_string();
        let request = http::Request::post("/mcp")
            .header("authorization", "Bearer token")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-session-id", session)
            .body(axum::body::Body::from(body))
            .unwrap();
        Self(agent.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream())
    }

    async fn next(&mut self) -> Option<Value> {
        let piece = timeout(PATIENCE, self.0.next()).await.expect("something comes")?.unwrap();
        let event = std::str::from_utf8(&piece).unwrap();
        let data = event.strip_prefix("event: message\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
        Some(serde_json::from_str(data.unwrap_or_else(|| panic!("{event}"))).unwrap())
    }

    /// The next words of progress that are the tool's own; nothing once there is the answer.
    async fn words(&mut self) -> Option<String> {
        loop {
            let message = self.next().await?;
            if message["method"] != "notifications/progress" {
                assert_eq!(message["id"], 5);
                return None;
            }
            assert_eq!(message["params"]["progressToken"], "p");
            let words = message["params"]["message"].as_str().unwrap();
            if !words.starts_with("running for ") {
                return Some(words.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn a_command_tells_what_it_writes_while_it_runs() {
    let agent = TestAgent::new();
    let pipe = agent.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let line = "printf 'compiling\\n\\033[32mlinking\\033[0m\\n'; cat pipe; echo done";
    let mut messages = Messages::of(&agent, "s", "command", json!({"line": line})).await;
    // However its output came, the last word is the last line; only then does it go on.
    while messages.words().await.expect("it waits for the pipe") != "linking" {}
    tokio::task::spawn_blocking(|| std::fs::write(pipe, "")).await.unwrap().unwrap();
    let mut answer = Value::Null;
    while let Some(message) = messages.next().await {
        answer = message;
    }
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("compiling\n") && text.ends_with("done\n"), "the answer is whole: {text}");
}

#[tokio::test]
async fn words_of_progress_are_few_however_much_there_is_to_tell_and_each_says_more() {
    let agent = TestAgent::new();
    let began = std::time::Instant::now();
    let line = "while [ ! -e enough ]; do echo word $((n=n+1)); done";
    let mut messages = Messages::of(&agent, "s", "command", json!({"line": line})).await;
    let mut told = Vec::new();
    while let Some(message) = messages.next().await {
        if let Some(progress) = message["params"]["progress"].as_f64() {
            assert!(told.last().is_none_or(|last| *last < progress), "{told:?} {progress}");
            told.push(progress);
        }
        if told.len() == 3 {
            std::fs::write(agent.root().join("enough"), "").unwrap();
        }
    }
    assert!(told.len() >= 3);
    assert!(told.len() as u128 <= began.elapsed().as_millis() / 250, "{} words", told.len());
}

#[tokio::test]
async fn a_cancelled_call_ends_and_nobody_elses_does() {
    let served = serve(&[]).await;
    let agent = &served.agent;
    let opened = post(agent, &[], r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#).await;
    let session = opened.header("mcp-session-id").to_owned();
    let headers = [("mcp-session-id", session.as_str())];
    let wait = json!({"waitFor": 1, "timeoutMs": 600_000});
    let call =
        json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "ports", "arguments": wait}});
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}).to_string();
    let cancelling = async {
        until(|| agent.agent.mcp.count() == 2).await;
        // Another session's call of the same name.
        assert_eq!(post(agent, &[("mcp-session-id", "other")], cancel.clone()).await.status, 202);
        assert_eq!(agent.agent.mcp.count(), 2);
        assert_eq!(post(agent, &headers, cancel.clone()).await.status, 202);
    };
    // Twice under the same name, which a client shouldn't do. Who waits for events is answered nothing, as the specification
    // says; who waits for one answer must get one, and is to overhear it.
    let events = async {
        let mut messages = Messages::of(agent, &session, "ports", wait.clone()).await;
        while let Some(message) = messages.next().await {
            assert_eq!(message["method"], "notifications/progress");
        }
    };
    let all = async { tokio::join!(post(agent, &headers, call.to_string()), events, cancelling) };
    let (answer, (), ()) = timeout(PATIENCE, all).await.expect("they end");
    assert_eq!((&answer.json()["id"], &answer.json()["error"]["code"]), (&json!(5), &json!(-32800)));
    assert_eq!(agent.agent.mcp.count(), 0);
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let agent = TestAgent::new();
    for (body, code) in [
        ("{", -32700),
        ("nonsense", -32700),
        ("7", -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
    ] {
        let answer = post(&agent, &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!(code)), "{body}");
    }
    for (body, code) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nothing"}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}"#, -32602),
    ] {
        let answer = post(&agent, &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (200, &json!(code)), "{body}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        let answer = post(&agent, &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (202, ""), "{body}");
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let batch = format!("[{ping},{}]", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    for headers in [&[][..], &[("mcp-protocol-version", "2025-03-26")]] {
        let answer = post(&agent, headers, batch.clone()).await;
        assert_eq!(answer.json(), json!([{"jsonrpc": "2.0", "id": 1, "result": {}}]));
    }
    let answer = post(&agent, &[("mcp-protocol-version", "2025-06-18")], batch).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!(-32600)));
    let batch = format!("[{}]", [ping; 65].join(","));
    assert_eq!(post(&agent, &[], batch).await.json()["error"]["code"], -32600);
    post(&agent, &[("origin", "http://evil.example")], ping).await.assert_problem(403, Code::Forbidden);
    let answer = agent.call(Method::GET, "/mcp", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    let nobody = http::Request::post("/mcp").body(ping.into()).unwrap();
    agent.send(nobody).await.assert_problem(401, Code::Unauthorized);
}
