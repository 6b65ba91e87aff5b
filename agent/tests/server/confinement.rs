//! Whatever is asked of whatever tool while somebody swaps directories for links to the outside: nothing of the outside is told,
//! and nothing there is changed. A tool that is added fails here until it is said what paths it takes.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use axum::body::Body;
use corehold_agent::server;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use rustix::fs::{Mode, OFlags, RenameFlags};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{schemas, support::TestAgent, tars::Tar};

/// Content of every file outside.
const SECRET: &str = "the-content-outside";

/// Begins the names outside that no request has, and that nothing inside has.
const HIDDEN: &str = "hidden-outside";

/// Calls of each of the workers.
const CALLS: u64 = 500;

/// Files in each directory, so that a tool that goes through them is not done before the next swap.
const FILES: usize = 24;

fn files() -> impl Iterator<Item = String> {
    (0..FILES).map(|number| format!("file{number}"))
}

/// Numbers that are random enough, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// A path in which directories, links and ways up meet.
    fn path(&mut self) -> String {
        const PARTS: &[&str] =
            &["d", "d", "l", "e", "e", "k", "file", "file", "..", ".", "up", "absolute", "loop", "new", "moved"];
        let length = 1 + self.below(4);
        (0..length).map(|_| self.of(PARTS)).collect::<Vec<_>>().join("/")
    }
}

/// Files outside that look as those inside do, so that a path which leads out finds something there.
fn outside(folder: &Path) {
    for directory in ["", "d", "e", "d/e", "noise"] {
        fs::create_dir_all(folder.join(directory)).unwrap();
        for file in files().chain(["file".to_owned()]) {
            fs::write(folder.join(directory).join(file), SECRET).unwrap();
        }
        fs::write(folder.join(directory).join(format!("{HIDDEN}-{}", directory.len())), SECRET).unwrap();
    }
}

/// Everything outside, but for what the noise changes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    fn add(path: PathBuf, all: &mut BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>) {
        if path.file_name().is_some_and(|name| name == "noise") {
            return;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            fs::read_dir(&path).unwrap().for_each(|entry| add(entry.unwrap().path(), all));
        }
        all.insert(path, (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content));
    }
    let mut all = BTreeMap::new();
    add(folder.to_owned(), &mut all);
    all
}

fn directory(above: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

/// Puts back what the tools have taken away: a directory with a file in it, and a link to the outside beside it.
fn plant(above: BorrowedFd<'_>, name: &str, link: &str, target: &str) {
    let _ = rustix::fs::mkdirat(above, name, Mode::RWXU);
    let _ = rustix::fs::symlinkat(target, above, link);
    if let Ok(inside) = directory(above, name) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for file in files().chain(["file".to_owned()]) {
            let Ok(file) = rustix::fs::openat(&inside, file, flags, Mode::from_raw_mode(0o600)) else { break };
            let _ = rustix::io::write(file, b"inside");
        }
    }
}

/// Swaps directories and links as fast as it can, and changes something outside that a watch could see.
fn swap(root: &Path, outside: &Path, stop: &AtomicBool) -> usize {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut swapped = 0;
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        plant(root.as_fd(), "d", "l", "../outside");
        for _ in 0..7 {
            swapped += usize::from(rustix::fs::renameat_with(&root, "d", &root, "l", RenameFlags::EXCHANGE).is_ok());
        }
        if let Ok(inside) = directory(root.as_fd(), "d") {
            plant(inside.as_fd(), "e", "k", "../../outside");
            let _ = rustix::fs::renameat_with(&inside, "e", &inside, "k", RenameFlags::EXCHANGE);
            // Elsewhere and back, so that `..` of whoever is in it leads elsewhere.
            let _ = rustix::fs::renameat(&inside, "e", &root, "moved");
            let _ = rustix::fs::renameat(&root, "moved", &inside, "e");
        }
        if round % 16 == 0 {
            let noise = outside.join(format!("noise/{HIDDEN}-noise"));
            fs::write(&noise, SECRET).unwrap();
            fs::remove_file(&noise).unwrap();
        }
    }
    swapped
}

/// A request of a tool that takes paths; nothing for those that take none.
fn request(tool: &str, random: &mut Random) -> Option<Value> {
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
            let folder = random.of(&["d", "d/e", "d/e/../../d", "e", "moved"]);
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
            json!({"archive": {"path": if flag { "archive.tar".to_owned() } else { path }}, "destination": random.of(&[".", "d", "d/..", "e", "new"])})
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

fn archive() -> Vec<u8> {
    let tar = Tar::default().directory("d").directory("d/e").symlink("d/k", "../../outside").symlink("l", "../outside");
    files()
        .fold(tar, |tar, file| tar.file(&format!("d/{file}"), "unpacked").file(&format!("d/e/{file}"), "unpacked"))
        .end()
}

fn assert_tells_nothing(asked: &str, answer: &str) {
    for word in [SECRET, HIDDEN] {
        assert!(!answer.contains(word), "{asked} told {word} of the outside: {answer}");
    }
}

/// Asks one thing; says of what.
async fn ask(agent: &TestAgent, random: &mut Random, tools: &[String]) -> String {
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
    asked.split(' ').next().unwrap_or_default().to_owned()
}

/// A workspace that somebody swaps under.
struct Race {
    agent: Arc<TestAgent>,
    outside: PathBuf,
    before: BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>,
    around: usize,
    stop: Arc<AtomicBool>,
    swapper: JoinHandle<usize>,
}

impl Race {
    fn start() -> Self {
        let agent = Arc::new(TestAgent::new());
        let (root, out) = (agent.root().to_owned(), agent.outside().join("outside"));
        outside(&out);
        for (name, target) in [("up", ".."), ("absolute", out.to_str().unwrap()), ("loop", "loop")] {
            symlink(target, root.join(name)).unwrap();
        }
        fs::write(root.join("archive.tar"), archive()).unwrap();
        let (before, around) = (snapshot(&out), fs::read_dir(agent.outside()).unwrap().count());
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (out, stop) = (out.clone(), Arc::clone(&stop));
            move || swap(&root, &out, &stop)
        });
        Self { agent, outside: out, before, around, stop, swapper }
    }

    /// Nothing outside has changed.
    fn end(self) {
        let swapped = self.swapper.join().unwrap();
        assert!(swapped > 100, "{swapped} swaps");
        assert_eq!(snapshot(&self.outside), self.before);
        assert_eq!(fs::read_dir(self.agent.outside()).unwrap().count(), self.around);
    }
}

/// Tells the swapper to stop, also when a test fails.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tool_leads_out_while_directories_become_links() {
    let race = Race::start();
    let stop = StopOnDrop(Arc::clone(&race.stop));
    let mut random = Random(1);
    let tools: Vec<String> = schemas::tools()
        .into_iter()
        .map(|(tool, _)| tool)
        .filter(|tool| request(tool, &mut random).is_some())
        .collect();

    // Somebody watches everything all the time.
    let agent = Arc::clone(&race.agent.agent);
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let watcher = tokio::spawn(async move {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/tools/watch")
            .header("authorization", "Bearer token")
            .header("content-type", "application/json")
            .header("accept", "application/x-ndjson")
            .body(Body::from(r#"{"debounceMs":10}"#))
            .unwrap();
        let mut body = server::router(agent).oneshot(request).await.unwrap().into_body();
        while let Some(frame) = body.frame().await {
            assert_tells_nothing("watch", &String::from_utf8_lossy(&frame.unwrap().into_data().unwrap_or_default()));
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let workers: Vec<_> = (1..=2)
        .map(|worker| {
            let (agent, tools) = (Arc::clone(&race.agent), tools.clone());
            tokio::spawn(async move {
                let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.rotate_left(worker));
                let mut asked: BTreeMap<String, usize> = BTreeMap::new();
                for _ in 0..CALLS {
                    *asked.entry(ask(&agent, &mut random, &tools).await).or_default() += 1;
                }
                asked
            })
        })
        .collect();
    let mut asked = BTreeMap::new();
    for worker in workers {
        asked.extend(worker.await.unwrap());
    }
    drop(stop);
    assert!(tools.iter().all(|tool| asked.contains_key(tool)), "{asked:?}");
    assert!(!watcher.is_finished(), "it watches to the end");
    watcher.abort();
    assert!(seen.load(Ordering::Relaxed) > 10, "{seen:?} pieces of the watch");
    race.end();
}

/// The planning of what goes where, and the moves, are two steps with a swap between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_archive_is_merged_into_the_outside() {
    let race = Race::start();
    let stop = StopOnDrop(Arc::clone(&race.stop));
    for _ in 0..150 {
        let answer = race.agent.put("/v1/archive", archive()).await;
        assert!(answer.status.as_u16() != 500, "{}", answer.text());
    }
    drop(stop);
    race.end();
}
