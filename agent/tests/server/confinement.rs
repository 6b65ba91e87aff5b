//! Whatever is asked of whatever tool while somebody swaps directories for links to the outside: nothing of the outside is told,
//! and nothing there is changed. A tool that is added fails here until it is said what paths it takes.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::symlink,
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
use tower::ServiceExt as _;

use super::{
    asking::{
        HIDDEN, Known, Random, SECRET, archive, ask, assert_tells_nothing, changed_long_ago, directory, files,
        snapshot, tools_with_paths,
    },
    support::TestAgent,
};

/// Calls of each of the workers.
const CALLS: u64 = 500;

fn random(seed: u64) -> Random {
    const PARTS: &[&str] =
        &["d", "d", "l", "e", "e", "k", "file", "file", "..", ".", "up", "absolute", "loop", "new", "moved"];
    Random::new(seed, PARTS, &[".", "d", "d", "d/e", "d/e/../../d", "d/..", "e", "moved", "new"])
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

/// A workspace that somebody swaps under.
struct Race {
    agent: Arc<TestAgent>,
    before: BTreeMap<PathBuf, Known>,
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
        changed_long_ago(&out);
        let before = snapshot(agent.outside());
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (out, stop) = (out.clone(), Arc::clone(&stop));
            move || swap(&root, &out, &stop)
        });
        Self { agent, before, stop, swapper }
    }

    /// Nothing outside has changed.
    fn end(self) {
        let swapped = self.swapper.join().unwrap();
        assert!(swapped > 100, "{swapped} swaps");
        assert_eq!(snapshot(self.agent.outside()), self.before);
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
    let tools = tools_with_paths(&mut random(1));

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
                let mut random = random(worker);
                let mut asked: BTreeMap<String, usize> = BTreeMap::new();
                for _ in 0..CALLS {
                    *asked.entry(ask(&agent, &mut random, &tools).await.0).or_default() += 1;
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
