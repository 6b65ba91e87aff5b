//! What a client types over `GET /v1/ws`: binary frames with credit, for a command that reads or doesn't.

use corehold_agent::access::Caller;
use corehold_types::{
    Code,
    rpc::{Frame, FrameKind, INITIAL_CREDIT, MAX_PAYLOAD},
    tools::{AuditOutcome, AuditReadRequest},
};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    served::serve,
    sockets::{Client, error, open},
};

fn typed(stream: u32, offset: u64, payload: &[u8]) -> Message {
    Message::binary(Frame { kind: FrameKind::Stdin, stream, offset, payload }.encode())
}

/// Starts a command that reads, and a stream of input to it. Returns the command's id; the input's stream is 1.
async fn type_to(client: &mut Client, request: Value) -> String {
    let id = client.call(1, "command", request).await["result"]["id"].as_str().unwrap().to_owned();
    client.ask_stream(2, "commandInput", json!({"id": id})).await;
    assert_eq!(client.text().await["params"], json!({"id": 2, "stream": 1}));
    id
}

/// The next answers, in the order of their ids.
async fn answers(client: &mut Client, count: usize) -> Vec<Value> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let text = client.text().await;
        if text.get("method").is_none() {
            answers.push(text);
        }
    }
    answers.sort_by_key(|answer| answer["id"].as_i64());
    answers
}

#[tokio::test]
async fn what_a_client_types_arrives_as_far_as_the_command_reads() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let id = type_to(&mut client, json!({"argv": ["sha256sum"], "interactive": true, "detach": true})).await;
    // Eight times the credit, in frames of the largest size.
    let piece = vec![b'x'; MAX_PAYLOAD];
    let (mut sent, mut credit) = (0_u64, u64::from(INITIAL_CREDIT));
    while sent < 8 * u64::from(INITIAL_CREDIT) {
        while credit < piece.len() as u64 {
            let text = client.text().await;
            assert_eq!((&text["method"], &text["params"]["stream"]), (&json!("$/credit"), &json!(1)));
            credit += text["params"]["bytes"].as_u64().unwrap();
        }
        client.socket.send(typed(1, sent, &piece)).await.unwrap();
        sent += piece.len() as u64;
        credit -= piece.len() as u64;
    }
    client.socket.send(typed(1, sent, b"")).await.unwrap();
    assert_eq!(client.answer(2).await["result"], json!({"accepted": sent, "complete": true}));
    let output = client.call(3, "commandOutput", json!({"id": id, "follow": true})).await;
    // The same, computed beside it.
    let line = json!({"line": format!("head -c {sent} /dev/zero | tr '\\0' x | sha256sum")});
    assert_eq!(output["result"]["stdout"], client.call(4, "command", line).await["result"]["stdout"]);
}

#[tokio::test]
async fn a_stream_of_input_ends_with_its_command() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let id = type_to(&mut client, json!({"line": "read word; sleep 600", "interactive": true, "detach": true})).await;
    client.socket.send(typed(1, 0, b"word\n")).await.unwrap();
    client.ask(3, "commandSignal", json!({"id": id, "signal": "SIGKILL"})).await;
    let (_, problem) = error(&answers(&mut client, 2).await[0]);
    assert_eq!((problem.code, &problem.context["accepted"]), (Code::InputClosed, &json!(5)));
    // What the client sent before it knew is let go.
    client.socket.send(typed(1, 5, b"more")).await.unwrap();
    assert!(client.call(4, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn frames_that_are_out_of_order_or_beyond_the_credit_close_the_socket() {
    let served = serve(&[]).await;
    let full = vec![0; MAX_PAYLOAD];
    let count = u64::from(INITIAL_CREDIT) / full.len() as u64;
    // The kernel takes 64 KiB for a command that doesn't read.
    let too_many = (0..=2 * count).map(|index| typed(1, index * full.len() as u64, &full)).collect();
    let cases: [(Vec<Message>, &str); 3] = [
        (vec![typed(1, 1, b"x")], "out of order"),
        (too_many, "credit"),
        (
            vec![Message::binary(Frame { kind: FrameKind::Stdout, stream: 1, offset: 0, payload: b"x" }.encode())],
            "only commands",
        ),
    ];
    for (frames, reason) in cases {
        let mut client = open(&served).await;
        type_to(&mut client, json!({"argv": ["sleep", "600"], "interactive": true, "detach": true})).await;
        for frame in frames {
            client.socket.send(frame).await.unwrap();
        }
        let closed = client.closed().await;
        assert!(u16::from(closed.code) == 1008 && closed.reason.contains(reason), "{closed:?}");
    }
    let mut client = open(&served).await;
    for params in [json!({"id": "none"}), json!({"id": "none", "end": true})] {
        client.ask_stream(2, "commandInput", params).await;
        assert!(client.answer(2).await["error"].is_object());
    }
}

#[tokio::test]
async fn a_terminal_is_watched_on_several_sockets_from_any_offset() {
    let served = serve(&[]).await;
    let mut typist = open(&served).await;
    // The shell puts the words together, so that the echo of what is typed isn't taken for an answer.
    let line = "stty size; while read -r word; do echo got''=$word $(stty size); done; exit 5";
    let terminal = json!({"line": line, "pty": {"columns": 80, "rows": 24}, "detach": true});
    let id = type_to(&mut typist, terminal).await;
    typist.ask_stream(3, "commandOutput", json!({"id": id})).await;
    let mut beside = open(&served).await;
    beside.ask_stream(1, "commandOutput", json!({"id": id})).await;
    typist.socket.send(typed(1, 0, b"one\r")).await.unwrap();
    typist.until(2, "got=one 24 80").await;
    beside.until(1, "got=one 24 80").await;
    let middle = typist.bytes[&2].0;
    let mut late = open(&served).await;
    late.ask_stream(1, "commandOutput", json!({"id": id, "offset": middle})).await;
    // Whoever may, may type and resize too.
    assert_eq!(late.call(2, "commandResize", json!({"id": id, "columns": 132, "rows": 50})).await["result"], json!({}));
    late.ask(3, "commandInput", json!({"id": id, "data": {"text": "two\r"}})).await;
    typist.until(2, "got=two 50 132").await;
    typist.socket.send(typed(1, 4, b"")).await.unwrap();
    let answers = answers(&mut typist, 2).await;
    assert_eq!(answers[0]["result"], json!({"accepted": 4, "complete": true}));
    assert_eq!(answers[1]["result"]["exit"]["code"], 5);
    assert_eq!(beside.answer(1).await["result"]["exit"]["code"], 5);
    let answers = self::answers(&mut late, 2).await;
    assert_eq!(answers[0]["result"]["exit"]["code"], 5);
    assert_eq!(answers[1]["result"], json!({"accepted": 4, "complete": true}));
    let whole = &typist.bytes[&2].1;
    assert_eq!((&beside.bytes[&1].1, &*late.bytes[&1].1), (whole, &whole[usize::try_from(middle).unwrap()..]));
}

/// The door that every call goes through: what keeps awake, what is recorded, what can't be repeated, what is too late.
#[tokio::test]
async fn a_stream_of_input_is_a_call_like_others() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let id = type_to(&mut client, json!({"argv": ["cat"], "interactive": true, "detach": true})).await;
    let awake = client.call(3, "activity", json!({})).await;
    let sources = awake["result"]["sources"].as_array().unwrap();
    let calls = sources.iter().find(|source| source["source"] == "call").unwrap_or_else(|| panic!("{awake}"));
    assert!(calls["reason"].as_str().unwrap().contains("commandInput"), "{awake}");

    let keyed = json!({"jsonrpc": "2.0", "id": 4, "method": "commandInput", "params": {"id": id}, "stream": true,
        "idempotencyKey": "key"});
    client.socket.send(Message::text(keyed.to_string())).await.unwrap();
    let (_, problem) = error(&client.answer(4).await);
    assert_eq!((problem.code, &problem.context["field"]), (Code::InvalidRequest, &json!("idempotencyKey")));

    // The first stream is open, and so the socket is.
    served.agent.agent.begin_shutdown();
    client.ask_stream(5, "commandInput", json!({"id": id})).await;
    let (_, problem) = error(&client.answer(5).await);
    assert_eq!(problem.code, Code::ShuttingDown);
    client.socket.send(typed(1, 0, b"")).await.unwrap();
    assert_eq!(client.answer(2).await["result"], json!({"accepted": 0, "complete": true}));

    let reader = Caller::with_every_scope("test");
    let records = served.agent.agent.audit.page(&reader, &AuditReadRequest::default(), 0, 100).records;
    let inputs: Vec<_> = records.iter().filter(|record| record.tool == "commandInput").collect();
    let refused: Vec<_> = inputs.iter().filter(|record| record.outcome == AuditOutcome::Refused).collect();
    assert_eq!(
        refused.iter().map(|record| record.code).collect::<Vec<_>>(),
        [Some(Code::InvalidRequest), Some(Code::ShuttingDown)]
    );
    let done: Vec<_> = inputs.iter().filter(|record| record.outcome == AuditOutcome::Ok).collect();
    assert_eq!((done.len(), &done[0].command.as_ref().unwrap().id, done[0].bytes_in), (1, &id, Some(0)));
}
