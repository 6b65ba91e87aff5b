//! `GET /v1/ws`: calls, events, credit, cancelling, tokens, and everything that is refused.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{
    Claims, Code, Problem, Scope, env_vars,
    rpc::{BEARER_PREFIX, Frame, FrameKind, INITIAL_CREDIT, MAX_PAYLOAD, SUBPROTOCOL, TOKEN_EXPIRED, codes},
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::CloseFrame},
};

use crate::{
    access::{claims, key, sign},
    served::{PATIENCE, Served, serve, until},
};

const READ_A: &str = r#"{"files":[{"path":"a"}]}"#;

/// A pipe in the workspace: what reads from it waits until the test writes.
fn pipe(served: &Served) -> PathBuf {
    let path = served.agent.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path
}

/// Waits until the last socket is closed.
async fn none_open(served: &Served) {
    timeout(PATIENCE, served.agent.agent.sockets.finished()).await.expect("they end");
}

/// A client, and what it has heard.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    /// Bytes of each stream, and where the next ones begin.
    pub(crate) bytes: BTreeMap<u32, (u64, Vec<u8>)>,
    /// Texts that are no answer.
    said: Vec<Value>,
}

/// Opens a socket with these headers; the answer says why if it is refused.
pub(crate) async fn try_open(served: &Served, headers: &[(&'static str, &str)]) -> Result<Client, (u16, Problem)> {
    let mut request = format!("ws://{}/v1/ws", served.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let stream = TcpStream::connect(served.address).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            Ok(Client { socket, bytes: BTreeMap::new(), said: Vec::new() })
        }
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err((response.status().as_u16(), serde_json::from_slice(body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn open(served: &Served) -> Client {
    open_as(served, "token").await
}

pub(crate) async fn open_as(served: &Served, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    try_open(served, &[("authorization", &bearer), ("sec-websocket-protocol", SUBPROTOCOL)]).await.unwrap()
}

impl Client {
    pub(crate) async fn say(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    pub(crate) async fn ask(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}).to_string()).await;
    }

    pub(crate) async fn ask_stream(&mut self, id: i64, method: &str, params: Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params, "stream": true});
        self.say(request.to_string()).await;
    }

    pub(crate) async fn tell(&mut self, method: &str, params: Value) {
        self.say(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()).await;
    }

    /// The next text; bytes before it are kept.
    pub(crate) async fn text(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Binary(frame) => self.keep(&frame),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("something comes").expect("the socket is open").unwrap()
    }

    /// Takes in a frame, which must follow the one before.
    fn keep(&mut self, frame: &[u8]) {
        let frame = Frame::decode(frame).unwrap();
        assert!(frame.kind == FrameKind::Stdout && !frame.payload.is_empty());
        let (next, bytes) = self.bytes.entry(frame.stream).or_insert((frame.offset, Vec::new()));
        assert_eq!(*next, frame.offset, "nothing is left out");
        *next += frame.payload.len() as u64;
        bytes.extend_from_slice(frame.payload);
    }

    /// The answer of a call; what comes before it is kept.
    pub(crate) async fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let text = self.text().await;
            assert_eq!(text["jsonrpc"], "2.0");
            if text.get("method").is_none() {
                assert_eq!(text["id"], id, "{text}");
                return text;
            }
            self.said.push(text);
        }
    }

    pub(crate) async fn call(&mut self, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let id = id.into();
        self.ask(id.clone(), method, params).await;
        self.answer(id).await
    }

    /// Reads until this has come in a stream; texts before it are kept.
    pub(crate) async fn until(&mut self, stream: u32, wanted: &str) {
        let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(wanted);
        while !self.bytes.get(&stream).is_some_and(|(_, bytes)| has(bytes)) {
            match self.next().await {
                Message::Text(text) => self.said.push(serde_json::from_str(&text).unwrap()),
                Message::Binary(frame) => self.keep(&frame),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads until the agent closes the socket.
    pub(crate) async fn closed(&mut self) -> CloseFrame {
        loop {
            match self.next().await {
                Message::Close(frame) => return frame.expect("a reason"),
                Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[track_caller]
pub(crate) fn error(answer: &Value) -> (i64, Problem) {
    let problem: Problem =
        serde_json::from_value(answer["error"]["data"].clone()).unwrap_or_else(|_| panic!("{answer}"));
    assert_eq!(answer["error"]["message"], problem.detail);
    (answer["error"]["code"].as_i64().unwrap(), problem)
}

#[tokio::test]
async fn tools_are_called_and_answer_in_the_order_in_which_they_finish() {
    let served = serve(&[]).await;
    std::fs::write(served.agent.root().join("a"), "text\n").unwrap();
    let mut client = open(&served).await;
    assert_eq!(
        client.call(1, "read", serde_json::from_str(READ_A).unwrap()).await["result"]["files"][0]["text"],
        "text\n"
    );
    let pipe = pipe(&served);
    client.ask("slow", "command", json!({"line": "cat pipe"})).await;
    assert!(client.call(2, "list", json!({})).await["result"]["entries"].is_array(), "it needn't wait");
    tokio::task::spawn_blocking(|| std::fs::write(pipe, "late\n")).await.unwrap().unwrap();
    assert_eq!(client.answer("slow").await["result"]["stdout"]["text"], "late\n");
    // Names of the calls begin with the socket's.
    let (code, problem) = error(&client.call(3, "list", json!({"path": "absent"})).await);
    assert_eq!((code, problem.code), (codes::FAILED.into(), Code::NotFound));
    assert!(problem.request_id.unwrap().ends_with("-4"));
}

#[tokio::test]
async fn answers_are_as_long_as_they_need() {
    let served = serve(&[]).await;
    let text = "0123456789abcdef".repeat(5 << 16);
    std::fs::write(served.agent.root().join("a"), &text).unwrap();
    let mut client = open(&served).await;
    let answer = client.call(1, "read", serde_json::from_str(READ_A).unwrap()).await;
    assert_eq!(answer["result"]["files"][0]["text"].as_str().map(str::len), Some(text.len()));
}

#[tokio::test]
async fn events_come_before_the_answer_and_bytes_in_frames() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "command", json!({"argv": ["sh", "-c", "printf 'a\\000\\377'"]})).await;
    let answer = client.answer(1).await;
    assert_eq!(answer["result"]["exit"]["code"], 0);
    assert_eq!(client.said[0]["method"], "$/stream");
    assert_eq!(client.said[0]["params"], json!({"id": 1, "stream": 1}));
    assert_eq!(client.said[1]["params"]["event"]["type"], "status", "{:?}", client.said);
    assert_eq!(client.bytes[&1].1, b"a\0\xff");
    // Another stream has another number.
    for name in ["x", "y"] {
        std::fs::write(served.agent.root().join(name), "needle\n").unwrap();
    }
    client.said.clear();
    client.ask_stream(2, "search", json!({"pattern": "needle"})).await;
    client.answer(2).await;
    assert_eq!(client.said[0]["params"]["stream"], 2);
    assert!(client.said[1..].iter().all(|said| said["method"] == "$/event" && said["params"]["stream"] == 2));
    assert!(
        client.said[1..].iter().filter(|said| said["params"]["event"]["type"] == "match").count() == 2,
        "{:?}",
        client.said
    );
}

#[tokio::test]
async fn a_stream_whose_client_takes_in_nothing_stops_at_its_credit_and_delays_no_other() {
    const TOTAL: usize = 3 << 20;
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "command", json!({"line": format!("head -c {TOTAL} /dev/zero | tr '\\0' x")})).await;
    assert_eq!(client.text().await["method"], "$/stream");
    // Events cost what they are long.
    let status = client.text().await["params"]["event"].to_string().len();
    while client.bytes.get(&1).is_none_or(|(_, bytes)| bytes.len() + status < INITIAL_CREDIT as usize) {
        match client.next().await {
            Message::Binary(frame) => client.keep(&frame),
            other => panic!("{other:?}"),
        }
    }
    client.ask_stream(2, "command", json!({"line": "echo quick"})).await;
    client.answer(2).await;
    assert_eq!(client.bytes[&2].1, b"quick\n");
    assert_eq!(client.bytes[&1].1.len() + status, INITIAL_CREDIT as usize, "not a byte beyond the credit");
    // Grants that name no stream are nobody's.
    client.tell("$/credit", json!({"stream": 77, "bytes": 1})).await;
    client.tell("$/credit", json!({"stream": 1, "bytes": (1_u64 << 53) - 1})).await;
    assert_eq!(client.answer(1).await["result"]["exit"]["code"], 0);
    assert_eq!(client.bytes[&1].1.len(), TOTAL);
    assert!(client.bytes[&1].1.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn a_command_with_a_full_log_waits_for_its_stream() {
    const TOTAL: u64 = 8_000_000;
    let limits = [("COREHOLD_LIMIT_COMMAND_LOG_BYTES", "1048576"), ("COREHOLD_LIMIT_COMMAND_HOLD_MS", "60000")];
    let served = serve(&limits).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "command", json!({"argv": ["seq", "-f", "%07.0f", "0", "999999"]})).await;
    assert_eq!(client.text().await["method"], "$/stream");
    let id = client.text().await["params"]["event"]["id"].clone();
    // Without credit the stream stands still, and so does the command then; or it has ended.
    let (mut written, mut unchanged) = (0, 0);
    for call in 2.. {
        let now = client.call(call, "commandGet", json!({"id": id})).await["result"]["stdoutBytes"].as_u64().unwrap();
        unchanged = if now == written && now > 500_000 { unchanged + 1 } else { 0 };
        written = now;
        if unchanged == 20 {
            break;
        }
    }
    client.tell("$/credit", json!({"stream": 1, "bytes": TOTAL})).await;
    assert_eq!(client.answer(1).await["result"]["exit"]["code"], 0);
    assert_eq!(client.bytes[&1].1.len() as u64, TOTAL, "after {written} bytes it was heard again");
}

#[tokio::test]
async fn bytes_are_cut_into_frames_that_others_come_between() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "command", json!({"line": "head -c 200000 /dev/zero"})).await;
    let mut longest = 0;
    while client.bytes.get(&1).is_none_or(|(_, bytes)| bytes.len() < 200_000) {
        if let Message::Binary(frame) = client.next().await {
            longest = longest.max(frame.len());
            client.keep(&frame);
        }
    }
    assert!(longest <= Frame::HEADER + MAX_PAYLOAD, "{longest}");
}

#[tokio::test]
async fn a_cancelled_call_is_answered_and_its_work_ends() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "auditRead", json!({"follow": true})).await;
    assert_eq!(client.text().await["method"], "$/stream");
    client.tell("$/cancelRequest", json!({"id": 1})).await;
    assert_eq!(error(&client.answer(1).await).0, i64::from(codes::CANCELLED));
    // The id is free again, and cancelling what is over is no error.
    client.tell("$/cancelRequest", json!({"id": 1})).await;
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
    // A command belongs to the agent, not to who waits for it.
    client.ask_stream(2, "command", json!({"line": "cat >/dev/null; sleep 600", "label": "mine"})).await;
    while client.said.iter().all(|said| said["params"]["event"]["type"] != "status") {
        let text = client.text().await;
        client.said.push(text);
    }
    client.tell("$/cancelRequest", json!({"id": 2})).await;
    assert_eq!(error(&client.answer(2).await).0, i64::from(codes::CANCELLED));
    let list = client.call(3, "commandList", json!({})).await;
    assert_eq!(list["result"]["commands"][0]["label"], "mine");
}

#[tokio::test]
async fn a_client_who_goes_away_takes_its_calls_along() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "auditRead", json!({"follow": true})).await;
    client.text().await;
    assert_eq!(served.agent.agent.sockets.open(), 1);
    drop(client);
    none_open(&served).await;
    until(|| served.agent.agent.activity.snapshot().held.is_empty()).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_socket_goes_on() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"list","params":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (text, id, code) in [
        ("", Value::Null, codes::PARSE_ERROR),
        ("{", Value::Null, codes::PARSE_ERROR),
        ("nonsense", Value::Null, codes::PARSE_ERROR),
        (&deep, json!(1), codes::INVALID_PARAMS),
        ("7", Value::Null, codes::INVALID_REQUEST),
        ("[]", Value::Null, codes::INVALID_REQUEST),
        (r#" [{"jsonrpc":"2.0","id":1,"method":"list"}]"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"1.0","id":1,"method":"list"}"#, json!(1), codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"list"}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":{},"method":"list"}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","method":"list"}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"list","more":1}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"list"}"#, Value::Null, codes::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, json!(1), codes::METHOD_NOT_FOUND),
        (r#"{"jsonrpc":"2.0","id":1,"method":"$/nothing"}"#, json!(1), codes::METHOD_NOT_FOUND),
        (r#"{"jsonrpc":"2.0","id":1,"method":"list","params":[]}"#, json!(1), codes::INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"list","params":{"depth":-1}}"#, json!(1), codes::INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"list","params":{"path":"\ud800"}}"#, json!(1), codes::INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"read","params":{"files":NaN}}"#, Value::Null, codes::PARSE_ERROR),
        (
            r#"{"jsonrpc":"2.0","method":"$/credit","params":{"stream":-1,"bytes":1}}"#,
            Value::Null,
            codes::INVALID_PARAMS,
        ),
        (r#"{"jsonrpc":"2.0","method":"$/cancelRequest"}"#, Value::Null, codes::INVALID_PARAMS),
    ] {
        client.say(text).await;
        let answer = client.answer(id).await;
        assert_eq!(error(&answer).0, i64::from(code), "{text}: {answer}");
    }
    let long = "x".repeat(65);
    assert_eq!(error(&client.call(1, "list", json!({"path": 1})).await).0, i64::from(codes::INVALID_PARAMS));
    client.ask(long.clone(), "list", json!({})).await;
    assert_eq!(error(&client.answer(long).await).0, i64::from(codes::INVALID_REQUEST));
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn an_id_names_one_call_and_there_is_a_limit_of_calls() {
    let served = serve(&[("COREHOLD_LIMIT_SOCKET_CALLS", "2")]).await;
    let mut client = open(&served).await;
    for id in [1, 2] {
        client.ask_stream(id, "auditRead", json!({"follow": true})).await;
        assert_eq!(client.text().await["params"]["id"], id);
    }
    client.ask(1, "list", json!({})).await;
    assert_eq!(error(&client.answer(1).await).0, i64::from(codes::INVALID_REQUEST));
    client.ask(3, "list", json!({})).await;
    let (_, problem) = error(&client.answer(3).await);
    assert_eq!(
        (problem.code, &problem.context["variable"]),
        (Code::LimitExceeded, &json!("COREHOLD_LIMIT_SOCKET_CALLS"))
    );
    client.tell("$/cancelRequest", json!({"id": 2})).await;
    client.answer(2).await;
    assert!(client.call(3, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn an_idempotency_key_holds_on_a_socket_too() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    for id in [1, 2] {
        let request =
            json!({"jsonrpc": "2.0", "id": id, "method": "mkdir", "params": {"path": "d"}, "idempotencyKey": "k"});
        client.say(request.to_string()).await;
        let answer = client.answer(id).await;
        assert!(answer["result"].is_object());
        assert_eq!(answer.get("idempotencyReplayed"), (id == 2).then_some(&json!(true)), "{answer}");
        let _ = std::fs::remove_dir(served.agent.root().join("d"));
    }
    assert!(served.agent.names().is_empty(), "it was not made again");
    for id in [4, 5] {
        let request =
            json!({"jsonrpc": "2.0", "id": id, "method": "remove", "params": {"path": "d"}, "idempotencyKey": "r"});
        client.say(request.to_string()).await;
        let answer = client.answer(id).await;
        assert_eq!(error(&answer).1.code, Code::NotFound);
        assert_eq!(answer.get("idempotencyReplayed"), (id == 5).then_some(&json!(true)), "{answer}");
    }
    let request = json!({"jsonrpc": "2.0", "id": 3, "method": "mkdir", "params": {"path": "d"}, "idempotencyKey": ""});
    client.say(request.to_string()).await;
    assert_eq!(error(&client.answer(3).await).1.code, Code::InvalidRequest);
}

/// An agent that takes the host's tokens.
pub(crate) async fn serve_signed() -> Served {
    let public = STANDARD.encode(key().verifying_key());
    serve(&[
        (env_vars::TOKEN_SHA256, ""),
        (env_vars::PUBLIC_KEY, &public),
        (env_vars::INSTANCE, "this-one"),
        (env_vars::WORKSPACE_ID, "workspace"),
    ])
    .await
}

#[tokio::test]
async fn each_call_needs_the_scope_of_its_tool() {
    let served = serve_signed().await;
    let mut client = open_as(&served, &sign(&claims(&[Scope::Read]))).await;
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
    let (_, problem) = error(&client.call(2, "mkdir", json!({"path": "d"})).await);
    assert_eq!((problem.code, &problem.context["scope"]), (Code::Forbidden, &json!("write")));
    // A refreshed token may say more, but not for another subject.
    let others = Claims { sub: "another".to_owned(), ..claims(&Scope::ALL) };
    let (_, problem) = error(&client.call(3, "$/refresh", json!({"token": sign(&others)})).await);
    assert_eq!(problem.code, Code::Forbidden);
    let (_, problem) = error(&client.call(4, "$/refresh", json!({"token": "x"})).await);
    assert_eq!(problem.code, Code::Unauthorized);
    assert_eq!(client.call(5, "$/refresh", json!({"token": sign(&claims(&Scope::ALL))})).await["result"], json!({}));
    assert!(client.call(6, "mkdir", json!({"path": "d"})).await["result"].is_object());
}

#[tokio::test]
async fn an_expired_token_closes_the_socket_unless_it_was_refreshed() {
    let served = serve_signed().await;
    let good = claims(&Scope::ALL);
    let short = Claims { exp: good.iat + 2, ..good.clone() };
    let mut refreshed = open_as(&served, &sign(&short)).await;
    refreshed.call(1, "$/refresh", json!({"token": sign(&good)})).await;
    let mut client = open_as(&served, &sign(&short)).await;
    assert_eq!(u16::from(client.closed().await.code), TOKEN_EXPIRED);
    assert!(refreshed.call(2, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_browser_gives_its_token_as_a_subprotocol() {
    let served = serve(&[]).await;
    let protocols = format!("{SUBPROTOCOL}, {BEARER_PREFIX}token");
    let mut client = try_open(&served, &[("sec-websocket-protocol", &protocols)]).await.unwrap();
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn who_may_not_or_asks_for_something_else_gets_no_socket() {
    let served = serve(&[("COREHOLD_LIMIT_SOCKETS", "1")]).await;
    let wrong = format!("{SUBPROTOCOL}, {BEARER_PREFIX}wrong");
    let evil =
        [("authorization", "Bearer token"), ("sec-websocket-protocol", SUBPROTOCOL), ("origin", "http://evil.example")];
    for (headers, status, code) in [
        (&[("sec-websocket-protocol", SUBPROTOCOL)][..], 401, Code::Unauthorized),
        (&[("sec-websocket-protocol", &wrong)], 401, Code::Unauthorized),
        (&evil, 403, Code::Forbidden),
        (&[("authorization", "Bearer token")], 400, Code::InvalidRequest),
        (&[("authorization", "Bearer token"), ("sec-websocket-protocol", "corehold.v2")], 400, Code::InvalidRequest),
        (&[("authorization", "Bearer token"), ("sec-websocket-version", "8")], 400, Code::InvalidRequest),
        (&[("authorization", "Bearer token"), ("connection", "close")], 400, Code::InvalidRequest),
    ] {
        let (got, problem) = try_open(&served, headers).await.err().expect("it is refused");
        assert_eq!((got, problem.code), (status, code), "{headers:?}");
    }
    let _open = open(&served).await;
    let again = [("authorization", "Bearer token"), ("sec-websocket-protocol", SUBPROTOCOL)];
    let (_, problem) = try_open(&served, &again).await.err().unwrap();
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_SOCKETS");
}

#[tokio::test]
async fn frames_that_break_the_rules_close_the_socket_with_the_reason() {
    let served = serve(&[("COREHOLD_LIMIT_BODY_BYTES", "1000")]).await;
    for (message, code) in [(Message::text("x".repeat(1001)), 1009), (Message::binary(vec![0; 12]), 1008)] {
        let mut client = open(&served).await;
        client.socket.send(message).await.unwrap();
        assert_eq!(u16::from(client.closed().await.code), code);
    }
    // Below the library: text that is no UTF-8, and a reserved opcode.
    for (frame, code) in [(&b"\x81\x82\0\0\0\0\xc3\x28"[..], 1007), (&b"\x83\x80\0\0\0\0"[..], 1002)] {
        let mut client = open(&served).await;
        use tokio::io::AsyncWriteExt as _;
        client.socket.get_mut().write_all(frame).await.unwrap();
        assert_eq!(u16::from(client.closed().await.code), code);
    }
    none_open(&served).await;
}

#[tokio::test]
async fn who_is_silent_for_too_long_is_let_go() {
    let served = serve(&[("COREHOLD_LIMIT_IDLE_MS", "300")]).await;
    let mut client = open(&served).await;
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
    // Who doesn't read answers no pings.
    none_open(&served).await;
}

#[tokio::test]
async fn at_shutdown_calls_end_before_the_goodbye() {
    let served = serve(&[]).await;
    let pipe = pipe(&served);
    let (mut busy, mut idle) = (open(&served).await, open(&served).await);
    busy.ask_stream(1, "command", json!({"line": "trap '' TERM; echo ready; cat pipe"})).await;
    while busy.bytes.is_empty() {
        if let Message::Binary(frame) = busy.next().await {
            busy.keep(&frame);
        }
    }
    served.end.send(()).unwrap();
    assert_eq!(u16::from(idle.closed().await.code), 1001);
    busy.ask(2, "list", json!({})).await;
    assert_eq!(error(&busy.answer(2).await).1.code, Code::ShuttingDown);
    tokio::task::spawn_blocking(|| std::fs::write(pipe, "done\n")).await.unwrap().unwrap();
    busy.answer(1).await;
    assert_eq!(busy.bytes[&1].1, b"ready\ndone\n");
    assert_eq!(u16::from(busy.closed().await.code), 1001);
    timeout(PATIENCE, served.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_old_output_is_searched_on_a_socket() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let id = client.call(1, "command", json!({"line": "seq 1 20"})).await["result"]["id"].clone();
    let collected = client.call(2, "commandSearch", json!({"id": id, "pattern": "7"})).await;
    client.ask_stream(3, "commandSearch", json!({"id": id, "pattern": "7"})).await;
    assert_eq!(client.answer(3).await["result"]["matchedLines"], 2);
    let events = client.said.iter().filter(|said| said["method"] == "$/event");
    let events: Vec<Value> = events.map(|said| said["params"]["event"].clone()).collect();
    assert_eq!((events.len(), &json!(events)), (2, &collected["result"]["found"]));
    let (code, problem) = error(&client.call(4, "commandSearch", json!({"id": id, "pattern": "["})).await);
    assert_eq!((code, problem.code), (codes::INVALID_PARAMS.into(), Code::InvalidRequest));
}
