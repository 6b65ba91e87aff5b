//! `watch` through the wire: both forms of a stream, readers who are slow or have no credit, and callers who leave.

use std::{fs, path::PathBuf};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    served::{PATIENCE, Served, read_until, serve},
    sockets,
};

fn request(accept: &str, body: &str) -> String {
    format!(
        "POST /v1/tools/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nContent-Type: application/json\r\n\
         Accept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until nothing is watched any more.
async fn none_watched(served: &Served) {
    let agent = &served.agent.agent;
    let trees = agent.config.limits.watch_trees.value.try_into().unwrap();
    drop(timeout(PATIENCE, agent.watches.room().acquire_many(trees)).await.expect("they end").unwrap());
    let calls = agent.config.limits.watches.value.try_into().unwrap();
    drop(timeout(PATIENCE, agent.watch_calls.acquire_many(calls)).await.expect("they end").unwrap());
    assert_eq!(agent.watches.directories(), 0);
}

#[tokio::test]
async fn both_forms_of_a_stream_tell_the_same() {
    let served = serve(&[]).await;
    fs::create_dir(served.agent.root().join("d")).unwrap();
    let mut lines = served.send(request("application/x-ndjson", "{}")).await;
    let mut events = served.send(request("text/event-stream", "{}")).await;
    read_until(&mut lines, "{\"type\":\"ready\",\"directories\":2}\n").await;
    read_until(&mut events, "event: ready\n").await;
    fs::write(served.agent.root().join("d/f"), "x").unwrap();
    let line = read_until(&mut lines, "\n\r\n").await;
    assert!(line.contains("{\"type\":\"created\",\"path\":\"d/f\",\"directory\":false}\n"), "{line}");
    let event = read_until(&mut events, "d/f").await;
    assert!(event.contains("event: created\n"), "{event}");
    assert_eq!(served.agent.agent.watches.directories(), 2, "one set of watches for both");
    drop((lines, events));
    none_watched(&served).await;
}

/// Changes whose paths are long, so that few of them fill what lies between the agent and a reader who doesn't read.
struct Flood {
    directory: PathBuf,
    made: usize,
}

impl Flood {
    const LONG: usize = 12;

    fn new(served: &Served) -> Self {
        let mut directory = served.agent.root().to_owned();
        for _ in 0..Self::LONG {
            directory.push("d".repeat(250));
        }
        fs::create_dir_all(&directory).unwrap();
        Self { directory, made: 0 }
    }

    /// A hundred files, and the last one's name. Each is told in about 3 KB.
    fn more(&mut self) -> String {
        for _ in 0..100 {
            self.made += 1;
            fs::write(self.directory.join(self.made.to_string()), "").unwrap();
        }
        format!("/{}\"", self.made)
    }
}

/// Reads lines up to the first with this text.
async fn lines_until(stream: &mut BufReader<TcpStream>, wanted: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let length = timeout(PATIENCE, stream.read_line(&mut line)).await.expect("more comes").unwrap();
        assert_ne!(length, 0, "it ended");
        let found = line.contains(wanted);
        lines.push(line);
        if found {
            return lines;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_told_to_look_again_and_delays_nobody() {
    const ROUNDS: usize = 80;
    let served = serve(&[]).await;
    let mut flood = Flood::new(&served);
    let body = r#"{"debounceMs":10}"#;
    // The kernel keeps little for it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut slow = BufReader::new(socket.connect(served.address).await.unwrap());
    slow.write_all(request("application/x-ndjson", body).as_bytes()).await.unwrap();
    lines_until(&mut slow, "\"ready\"").await;
    let mut quick = BufReader::new(served.send(request("application/x-ndjson", body)).await);
    lines_until(&mut quick, "\"ready\"").await;
    for _ in 0..ROUNDS {
        let last = flood.more();
        let told = lines_until(&mut quick, &last).await;
        assert!(!told.iter().any(|line| line.contains("resync")), "who reads is told everything");
    }
    let told = lines_until(&mut slow, "\"resync\"").await;
    assert!(told.last().unwrap().contains("{\"type\":\"resync\",\"path\":\".\",\"reason\":\"overflow\"}"), "{told:?}");
    let events = told.iter().filter(|line| line.contains("\"created\"")).count();
    assert!(events < ROUNDS * 100, "{events}: the rest was let go");
    // From then on it is told again.
    let last = flood.more();
    lines_until(&mut slow, &last).await;
    drop((slow, quick));
    none_watched(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credit_nothing_is_sent_and_little_kept() {
    let served = serve(&[]).await;
    let mut flood = Flood::new(&served);
    let mut client = sockets::open(&served).await;
    client.ask_stream(1, "watch", json!({"debounceMs": 10})).await;
    let mut told = vec![client.text().await, client.text().await];
    assert_eq!(told[1]["params"]["event"]["type"], "ready", "{told:?}");
    let mut quick = BufReader::new(served.send(request("application/x-ndjson", r#"{"debounceMs":10}"#)).await);
    lines_until(&mut quick, "\"ready\"").await;
    for _ in 0..10 {
        let last = flood.more();
        lines_until(&mut quick, &last).await;
    }
    // What came is within the credit, and the socket answers others meanwhile.
    client.ask(2, "info", json!({})).await;
    let answer = loop {
        let text = client.text().await;
        if text["id"] == 2 {
            break text;
        }
        told.push(text);
    };
    assert!(answer["result"]["version"].is_string(), "{answer}");
    let sent: usize = told[1..].iter().map(|text| text["params"]["event"].to_string().len()).sum();
    assert!(sent <= 256 << 10, "{sent}");
    // It is caught up with by looking again.
    client.tell("$/credit", json!({"stream": 1, "bytes": 1 << 30})).await;
    let resync = loop {
        let text = client.text().await;
        if text["params"]["event"]["type"] == "resync" {
            break text["params"]["event"].clone();
        }
    };
    assert_eq!(resync, json!({"type": "resync", "path": ".", "reason": "overflow"}));
    drop((client, quick));
    none_watched(&served).await;
}

#[tokio::test]
async fn who_leaves_while_it_begins_watches_nothing() {
    let served = serve(&[]).await;
    for number in 0..200 {
        fs::create_dir_all(served.agent.root().join(format!("{number}/a/b/c"))).unwrap();
    }
    for _ in 0..20 {
        drop(served.send(request("application/x-ndjson", "{}")).await);
    }
    let mut stays = served.send(request("application/x-ndjson", "{}")).await;
    read_until(&mut stays, "\"ready\"").await;
    assert_eq!(served.agent.agent.watches.directories(), 801);
    drop(stays);
    none_watched(&served).await;
}

#[tokio::test]
async fn a_collected_answer_is_empty_when_the_time_is_over() {
    let served = serve(&[]).await;
    let answer = served.agent.tool("watch", r#"{"timeoutMs":1}"#).await;
    assert_eq!(answer.assert_ok().json(), json!({"changes": []}));
    none_watched(&served).await;
}
