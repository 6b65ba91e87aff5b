//! How a request can come that is none, for every tool of the one list on every surface: too long, cut off, crawling, at the wrong
//! place, under a name that is taken, in frames that are none. Each is refused as such, in bounded time, no call is left over, and
//! the agent goes on. (What can be wrong within a request that has come stands in `hostile` and `bad_input`.)

use std::time::Duration;

use corehold_types::{
    Tool,
    rpc::{Frame, FrameKind, codes},
};
use futures_util::{SinkExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    schemas,
    served::{Served, read, serve, until},
    sockets::{error, open},
};

/// An agent that gives what comes as much time as it likes, and one that gives it little: so what is cut off by its caller isn't
/// cut off by the agent, however busy the machine is.
async fn patient_and_not() -> [Served; 2] {
    [serve(&[]).await, serve(&[("COREHOLD_LIMIT_RECEIVE_MS", "300")]).await]
}

/// Every tool, and the smallest request of it.
fn tools() -> Vec<(&'static str, String)> {
    macro_rules! names {
        ($($tool:ident),*) => { [$(corehold_types::tools::$tool::NAME),*] };
    }
    let requests = schemas::tools();
    let request = |name: &str| {
        let (_, schema) = requests.iter().find(|(tool, _)| tool == name).unwrap_or_else(|| panic!("{name}: no schema"));
        schemas::smallest(schema, schema, "x").to_string()
    };
    corehold_types::for_each_tool!(names).into_iter().map(|name| (name, request(name))).collect()
}

/// The ways to a tool by HTTP: path, what to accept, and the whole body.
fn ways(tool: &str, request: &str) -> Vec<(String, &'static str, String)> {
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{request}}}}}"#
    );
    let path = format!("/v1/tools/{tool}");
    vec![
        (path.clone(), "application/json", request.to_owned()),
        (path.clone(), "application/x-ndjson", request.to_owned()),
        (path, "text/event-stream", request.to_owned()),
        ("/mcp".to_owned(), "application/json, text/event-stream", call),
    ]
}

fn head(method: &str, path: &str, accept: &str, headers: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nAccept: {accept}\r\nConnection: close\r\n\
         {headers}\r\n"
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

/// Everything is as if nobody had asked, and the next one is answered.
async fn assert_goes_on(served: &Served) {
    let agent = &served.agent.agent;
    until(|| agent.sockets.open() == 0).await;
    until(|| agent.mcp.count() == 0 && agent.activity.snapshot().held.is_empty()).await;
    assert_eq!((agent.room.taken(), agent.room.waiting()), (0, 0), "what they held is given back");
    let health = served.exchange("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(health.contains("\"status\":\"ok\""), "{health}");
    let metrics = served.exchange(head("GET", "/metrics", "*/*", "")).await;
    for surface in ["http", "webSocket", "mcp"] {
        assert!(metrics.contains(&format!("calls_running{{surface=\"{surface}\"}} 0\n")), "{metrics}");
    }
    assert_eq!(served.agent.names(), Vec::<String>::new(), "nothing was made");
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_for_every_tool_and_leave_nothing() {
    let [served, hasty] = &patient_and_not().await;
    let mut all: Vec<Case<'_>> = Vec::new();
    for (tool, request) in tools() {
        for (path, accept, body) in ways(tool, &request) {
            let post = move |headers: &str| head("POST", &path, accept, headers);
            let half = &body[..body.len() / 2];
            let length = format!("{JSON}Content-Length: {}\r\n", body.len());
            let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n");
            // What is sent, whether its sender then closes his half, and the answer's status.
            let cases = [
                (
                    "a gigabyte is announced",
                    post(&format!("{JSON}Content-Length: 1073741824\r\n")) + &body,
                    false,
                    "413",
                ),
                ("it is cut off", post(&length) + half, true, "400"),
                ("its chunks are cut off", post(&chunked) + &format!("{:x}\r\n{half}\r\n", half.len()), true, "400"),
                ("a chunk is none", post(&chunked) + "xyz\r\n" + &body, false, "400"),
                ("it crawls", post(&length) + half, false, "408"),
                ("it never begins", post(&length), false, "408"),
                ("it is compressed", post(&format!("{length}Content-Encoding: gzip\r\n")) + &body, false, "415"),
                ("it is no JSON", post(&length.replace("json", "xml")) + &body, false, "415"),
                ("it is a batch in a batch", post(&format!("{JSON}Content-Length: 4\r\n")) + "[[]]", false, "400"),
                ("it has NUL bytes", post(&format!("{JSON}Content-Length: 4\r\n")) + "{\0}\0", false, "400"),
            ];
            for (what, sent, closes, status) in cases {
                let name = format!("{tool} as {accept}: {what}");
                let served = if status == "408" { hasty } else { served };
                all.push(boxed(async move {
                    let mut stream = served.send(sent).await;
                    if closes {
                        stream.shutdown().await.unwrap();
                    }
                    let answer = read(&mut stream).await;
                    // Who has closed his half may be let go without a word: the server library ends what it takes for gone.
                    let is_let_go = closes && answer.is_empty();
                    let is_told = answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\"code\":");
                    assert!(is_told || is_let_go, "{name}: {answer}");
                }));
            }
        }
        for method in ["GET", "PUT", "DELETE", "PATCH", "XYZZY"] {
            let request = head(method, &format!("/v1/tools/{tool}"), "*/*", "");
            all.push(boxed(async move {
                let answer = served.exchange(request).await;
                assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("METHOD_NOT_ALLOWED"), "{answer}");
            }));
        }
        for other in [tool.to_uppercase(), format!("{tool}x"), format!("{tool}/"), format!("{tool}%00")] {
            let request = head("POST", &format!("/v1/tools/{other}"), "*/*", "Content-Length: 0\r\n");
            all.push(boxed(async move {
                let answer = served.exchange(request).await;
                assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("UNKNOWN_ROUTE"), "{other}: {answer}");
            }));
        }
    }
    assert!(all.len() > 20 * 4 * 10, "only {}", all.len());
    // Most of them wait for their time to be over, all at once.
    try_all(all, 400).await;
    assert_goes_on(served).await;
    assert_goes_on(hasty).await;
}

type Case<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

fn boxed<'a>(case: impl Future<Output = ()> + 'a) -> Case<'a> {
    Box::pin(case)
}

/// Tries all, so many at a time.
async fn try_all(cases: impl IntoIterator<Item = Case<'_>>, at_a_time: usize) {
    let mut cases = cases.into_iter();
    loop {
        let some: Vec<_> = cases.by_ref().take(at_a_time).collect();
        if some.is_empty() {
            return;
        }
        join_all(some).await;
    }
}

/// A frame of a client, masked with zeros.
fn frame(first: u8, announced: u64, payload: &[u8]) -> Vec<u8> {
    [&[first, 0xff][..], &announced.to_be_bytes(), &[0; 4], payload].concat()
}

#[tokio::test]
async fn messages_that_are_none_close_their_socket_for_every_tool_and_leave_nothing() {
    let [served, hasty] = &patient_and_not().await;
    let mut all: Vec<Case<'_>> = Vec::new();
    for (tool, request) in tools() {
        let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{tool}","params":{request}}}"#);
        let (bytes, length) = (call.as_bytes(), call.len() as u64);
        let half = &bytes[..bytes.len() / 2];
        for (what, sent, code) in [
            ("a gigabyte is announced", frame(0x81, 1 << 30, half), 1009),
            ("more than there is is announced", frame(0x81, u64::MAX, half), 1009),
            ("it crawls", frame(0x81, length, half), 1008),
            ("its last part never comes", frame(0x01, half.len() as u64, half), 1008),
            ("two begin in each other", [frame(0x01, 1, b"{"), frame(0x81, length, bytes)].concat(), 1002),
            ("a part of none comes", frame(0x80, length, bytes), 1002),
            ("it is of bytes", frame(0x82, length, bytes), 1008),
            ("it is no UTF-8", frame(0x81, 2, b"\xc3\x28"), 1007),
            ("it has a reserved kind", frame(0x83, length, bytes), 1002),
            ("it has a reserved bit", frame(0xc1, length, bytes), 1002),
            ("it isn't masked", [&[0x81, 126][..], &(length as u16).to_be_bytes(), bytes].concat(), 1002),
        ] {
            let name = format!("{tool}: {what}");
            let served = if what == "it crawls" || what == "its last part never comes" { hasty } else { served };
            all.push(boxed(async move {
                let mut client = open(served).await;
                client.socket.get_mut().write_all(&sent).await.unwrap();
                let goodbye = client.closed().await;
                assert!(u16::from(goodbye.code) == code, "{name}: {goodbye:?}");
            }));
        }
        // A client who goes away in the middle.
        let begun = frame(0x81, length, half);
        for closes_half in [true, false] {
            let begun = begun.clone();
            all.push(boxed(async move {
                let mut client = open(served).await;
                client.socket.get_mut().write_all(&begun).await.unwrap();
                if closes_half {
                    client.socket.get_mut().shutdown().await.unwrap();
                    read(client.socket.get_mut()).await;
                }
            }));
        }
    }
    // Fewer than there may be sockets.
    try_all(all, 100).await;
    assert_goes_on(served).await;
    assert_goes_on(hasty).await;
}

#[tokio::test]
async fn calls_under_names_that_are_none_are_refused_and_the_socket_goes_on() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask_stream(1, "auditRead", json!({"follow": true, "tool": "nothing"})).await;
    assert_eq!(client.text().await["method"], "$/stream");
    for (tool, request) in tools() {
        let params: Value = serde_json::from_str(&request).unwrap();
        for (what, said, id, code) in [
            (
                "in a batch",
                json!([{"jsonrpc": "2.0", "id": 2, "method": tool, "params": params}]),
                Value::Null,
                codes::INVALID_REQUEST,
            ),
            (
                "an id that is taken",
                json!({"jsonrpc": "2.0", "id": 1, "method": tool, "params": params}),
                json!(1),
                codes::INVALID_REQUEST,
            ),
            ("no id", json!({"jsonrpc": "2.0", "method": tool, "params": params}), Value::Null, codes::INVALID_REQUEST),
            ("no version", json!({"id": 2, "method": tool, "params": params}), Value::Null, codes::INVALID_REQUEST),
            (
                "another name",
                json!({"jsonrpc": "2.0", "id": 2, "method": tool.to_uppercase(), "params": params}),
                json!(2),
                codes::METHOD_NOT_FOUND,
            ),
            (
                "a name that begins so",
                json!({"jsonrpc": "2.0", "id": 2, "method": format!("{tool}\0"), "params": params}),
                json!(2),
                codes::METHOD_NOT_FOUND,
            ),
            (
                "a name about the connection",
                json!({"jsonrpc": "2.0", "id": 2, "method": format!("$/{tool}"), "params": params}),
                json!(2),
                codes::METHOD_NOT_FOUND,
            ),
            (
                "params in a list",
                json!({"jsonrpc": "2.0", "id": 2, "method": tool, "params": [params]}),
                json!(2),
                codes::INVALID_PARAMS,
            ),
        ] {
            client.say(said.to_string()).await;
            let answer = client.answer(id).await;
            assert_eq!(error(&answer).0, i64::from(code), "{tool} {what}: {answer}");
        }
    }
    // The call whose name was taken is the first one still.
    client.tell("$/cancelRequest", json!({"id": 1})).await;
    assert_eq!(error(&client.answer(1).await).0, i64::from(codes::CANCELLED));
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
    drop(client);
    assert_goes_on(&served).await;
}

/// Binary frames of a stream that has begun: each is bytes of the command's input, or closes the socket.
#[tokio::test]
async fn frames_that_are_none_or_out_of_order_close_the_socket() {
    let served = serve(&[]).await;
    let input = |stream, offset, payload| Frame { kind: FrameKind::Stdin, stream, offset, payload }.encode();
    let mut kinds: Vec<Vec<u8>> = (0..=u8::MAX)
        .filter(|kind| *kind != FrameKind::Stdin as u8)
        .map(|kind| [&[kind], &input(1, 0, b"x")[1..]].concat())
        .collect();
    kinds.extend((0..input(1, 0, b"").len()).map(|length| input(1, 0, b"x")[..length].to_vec()));
    kinds.extend([input(1, 1, b"x"), input(1, u64::MAX, b"x"), [input(1, 0, b"x"), vec![b'y'; 64 << 10]].concat()]);
    let mut client = open(&served).await;
    let started = client.call(1, "command", json!({"argv": ["cat"], "interactive": true, "detach": true})).await;
    let id = started["result"]["id"].as_str().unwrap().to_owned();
    drop(client);
    let (served, id) = (&served, &id);
    let each = kinds.into_iter().map(|bytes| {
        boxed(async move {
            let mut client = open(served).await;
            client.ask_stream(1, "commandInput", json!({"id": id})).await;
            assert_eq!(client.text().await["params"]["stream"], 1);
            client.socket.send(Message::binary(bytes.clone())).await.unwrap();
            let goodbye = client.closed().await;
            assert_eq!(u16::from(goodbye.code), 1008, "{:?}: {goodbye:?}", &bytes[..bytes.len().min(20)]);
        })
    });
    try_all(each, 64).await;
    // The command has read nothing of it, and goes on.
    let mut client = open(served).await;
    let end = client.call(1, "commandInput", json!({"id": id, "data": {"text": "end\n"}, "end": true})).await;
    assert!(end["result"]["complete"] == true, "{end}");
    let output = client.call(2, "commandOutput", json!({"id": id, "follow": true})).await;
    assert_eq!(output["result"]["stdout"]["text"], "end\n", "{output}");
    drop(client);
    tokio::time::timeout(Duration::from_secs(20), assert_goes_on(served)).await.expect("it does");
}
