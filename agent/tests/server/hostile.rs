//! Everything that is no request, sent to every tool on every surface of a real agent: each is refused as such, in bounded time
//! and memory, and the agent goes on. What is sent is made from the committed schemas: every field at any depth gets what it
//! can't be. (What a tool does with text that is valid and strange stands in `bad_input`.)

use corehold_types::rpc::{SUBPROTOCOL, codes};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    bad_input,
    own_process::AgentProcess,
    schemas::{HERE, places, smallest, tools, types},
    served::PATIENCE,
};

/// Bytes that the agent may hold in the end more than before: the log of refusals, and what the allocator doesn't give back.
const KEPT: u64 = 16 << 20;
/// Bytes by which its memory may have grown meanwhile. Some of what is sent is 1 MiB long; the rest is its code, as it is used.
const PEAK: u64 = 64 << 20;

/// A connection that is kept open: HTTP/1.1 by hand, since no library sends everything that is sent here.
struct Connection(TcpStream);

impl Connection {
    async fn open(agent: &AgentProcess) -> Self {
        Self(TcpStream::connect(&agent.address).await.unwrap())
    }

    /// Posts JSON and reads the answer: status and body.
    async fn post(&mut self, path: &str, accept: &str, body: &[u8]) -> (u16, Value) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: agent\r\nauthorization: Bearer token\r\naccept: {accept}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let exchange = async {
            // In one piece: the kernel would hold the second one back.
            self.0.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
            let mut answer = Vec::new();
            loop {
                assert_ne!(self.0.read_buf(&mut answer).await.unwrap(), 0, "the connection is kept open");
                let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
                let head = std::str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap_or_else(|| panic!("{head}")).parse().unwrap();
                if answer.len() >= end + 4 + length {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return (status, serde_json::from_slice(&answer[end + 4..end + 4 + length]).unwrap());
                }
            }
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{path} is busy with {}", shown(body)))
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

/// What a place of this schema can't hold.
fn misfits(schema: &Value) -> Vec<Vec<u8>> {
    let deep = 5_000;
    let mut misfits: Vec<Vec<u8>> = vec![
        b"NaN".into(),
        b"-Infinity".into(),
        b"1e400".into(),
        b"undefined".into(),
        b"'x'".into(),
        b"\"\\ud800\"".into(),
        b"\"\\udc00\\ud800\"".into(),
        b"\"\\x\"".into(),
        b"\"a\nb\"".into(),
        b"\"\xc3\x28\"".into(),
        b"\"\xed\xa0\x80\"".into(),
        b"{\"unknown\":1}".into(),
        b"{\"a\":\"b\",\"a\":\"b\"}".into(),
        "9".repeat(20_000).into(),
        format!("-{}", "9".repeat(400)).into(),
        "[".repeat(deep).into(),
        format!("{}{}", "[".repeat(deep), "]".repeat(deep)).into(),
        format!("{}1{}", "{\"x\":".repeat(deep), "}".repeat(deep)).into(),
    ];
    let taken = types(schema);
    if !taken.is_empty() {
        let wrong =
            [("boolean", "true"), ("string", "\"\""), ("number", "0.5"), ("array", "[[]]"), ("object", "{\"\":0}")];
        misfits
            .extend(wrong.iter().filter(|(name, _)| !taken.contains(name)).map(|(_, text)| text.as_bytes().to_vec()));
    }
    if schema["minimum"].as_i64().is_some_and(|least| least >= 0) {
        misfits.push(b"-1".into());
    }
    misfits
}

/// All that is no request of the tool.
fn no_requests(schema: &Value) -> Vec<Vec<u8>> {
    let mut all = bad_input::no_requests();
    all.extend(bad_input::malformed(schema).into_iter().map(String::into_bytes));
    let mut found = Vec::new();
    places(schema, schema, &mut found, &|value| value);
    let mark = json!(HERE).to_string();
    let put = |place: &Value, text: &[u8]| -> Vec<u8> {
        let whole = place.to_string();
        let (before, after) = whole.split_once(&mark).unwrap();
        [before.as_bytes(), text, after.as_bytes()].concat()
    };
    for (place, schema_of_it) in &found {
        all.extend(misfits(schema_of_it).iter().map(|text| put(place, text)));
        // The field twice, the same each time.
        let value = smallest(schema_of_it, schema, "x").to_string();
        let whole = place.to_string();
        let at = whole.find(&mark).unwrap();
        if let Some(name) = whole[..at].strip_suffix("\":").and_then(|before| before.rsplit('"').next()) {
            all.push(put(place, format!("{value},\"{name}\":{value}").as_bytes()));
            all.push(put(place, format!("{value},\"unknown\":1").as_bytes()));
        }
    }
    all
}

/// How a refusal looks on a surface; what it says else.
fn assert_refused(is_refused: bool, tool: &str, sent: &[u8], answer: &Value) {
    assert!(is_refused, "{tool} {}: {answer:.600}", shown(sent));
}

#[tokio::test]
async fn what_is_no_request_is_refused_on_every_surface_in_bounded_memory() {
    let root = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(root.path(), &[]);
    let mut http = Connection::open(&agent).await;
    let mut socket = open_socket(&agent).await;
    http.post("/v1/tools/list", "application/json", b"{}").await;
    let (before, anonymous) = (agent.memory("VmRSS"), agent.memory("RssAnon"));
    let mut sent = 0;
    for (tool, schema) in tools() {
        for text in no_requests(&schema) {
            sent += 1;
            let path = format!("/v1/tools/{tool}");
            // A refusal is no stream, whatever was asked for. The forms take turns: they begin behind what is tested here.
            let streamed = if sent % 2 == 0 { "application/x-ndjson" } else { "text/event-stream" };
            for accept in ["application/json", streamed] {
                let (status, answer) = http.post(&path, accept, &text).await;
                assert_refused(status == 400 && answer["code"] == "INVALID_REQUEST", &tool, &text, &answer);
            }
            // No arguments are a request of a tool that needs none.
            if text == b"null" {
                continue;
            }
            let whole = |before: &str, after: &str| [before.as_bytes(), &text, after.as_bytes()].concat();
            let head = r#"{"jsonrpc":"2.0","id":1,"method":"#;
            let call = whole(&format!(r#"{head}"tools/call","params":{{"name":"{tool}","arguments":"#), "}}");
            let (status, answer) = http.post("/mcp", "application/json", &call).await;
            let told = match status {
                400 => answer["error"]["code"].is_i64(),
                _ => {
                    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
                    answer["error"]["code"].is_i64()
                        || answer["result"]["isError"] == true && text.starts_with("INVALID_REQUEST: ")
                }
            };
            assert_refused(told, &tool, &call, &answer);
            // A text frame is UTF-8, else the socket is closed: another test's.
            let Ok(call) = String::from_utf8(whole(&format!(r#"{head}"{tool}","params":"#), "}")) else { continue };
            socket.send(Message::text(call)).await.unwrap();
            let answer = next_text(&mut socket, &text).await;
            let code = answer["error"]["code"].as_i64().unwrap_or_default();
            let known = [codes::PARSE_ERROR, codes::INVALID_REQUEST, codes::INVALID_PARAMS].map(i64::from);
            let is_refused = known.contains(&code) && answer["error"]["data"]["code"] == "INVALID_REQUEST";
            assert_refused(is_refused, &tool, &text, &answer);
        }
    }
    assert!(sent > 4_000, "only {sent} were made from the schemas");
    let grown = |name: &str, before: u64| agent.memory(name).saturating_sub(before);
    let (kept, peak) = (grown("RssAnon", anonymous), grown("VmHWM", before));
    assert!(kept < KEPT && peak < PEAK, "{} KiB more are kept, and there were {} KiB more", kept >> 10, peak >> 10);
    let (status, answer) = http.post("/v1/tools/list", "application/json", b"{}").await;
    assert_eq!(
        (status, answer["entries"].as_array().map(Vec::len)),
        (200, Some(0)),
        "it goes on, and nothing was made"
    );
    socket.send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"list"}"#)).await.unwrap();
    assert!(next_text(&mut socket, b"list").await["result"].is_object());
}

async fn open_socket(agent: &AgentProcess) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/v1/ws", agent.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer token".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let stream = TcpStream::connect(&agent.address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn next_text(socket: &mut WebSocketStream<TcpStream>, sent: &[u8]) -> Value {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.unwrap_or_else(|_| panic!("busy with {}", shown(sent)));
        match message.expect("the socket is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?} after {}", shown(sent)),
        }
    }
}
