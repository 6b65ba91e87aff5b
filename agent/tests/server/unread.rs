//! Callers who stop reading in the middle of what they asked for: their connections end, whatever it is, and those of slow ones
//! don't.

use std::{fs, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::served::{PATIENCE, Served, read, read_until, serve};

/// Longer than all that the kernel keeps for a connection.
const LARGE: usize = 64 << 20;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n\r\n")
}

fn stream(tool: &str, body: &serde_json::Value, accept: &str) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/tools/{tool} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nAccept: {accept}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request as somebody whose kernel takes little for him, and waits until the answer has begun.
async fn begin(served: &Served, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(served.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    timeout(PATIENCE, stream.readable()).await.expect("it is answered").unwrap();
    stream
}

#[tokio::test]
async fn who_stops_reading_is_given_up_whatever_it_is() {
    // The next one is let in when the one before has gone.
    let served = serve(&[("COREHOLD_LIMIT_SEND_MS", "200"), ("COREHOLD_LIMIT_CONNECTIONS", "1")]).await;
    fs::write(served.agent.root().join("large"), vec![b'x'; LARGE]).unwrap();
    let endless = json!({"argv": ["yes"], "timeoutMs": 60_000});
    for request in [
        get("/v1/files/large"),
        get("/v1/archive?format=tar"),
        stream("command", &endless, "application/x-ndjson"),
        stream("command", &endless, "text/event-stream"),
    ] {
        let mut silent = begin(&served, &request).await;
        assert!(served.exchange(HEALTH).await.contains("\"status\":\"ok\""), "{request}");
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("nothing more comes");
        assert!(rest.len() < LARGE, "{request}");
    }
    assert!(served.agent.agent.transfers.available_permits() == 32, "no thread waits for any of them");
}

/// So many seconds are waited for: what is shorter would be too short on a busy machine.
#[tokio::test]
async fn who_reads_slowly_is_waited_for() {
    let served = serve(&[("COREHOLD_LIMIT_SEND_MS", "4000")]).await;
    fs::write(served.agent.root().join("large"), vec![b'x'; LARGE]).unwrap();
    let request = get("/v1/files/large").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut slow = served.send(request).await;
    let mut piece = vec![0; 1 << 20];
    let mut length = 0;
    for _ in 0..6 {
        length += slow.read_exact(&mut piece).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let mut rest = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("the rest comes").unwrap();
    assert!(length + rest.len() > LARGE);
}

#[tokio::test]
async fn an_end_of_a_tunnel_that_does_not_read_is_waited_for() {
    let served = serve(&[("COREHOLD_LIMIT_SEND_MS", "100")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let request = format!(
        "GET /v1/tunnel/{port} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: Upgrade\r\n\
         Upgrade: corehold-tunnel\r\n\r\n"
    );
    let mut outside = served.send(request).await;
    let (mut inside, _) = listener.accept().await.unwrap();
    read_until(&mut outside, "\r\n\r\n").await;
    let writing = tokio::spawn(async move {
        inside.write_all(&vec![b'x'; LARGE]).await.unwrap();
    });
    // Many times the limit, with much to read.
    assert!(
        timeout(Duration::from_secs(1), async {
            while !writing.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .is_err()
    );
    assert_eq!(read(&mut outside).await.len(), LARGE, "nothing was lost");
}
