//! Over a real socket: what is slow, broken, too large or gone, and how the agent ends.

use std::{fs, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    served::{PATIENCE, read, read_until, serve, until_names},
    tars::{Tar, gzip},
};

fn put(path: &str, headers: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n{headers}\r\n\r\n")
}

#[tokio::test]
async fn several_requests_share_a_connection() {
    let served = serve(&[]).await;
    let mut stream = served.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut stream, "\"status\":\"ok\"").await;
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_caller_who_closes_his_half_is_answered() {
    let served = serve(&[]).await;
    let mut stream = served.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let served = serve(&[]).await;
    for request in
        ["GARBAGE\r\n\r\n", "GET /\x01 HTTP/1.1\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\0\x01\0"]
    {
        let answer = served.exchange(request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    let huge = format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(served.exchange(huge).await.starts_with("HTTP/1.1 431 "));
    let smuggled = "POST /v1/tools/info HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
    assert!(served.exchange(smuggled).await.starts_with("HTTP/1.1 400 "));
    let health = served.exchange("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200 "), "the agent goes on");
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let served = serve(&[("COREHOLD_LIMIT_RECEIVE_MS", "100")]).await;
    let tool = "POST /v1/tools/info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    for request in [tool.to_owned(), put("/v1/files/d/f", "Content-Length: 10") + "x"] {
        let answer = served.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("COREHOLD_LIMIT_RECEIVE_MS") && answer.contains("\"retryable\":true"), "{answer}");
    }
    assert!(served.agent.names().is_empty());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let served = serve(&[("COREHOLD_LIMIT_IDLE_MS", "50")]).await;
    for begun in ["", "GET /health HT"] {
        let answer = served.exchange(begun).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test]
async fn a_body_is_refused_before_it_is_sent() {
    let served = serve(&[]).await;
    let request = "PUT /v1/files/f HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
                   Content-Length: 1000000000\r\n\r\n";
    let answer = served.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "no `100 Continue` comes first: {answer}");
    let huge = put("/v1/files/f", "Content-Length: 1000000000000000");
    assert!(served.exchange(huge).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn beyond_the_limit_callers_wait_until_another_goes() {
    let served = serve(&[("COREHOLD_LIMIT_CONNECTIONS", "1")]).await;
    let mut first = served.send("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n\r\n").await;
    read_until(&mut first, "HTTP/1.1 200").await;
    let mut second = served.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut byte = [0; 1];
    assert!(timeout(Duration::from_millis(100), second.read(&mut byte)).await.is_err(), "it has to wait");
    drop(first);
    assert!(read(&mut second).await.contains("\"status\":\"ok\""));
}

/// As many as there may be: whoever is inside can make them, and has no token.
#[tokio::test]
async fn nobody_is_kept_out_by_connections_that_show_no_token() {
    let served = serve(&[("COREHOLD_LIMIT_CONNECTIONS", "3")]).await;
    let mut known = served.send("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n\r\n").await;
    read_until(&mut known, "HTTP/1.1 200").await;
    let silent = [served.send("").await, served.send("GET /metrics HTTP/1.1\r\nAuthorization: Bearer wrong\r\n").await];
    let request = put("/v1/files/f", "Content-Length: 0");
    let mut more = Vec::new();
    for _ in 0..2 {
        assert!(served.exchange(&request).await.starts_with("HTTP/1.1 "), "somebody else is answered");
        more.push(served.send("").await);
    }
    for mut silent in silent {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("it had to go");
        assert_eq!(rest, b"");
    }
    known.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read(&mut known).await.contains("\"status\":\"ok\""), "who has shown one stays");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let served = serve(&[]).await;
    let archive = Tar::default().file("f", "content").file("g", &"x".repeat(5000)).unfinished();
    let request = put("/v1/archive?path=new", "Content-Length: 1000000").into_bytes();
    let stream = served.send([request, archive].concat()).await;
    until_names(&served.agent, |names| names.iter().any(|name| name.ends_with("/g"))).await;
    drop(stream);
    until_names(&served.agent, <[_]>::is_empty).await;
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_agent_ends() {
    // As long as it takes on a machine that is busy: with the default, what came later than after 5 s was cut off.
    let served = serve(&[("COREHOLD_SHUTDOWN_GRACE_MS", "60000")]).await;
    let mut stream = served.send(put("/v1/archive", "Transfer-Encoding: chunked")).await;
    let archive = gzip(&Tar::default().file("f", "content").end());
    let (begin, rest) = archive.split_at(archive.len() / 2);
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&chunk(begin)).await.unwrap();
    until_names(&served.agent, |names| !names.is_empty()).await;
    served.end.send(()).unwrap();
    timeout(PATIENCE, served.agent.agent.shutting_down()).await.unwrap();
    stream.write_all(&chunk(rest)).await.unwrap();
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200 "));
    timeout(PATIENCE, served.server).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody is let in any more");
    assert_eq!(fs::read_to_string(served.agent.root().join("f")).unwrap(), "content");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let served = serve(&[("COREHOLD_SHUTDOWN_GRACE_MS", "50")]).await;
    let _stream = served.send(put("/v1/files/f", "Content-Length: 10") + "x").await;
    served.end.send(()).unwrap();
    timeout(PATIENCE, served.server).await.expect("the server ends although a body never comes").unwrap();
}
