//! HTTP as nobody should speak it, byte by byte over a real socket: bodies that end early, crawl or lie about their length, heads
//! without end, paths in disguise. Each is refused or read as the RFC says, and the agent goes on.

use std::{fs, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    served::{Served, read, read_until, serve},
    tars::Tar,
};

const AUTHORIZED: &str = "Host: x\r\nAuthorization: Bearer token\r\n";

fn tool(headers: &str, body: &str) -> String {
    format!("POST /v1/tools/list HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\n{headers}\r\n{body}")
}

fn put(path: &str, headers: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\n{AUTHORIZED}Connection: close\r\n{headers}\r\n")
}

/// The agent answers somebody else as if nothing had happened, and nothing was left in the workspace.
async fn assert_goes_on(served: &Served) {
    let answer = served.exchange(tool("Connection: close\r\nContent-Length: 2\r\n", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(served.agent.names(), Vec::<String>::new());
}

/// Sends what the agent doesn't read to its end. Its answer may be lost with the connection (RFC 9112, section 9.6).
async fn interrupted(served: &Served, request: &str) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    read(&mut stream).await
}

/// The status of each answer in what came.
fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.").skip(1).map(|answer| answer.get(2..5).unwrap_or(answer)).collect()
}

#[tokio::test]
async fn a_body_whose_sender_closes_his_half_is_broken_off() {
    let served = serve(&[]).await;
    let archive = String::from_utf8(Tar::default().file("f", "content").unfinished()).unwrap();
    for request in [
        tool("Content-Length: 10\r\n", "{"),
        tool("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n"),
        tool("Transfer-Encoding: chunked\r\n", "5\r\n{"),
        put("/v1/files/f", "Content-Length: 10\r\n") + "x",
        put("/v1/files/f", "Transfer-Encoding: chunked\r\n") + "1\r\nx\r\n",
        put("/v1/archive", "Content-Length: 100000\r\n") + &archive,
        put("/v1/archive", "Transfer-Encoding: chunked\r\n") + &format!("{:x}\r\n{archive}\r\n", archive.len()),
    ] {
        let mut stream = served.send(&request).await;
        stream.shutdown().await.unwrap();
        let answer = read(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("broke off"), "{request:.60}: {answer}");
        assert_goes_on(&served).await;
    }
}

#[tokio::test]
async fn a_body_that_crawls_is_given_up() {
    let served = serve(&[("COREHOLD_LIMIT_RECEIVE_MS", "150")]).await;
    let archive = Tar::default().file("f", &"x".repeat(15_000)).end();
    for (request, body) in [
        (tool("Connection: close\r\nContent-Length: 10000\r\n", ""), &[b' '; 10_000][..]),
        (put("/v1/files/f", "Content-Length: 10000\r\n"), &[b'x'; 10_000]),
        (put("/v1/archive", &format!("Content-Length: {}\r\n", archive.len())), &archive),
    ] {
        let mut stream = served.send(&request).await;
        let (mut reading, mut writing) = stream.split();
        let crawl = async {
            for byte in body {
                // The agent has answered and closed.
                if writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        let answer = async {
            let mut answer = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(crate::served::PATIENCE, answer) => answer.expect("it is given up"),
            () = crawl => unreachable!("it has no end"),
        };
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("RECEIVE_MS"), "{request:.60}: {answer}");
    }
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn trailers_are_read_over() {
    let served = serve(&[]).await;
    let request =
        tool("Connection: close\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nX: y\r\n\r\n");
    assert!(served.exchange(request).await.starts_with("HTTP/1.1 200 "));
    let request = put("/v1/files/f", "Transfer-Encoding: chunked\r\n") + "1\r\nx\r\n0\r\nContent-Length: 99\r\n\r\n";
    assert!(served.exchange(request).await.starts_with("HTTP/1.1 201 "));
    assert_eq!(fs::read_to_string(served.agent.root().join("f")).unwrap(), "x");
    fs::remove_file(served.agent.root().join("f")).unwrap();
    // Without end.
    for trailers in ["X: y\r\n".repeat(100_000), format!("X: {}\r\n", "y".repeat(1 << 20))] {
        let request = put("/v1/files/f", "Transfer-Encoding: chunked\r\n") + "1\r\nx\r\n0\r\n" + &trailers;
        let answer = interrupted(&served, &request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let served = serve(&[]).await;
    for body in [
        "zz\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        "\r\n\r\n",
        "1\nx\n0\n\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "fffffffffffffffff\r\nx",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "1;\0\x01\n\r\nx\r\n0\r\n\r\n",
        "\0\0\0\0",
    ] {
        let answer = served.exchange(put("/v1/files/f", "Transfer-Encoding: chunked\r\n") + body).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
        assert_eq!(served.agent.names(), Vec::<String>::new(), "{body:?}");
    }
    let endless = put("/v1/files/f", "Transfer-Encoding: chunked\r\n") + "1;" + &"x".repeat(1 << 20);
    let answer = interrupted(&served, &endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_goes_on(&served).await;
}

/// What lies about its length may hide a second request from a proxy in front (RFC 9112, section 11.2): it is refused, and
/// what follows is no request.
#[tokio::test]
async fn requests_that_lie_about_their_length_hide_no_second_one() {
    let served = serve(&[]).await;
    let hidden =
        "PUT /v1/files/hidden HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nContent-Length: 1\r\n\r\nx";
    for headers in [
        "Content-Length: 2\r\nContent-Length: 0\r\n",
        "Content-Length: 2, 0\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 2 2\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Content-Length : 2\r\n",
        " Content-Length: 2\r\n",
        "X: y\r\n Content-Length: 2\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\x0b\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X\0: a\r\n",
        ": nothing\r\n",
        "no colon\r\n",
    ] {
        let answer = served.exchange(tool(headers, "{}") + hidden).await;
        assert!(statuses(&answer).len() <= 1 && !answer.starts_with("HTTP/1.1 2"), "{headers:?}: {answer}");
        assert_goes_on(&served).await;
    }
    // Chunks go before a length (RFC 9112, section 6.3): what the length would leave over is in them.
    let whole = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\nConnection: close\r\n",
    ] {
        let answer = served.exchange(tool(headers, &whole)).await;
        assert_eq!(statuses(&answer), ["400"], "{headers:?}: {answer}");
        assert_goes_on(&served).await;
    }
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let served = serve(&[]).await;
    for (request, status) in [
        (format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000)), "431"),
        (format!("GET /health HTTP/1.1\r\n{}", "X: y\r\n".repeat(1_000_000)), "431"),
        (format!("GET /health HTTP/1.1\r\n{}: y\r\n\r\n", "x".repeat(1 << 20)), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000)), "414"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20)), "4"),
        (format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "X".repeat(1 << 20)), "4"),
    ] {
        let answer = interrupted(&served, &request).await;
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:.30}: {answer}");
    }
    // As long as it may be, and nothing of that name.
    let long = format!("GET /v1/files/{} HTTP/1.1\r\n{AUTHORIZED}Connection: close\r\n\r\n", "x/".repeat(30_000));
    assert!(served.exchange(long).await.starts_with("HTTP/1.1 4"));
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn paths_in_disguise_stay_within_the_root() {
    let served = serve(&[]).await;
    fs::write(served.agent.outside().join("secret"), "secret").unwrap();
    let around = fs::read_dir(served.agent.outside()).unwrap().count();
    let (out, bad, root, name) = ("403 403 403", "400 400 400", "409 409 409", "404 201 204");
    for (path, answers) in [
        ("..%2fsecret", out),
        ("%2e%2e/secret", out),
        ("%2e%2e%2fsecret", out),
        (".%2e/secret", out),
        ("./../secret", out),
        ("%2fetc%2fpasswd", out),
        ("/etc/passwd", out),
        ("//etc/passwd", out),
        // There is no `a` from which to go up; who writes would have it made.
        ("a/../../secret", "404 403 404"),
        ("a/%2e%2e/%2e%2e/secret", "404 403 404"),
        ("f%00", bad),
        ("%00", bad),
        ("f%00/../../secret", bad),
        ("%", bad),
        ("%2", bad),
        ("%zz", bad),
        ("", root),
        ("%2e", root),
        ("%2e%2e", "403 409 409"),
        // Odd names, but names: each is made beneath the root, and goes again.
        ("a\\..\\..\\secret", name),
        ("%c0%ae%c0%ae/secret", name),
        ("..%c0%afsecret", name),
        ("%252e%252e%252fsecret", name),
    ] {
        let mut statuses = Vec::new();
        for (method, body) in [("GET", ""), ("PUT", "x"), ("DELETE", "")] {
            let request = put(&format!("/v1/files/{path}"), &format!("Content-Length: {}\r\n", body.len())) + body;
            let answer = served.exchange(request.replacen("PUT", method, 1)).await;
            statuses.push(answer.get(9..12).unwrap_or_default().to_owned());
        }
        assert_eq!(statuses.join(" "), answers, "{path}");
        assert_eq!(fs::read_to_string(served.agent.outside().join("secret")).unwrap(), "secret", "{path}");
        assert_eq!(fs::read_dir(served.agent.outside()).unwrap().count(), around, "{path}");
    }
    // A directory that was made for one of them.
    assert_eq!(served.agent.names().len(), 1);
    fs::remove_dir(fs::read_dir(served.agent.root()).unwrap().next().unwrap().unwrap().path()).unwrap();
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn any_bytes_but_nul_are_a_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let served = serve(&[]).await;
    let answer = served.exchange(put("/v1/files/caf%e9%ff%0a%25", "Content-Length: 1\r\n") + "x").await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let path = served.agent.root().join(std::ffi::OsStr::from_bytes(b"caf\xe9\xff\n%"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    fs::remove_file(path).unwrap();
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn older_and_newer_http_are_answered_or_let_go() {
    let served = serve(&[]).await;
    let answer = served.exchange("GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut kept = served.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    read_until(&mut kept, "\"status\":\"ok\"").await;
    kept.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(statuses(&read(&mut kept).await), ["200"]);
    // Chunks are unknown to HTTP/1.0 (RFC 9112, section 6.1).
    let chunked = tool("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    let answer = served.exchange(chunked).await;
    assert!(statuses(&answer).len() <= 1, "{answer}");
    for other in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "GET /health\r\n\r\n",
        "GET  /health  HTTP/1.1\r\n\r\n",
    ] {
        let answer = served.exchange(other).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{other:?}: {answer}");
    }
    // An upgrade that isn't offered is read over.
    let upgrade = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n";
    assert!(served.exchange(upgrade).await.starts_with("HTTP/1.1 200 "));
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn requests_that_follow_each_other_without_waiting_are_answered_in_order() {
    let served = serve(&[]).await;
    let mut requests = String::new();
    for number in 0..200 {
        let method = if number % 2 == 0 { "HEAD" } else { "GET" };
        requests += &format!("{method} /nowhere/{number} HTTP/1.1\r\n{AUTHORIZED}X-Request-Id: n{number}\r\n\r\n");
    }
    requests += &tool("Connection: close\r\nContent-Length: 2\r\n", "{}");
    let answer = served.exchange(requests).await;
    let statuses = statuses(&answer);
    assert_eq!((statuses.len(), statuses[0], statuses[200]), (201, "404", "200"), "{answer}");
    assert_goes_on(&served).await;
}

#[tokio::test]
async fn a_thousand_who_say_nothing_keep_nobody_out() {
    let served = serve(&[]).await;
    let mut idle = Vec::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // Some have begun.
        if number % 2 == 0 {
            stream.write_all(b"POST /v1/tools/list HTTP/1.1\r\nHost:").await.unwrap();
        }
        idle.push(stream);
    }
    assert_goes_on(&served).await;
}
