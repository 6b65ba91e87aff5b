//! What callers who don't read cost the agent: memory within a bound, whatever they ask for, and the others are served. The
//! binary in a process of its own, whose memory the kernel counts.

use std::{fs, time::Duration};

use corehold_types::rpc::SUBPROTOCOL;
use futures_util::{SinkExt as _, StreamExt as _};
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
    few_running(agent, surface, 0).await;
}

/// The same, but for so many that wait for their readers.
async fn few_running(agent: &AgentProcess, surface: &str, most: u64) {
    let metric = format!("corehold_agent_calls_running{{surface=\"{surface}\"}} ");
    let running =
        |metrics: &str| metrics.lines().find_map(|line| line.strip_prefix(&metric)).unwrap().parse::<u64>().unwrap();
    let waiting = async {
        while running(&metrics(agent).await) > most {
            // Nobody is told.
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(3 * PATIENCE, waiting).await.expect("they end");
}

/// Waits until all room is given back: the agent learns in its own time that a caller has gone.
async fn nothing_held(agent: &AgentProcess) {
    let waiting = async {
        while !metrics(agent).await.contains("corehold_agent_answers_held_bytes 0\n") {
            // Nobody is told.
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(3 * PATIENCE, waiting).await.expect("it is given back");
}

/// A WebSocket of somebody who won't read.
async fn socket(agent: &AgentProcess) -> WebSocketStream<TcpStream> {
    open_socket(agent, connect(agent).await).await
}

async fn open_socket(agent: &AgentProcess, stream: TcpStream) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/v1/ws", agent.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer token".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
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
        nothing_held(&agent).await;
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
    nothing_held(&agent).await;
    assert!(exchange(&agent, &several).await.starts_with("HTTP/1.1 200 "));
    let longest = exchange(&agent, &call("read", &read("control"))).await;
    assert!(longest.starts_with("HTTP/1.1 413 ") && longest.contains("\"retryable\":false"), "{longest:.1000}");
}

/// What a stream takes of the memory that answers have, and how many there are: half of it is for them.
const STREAM: usize = 320 << 10;
const STREAMS: usize = (32 << 20) / STREAM;

/// A command that has written 30 MB; its id.
async fn noisy(agent: &AgentProcess) -> Value {
    let start = json!({"line": "yes 0123456789 | head -c 30000000", "maxOutputBytes": 0});
    let answer = exchange(agent, &call("command", &start)).await;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(answer["exit"]["code"], 0, "{answer}");
    answer["id"].clone()
}

/// What connections take for themselves, and threads that are busy the first time.
const BESIDE: usize = 8 << 20;

#[track_caller]
fn assert_streams_are_bounded(agent: &AgentProcess, before: u64) {
    let grown = agent.memory("VmHWM").saturating_sub(before);
    assert!(grown < (STREAMS * STREAM + BESIDE) as u64, "{} KiB for each", (grown / STREAMS as u64) >> 10);
}

#[tokio::test]
async fn streams_of_output_that_nobody_takes_have_bounded_memory() {
    let folder = workspace();
    let limits = [("COREHOLD_LIMIT_SEND_MS", "3600000"), ("COREHOLD_LIMIT_ANSWER_MS", "100")];
    let agent = AgentProcess::start(folder.path(), &limits);
    let output = call("commandOutput", &json!({"id": noisy(&agent).await}));
    let output = output.replacen("\r\n", "\r\nAccept: application/x-ndjson\r\n", 1);
    let before = agent.memory("VmRSS");
    let mut silent = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = connect(&agent).await;
        stream.write_all(output.as_bytes()).await.unwrap();
        // It has begun, and what the kernel keeps is full soon.
        stream.readable().await.unwrap();
        silent.push(stream);
    }
    let refused = exchange(&agent, &output).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("COREHOLD_LIMIT_ANSWER_BYTES"), "{refused:.1000}");
    assert_streams_are_bounded(&agent, before);
    assert!(exchange(&agent, &call("read", &read("text"))).await.starts_with("HTTP/1.1 200 "), "answers have room");
    silent.truncate(STREAMS / 2);
    timeout(PATIENCE, async { while !exchange(&agent, &output).await.starts_with("HTTP/1.1 200 ") {} }).await.unwrap();
}

#[tokio::test]
async fn streams_that_nobody_takes_on_many_sockets_have_bounded_memory() {
    const SOCKETS: usize = 8;
    let folder = workspace();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_ANSWER_MS", "100")]);
    let id = noisy(&agent).await;
    let before = agent.memory("VmRSS");
    let (mut sockets, mut refused) = (Vec::new(), 0);
    for number in 0..SOCKETS {
        let mut socket = open_socket(&agent, TcpStream::connect(&agent.address).await.unwrap()).await;
        let streams = 3 * STREAMS / SOCKETS;
        for call in 0..streams {
            let call =
                json!({"jsonrpc": "2.0", "id": call, "method": "commandOutput", "params": {"id": id}, "stream": true});
            socket.send(Message::text(call.to_string())).await.unwrap();
        }
        // Each has sent as much as it may unasked, or was refused.
        let (mut unasked, mut told) = (0, 0);
        // A few bytes of it are for what the stream begins with.
        while unasked < (streams - told) * (255 << 10) {
            match timeout(PATIENCE, socket.next()).await.expect("streams go on").unwrap().unwrap() {
                Message::Binary(frame) => unasked += frame.len() - 13,
                Message::Text(text) if text.contains("LIMIT_EXCEEDED") => told += 1,
                _ => {}
            }
        }
        assert!(told == 0 || number >= SOCKETS / 3, "there was room for {told} more");
        refused += told;
        sockets.push(socket);
    }
    assert_eq!(SOCKETS * (3 * STREAMS / SOCKETS) - refused, STREAMS);
    assert_streams_are_bounded(&agent, before);
}

#[tokio::test]
async fn long_results_that_nobody_reads_have_bounded_memory_while_they_are_made() {
    const NAMES: usize = 500;
    const LARGE: u64 = 64 << 20;
    let folder = workspace();
    let mut directory = folder.path().to_owned();
    directory.extend((0..12).map(|_| "d".repeat(250)));
    fs::create_dir_all(&directory).unwrap();
    for number in 0..NAMES {
        fs::write(directory.join(format!("{number:0>250}")), "").unwrap();
        std::os::unix::fs::symlink("t".repeat(4_000), folder.path().join(number.to_string())).unwrap();
    }
    let stat = json!({"paths": (0..NAMES).map(|number| number.to_string()).collect::<Vec<_>>()});
    let find = json!({"limit": 2_000});
    for (tool, request) in [("stat", stat), ("find", find)] {
        let limits = [("COREHOLD_LIMIT_ANSWER_MS", "500"), ("COREHOLD_LIMIT_ANSWER_BYTES", "16777216")];
        let agent = AgentProcess::start(folder.path(), &limits);
        let mut silent = Vec::new();
        for _ in 0..CALLERS {
            let mut stream = connect(&agent).await;
            stream.write_all(call(tool, &request).as_bytes()).await.unwrap();
            silent.push(stream);
        }
        none_running(&agent, "http").await;
        let peak = agent.memory("VmHWM");
        assert!(peak < LARGE, "the agent had {} MiB for {tool}", peak >> 20);
        drop(silent);
        nothing_held(&agent).await;
        let answer = exchange(&agent, &call(tool, &request)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.len() > 1 << 20, "{tool}: {answer:.300}");
    }
}

#[tokio::test]
async fn searches_of_very_long_lines_have_bounded_memory_together_and_find_all() {
    const FILES: usize = 2;
    let folder = tempfile::tempdir().unwrap();
    let mut line = vec![b'x'; 6 << 20];
    line.extend_from_slice(b"needle\nneedle\n");
    for number in 0..FILES {
        fs::write(folder.path().join(number.to_string()), &line).unwrap();
    }
    // Four search at a time, each on two threads or more, of which each needs 15 MiB for such a line: one after the other has room.
    let limits = [("COREHOLD_LIMIT_ANSWER_MS", "600000"), ("COREHOLD_LIMIT_ANSWER_BYTES", "20971520")];
    let agent = AgentProcess::start(folder.path(), &limits);
    for (pattern, multiline, lines) in [("needle", false, 2 * FILES), ("needle\nn", true, FILES)] {
        let search = call("search", &json!({"pattern": pattern, "multiline": multiline, "maxLineBytes": 100}));
        for answer in futures_util::future::join_all((0..4).map(|_| exchange(&agent, &search))).await {
            let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(
                (&answer["matchedLines"], &answer["skipped"]["tooLarge"]),
                (&json!(lines), &json!(0)),
                "{answer}"
            );
        }
    }
    let peak = agent.memory("VmHWM");
    assert!(peak < 64 << 20, "the agent had {} MiB", peak >> 20);
}

fn get(name: &str) -> String {
    format!("GET /v1/files/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn files_that_nobody_takes_have_bounded_memory_and_go_on_when_they_are_taken() {
    const SILENT: usize = 256;
    // What a connection has besides the room: a piece, and some for itself.
    const EACH: usize = 112 << 10;
    // What the allocator keeps for the threads that read, of which a busy machine has more at a time.
    const THREADS: usize = 24 << 20;
    let folder = workspace();
    let agent = AgentProcess::start(folder.path(), &[("COREHOLD_LIMIT_SEND_MS", "3600000")]);
    let size = fs::metadata(folder.path().join("text")).unwrap().len() as usize;
    let before = agent.memory("VmRSS");
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let mut stream = connect(&agent).await;
        stream.write_all(get("text").as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        silent.push(stream);
    }
    let whole = exchange(&agent, &get("text")).await;
    assert!(whole.starts_with("HTTP/1.1 200 ") && whole.len() > size, "there is always some for one more");
    let grown = agent.memory("VmHWM").saturating_sub(before) as usize;
    assert!(grown < (16 << 20) + SILENT * EACH + THREADS, "{} KiB for each", (grown / SILENT) >> 10);
    assert!(exchange(&agent, &call("read", &read("text"))).await.starts_with("HTTP/1.1 200 "), "answers have room");
    for mut stream in [silent.swap_remove(SILENT / 2), silent.swap_remove(0)] {
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it goes on").unwrap();
        assert!(answer.len() > size);
    }
}

/// A line of a megabyte, which is six in JSON.
#[tokio::test]
async fn very_long_lines_that_nobody_takes_have_bounded_memory_after_their_search() {
    const SEARCHES: usize = 16;
    const LARGE: u64 = 88 << 20;
    let folder = tempfile::tempdir().unwrap();
    let line = [vec![1; (1 << 20) - 8], b"needle\n".to_vec()].concat();
    fs::write(folder.path().join("line"), line).unwrap();
    let search = json!({"pattern": "needle", "maxLineBytes": 1 << 20});
    let over_http = call("search", &search).replacen("\r\n", "\r\nAccept: application/x-ndjson\r\n", 1);
    let on_socket = json!({"jsonrpc": "2.0", "id": 1, "method": "search", "params": search, "stream": true});
    let limits = [("COREHOLD_LIMIT_SEND_MS", "3600000"), ("COREHOLD_LIMIT_ANSWER_MS", "100")];
    for surface in ["http", "webSocket"] {
        let agent = AgentProcess::start(folder.path(), &limits);
        let (mut silent, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..SEARCHES {
            if surface == "http" {
                let mut stream = connect(&agent).await;
                stream.write_all(over_http.as_bytes()).await.unwrap();
                silent.push(stream);
            } else {
                let mut socket = socket(&agent).await;
                socket.send(Message::text(on_socket.to_string())).await.unwrap();
                sockets.push(socket);
            }
        }
        // Each has begun, or was refused for want of room.
        for stream in silent.iter().chain(sockets.iter().map(WebSocketStream::get_ref)) {
            stream.readable().await.unwrap();
        }
        // Two of them have half of the room.
        few_running(&agent, surface, 2).await;
        let peak = agent.memory("VmHWM");
        assert!(peak < LARGE, "the agent had {} MiB, {surface}", peak >> 20);
        drop((silent, sockets));
        nothing_held(&agent).await;
        assert!(exchange(&agent, &over_http).await.len() > 6 << 20, "they have room");
    }
}

#[tokio::test]
async fn small_answers_that_nobody_reads_on_many_sockets_take_room_but_for_the_first() {
    const SOCKETS: usize = 64;
    const CALLS: usize = 60;
    const EACH: usize = 448 << 10;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), format!("{:63}\n", "x").repeat(60 << 4)).unwrap();
    let limits = [("COREHOLD_LIMIT_SEND_MS", "3600000"), ("COREHOLD_LIMIT_ANSWER_BYTES", "16777216")];
    let agent = AgentProcess::start(folder.path(), &limits);
    let before = agent.memory("VmRSS");
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let mut socket = socket(&agent).await;
        for id in 0..CALLS {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "read", "params": read("file")});
            socket.send(Message::text(request.to_string())).await.unwrap();
        }
        sockets.push(socket);
    }
    none_running(&agent, "webSocket").await;
    let grown = agent.memory("VmHWM").saturating_sub(before) as usize;
    assert!(grown < (16 << 20) + SOCKETS * EACH, "{} KiB for each", (grown / SOCKETS) >> 10);
}
