//! What is asked of every tool and route that takes a path, with paths that lead wherever links lead, and what of the outside would show
//! in an answer.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use axum::body::Body;
use corehold_agent::server;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{schemas, support::TestAgent, tars::Tar};

/// Content of every file outside.
pub(crate) const SECRET: &str = "the-content-outside";

/// Begins the names outside that no request has, and that nothing inside has.
pub(crate) const HIDDEN: &str = "hidden-outside";

/// When all that is outside was changed last, as the tools tell it, and as [`changed_long_ago`] sets it.
pub(crate) const CHANGED: &str = "2001-02-03T04:05:06";
const CHANGED_SECONDS: u64 = 981_173_106;

/// Files in each directory, so that a tool that goes through them is not done before the next swap.
pub(crate) const FILES: usize = 24;

pub(crate) fn files() -> impl Iterator<Item = String> {
    (0..FILES).map(|number| format!("file{number}"))
}

/// Numbers that are random enough, the same in every run, and paths of these parts.
pub(crate) struct Random {
    state: u64,
    /// What paths consist of.
    parts: &'static [&'static str],
    /// Where edits and archives go.
    folders: &'static [&'static str],
}

impl Random {
    pub(crate) fn new(seed: u64, parts: &'static [&'static str], folders: &'static [&'static str]) -> Self {
        // Neighbouring seeds have nothing in common, and none is zero, where it would stay.
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, parts, folders }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The lower bits of neighbouring states are too much alike.
        ((self.state >> 16) % end as u64) as usize
    }

    pub(crate) fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// A path in which directories, links and ways up meet.
    pub(crate) fn path(&mut self) -> String {
        let length = [1, 1, 2, 2, 3, 4][self.below(6)];
        (0..length).map(|_| self.of(self.parts)).collect::<Vec<_>>().join("/")
    }
}

/// Makes it look as if nothing in a folder had been changed for long: if anything is told of it, that is.
pub(crate) fn changed_long_ago(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            changed_long_ago(&path);
        } else {
            set_changed(&path);
        }
    }
    set_changed(folder);
}

fn set_changed(path: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED_SECONDS);
    fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_modified(then)).unwrap();
}

/// The tools that take paths, by the committed schemas.
pub(crate) fn tools_with_paths(random: &mut Random) -> Vec<String> {
    let names = schemas::tools().into_iter().map(|(tool, _)| tool);
    names.filter(|tool| request(tool, random).is_some()).collect()
}

/// What is known of a file: inode, mode, links, size, and when it and its inode were changed.
pub(crate) type Known = (u64, u32, u64, u64, [i64; 4], Vec<u8>);

/// Everything in a folder, but for what the noise changes and the folders that are the agent's.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Known> {
    fn add(path: PathBuf, all: &mut BTreeMap<PathBuf, Known>) {
        if path.file_name().is_some_and(|name| name == "noise" || name == "app") {
            return;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            fs::read_dir(&path).unwrap().for_each(|entry| add(entry.unwrap().path(), all));
        }
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        let known = (metadata.ino(), metadata.mode(), metadata.nlink(), metadata.size(), times, content);
        all.insert(path, known);
    }
    let mut all = BTreeMap::new();
    add(folder.to_owned(), &mut all);
    all
}

/// Opens a directory, which no link stands for.
pub(crate) fn directory(above: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

/// A request of a tool that takes paths; nothing for those that take none.
pub(crate) fn request(tool: &str, random: &mut Random) -> Option<Value> {
    let path = random.path();
    let flag = random.below(2) == 0;
    Some(match tool {
        "read" => json!({"files": [{"path": path}, {"path": random.path(), "lines": {"start": 1}}]}),
        "list" => json!({"path": path, "depth": 3}),
        "search" => json!({"pattern": ".", "paths": [path], "follow": flag, "hidden": true, "maxDepth": 4}),
        "find" => json!({"path": path, "follow": flag, "maxDepth": 4}),
        "stat" => json!({"paths": [path, random.path()], "follow": flag, "hash": true}),
        "write" => json!({"files": [{"path": path, "content": "written"}, {"path": random.path(), "content": ""}]}),
        "edit" => {
            let operation = match random.below(4) {
                0 => json!({"type": "create", "content": "created", "overwrite": flag}),
                1 => json!({"type": "lines", "start": 1, "text": "edited"}),
                2 => json!({"type": "delete"}),
                _ => json!({"type": "rename", "to": random.path(), "overwrite": flag}),
            };
            let folder = random.of(random.folders);
            let others = files().take(random.below(FILES)).map(|file| {
                let operation = json!({"type": "create", "content": "created", "overwrite": true});
                json!({"path": format!("{folder}/{file}"), "operations": [operation]})
            });
            let one = json!({"path": path, "operations": [operation]});
            let files: Vec<Value> = others.chain((random.below(2) == 0).then_some(one)).collect();
            json!({"files": files, "dryRun": random.below(8) == 0})
        }
        "mkdir" => json!({"path": path, "parents": flag}),
        "move" => json!({"from": path, "to": random.path(), "overwrite": flag}),
        "copy" => json!({"from": path, "to": random.path(), "recursive": true, "overwrite": flag}),
        "remove" => json!({"path": path, "recursive": flag}),
        "extract" => {
            json!({"archive": {"path": if flag { "archive.tar".to_owned() } else { path }}, "destination": random.of(random.folders)})
        }
        "watch" => json!({"path": path, "timeoutMs": 5, "debounceMs": 10}),
        // Its directory is resolved by the agent; what it does then is its own affair.
        "command" => json!({"argv": ["pwd", "-P"], "cwd": path}),
        "info" | "claim" | "activity" | "auditRead" | "ports" | "commandOutput" | "commandSignal" | "commandList"
        | "commandGet" | "commandInput" | "commandResize" | "commandSearch" => return None,
        other => panic!("say here which paths {other} takes"),
    })
}

/// A request of one of the routes beside the tools.
fn route(random: &mut Random) -> (Method, String, Body) {
    // Often the root itself: what archives are merged into is where directories are swapped.
    let path = if random.below(3) == 0 { ".".to_owned() } else { random.path() };
    match random.below(6) {
        0 => (Method::GET, format!("/v1/files/{path}"), Body::empty()),
        1 => (Method::HEAD, format!("/v1/files/{path}"), Body::empty()),
        2 => (Method::PUT, format!("/v1/files/{path}"), Body::from("put")),
        3 => (Method::DELETE, format!("/v1/files/{path}"), Body::empty()),
        4 => (Method::GET, format!("/v1/archive?format=tar&path={path}"), Body::empty()),
        _ => (Method::PUT, format!("/v1/archive?path={path}"), Body::from(archive())),
    }
}

pub(crate) fn archive() -> Vec<u8> {
    let tar = Tar::default().directory("d").directory("d/e").symlink("d/k", "../../outside").symlink("l", "../outside");
    files()
        .fold(tar, |tar, file| tar.file(&format!("d/{file}"), "unpacked").file(&format!("d/e/{file}"), "unpacked"))
        .end()
}

pub(crate) fn assert_tells_nothing(asked: &str, answer: &str) {
    static HASH: LazyLock<String> = LazyLock::new(|| blake3::hash(SECRET.as_bytes()).to_hex().to_string());
    for word in [SECRET, HIDDEN, &HASH, CHANGED] {
        assert!(!answer.contains(word), "{asked} told {word} of the outside: {answer}");
    }
}

/// Asks one thing; says of what, and whether it was done.
pub(crate) async fn ask(agent: &TestAgent, random: &mut Random, tools: &[String]) -> (String, bool) {
    let tool = &tools[random.below(tools.len())];
    let (asked, request) = if random.below(4) == 0 {
        let (method, uri, body) = route(random);
        let asked = format!("{method} {uri}");
        (asked, Request::builder().method(method).uri(uri).body(body).unwrap())
    } else {
        let body = request(tool, random).unwrap().to_string();
        let asked = format!("{tool} {body}");
        let request = Request::builder().method(Method::POST).uri(format!("/v1/tools/{tool}"));
        (asked, request.header("content-type", "application/json").body(Body::from(body)).unwrap())
    };
    let (mut head, body) = request.into_parts();
    head.headers.insert("authorization", "Bearer token".parse().unwrap());
    let response = server::router(Arc::clone(&agent.agent)).oneshot(Request::from_parts(head, body)).await.unwrap();
    let status = response.status();
    // An archive that can't be completed is cut off, which is an error here; what came until then counts.
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        answer.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    let answer = String::from_utf8_lossy(&answer);
    assert_tells_nothing(&asked, &answer);
    if asked.starts_with("command ") && status.is_success() {
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let printed = answer["stdout"]["text"].as_str().unwrap_or_default();
        assert!(!printed.contains("/outside"), "{asked}: {answer}");
    }
    (asked.split(' ').next().unwrap_or_default().to_owned(), status.is_success())
}
