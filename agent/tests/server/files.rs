//! `GET, HEAD, PUT, DELETE /v1/files/{path}`.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
};

use axum::body::Body;
use corehold_types::{Code, wire::FileWritten};
use futures_util::{StreamExt as _, stream};
use http::Method;

use crate::support::{Answer, TestAgent};

fn written(answer: &Answer) -> FileWritten {
    serde_json::from_slice(&answer.assert_ok().body).unwrap()
}

#[tokio::test]
async fn what_is_put_is_got() {
    let agent = TestAgent::new();
    let created = agent.put("/v1/files/new/deep/file", "content").await;
    assert_eq!(created.status, 201);
    assert_eq!((written(&created).size, written(&created).created), (7, true));
    assert_eq!(created.header("etag"), format!("\"{}\"", written(&created).version));
    // The version that came with the answer is the file's, whichever word it has by now: one that was changed a moment ago has a longer one.
    let same = [("if-match", created.header("etag"))];
    let got = agent.get("/v1/files/new/deep/file", &same).await;
    assert_eq!((got.status.as_u16(), got.text()), (200, "content"));
    assert_eq!((got.header("content-length"), got.header("x-content-type-options")), ("7", "nosniff"));
    let replaced = agent.put("/v1/files/new/deep/file", "").await;
    assert_eq!((replaced.status.as_u16(), written(&replaced).created), (200, false));
    assert_ne!(replaced.header("etag"), created.header("etag"));
    let head = agent.call(Method::HEAD, "/v1/files/new/deep/file", &[], "").await;
    assert_eq!((head.header("content-length"), head.body.len()), ("0", 0));
}

#[tokio::test]
async fn names_of_any_bytes_and_absolute_paths_name_files() {
    let agent = TestAgent::new();
    agent.put("/v1/files/caf%E9%20%2F%2e/x", "latin").await.assert_ok();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 ");
    assert_eq!(fs::read_to_string(agent.root().join(name).join("x")).unwrap(), "latin");
    let absolute = format!("/v1/files/{}/plain", agent.root().display());
    agent.put(&absolute, "x").await.assert_ok();
    assert_eq!(agent.get("/v1/files/plain", &[]).await.text(), "x");
}

#[tokio::test]
async fn paths_that_can_not_be_are_refused_on_every_method() {
    let agent = TestAgent::new();
    fs::create_dir(agent.root().join("d")).unwrap();
    symlink("../outside", agent.root().join("way-out")).unwrap();
    fs::create_dir(agent.outside().join("outside")).unwrap();
    fs::write(agent.outside().join("outside/x"), "outside").unwrap();
    let fifo = agent.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    for (path, status, code) in [
        ("..", 0, Code::PathOutsideRoot),
        ("../outside/x", 403, Code::PathOutsideRoot),
        ("%2e%2e/outside/x", 403, Code::PathOutsideRoot),
        ("way-out/x", 403, Code::PathOutsideRoot),
        ("/etc/passwd", 403, Code::PathOutsideRoot),
        ("a%00b", 400, Code::InvalidRequest),
        ("a%4", 400, Code::InvalidRequest),
        ("d", 409, Code::NotAFile),
        ("d/", 409, Code::NotAFile),
        ("", 409, Code::NotAFile),
        (&"n".repeat(256), 400, Code::InvalidRequest),
        (&"n/".repeat(2048), 400, Code::InvalidRequest),
    ] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = agent.call(method.clone(), &format!("/v1/files/{path}"), &[], "").await;
            let problem = answer.problem();
            // A path that ends in `..` has no name to put or delete, wherever it leads.
            let expected = if status == 0 && method != Method::GET { Code::NotAFile } else { code };
            assert_eq!(problem.code, expected, "{method} {path}: {}", problem.detail);
        }
    }
    agent.get("/v1/files/pipe", &[]).await.assert_problem(409, Code::NotAFile);
    agent.put("/v1/files/pipe", "x").await.assert_problem(409, Code::NotAFile);
    agent.get("/v1/files/d/none", &[]).await.assert_problem(404, Code::NotFound);
    assert_eq!(agent.names(), ["d", "pipe", "way-out"]);
    assert_eq!(fs::read_to_string(agent.outside().join("outside/x")).unwrap(), "outside");
}

#[tokio::test]
async fn a_range_is_a_part_of_the_file() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("f"), "0123456789").unwrap();
    for (range, content, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
        ("bytes=5-999", "56789", "bytes 5-9/10"),
    ] {
        let answer = agent.get("/v1/files/f", &[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (206, content), "{range}");
        assert_eq!(answer.header("content-range"), content_range);
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=4-2"] {
        let answer = agent.get("/v1/files/f", &[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "0123456789"), "{range}");
    }
    let answer = agent.get("/v1/files/f", &[("range", "bytes=10-")]).await;
    answer.assert_problem(416, Code::InvalidRequest);
    assert_eq!(answer.header("content-range"), "bytes */10");
    let version = answer.header("etag").to_owned();
    let same = agent.get("/v1/files/f", &[("range", "bytes=0-0"), ("if-range", &version)]).await;
    assert_eq!(same.status, 206);
    let other = agent.get("/v1/files/f", &[("range", "bytes=0-0"), ("if-range", "\"other\"")]).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn conditions_keep_a_stale_write_from_overwriting() {
    let agent = TestAgent::new();
    let first = agent.put("/v1/files/f", "first").await.header("etag").to_owned();
    let put = async |headers: &[(&str, &str)], body: &str| {
        agent.call(Method::PUT, "/v1/files/f", headers, body.to_owned()).await
    };
    let second = put(&[("if-match", &first)], "second").await.assert_ok().header("etag").to_owned();
    let problem = put(&[("if-match", &first)], "third").await.assert_problem(412, Code::VersionMismatch);
    assert_eq!(problem.context["version"], second.trim_matches('"'));
    put(&[("if-match", "\"nonsense\"")], "x").await.assert_problem(412, Code::VersionMismatch);
    put(&[("if-none-match", "*")], "x").await.assert_problem(412, Code::AlreadyExists);
    put(&[("if-match", "unquoted")], "x").await.assert_problem(400, Code::InvalidRequest);
    put(&[("content-range", "bytes 0-1/2")], "x").await.assert_problem(400, Code::InvalidRequest);
    let hash = format!("\"{}\"", blake3::hash(b"second").to_hex());
    put(&[("if-match", &hash)], "third").await.assert_ok();
    let none = agent.call(Method::PUT, "/v1/files/none", &[("if-match", "*")], "x").await;
    none.assert_problem(412, Code::VersionMismatch);
    let new = agent.call(Method::PUT, "/v1/files/new/x", &[("if-none-match", "*")], "x").await;
    assert_eq!(new.status, 201);
    assert_eq!(fs::read_to_string(agent.root().join("f")).unwrap(), "third");
    assert_eq!(agent.names(), ["f", "new", "new/x"]);
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let agent = TestAgent::new();
    let version = agent.put("/v1/files/f", "x").await.header("etag").to_owned();
    let answer = agent.get("/v1/files/f", &[("if-none-match", &version)]).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
    let answer = agent.get("/v1/files/f", &[("if-none-match", &format!("W/{version}, \"other\""))]).await;
    assert_eq!(answer.status, 304);
    assert_eq!(agent.get("/v1/files/f", &[("if-none-match", "\"other\"")]).await.status, 200);
    agent.get("/v1/files/f", &[("if-match", "\"other\"")]).await.assert_problem(412, Code::VersionMismatch);
}

/// Twenty writers each add one to a number, by version; none of the additions is lost.
#[tokio::test(flavor = "multi_thread")]
async fn of_writers_with_one_version_one_wins() {
    let agent = TestAgent::new();
    agent.put("/v1/files/number", "0").await.assert_ok();
    let writers = (0..20).map(|_| async {
        loop {
            let read = agent.get("/v1/files/number", &[]).await;
            let next = read.text().parse::<u32>().unwrap() + 1;
            let headers = [("if-match", read.header("etag"))];
            let answer = agent.call(Method::PUT, "/v1/files/number", &headers, next.to_string()).await;
            if answer.status.is_success() {
                return;
            }
            answer.assert_problem(412, Code::VersionMismatch);
        }
    });
    futures_util::future::join_all(writers).await;
    assert_eq!(agent.get("/v1/files/number", &[]).await.text(), "20");
}

#[tokio::test]
async fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() {
    let agent = TestAgent::new();
    let file = agent.root().join("program");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("program", agent.root().join("link")).unwrap();
    symlink("later", agent.root().join("dangling")).unwrap();
    agent.put("/v1/files/link", "new").await.assert_ok();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(agent.put("/v1/files/dangling", "made").await.status, 201);
    assert_eq!(fs::read_to_string(agent.root().join("later")).unwrap(), "made");
    assert!(fs::symlink_metadata(agent.root().join("link")).unwrap().is_symlink());
    agent.call(Method::DELETE, "/v1/files/link", &[], "").await.assert_ok();
    assert_eq!(agent.names(), ["dangling", "later", "program"], "the link is deleted, not what it points to");
}

#[tokio::test]
async fn deleting_needs_the_version_that_is_there() {
    let agent = TestAgent::new();
    let version = agent.put("/v1/files/f", "x").await.header("etag").to_owned();
    let delete = async |headers: &[(&str, &str)]| agent.call(Method::DELETE, "/v1/files/f", headers, "").await;
    delete(&[("if-match", "\"other\"")]).await.assert_problem(412, Code::VersionMismatch);
    assert_eq!(delete(&[("if-match", &version)]).await.status, 204);
    delete(&[]).await.assert_problem(404, Code::NotFound);
}

#[tokio::test]
async fn large_files_stream_both_ways() {
    let agent = TestAgent::new();
    let piece = |number: u32| number.to_le_bytes().repeat(4 << 10);
    let body = Body::from_stream(stream::iter(0..2000).map(move |number| Ok::<_, std::io::Error>(piece(number))));
    let answer = agent.put("/v1/files/large", body).await;
    assert_eq!(written(&answer).size, 2000 << 14);
    let got = agent.get("/v1/files/large", &[]).await;
    assert_eq!(got.header("etag"), answer.header("etag"));
    let expected: Vec<u8> = (0..2000).flat_map(piece).collect();
    assert!(got.body == expected);
    let range = format!("bytes={}-{}", 1 << 20, 9 << 20);
    let part = agent.get("/v1/files/large", &[("range", &range)]).await;
    assert!(part.body == expected[1 << 20..=9 << 20]);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_FILE_BYTES", "1000")]);
    fs::write(agent.root().join("f"), "old").unwrap();
    let broken = || {
        let error = std::io::Error::other("gone");
        Body::from_stream(stream::iter([Ok("begun".to_owned()), Err(error)]))
    };
    for path in ["f", "new/deep/f"] {
        let uri = format!("/v1/files/{path}");
        agent.put(&uri, broken()).await.assert_problem(400, Code::InvalidRequest);
        agent.put(&uri, "x".repeat(1001)).await.assert_problem(413, Code::LimitExceeded);
        let pieces = stream::iter(0..100).map(|_| Ok::<_, std::io::Error>("x".repeat(100)));
        let problem = agent.put(&uri, Body::from_stream(pieces)).await.assert_problem(413, Code::LimitExceeded);
        assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_FILE_BYTES");
    }
    assert_eq!(agent.names(), ["f"]);
    assert_eq!(fs::read_to_string(agent.root().join("f")).unwrap(), "old");
}

#[tokio::test]
async fn uploads_beyond_the_limit_wait_and_hold_nobody_else_up() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_TRANSFERS", "1")]);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, std::io::Error>>(1);
    let slow = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let first = agent.put("/v1/files/first", Body::from_stream(slow));
    let second = agent.put("/v1/files/second", "second");
    let reads = async {
        sender.send(Ok("begun")).await.unwrap();
        for _ in 0..100 {
            agent.tool("list", "{}").await.assert_ok();
        }
        assert!(!agent.root().join("second").exists(), "it has to wait");
        drop(sender);
    };
    let (first, second, ()) = futures_util::join!(first, second, reads);
    first.assert_ok();
    second.assert_ok();
    assert_eq!(agent.names(), ["first", "second"]);
}
