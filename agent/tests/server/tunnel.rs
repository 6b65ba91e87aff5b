//! `GET /v1/tunnel/{port}` over a real socket: bytes both ways, ends, limits, and everything that is refused.

use std::time::Duration;

use corehold_types::{Code, Problem, tools::AuditOutcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    audit,
    served::{PATIENCE, Served, serve},
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: corehold-tunnel\r\n";

fn request(port: impl std::fmt::Display, headers: &str) -> String {
    format!("GET /v1/tunnel/{port} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n{headers}\r\n")
}

/// Reads the head of an answer, and not a byte more.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("the answer comes").unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An open tunnel to a port.
async fn open(served: &Served, port: u16) -> TcpStream {
    let mut stream = served.send(request(port, UPGRADE)).await;
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("upgrade: corehold-tunnel\r\n"), "{head}");
    stream
}

/// Sends a request that is refused, and returns the problem.
async fn refused(served: &Served, request: String) -> Problem {
    let answer = served.exchange(request.replacen("Host: x", "Host: x\r\nConnection: close", 1)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    assert!(head.to_lowercase().contains("application/problem+json"), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Listens inside. Whoever is tunnelled to it is accepted by hand.
async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.expect("the agent connects").unwrap().0
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it ends").unwrap();
    all
}

/// No tunnel is left: every permit is back, and nothing keeps the workspace awake.
async fn none_left(served: &Served) {
    let agent = &served.agent.agent;
    let all = agent.config.limits.tunnels.value.try_into().unwrap();
    drop(timeout(PATIENCE, agent.tunnels.acquire_many(all)).await.expect("they end").unwrap());
    assert!(agent.activity.snapshot().held.is_empty());
}

#[tokio::test]
async fn a_page_is_fetched_through_it() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let page = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let mut request = [0; 18];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"GET / HTTP/1.0\r\n\r\n");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").await.unwrap();
    });
    // What follows the request's head at once belongs to the tunnel.
    let mut stream = served.send(request(port, UPGRADE) + "GET / HTTP/1.0\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read_to_end(&mut stream).await, b"HTTP/1.0 200 OK\r\n\r\nhello");
    page.await.unwrap();
    drop(stream);
    none_left(&served).await;
    // One record of its opening, and one of its end.
    let records = audit::read(&served.agent, r#"{"tool": "GET /v1/tunnel"}"#).await.records;
    let shown: Vec<_> = records.iter().map(|record| (record.outcome, record.bytes_in, record.bytes_out)).collect();
    assert_eq!(shown, [(AuditOutcome::Ok, None, None), (AuditOutcome::Ended, Some(18), Some(24))]);
    assert_eq!(records[0].request_id, records[1].request_id);
    assert_eq!(records[1].detail.as_deref(), Some(format!("/v1/tunnel/{port}").as_str()));
}

#[tokio::test]
async fn a_hundred_megabytes_go_both_ways_unchanged() {
    const PERIOD: usize = 1_000_003;
    const TOTAL: usize = 100 * PERIOD;
    let pattern: std::sync::Arc<[u8]> =
        (0..PERIOD as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = accept(&listener).await.into_split();
        let echoed = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        echoed
    });
    let (mut reader, mut writer) = open(&served, port).await.into_split();
    let sent = pattern.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..TOTAL / PERIOD {
            writer.write_all(&sent).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut piece = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let length = timeout(PATIENCE, reader.read(&mut piece)).await.expect("more comes").unwrap();
        if length == 0 {
            break;
        }
        for part in piece[..length].chunks(1024) {
            let begin = at % PERIOD;
            let until_wrap = part.len().min(PERIOD - begin);
            assert!(part[..until_wrap] == pattern[begin..begin + until_wrap], "bytes differ after {at}");
            assert!(part[until_wrap..] == pattern[..part.len() - until_wrap], "bytes differ after {at}");
            at += part.len();
        }
    }
    assert_eq!(at, TOTAL);
    sending.await.unwrap();
    assert_eq!(echo.await.unwrap(), TOTAL as u64);
    none_left(&served).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_its_writer() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let mut caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    let piece = [7; 64 << 10];
    let mut sent = 0;
    // What the kernel holds in its sockets' buffers is all that goes: the agent itself holds next to nothing.
    while let Ok(written) = timeout(Duration::from_millis(300), caller.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "somebody takes it all in");
    }
    caller.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut inner).await.len(), sent);
}

#[tokio::test]
async fn an_end_in_one_direction_leaves_the_other_open() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let mut caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut inner).await, b"question");
    inner.write_all(b"answer").await.unwrap();
    inner.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut caller).await, b"answer");

    let mut caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    inner.write_all(b"greeting").await.unwrap();
    inner.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut caller).await, b"greeting");
    caller.write_all(b"reply").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut inner).await, b"reply");
    none_left(&served).await;
}

#[tokio::test]
async fn a_listener_on_ipv6_alone_is_reached() {
    let served = serve(&[]).await;
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        panic!("this machine has no IPv6 loopback: `sysctl net.ipv6.conf.lo.disable_ipv6=0` gives it one");
    };
    let mut caller = open(&served, listener.local_addr().unwrap().port()).await;
    let mut inner = accept(&listener).await;
    inner.write_all(b"six").await.unwrap();
    drop(inner);
    assert_eq!(read_to_end(&mut caller).await, b"six");
}

#[tokio::test]
async fn what_cannot_be_reached_is_a_problem_before_the_upgrade() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    drop(listener);
    let problem = refused(&served, request(port, UPGRADE)).await;
    assert_eq!((problem.code, problem.status, problem.retryable), (Code::NotListening, 404, true));
    assert_eq!(problem.context["port"], port);
    assert!(problem.detail.contains("127.0.0.1") && problem.detail.contains("[::1]"), "{}", problem.detail);

    let own = served.address.port();
    let problem = refused(&served, request(own, UPGRADE)).await;
    assert_eq!(problem.code, Code::Forbidden);
    assert!(problem.detail.contains("agent's own"), "{}", problem.detail);

    for port in ["0", "70000", "-1", "+80", "http", "80%20", "%00", "٣", "4321x", "99999999999999999999"] {
        let problem = refused(&served, request(port, UPGRADE)).await;
        assert_eq!(problem.code, Code::InvalidRequest, "{port}: {problem:?}");
    }
    for path in ["/v1/tunnel", "/v1/tunnel/", "/v1/tunnel/80/x"] {
        let request = request(80, UPGRADE).replacen("/v1/tunnel/80", path, 1);
        assert_eq!(refused(&served, request).await.code, Code::UnknownRoute, "{path}");
    }
    none_left(&served).await;
}

#[tokio::test]
async fn whoever_does_not_ask_for_the_upgrade_gets_none() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    for headers in [
        "",
        "Upgrade: corehold-tunnel\r\n",
        "Connection: Upgrade\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        &format!("{UPGRADE}Content-Length: 5\r\n"),
        &format!("{UPGRADE}Transfer-Encoding: chunked\r\n"),
    ] {
        let problem = refused(&served, request(port, headers)).await;
        assert_eq!(problem.code, Code::InvalidRequest, "{headers}: {problem:?}");
    }
    let old = request(port, UPGRADE).replacen("HTTP/1.1", "HTTP/1.0", 1);
    assert_eq!(refused(&served, old).await.code, Code::InvalidRequest);
    let post = request(port, UPGRADE).replacen("GET", "POST", 1);
    assert_eq!(refused(&served, post).await.code, Code::MethodNotAllowed);
    let head = request(port, UPGRADE).replacen("GET", "HEAD", 1).replacen("Host: x", "Host: x\r\nConnection: close", 1);
    assert!(served.exchange(head).await.starts_with("HTTP/1.1 405 "));
    assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err(), "nobody was connected");

    // Names of headers' words know no case, and there may be several.
    let odd = "connection: keep-alive, UPGRADE\r\nupgrade: other, Corehold-Tunnel\r\n";
    let mut stream = served.send(request(port, odd)).await;
    assert!(self::head(&mut stream).await.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn without_a_token_it_is_not_even_tried() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    for token in ["", "Authorization: Bearer wrong\r\n"] {
        let request = request(port, UPGRADE).replacen("Authorization: Bearer token\r\n", token, 1);
        assert_eq!(refused(&served, request).await.code, Code::Unauthorized);
    }
    let foreign = format!("{UPGRADE}Origin: https://evil.example\r\n");
    assert_eq!(refused(&served, request(port, &foreign)).await.code, Code::Forbidden);
    assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err(), "nobody was connected");
}

#[tokio::test]
async fn a_hundred_at_once_and_not_one_more_than_the_limit() {
    let served = serve(&[("COREHOLD_LIMIT_TUNNELS", "100")]).await;
    let (listener, port) = listen().await;
    let echo = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for _ in 0..100 {
            let (mut reader, mut writer) = accept(&listener).await.into_split();
            connections.spawn(async move { tokio::io::copy(&mut reader, &mut writer).await.unwrap() });
        }
        connections.join_all().await.into_iter().sum::<u64>()
    });
    let mut callers = Vec::new();
    for _ in 0..100 {
        callers.push(open(&served, port).await);
    }
    let problem = refused(&served, request(port, UPGRADE)).await;
    assert_eq!(problem.code, Code::LimitExceeded);
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_TUNNELS");
    let held = served.agent.agent.activity.snapshot().held;
    assert_eq!((held[0].1.as_ref(), held[0].2.count), (format!("port {port}").as_str(), 100));
    let mut talking = JoinSet::new();
    for (number, mut caller) in callers.into_iter().enumerate() {
        talking.spawn(async move {
            caller.write_all(format!("{number:04}").as_bytes()).await.unwrap();
            caller.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut caller).await, format!("{number:04}").as_bytes());
        });
    }
    talking.join_all().await;
    assert_eq!(echo.await.unwrap(), 400);
    none_left(&served).await;
}

#[tokio::test]
async fn a_caller_who_vanishes_takes_the_inner_connection_along() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let mut caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    caller.write_all(b"12345").await.unwrap();
    inner.read_exact(&mut [0; 5]).await.unwrap();
    inner.write_all(b"678").await.unwrap();
    caller.read_exact(&mut [0; 3]).await.unwrap();
    // A reset, as from a process that was killed with bytes unread.
    caller.set_zero_linger().unwrap();
    drop(caller);
    let end = timeout(PATIENCE, inner.read(&mut [0])).await.expect("the server is told");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "it isn't the end of what was sent");
    none_left(&served).await;
    let broken = audit::read(&served.agent, r#"{"tool": "GET /v1/tunnel"}"#).await.records.remove(1);
    assert_eq!((broken.bytes_in, broken.bytes_out), (Some(5), Some(3)), "nobody hides by breaking off");

    // And whoever only closes is an end of input, by which a server goes.
    let caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    drop(caller);
    assert_eq!(read_to_end(&mut inner).await, b"");
    drop(inner);
    none_left(&served).await;

    let mut caller = open(&served, port).await;
    let inner = accept(&listener).await;
    inner.set_zero_linger().unwrap();
    drop(inner);
    let _ = timeout(PATIENCE, caller.read(&mut [0])).await.expect("the caller learns that the server is gone");
    none_left(&served).await;
}

#[tokio::test]
async fn an_idle_tunnel_ends_with_the_agent() {
    // Longer than the time in which a request's head must have come: a tunnel is no request any more.
    let served = serve(&[("COREHOLD_LIMIT_IDLE_MS", "50")]).await;
    let (listener, port) = listen().await;
    let mut caller = open(&served, port).await;
    let mut inner = accept(&listener).await;
    assert!(timeout(Duration::from_millis(200), caller.read(&mut [0])).await.is_err(), "it is left alone");
    served.end.send(()).unwrap();
    assert_eq!(read_to_end(&mut caller).await, b"");
    assert_eq!(read_to_end(&mut inner).await, b"");
    timeout(PATIENCE, served.server).await.expect("the server ends").unwrap();
}

/// Once an answer that was cut off inside came to its end outside, as if it were whole.
#[tokio::test]
async fn what_is_cut_off_inside_is_cut_off_outside() {
    let served = serve(&[]).await;
    let (listener, port) = listen().await;
    let mut outside = open(&served, port).await;
    let mut inside = accept(&listener).await;
    inside.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    outside.read_exact(&mut half).await.unwrap();
    inside.set_zero_linger().unwrap();
    drop(inside);
    let end = timeout(PATIENCE, outside.read(&mut half)).await.expect("it is told");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    none_left(&served).await;
}
