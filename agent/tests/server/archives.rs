//! What comes out of archives that are taken, and what happens to what was there.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use axum::body::Body;
use corehold_types::Code;
use http::Method;

use crate::{
    served::until_names,
    support::TestAgent,
    tars::{Raw, Tar, gzip, zstd},
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn each_format_gives_the_same_files() {
    let tar = Tar::default()
        .directory("./")
        .directory("d")
        .directory("d/empty")
        .file("d/file", "content")
        .file("implicit/parent/file", "")
        .symlink("dangling", "no/where")
        .symlink("outside", "/etc/passwd")
        .hard_link("d/hard", "d/file")
        .end();
    for archive in [tar.clone(), gzip(&tar), zstd(&tar), [zstd(&tar[..1000]), zstd(&tar[1000..])].concat()] {
        let agent = TestAgent::new();
        let answer = agent.put("/v1/archive?path=a%20new/place", archive).await;
        let response = answer.assert_ok().json();
        assert_eq!((&response["files"], &response["directories"]), (&3.into(), &2.into()), "{response}");
        assert_eq!((&response["symlinks"], &response["bytes"]), (&2.into(), &7.into()), "{response}");
        let place = agent.root().join("a new/place");
        assert_eq!(fs::read_to_string(place.join("d/hard")).unwrap(), "content");
        assert_eq!(fs::metadata(place.join("d/hard")).unwrap().nlink(), 2);
        assert!(place.join("d/empty").is_dir() && place.join("implicit/parent/file").is_file());
        assert_eq!(fs::read_link(place.join("outside")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::read_dir(agent.root()).unwrap().count(), 1, "nothing else is left");
        agent.get("/v1/files/a%20new/place/outside", &[]).await.assert_problem(403, Code::PathOutsideRoot);
    }
}

#[tokio::test]
async fn modes_and_times_are_kept_but_for_set_id_bits() {
    let agent = TestAgent::new();
    let raw = |name, flag, mode| Raw { name, flag, mode, modified: 1_234_567_890, ..Raw::default() };
    let tar = Tar::default()
        .raw(&raw(b"closed", b'5', 0o500))
        .raw(&raw(b"closed/file", b'0', 0o400))
        .raw(&raw(b"open", b'5', 0o777))
        .raw(&raw(b"open/program", b'0', 0o6755))
        .raw(&raw(b"sticky", b'5', 0o1777))
        .raw(&raw(b"shared", b'0', 0o666))
        .pax("mtime", b"1700000000.123456789")
        .raw(&raw(b"precise", b'0', 0o644))
        .end();
    agent.put("/v1/archive", tar).await.assert_ok();
    for (name, expected) in [
        ("closed", 0o500),
        ("closed/file", 0o400),
        ("open", 0o777),
        ("open/program", 0o755),
        ("sticky", 0o777),
        ("shared", 0o666),
    ] {
        assert_eq!(mode(&agent.root().join(name)), expected, "{name}");
        assert_eq!(fs::metadata(agent.root().join(name)).unwrap().mtime(), 1_234_567_890, "{name}");
    }
    assert_eq!(fs::metadata(agent.root().join("precise")).unwrap().mtime_nsec(), 123_456_789);
}

#[tokio::test]
async fn of_entries_with_one_name_the_last_counts() {
    let agent = TestAgent::new();
    let tar = Tar::default()
        .file("f", "first")
        .file("f", "second")
        .symlink("way", "../outside")
        .directory("way")
        .file("way/x", "inside")
        .directory("d")
        .directory("d")
        .symlink("l", "one")
        .symlink("l", "two")
        .hard_link("f2", "f")
        .hard_link("f2", "f2")
        .end();
    agent.put("/v1/archive", tar).await.assert_ok();
    assert_eq!(fs::read_to_string(agent.root().join("f2")).unwrap(), "second");
    assert_eq!(fs::read_to_string(agent.root().join("way/x")).unwrap(), "inside");
    assert_eq!(fs::read_link(agent.root().join("l")).unwrap(), Path::new("two"));
}

#[tokio::test]
async fn what_is_there_is_merged_with_and_links_in_it_are_not_followed() {
    let agent = TestAgent::new();
    let root = agent.root();
    fs::create_dir_all(root.join("d/own")).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(root.join("d/mine"), "mine").unwrap();
    fs::write(root.join("d/both"), "old").unwrap();
    fs::write(root.join("file-becomes-link"), "old").unwrap();
    fs::create_dir(agent.outside().join("outside")).unwrap();
    symlink("../outside", root.join("way-out")).unwrap();
    let tar = Tar::default()
        .directory("d")
        .file("d/both", "new")
        .file("d/theirs", "theirs")
        .symlink("file-becomes-link", "d/both")
        .file("way-out/x", "inside")
        .end();
    agent.put("/v1/archive", tar).await.assert_ok();
    assert_eq!(
        agent.names(),
        ["d", "d/both", "d/mine", "d/own", "d/theirs", "file-becomes-link", "way-out", "way-out/x"]
    );
    assert_eq!(fs::read_to_string(root.join("file-becomes-link")).unwrap(), "new");
    assert_eq!(fs::read_dir(agent.outside().join("outside")).unwrap().count(), 0);
    assert_eq!(mode(&root.join("d")), 0o700, "a directory that was there keeps its mode");
}

/// What GNU tar writes with its usual options, including names that are no UTF-8 and longer than a header holds.
#[tokio::test]
async fn archives_of_gnu_tar_are_read() {
    let agent = TestAgent::new();
    let source = tempfile::tempdir().unwrap();
    let deep = source.path().join("a".repeat(120)).join("b".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9");
    fs::write(source.path().join(name), "latin").unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let mut child = Command::new("tar")
            .args(["--format", format, "-czf", "-", "-C"])
            .arg(source.path())
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut archive = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
        // The agent in this process reaps every child, this one perhaps before us.
        let _ = child.wait();
        agent.put(&format!("/v1/archive?path={format}"), archive).await.assert_ok();
        let place = agent.root().join(format);
        assert_eq!(fs::read_to_string(place.join(name)).unwrap(), "latin", "{format}");
        let deep = place.join("a".repeat(120)).join("b".repeat(120)).join("file");
        assert_eq!(fs::read_to_string(deep).unwrap(), "deep", "{format}");
    }
}

#[tokio::test]
async fn the_tool_takes_archives_from_the_inbox_and_the_workspace() {
    let agent = TestAgent::new();
    let archive = gzip(&Tar::default().file("f", "content").end());
    let inbox = agent.outside().join("inbox");
    fs::write(inbox.join("a.tar.gz"), &archive).unwrap();
    fs::write(agent.root().join("b.tar.gz"), &archive).unwrap();
    let hash = blake3::hash(&archive).to_hex();
    let request = format!(r#"{{"archive":{{"inbox":"a.tar.gz"}},"destination":"x","expectedHash":"{hash}"}}"#);
    agent.tool("extract", request).await.assert_ok();
    assert!(inbox.join("a.tar.gz").exists(), "kept unless told otherwise");
    agent.tool("extract", r#"{"archive":{"path":"b.tar.gz"},"destination":"y","remove":true}"#).await.assert_ok();
    assert_eq!(agent.names(), ["x", "x/f", "y", "y/f"]);
    fs::write(inbox.join("bad"), "no archive").unwrap();
    let refused = agent.tool("extract", r#"{"archive":{"inbox":"bad"},"remove":true}"#).await;
    refused.assert_problem(400, Code::ArchiveInvalid);
    assert!(!inbox.join("bad").exists(), "removed also when extracting failed");
}

#[tokio::test]
async fn names_that_lead_out_of_the_inbox_are_refused() {
    let agent = TestAgent::new();
    let archive = Tar::default().file("f", "").end();
    fs::write(agent.outside().join("archive"), &archive).unwrap();
    symlink("../archive", agent.outside().join("inbox/link")).unwrap();
    fs::create_dir(agent.outside().join("inbox/directory")).unwrap();
    for (name, status, code) in [
        ("../archive", 400, Code::InvalidRequest),
        ("..", 400, Code::InvalidRequest),
        ("", 400, Code::InvalidRequest),
        ("a\\u0000b", 400, Code::InvalidRequest),
        ("link", 400, Code::InvalidRequest),
        ("directory", 409, Code::NotAFile),
        ("missing", 404, Code::NotFound),
    ] {
        let answer = agent.tool("extract", format!(r#"{{"archive":{{"inbox":"{name}"}}}}"#)).await;
        answer.assert_problem(status, code);
    }
    agent.tool("extract", r#"{"archive":{"path":"../archive"}}"#).await.assert_problem(403, Code::PathOutsideRoot);
    agent.tool("extract", r#"{"archive":{"path":".","inbox":"x"}}"#).await.assert_problem(400, Code::InvalidRequest);
    assert!(agent.names().is_empty());
}

#[tokio::test]
async fn a_destination_that_can_not_be_is_refused() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("file"), "").unwrap();
    let archive = Tar::default().file("f", "").end();
    for (path, code) in [
        ("file", Code::NotADirectory),
        ("file/below", Code::NotADirectory),
        ("..", Code::PathOutsideRoot),
        ("/etc", Code::PathOutsideRoot),
        ("%00", Code::InvalidRequest),
        ("%zz", Code::InvalidRequest),
        ("a&colour=red", Code::InvalidRequest),
    ] {
        let problem = agent.put(&format!("/v1/archive?path={path}"), archive.clone()).await.problem();
        assert_eq!(problem.code, code, "{path}: {}", problem.detail);
    }
    assert_eq!(agent.names(), ["file"]);
}

/// A workspace on a file system of its own.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: &Path, options: &str) -> Self {
        use rustix::mount::{MountFlags, mount};
        fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("mounting a tmpfs needs root");
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let _mounted = Mounted::tmpfs(&directory.path().join("app"), "size=1m");
    let agent = TestAgent::in_directory(directory, &[]);
    fs::write(agent.root().join("kept"), "kept").unwrap();
    let tar = Tar::default().file("kept", "new").file("small", "x").file("large", &"x".repeat(2 << 20)).end();
    agent.put("/v1/archive?path=d", tar.clone()).await.assert_problem(507, Code::DiskFull);
    agent.put("/v1/archive", tar).await.assert_problem(507, Code::DiskFull);
    agent.put("/v1/files/large", "x".repeat(2 << 20)).await.assert_problem(507, Code::DiskFull);
    assert_eq!(agent.names(), ["kept"]);
    assert_eq!(fs::read_to_string(agent.root().join("kept")).unwrap(), "kept");
    agent.put("/v1/files/small", "fits").await.assert_ok();
}

/// A volume is mounted in the workspace: what would have to cross into it can't be renamed there, and what was moved
/// already is taken back.
#[tokio::test]
async fn a_rename_that_fails_takes_back_those_before_it() {
    let agent = TestAgent::new();
    let root = agent.root().to_owned();
    let _mounted = Mounted::tmpfs(&root.join("volume"), "size=1m");
    fs::write(root.join("volume/inside"), "old").unwrap();
    for name in ["a", "z"] {
        fs::write(root.join(name), "old").unwrap();
    }
    let names = agent.names();
    let tar = ["a", "b", "c", "x", "y", "z"].iter().fold(Tar::default(), |tar, name| tar.file(name, "new"));
    let tar = tar.directory("volume").file("volume/inside", "new").end();
    let problem = agent.put("/v1/archive", tar).await.assert_problem(403, Code::PermissionDenied);
    assert!(problem.detail.contains("another file system"), "{}", problem.detail);
    assert_eq!(agent.names(), names);
    for name in ["a", "z", "volume/inside"] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "old", "{name}");
    }
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().join("app");
    fs::create_dir_all(app.join("deep/er/.corehold-stage-abcdefghijklmnop/read-only")).unwrap();
    fs::write(app.join("deep/er/.corehold-stage-abcdefghijklmnop/read-only/file"), "").unwrap();
    fs::create_dir_all(app.join(".corehold-stage-ponmlkjihgfedcba/d")).unwrap();
    symlink("deep/er", app.join(".corehold-at-abcdefghijklmnop")).unwrap();
    symlink("../../../etc", app.join(".corehold-at-bbbbbbbbbbbbbbbb")).unwrap();
    fs::write(app.join(".corehold-file-aaaaaaaaaaaaaaaa"), "").unwrap();
    fs::write(app.join(".corehold-notes"), "somebody's own").unwrap();
    let agent = TestAgent::in_directory(directory, &[]);
    assert_eq!(agent.names(), [".corehold-notes", "deep", "deep/er"]);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_extraction() {
    let agent = TestAgent::new();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let begun = Tar::default().file("f", "content").file("g", &"x".repeat(5000)).unfinished();
    sender.send(Ok(begun[..2000].to_vec())).await.unwrap();
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    let router = agent.router.clone();
    let request = http::Request::builder()
        .method(Method::PUT)
        .uri("/v1/archive")
        .header("authorization", "Bearer token")
        .body(Body::from_stream(body))
        .unwrap();
    let call = tokio::spawn(tower::ServiceExt::oneshot(router, request));
    until_names(&agent, |names| names.iter().any(|name| name.ends_with("/g"))).await;
    call.abort();
    until_names(&agent, <[_]>::is_empty).await;
}

#[tokio::test]
async fn what_is_sent_is_what_is_received() {
    let agent = TestAgent::new();
    let long = "l".repeat(150);
    let tar = Tar::default()
        .directory("d")
        .directory("d/empty")
        .raw(&Raw { name: b"d/program", mode: 0o750, content: b"content", ..Raw::default() })
        .hard_link("d/second-name", "d/program")
        .symlink("out", "/etc/passwd")
        .pax("path", format!("{long}/{long}").as_bytes())
        .file("x", "deep")
        .pax("path", b"caf\xe9")
        .file("x", "latin")
        .end();
    agent.put("/v1/archive?path=from", tar).await.assert_ok();
    let _socket = std::os::unix::net::UnixListener::bind(agent.root().join("from/socket")).unwrap();
    fs::create_dir(agent.root().join("from/.corehold-stage-abcdefghijklmnop")).unwrap();
    let plain = agent.get("/v1/archive?path=from&format=tar", &[]).await;
    assert_eq!(plain.assert_ok().header("content-type"), "application/x-tar");
    for format in ["tar", "tar.gz", "tar.zst"] {
        let sent = agent.get(&format!("/v1/archive?path=from&format={format}"), &[]).await;
        let received = agent.put(&format!("/v1/archive?path=to-{format}"), sent.body.clone()).await;
        let response = received.assert_ok().json();
        assert_eq!((&response["files"], &response["symlinks"]), (&4.into(), &1.into()), "{response}");
        let program = fs::metadata(agent.root().join(format!("to-{format}/d/program"))).unwrap();
        assert_eq!((program.mode() & 0o777, program.nlink(), program.mtime()), (0o750, 2, 1_700_000_000));
        let again = agent.get(&format!("/v1/archive?path=to-{format}&format=tar"), &[]).await;
        assert!(again.body == plain.body, "the same files give the same bytes, {format}");
    }
}

#[tokio::test]
async fn an_archive_of_what_is_no_directory_is_refused() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("file"), "").unwrap();
    for (query, code) in [
        ("path=file", Code::NotADirectory),
        ("path=none", Code::NotFound),
        ("path=..", Code::PathOutsideRoot),
        ("format=zip", Code::InvalidRequest),
        ("hash=x", Code::InvalidRequest),
    ] {
        assert_eq!(agent.get(&format!("/v1/archive?{query}"), &[]).await.problem().code, code, "{query}");
    }
}

#[tokio::test]
async fn an_archive_that_can_not_be_completed_is_cut_off() {
    let agent = TestAgent::new();
    agent.put(&format!("/v1/files/{}x", "d/".repeat(257)), "deeper than an archive is taken").await.assert_ok();
    // Compressed it hasn't filled a piece by then: before anything of it was sent, it is said what is wrong.
    for format in ["tar.gz", "tar.zst"] {
        let answer = agent.get(&format!("/v1/archive?format={format}"), &[]).await;
        let problem = answer.assert_problem(500, Code::Internal);
        assert!(problem.detail.contains("the archive can't be made"), "{}", problem.detail);
    }

    let request = http::Request::builder().uri("/v1/archive?format=tar").header("authorization", "Bearer token");
    let request = request.body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(agent.router.clone(), request).await.unwrap();
    assert_eq!(response.status(), 200, "it had begun");
    assert!(http_body_util::BodyExt::collect(response.into_body()).await.is_err());
}
