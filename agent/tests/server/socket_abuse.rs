//! `GET /v1/ws` with clients who mean it badly: more of everything than there is room for, and words about what isn't theirs.

use corehold_types::{
    Claims, Code, Scope,
    rpc::{Frame, FrameKind, INITIAL_CREDIT, codes},
};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Duration, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    access::{claims, sign},
    served::{PATIENCE, serve, until},
    sockets::{error, open, open_as, serve_signed},
};

#[tokio::test]
async fn of_ten_thousand_streams_as_many_are_open_as_there_is_room_for() {
    const ROOM: i64 = 64;
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let (mut opened, mut refused) = (0, 0);
    for id in 0..10_000 {
        client.ask_stream(id, "auditRead", json!({"follow": true, "tool": "nothing"})).await;
        let told = client.text().await;
        if told["method"] == "$/stream" {
            opened += 1;
            assert_eq!(told["params"]["id"], id);
        } else {
            refused += 1;
            assert_eq!(error(&told).1.context["variable"], "COREHOLD_LIMIT_SOCKET_CALLS", "{told}");
        }
    }
    assert_eq!((opened, refused), (ROOM, 10_000 - ROOM));
    // Each that is let go makes room for one.
    for id in 0..ROOM {
        client.tell("$/cancelRequest", json!({"id": id})).await;
        assert_eq!(error(&client.answer(id).await).0, i64::from(codes::CANCELLED));
    }
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn who_asks_and_never_reads_is_let_go() {
    let served = serve(&[("COREHOLD_LIMIT_IDLE_MS", "500")]).await;
    std::fs::write(served.agent.root().join("large"), vec![b'x'; 1 << 20]).unwrap();
    let mut client = open(&served).await;
    // Each answer is longer than the request by far, and none is taken.
    let flood = async {
        for id in 0.. {
            let request =
                json!({"jsonrpc": "2.0", "id": id, "method": "read", "params": {"files": [{"path": "large"}]}});
            if client.socket.send(Message::text(request.to_string())).await.is_err() {
                return id;
            }
        }
        unreachable!()
    };
    let asked = timeout(PATIENCE, flood).await.expect("it isn't heard for ever");
    // What it asked fits into what the kernel keeps for both: the agent has stopped listening.
    assert!(asked < 200_000, "{asked} requests were taken in");
    until(|| served.agent.agent.sockets.open() == 0).await;
    until(|| served.agent.agent.activity.snapshot().held.is_empty()).await;
}

#[tokio::test]
async fn more_credit_than_can_be_counted_is_as_much_as_can() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let total = 2 * u64::from(INITIAL_CREDIT);
    let line = json!({"line": format!("head -c {total} /dev/zero | tr '\\0' x")});
    client.ask_stream(1, "command", line).await;
    assert_eq!(client.text().await["method"], "$/stream");
    for _ in 0..3 {
        client.tell("$/credit", json!({"stream": 1, "bytes": u64::MAX})).await;
    }
    assert_eq!(client.answer(1).await["result"]["exit"]["code"], 0);
    assert_eq!(client.bytes[&1].1.len() as u64, total);
    // And what can't be counted at all is refused, with the id that was given or none.
    for (bytes, id) in [("18446744073709551616", json!(7)), ("-1", json!(7)), ("1.5", json!(7)), ("\"1\"", Value::Null)]
    {
        let given = if id.is_null() { String::new() } else { format!("\"id\":{id},") };
        client
            .say(format!(r#"{{"jsonrpc":"2.0",{given}"method":"$/credit","params":{{"stream":1,"bytes":{bytes}}}}}"#))
            .await;
        assert_eq!(error(&client.answer(id).await).0, i64::from(codes::INVALID_PARAMS), "{bytes}");
    }
}

#[tokio::test]
async fn words_about_what_is_gone_or_never_was_change_nothing() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    for params in [json!({"id": 1}), json!({"id": "never"}), json!({"id": i64::MIN})] {
        client.tell("$/cancelRequest", params).await;
    }
    for stream in [0, 1, u32::MAX] {
        client.tell("$/credit", json!({"stream": stream, "bytes": 1})).await;
        let frame = Frame { kind: FrameKind::Stdin, stream, offset: u64::MAX, payload: b"x" };
        client.socket.send(Message::binary(frame.encode())).await.unwrap();
    }
    // Who gives an id gets an answer, though none is needed.
    assert_eq!(client.call(1, "$/cancelRequest", json!({"id": 1})).await["result"], json!({}));
    assert_eq!(client.call(2, "$/credit", json!({"stream": 9, "bytes": 1})).await["result"], json!({}));
    // Input to a stream of events is nobody's.
    client.ask_stream(3, "auditRead", json!({"follow": true, "tool": "nothing"})).await;
    assert_eq!(client.text().await["params"]["stream"], 1);
    let frame = Frame { kind: FrameKind::Stdin, stream: 1, offset: 0, payload: b"x" };
    client.socket.send(Message::binary(frame.encode())).await.unwrap();
    assert!(client.call(4, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_refusal_is_short_however_long_what_was_refused() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    let long = "é".repeat(1 << 20);
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"$/{long}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"list","{long}":1}}"#),
        format!(r#"{{"jsonrpc":"{long}","id":1,"method":"list"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"$/cancelRequest","params":{{"{long}":1}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"list","params":{{"{long}":1}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"$/refresh","params":{{"token":"{long}"}}}}"#),
    ] {
        client.say(text.as_str()).await;
        let answer = client.text().await;
        let (code, _) = error(&answer);
        assert!(answer.to_string().len() < 8_000, "{code}: {} bytes", answer.to_string().len());
    }
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_token_that_is_not_good_here_refreshes_nothing() {
    let served = serve_signed().await;
    let good = claims(&[Scope::Read]);
    let mut client = open_as(&served, &sign(&good)).await;
    let all = claims(&Scope::ALL);
    for (claims, code) in [
        (Claims { sub: "another".to_owned(), ..all.clone() }, Code::Forbidden),
        (Claims { aud: "another".to_owned(), ..all.clone() }, Code::Unauthorized),
        (Claims { exp: all.iat - 1, ..all.clone() }, Code::Unauthorized),
        (Claims { workspace: "another".to_owned(), ..all.clone() }, Code::NotClaimed),
    ] {
        let answer = client.call(1, "$/refresh", json!({"token": sign(&claims)})).await;
        assert_eq!(error(&answer).1.code, code, "{claims:?}");
        // It is who it was.
        assert_eq!(error(&client.call(2, "mkdir", json!({"path": "d"})).await).1.code, Code::Forbidden);
    }
    assert!(client.call(3, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_message_in_pieces_without_end_is_cut_off_at_the_limit() {
    let served = serve(&[("COREHOLD_LIMIT_BODY_BYTES", "100000")]).await;
    let mut client = open(&served).await;
    // Masked with zeros: a text that begins, and goes on and on; each piece by itself is small.
    let piece = |opcode: u8| [&[opcode, 0xfe, 0x03, 0xe8, 0, 0, 0, 0][..], &[b'x'; 1000]].concat();
    let flood = async {
        let stream = client.socket.get_mut();
        stream.write_all(&piece(0x01)).await.unwrap();
        for _ in 0..200 {
            // The agent may have gone already.
            if stream.write_all(&piece(0x00)).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flood).await.expect("it is taken in, or nobody listens");
    assert_eq!(u16::from(client.closed().await.code), 1009);
    until(|| served.agent.agent.sockets.open() == 0).await;
}

/// It may be 16 MiB long, on each of many sockets.
#[tokio::test]
async fn a_message_that_is_never_finished_is_given_up_whatever_comes_between_its_parts() {
    let served = serve(&[("COREHOLD_LIMIT_RECEIVE_MS", "300")]).await;
    // Masked with zeros: a text's first part, without and with a ping behind it; a frame that isn't whole; the head of a frame.
    let part = [&[0x01, 0x84, 0, 0, 0, 0][..], b"{\"js"].concat();
    let ping = [0x89, 0x80, 0, 0, 0, 0].to_vec();
    let unfinished = [0x81, 0x84, 0, 0, 0, 0, b'{'].to_vec();
    for bytes in [part.clone(), [part, ping].concat(), unfinished, vec![0x81]] {
        let mut client = open(&served).await;
        assert!(client.call(1, "list", json!({})).await["result"].is_object());
        client.socket.get_mut().write_all(&bytes).await.unwrap();
        let goodbye = client.closed().await;
        assert!(u16::from(goodbye.code) == 1008 && goodbye.reason.contains("receiveMs"), "{goodbye:?}");
    }
    // Who says nothing, or only pings, is let be.
    let mut client = open(&served).await;
    for _ in 0..20 {
        client.socket.send(Message::Ping(vec![b'x'; 9].into())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(client.call(1, "list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn pings_without_end_delay_nobody_and_are_not_hoarded() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    for _ in 0..5_000 {
        client.socket.feed(Message::Ping(vec![b'x'; 125].into())).await.unwrap();
    }
    client.socket.flush().await.unwrap();
    client.ask(1, "list", json!({})).await;
    let answer = timeout(Duration::from_secs(20), client.answer(1)).await.expect("it is answered");
    assert!(answer["result"].is_object());
}
