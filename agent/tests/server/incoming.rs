//! What callers who send a lot cost the agent: memory within a bound, however many connections they have, and others are answered.
//! The binary in a process of its own, whose memory the kernel counts.

use std::time::Duration;

use corehold_types::rpc::SUBPROTOCOL;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{own_process::AgentProcess, served::PATIENCE};

/// What the agent's memory stays below with [`CONNECTIONS`] (`docs/protocol.md`, Memory): what all share, and 256 KiB for each.
const BOUND: u64 = (64 << 20) + (CONNECTIONS as u64) * (256 << 10) + (16 << 20);
const CONNECTIONS: usize = 150;

/// Bytes that each of them sends of a body or message of 16 MiB.
const SENT: usize = 6 << 20;

fn head(path: &str, length: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{length}\r\n\r\n"
    )
}

fn call(tool: &str, body: &str) -> String {
    head(&format!("/v1/tools/{tool}"), &format!("Content-Length: {}", body.len())) + body
}

async fn exchange(agent: &AgentProcess, request: &str) -> String {
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(&agent.address).await.unwrap();
    // Who is refused before all is sent may find the connection closed, and the answer lost with it (RFC 9112, section 9.6).
    let sent = stream.write_all(request.as_bytes()).await;
    let read = timeout(6 * PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is answered");
    assert!(sent.is_err() || read.is_ok(), "{read:?}");
    String::from_utf8(answer).unwrap()
}

/// A number of the agent's.
async fn metric(agent: &AgentProcess, name: &str) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\r\n";
    let metrics = exchange(agent, request).await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("corehold_agent_")?.strip_prefix(name));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
}

/// Sends what the agent takes of it, until it takes no more for a while or has gone.
async fn stuff(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = timeout(Duration::from_millis(1_500), stream.write_all(bytes)).await;
}

/// Connections on which the half of something long has come.
async fn half_sent(agent: &AgentProcess, beginning: &[u8]) -> Vec<TcpStream> {
    let filler = vec![b'x'; SENT];
    let open = (0..CONNECTIONS).map(|_| async {
        let mut stream = TcpStream::connect(&agent.address).await.unwrap();
        stuff(&mut stream, beginning).await;
        stuff(&mut stream, &filler).await;
        stream
    });
    timeout(2 * PATIENCE, join_all(open)).await.expect("they have sent what they could")
}

async fn socket(agent: &AgentProcess) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/v1/ws", agent.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer token".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let stream = TcpStream::connect(&agent.address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

/// Others are answered, and the agent's memory is within its bound.
async fn assert_goes_on(agent: &AgentProcess) {
    let answer = exchange(agent, &call("list", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // As long as it may be without a part of the room.
    let content = "x".repeat(60_000);
    let write = json!({"files": [{"path": "f", "content": content}]}).to_string();
    let answer = exchange(agent, &call("write", &write)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"size\":60000"), "{answer}");
    let mut client = socket(agent).await;
    client
        .send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"read","params":{"files":[{"path":"f"}]}}"#))
        .await
        .unwrap();
    let answer = timeout(PATIENCE, client.next()).await.expect("it is answered").unwrap().unwrap();
    assert!(answer.to_text().unwrap().contains(&content[..1_000]));
    let peak = agent.memory("VmHWM");
    assert!(peak < BOUND, "the agent had {} MiB", peak >> 20);
}

/// All that they held is there again.
async fn assert_given_back(agent: &AgentProcess) {
    let waiting = async {
        for held in ["answers_held_bytes", "answers_waiting", "sockets_open"] {
            while metric(agent, held).await > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(PATIENCE, waiting).await.expect("it is given back");
    let write = json!({"files": [{"path": "large", "content": "x".repeat(2 << 20)}]}).to_string();
    let answer = exchange(agent, &call("write", &write)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.500}");
}

#[tokio::test]
async fn bodies_that_are_half_sent_have_bounded_memory_and_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "1000")]);
    let announced = format!("Content-Length: {}", 16 << 20);
    for (path, length, begin) in [
        ("/v1/tools/write", announced.as_str(), ""),
        ("/mcp", announced.as_str(), ""),
        ("/v1/tools/edit", "Transfer-Encoding: chunked", "f00000\r\n"),
    ] {
        let beginning = head(path, length) + begin + r#"{"files":[{"path":"f","content":""#;
        let mut open = half_sent(&agent, beginning.as_bytes()).await;
        assert_goes_on(&agent).await;
        // Those that had no room were told so.
        let mut refused = 0;
        for stream in &mut open {
            let mut answer = vec![0; 4096];
            if let Ok(Ok(length)) = timeout(Duration::from_millis(20), stream.read(&mut answer)).await {
                let answer = String::from_utf8_lossy(&answer[..length]);
                let is_told = answer.starts_with("HTTP/1.1 503 ") && answer.contains("COREHOLD_LIMIT_ANSWER_BYTES");
                assert!(is_told && answer.contains("\"retryable\":true"), "{answer}");
                refused += 1;
            }
        }
        assert!(refused > CONNECTIONS / 2, "{path}: only {refused} were refused");
        drop(open);
        assert_given_back(&agent).await;
    }
    assert_goes_on(&agent).await;
}

#[tokio::test]
async fn messages_that_are_half_sent_have_bounded_memory_and_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "1000")]);
    let upgrade = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: corehold.v1\r\n\r\n";
    // Masked with zeros: one long frame, and a first part that is long; of text, and of bytes.
    for first in [0x81, 0x01, 0x82] {
        let frame = [&[first, 0xff][..], &(15_u64 << 20).to_be_bytes(), &[0; 4]].concat();
        let open = half_sent(&agent, &[upgrade.as_bytes(), &frame].concat()).await;
        assert_goes_on(&agent).await;
        drop(open);
        assert_given_back(&agent).await;
    }
    // In small parts without end.
    let part = [&[0x01, 0xfe, 0x80, 0, 0, 0, 0, 0][..], &[b'x'; 0x8000]].concat();
    let next = [&[0x00, 0xfe, 0x80, 0, 0, 0, 0, 0][..], &[b'x'; 0x8000]].concat().repeat(200);
    let open = half_sent(&agent, &[upgrade.as_bytes(), &part, &next].concat()).await;
    assert_goes_on(&agent).await;
    drop(open);
    assert_given_back(&agent).await;
}

#[tokio::test]
async fn a_long_message_waits_for_its_room_and_is_let_go_without() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "1000")]);
    let beginning = head("/v1/tools/write", &format!("Content-Length: {}", 16 << 20));
    let mut holds_all = TcpStream::connect(&agent.address).await.unwrap();
    holds_all.write_all(beginning.as_bytes()).await.unwrap();
    stuff(&mut holds_all, &vec![b' '; 1 << 20]).await;
    let long = |id| {
        let params = json!({"files": [{"path": "f", "content": "x".repeat(1 << 20)}]});
        Message::text(json!({"jsonrpc": "2.0", "id": id, "method": "write", "params": params}).to_string())
    };
    let mut client = socket(&agent).await;
    let _ = timeout(Duration::from_secs(5), client.send(long(1))).await;
    let goodbye = timeout(PATIENCE, client.next()).await.expect("it is let go").unwrap().unwrap();
    let Message::Close(Some(goodbye)) = goodbye else { panic!("{goodbye:?}") };
    assert!(u16::from(goodbye.code) == 1013 && goodbye.reason.contains("answerBytes"), "{goodbye:?}");
    // Who waits has it as soon as it is there.
    let mut client = socket(&agent).await;
    let sent = async {
        client.send(long(1)).await.unwrap();
        timeout(PATIENCE, client.next()).await.expect("it is answered").unwrap().unwrap()
    };
    let gives_back = async {
        while metric(&agent, "answers_waiting").await == 0 {}
        drop(holds_all);
    };
    let (answer, ()) = tokio::join!(sent, gives_back);
    let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(answer["result"]["files"][0]["size"], 1 << 20, "{answer}");
}

#[tokio::test]
async fn requests_of_very_many_values_are_refused_for_their_memory() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(folder.path(), &[]);
    exchange(&agent, &call("list", "{}")).await;
    agent.reset_peak();
    let before = agent.memory("VmRSS");
    for (tool, request) in [
        ("stat", format!(r#"{{"paths":["a"{}]}}"#, r#","a""#.repeat(3 << 20))),
        (
            "edit",
            format!(
                r#"{{"files":[{{"path":"a","operations":[]}}{}]}}"#,
                r#",{"path":"a","operations":[]}"#.repeat(500_000)
            ),
        ),
        ("command", format!(r#"{{"argv":[""{}]}}"#, r#","""#.repeat(4 << 20))),
    ] {
        let answer = exchange(&agent, &call(tool, &request)).await;
        let is_told = answer.starts_with("HTTP/1.1 413 ") && answer.contains("COREHOLD_LIMIT_ANSWER_BYTES");
        assert!(is_told && answer.contains("\"retryable\":false"), "{tool}: {answer}");
        let grown = agent.memory("VmHWM").saturating_sub(before);
        assert!(grown < 64 << 20, "{tool}: {} MiB more", grown >> 20);
    }
    assert_goes_on(&agent).await;
}

#[tokio::test]
async fn input_that_no_command_reads_holds_its_part_of_the_room() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "100")]);
    let sleeper =
        json!({"argv": ["sleep", "1000"], "detach": true, "stdin": {"text": "x".repeat(4 << 20)}}).to_string();
    let mut started = Vec::new();
    let refused = loop {
        let answer = exchange(&agent, &call("command", &sleeper)).await;
        if !answer.starts_with("HTTP/1.1 200 ") {
            break answer;
        }
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        started.push(serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned());
        assert!(started.len() < 20, "it is no longer than that");
    };
    let is_refused = refused.is_empty() || refused.starts_with("HTTP/1.1 503 ");
    assert!(is_refused && started.len() >= 4, "{} and {refused}", started.len());
    assert_goes_on(&agent).await;
    for id in started {
        let kill = json!({"id": id, "signal": "SIGKILL"}).to_string();
        assert!(exchange(&agent, &call("commandSignal", &kill)).await.starts_with("HTTP/1.1 200 "));
    }
    assert_given_back(&agent).await;
}

#[tokio::test]
async fn edits_of_large_files_take_turns() {
    const FILES: usize = 16;
    let folder = tempfile::tempdir().unwrap();
    let line = "a line of a large file that many change at once\n";
    for number in 0..FILES {
        let content = "first\n".to_owned() + &line.repeat((14 << 20) / line.len());
        std::fs::write(folder.path().join(format!("f{number}")), content).unwrap();
    }
    std::fs::write(folder.path().join("grows"), "x".repeat(1 << 10)).unwrap();
    let agent = AgentProcess::start(folder.path(), &[]);
    let edit = |path: String, old: &str, new: String, all: bool| {
        let operation = json!({"type": "replace", "old": old, "new": new, "all": all});
        json!({"files": [{"path": path, "operations": [operation]}], "maxDiffBytes": 0}).to_string()
    };
    let edits: Vec<String> = (0..FILES)
        .map(|number| call("edit", &edit(format!("f{number}"), "first", "second".to_owned(), false)))
        .chain((0..4).map(|_| call("edit", &edit("grows".to_owned(), "x", "y".repeat(30_000), true))))
        .collect();
    let answers = timeout(6 * PATIENCE, join_all(edits.iter().map(|request| exchange(&agent, request)))).await.unwrap();
    for answer in &answers[..FILES] {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.800}");
    }
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200 ")).count(), FILES + 1);
    // Old and new content, half of it again to write it, and the agent itself.
    let peak = agent.memory("VmHWM");
    assert!(peak < 192 << 20, "the agent had {} MiB", peak >> 20);
}
