//! What callers who don't read cost the agent: memory within a bound, whatever they ask for, and the others are served. The
//! binary in a process of its own, whose memory the kernel counts.

use std::{fs, time::Duration};

use corehold_types::rpc::SUBPROTOCOL;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{own_process::AgentProcess, served::PATIENCE};

/// What the agent's memory stays below (`docs/protocol.md`).
const BOUND: u64 = 128 << 20;

/// As many as ask at a time, each for as much as there is in one answer.
const CALLERS: usize = 64;

/// A workspace with large files: source text, and text that is six times as long in JSON.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let line = "    let answer = \"of forty-two letters, and a few\";\n";
    fs::write(folder.path().join("text"), line.repeat((8 << 20) / line.len())).unwrap();
    fs::write(folder.path().join("control"), vec![1; 8 << 20]).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    folder
}

/// The head and body of a call.
fn call(tool: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/tools/{tool} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read(name: &str) -> Value {
    json!({"files": [{"path": name}]})
}

/// A connection of somebody who won't read, whose kernel takes as little as it can for him.
async fn connect(agent: &AgentProcess) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(agent.address.parse().unwrap()).await.unwrap()
}

/// The whole answer.
async fn exchange(agent: &AgentProcess, request: &str) -> String {
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(&agent.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is answered").unwrap();
    String::from_utf8(answer).unwrap()
}

async fn metrics(agent: &AgentProcess) -> String {
    exchange(agent, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\r\n")
        .await
}

/// Waits until no call is under way: each is answered, as far as it can be without anybody who reads, or refused.
async fn none_running(agent: &AgentProcess, surface: &str) {
    let none = format!("corehold_agent_calls_running{{surface=\"{surface}\"}} 0\n");
    let waiting = async {
        while !metrics(agent).await.contains(&none) {
            // Nobody is told.
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(3 * PATIENCE, waiting).await.expect("they end");
}

async fn socket(agent: &AgentProcess) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/v1/ws", agent.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer token".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let stream = connect(agent).await;
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

#[track_caller]
fn assert_bounded(agent: &AgentProcess) {
    let peak = agent.memory("VmHWM");
    assert!(peak < BOUND, "the agent had {} MiB", peak >> 20);
}

#[tokio::test]
async fn answers_that_nobody_reads_over_http_have_bounded_memory_and_others_are_served() {
    let folder = workspace();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "500")]);
    for name in ["text", "control"] {
        let mut silent = Vec::new();
        for _ in 0..CALLERS {
            let mut stream = connect(&agent).await;
            stream.write_all(call("read", &read(name)).as_bytes()).await.unwrap();
            silent.push(stream);
        }
        none_running(&agent, "http").await;
        assert_bounded(&agent);
        let small = exchange(&agent, &call("read", &read("small"))).await;
        assert!(small.starts_with("HTTP/1.1 200 "), "a small answer waits for nobody: {small}");
        drop(silent);
        none_running(&agent, "http").await;
    }
    let large = exchange(&agent, &call("read", &read("control"))).await;
    assert!(large.starts_with("HTTP/1.1 200 ") && large.len() > 6 * (8 << 20), "what they held is given back");
    assert_bounded(&agent);
}

#[tokio::test]
async fn answers_that_nobody_reads_on_a_socket_have_bounded_memory_and_others_are_served() {
    let folder = workspace();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "500")]);
    for name in ["text", "control"] {
        let mut silent = socket(&agent).await;
        for id in 0..CALLERS {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "read", "params": read(name)});
            silent.send(Message::text(request.to_string())).await.unwrap();
        }
        none_running(&agent, "webSocket").await;
        assert_bounded(&agent);
        let small = exchange(&agent, &call("read", &read("small"))).await;
        assert!(small.starts_with("HTTP/1.1 200 "), "a small answer waits for nobody: {small}");
    }
    assert_bounded(&agent);
}

#[tokio::test]
async fn who_finds_no_room_is_told_so_and_has_it_when_others_go() {
    let folder = workspace();
    let limits = [("COREHOLD_LIMIT_ANSWER_MS", "100"), ("COREHOLD_LIMIT_ANSWER_BYTES", "20971520")];
    let agent = AgentProcess::start(folder.path(), &limits);
    let large = call("read", &read("text"));
    let mut silent = connect(&agent).await;
    silent.write_all(large.as_bytes()).await.unwrap();
    // The answer has begun.
    silent.readable().await.unwrap();
    let refused = exchange(&agent, &large).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\"retryable\":true"), "{refused:.1000}");
    for said in ["LIMIT_EXCEEDED", "COREHOLD_LIMIT_ANSWER_BYTES", "COREHOLD_LIMIT_ANSWER_MS"] {
        assert!(refused.contains(said), "{said} lacks in {refused}");
    }
    // Of several files too, and of what is never small enough.
    let several = call("read", &json!({"files": [{"path": "small"}, {"path": "text"}, {"path": "small"}]}));
    assert!(exchange(&agent, &several).await.starts_with("HTTP/1.1 503 "));
    let longest = exchange(&agent, &call("read", &read("control"))).await;
    assert!(longest.starts_with("HTTP/1.1 503 ") || longest.starts_with("HTTP/1.1 413 "), "{longest:.1000}");
    assert!(exchange(&agent, &call("read", &read("small"))).await.starts_with("HTTP/1.1 200 "));
    drop(silent);
    let held = "corehold_agent_answers_held_bytes 0\n";
    timeout(PATIENCE, async { while !metrics(&agent).await.contains(held) {} }).await.expect("it is given back");
    assert!(exchange(&agent, &several).await.starts_with("HTTP/1.1 200 "));
    let longest = exchange(&agent, &call("read", &read("control"))).await;
    assert!(longest.starts_with("HTTP/1.1 413 ") && longest.contains("\"retryable\":false"), "{longest:.1000}");
}

#[tokio::test]
async fn streams_of_output_that_nobody_takes_have_bounded_memory() {
    const STREAMS: u64 = 100;
    let folder = workspace();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_SEND_MS", "3600000")]);
    let start = json!({"line": "yes 0123456789 | head -c 30000000", "maxOutputBytes": 0});
    let answer = exchange(&agent, &call("command", &start)).await;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(answer["exit"]["code"], 0, "{answer}");
    let before = agent.memory("VmRSS");
    let output =
        call("commandOutput", &json!({"id": answer["id"]})).replacen("\r\n", "\r\nAccept: application/x-ndjson\r\n", 1);
    let mut silent = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = connect(&agent).await;
        stream.write_all(output.as_bytes()).await.unwrap();
        // It has begun, and what the kernel keeps is full soon.
        stream.readable().await.unwrap();
        silent.push(stream);
    }
    // A block of the log, two events, and what the connection's own buffer takes (400 KiB).
    let grown = agent.memory("VmHWM").saturating_sub(before);
    assert!(grown < STREAMS * (900 << 10), "{} KiB for each", (grown / STREAMS) >> 10);
    assert!(exchange(&agent, &call("read", &read("small"))).await.starts_with("HTTP/1.1 200 "));
}
