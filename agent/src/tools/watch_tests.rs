//! `watch` on real trees: what is told, what isn't watched, and that a model made from the events is the tree.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use corehold_types::{
    Code, Problem,
    tools::{ResyncReason, Watch, WatchEvent, WatchRequest, WatchResponse},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    agent::Agent,
    handler::{Events, Handler as _},
    testing,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Client {
    agent: Arc<Agent>,
    events: mpsc::Receiver<WatchEvent>,
    task: JoinHandle<Result<WatchResponse, Problem>>,
}

fn request(json: &str) -> WatchRequest {
    serde_json::from_str(json).unwrap()
}

/// Watches, and returns once everything is watched, with the number of directories.
async fn watch(agent: &Arc<Agent>, json: &str) -> (Client, u64) {
    let (sender, events) = mpsc::channel(1);
    let call = testing::call(agent);
    let task = tokio::spawn(Watch::handle(call, request(json), Events::into_channel(sender)));
    let mut client = Client { agent: Arc::clone(agent), events, task };
    match client.next().await {
        WatchEvent::Ready { directories } => (client, directories),
        other => panic!("{other:?}"),
    }
}

impl Client {
    async fn next(&mut self) -> WatchEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("something is told").expect("it goes on")
    }

    fn root(&self) -> &Path {
        self.agent.root.path()
    }

    /// What is told until a file of this name, which is made now, is told of; as words.
    async fn until(&mut self, end: &str) -> Vec<String> {
        let mut told = Vec::new();
        // Two, since what came with the first may be told after it.
        for end in [end.to_owned(), format!("{end}-end")] {
            fs::write(self.root().join(&end), "").unwrap();
            loop {
                let word = shown(&self.next().await);
                if word == format!("+{end}") {
                    break;
                }
                told.push(word);
            }
        }
        told
    }
}

fn shown(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Ready { .. } => "ready".to_owned(),
        WatchEvent::Created { path, directory } => format!("+{path}{}", if *directory { "/" } else { "" }),
        WatchEvent::Modified { path } => format!("~{path}"),
        WatchEvent::Removed { path, directory } => format!("-{path}{}", if *directory { "/" } else { "" }),
        WatchEvent::Renamed { from, to, .. } => format!("{from}>{to}"),
        WatchEvent::Resync { path, reason } => format!("?{path} {reason:?}"),
    }
}

#[tokio::test]
async fn what_happens_is_told() {
    let agent = testing::agent();
    let root = agent.root.path().to_owned();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "").unwrap();
    let (mut client, directories) = watch(&agent, "{}").await;
    assert_eq!(directories, 2);
    fs::write(root.join("d/f"), "more").unwrap();
    assert_eq!(client.until("1").await, ["~d/f"]);
    fs::rename(root.join("d/f"), root.join("g")).unwrap();
    assert_eq!(client.until("2").await, ["d/f>g"]);
    fs::rename(root.join("d"), root.join("e")).unwrap();
    assert_eq!(client.until("3").await, ["d>e"]);
    fs::write(root.join("e/h"), "").unwrap();
    assert_eq!(client.until("4").await, ["+e/h"], "under its new name");
    fs::create_dir_all(root.join("x/y/z")).unwrap();
    fs::write(root.join("x/y/z/f"), "").unwrap();
    let mut told = client.until("5").await;
    told.sort();
    assert_eq!(told, ["+x/", "+x/y/", "+x/y/z/", "+x/y/z/f"]);
    fs::remove_dir_all(root.join("x")).unwrap();
    let told = client.until("6").await;
    assert_eq!(told.last().unwrap(), "-x/", "{told:?}");
    // Out of what is watched, and into it.
    let outside = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    fs::rename(root.join("e"), outside.path().join("e")).unwrap();
    assert_eq!(client.until("7").await, ["-e/"]);
    fs::write(outside.path().join("e/unseen"), "").unwrap();
    fs::rename(outside.path().join("e"), root.join("back")).unwrap();
    let mut told = client.until("8").await;
    told.sort();
    assert_eq!(told, ["+back/", "+back/h", "+back/unseen"]);
    drop(client.events);
    timeout(PATIENCE, client.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_is_ignored_is_not_even_watched() {
    let agent = testing::agent();
    let root = agent.root.path().to_owned();
    for directory in ["node_modules/a/b", ".git/objects", "src/target/debug"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join(".gitignore"), "node_modules/\n*.log\n").unwrap();
    fs::write(root.join("src/.gitignore"), "target\n").unwrap();
    let (mut client, directories) = watch(&agent, "{}").await;
    assert_eq!(directories, 2, "the root and src");
    for file in ["node_modules/a/f", ".git/HEAD", "src/target/f", "src/x.log"] {
        fs::write(root.join(file), "").unwrap();
    }
    fs::write(root.join("src/f.rs"), "").unwrap();
    assert_eq!(client.until("1").await, ["+src/f.rs"]);
    // A visible name that becomes an ignored one is gone, and the reverse.
    fs::rename(root.join("src/f.rs"), root.join("src/f.log")).unwrap();
    assert_eq!(client.until("2").await, ["-src/f.rs"]);
    fs::rename(root.join("src/f.log"), root.join("src/g.rs")).unwrap();
    assert_eq!(client.until("3").await, ["+src/g.rs"]);
    // Other rules, other watches.
    fs::write(root.join("src/.gitignore"), "nothing\n").unwrap();
    let told = client.until("4").await;
    assert!(told.contains(&"?src Rules".to_owned()), "{told:?}");
    fs::write(root.join("src/target/debug/f"), "").unwrap();
    assert_eq!(client.until("5").await, ["+src/target/debug/f"]);
    // Who wants all of it, gets all of it.
    let (_, directories) = watch(&agent, r#"{"ignoreFiles": false}"#).await;
    assert_eq!(directories, 9);
    let (mut some, _) = watch(&agent, r#"{"globs": ["*.rs", "end*"]}"#).await;
    let (mut shown, _) = watch(&agent, r#"{"hidden": false}"#).await;
    fs::write(root.join("src/one.rs"), "").unwrap();
    fs::write(root.join("src/.two"), "").unwrap();
    assert_eq!(some.until("end").await, ["+src/one.rs"]);
    assert_eq!(shown.until("other").await, ["+src/one.rs", "+end", "+end-end"]);
}

#[tokio::test]
async fn a_transaction_of_the_agents_is_a_change_of_its_files() {
    use corehold_types::tools::{Edit, Write};
    let agent = testing::agent();
    fs::write(agent.root.path().join("a"), "old").unwrap();
    let (mut client, _) = watch(&agent, "{}").await;
    let edit = r#"{"files":[{"path":"a","operations":[{"type":"replace","old":"old","new":"new"}]}]}"#;
    Edit::handle(testing::call(&agent), serde_json::from_str(edit).unwrap(), Events::none()).await.unwrap();
    assert_eq!(client.until("1").await, ["~a"]);
    let write = r#"{"files":[{"path":"b","content":"x"}]}"#;
    Write::handle(testing::call(&agent), serde_json::from_str(write).unwrap(), Events::none()).await.unwrap();
    assert_eq!(client.until("2").await, ["+b"]);
}

#[tokio::test]
async fn without_a_stream_the_next_changes_are_the_answer() {
    let agent = testing::agent();
    let none = Watch::handle(testing::call(&agent), request(r#"{"timeoutMs": 1}"#), Events::none()).await.unwrap();
    assert_eq!(none, WatchResponse::default());
    let waiting = tokio::spawn(Watch::handle(testing::call(&agent), request("{}"), Events::none()));
    // Whoever watches beside it sees the same.
    let (mut client, _) = watch(&agent, "{}").await;
    let mut written = 0;
    while !waiting.is_finished() {
        // It may not watch yet at the first one.
        client.until(&format!("f{written}")).await;
        written += 1;
        tokio::task::yield_now().await;
    }
    assert!(!waiting.await.unwrap().unwrap().changes.is_empty());
}

#[tokio::test]
async fn limits_are_told() {
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_WATCH_DIRECTORIES", "3"), ("COREHOLD_LIMIT_WATCHES", "1")]);
    let root = agent.root.path().to_owned();
    fs::create_dir_all(root.join("a/b")).unwrap();
    let (mut client, directories) = watch(&agent, "{}").await;
    assert_eq!(directories, 3);
    let again = Watch::handle(testing::call(&agent), request("{}"), Events::none()).await.unwrap_err();
    assert_eq!((again.code, &again.context["variable"]), (Code::LimitExceeded, &"COREHOLD_LIMIT_WATCHES".into()));
    fs::create_dir(root.join("c")).unwrap();
    let told = client.until("1").await;
    assert!(told.contains(&"?c Limit".to_owned()), "{told:?}");
    drop(client);
    drop(timeout(PATIENCE, agent.watch_calls.acquire()).await.unwrap().unwrap());
    let problem = Watch::handle(testing::call(&agent), request("{}"), Events::none()).await.unwrap_err();
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_WATCH_DIRECTORIES");
    for (json, field) in [
        (r#"{"debounceMs":1}"#, "debounceMs"),
        (r#"{"timeoutMs":600001}"#, "timeoutMs"),
        (r#"{"globs":["{"]}"#, "globs"),
    ] {
        let problem = Watch::handle(testing::call(&agent), request(json), Events::none()).await.unwrap_err();
        assert_eq!((problem.code, &problem.context["field"]), (Code::InvalidRequest, &field.into()), "{json}");
    }
    let problem =
        Watch::handle(testing::call(&agent), request(r#"{"path":"absent"}"#), Events::none()).await.unwrap_err();
    assert_eq!(problem.code, Code::NotFound);
}

#[tokio::test]
async fn those_who_watch_the_same_share_it() {
    const TABS: usize = 10;
    let agent = testing::agent_with(&[("COREHOLD_LIMIT_WATCH_TREES", "2"), ("COREHOLD_LIMIT_WATCH_DIRECTORIES", "5")]);
    let root = agent.root.path().to_owned();
    fs::create_dir_all(root.join("a/b")).unwrap();
    let mut clients = Vec::new();
    for tab in 0..TABS {
        // What is told later is told to all, whenever they came.
        fs::write(root.join(format!("before{tab}")), "").unwrap();
        let (client, directories) = watch(&agent, "{}").await;
        assert_eq!(directories, 3, "tab {tab}");
        clients.push(client);
    }
    assert_eq!(
        (agent.watches.directories(), agent.watches.room().available_permits()),
        (3, 1),
        "one tree for all of them"
    );
    fs::write(root.join("a/b/f"), "").unwrap();
    for client in &mut clients {
        while shown(&client.next().await) != "+a/b/f" {}
    }
    // Others want something else, as far as there is room.
    let (other, directories) = watch(&agent, r#"{"path": "a"}"#).await;
    assert_eq!((directories, agent.watches.directories()), (2, 5));
    let third = Watch::handle(testing::call(&agent), request(r#"{"path": "a/b"}"#), Events::none()).await.unwrap_err();
    assert_eq!((third.code, &third.context["variable"]), (Code::LimitExceeded, &"COREHOLD_LIMIT_WATCH_TREES".into()));
    drop(other);
    drop(timeout(PATIENCE, agent.watches.room().acquire()).await.unwrap().unwrap());
    // All directories together are counted.
    let (_other, _) = watch(&agent, r#"{"path": "a", "debounceMs": 10}"#).await;
    fs::create_dir(root.join("c")).unwrap();
    let told = clients[0].until("1").await;
    assert!(told.contains(&"?. Limit".to_owned()) || told.contains(&"?c Limit".to_owned()), "{told:?}");
    // A tree that isn't whole is nobody else's: who comes now is told what is wrong.
    let late = Watch::handle(testing::call(&agent), request("{}"), Events::none()).await.unwrap_err();
    assert_eq!(late.code, Code::LimitExceeded);
    drop((clients, _other));
    drop(timeout(PATIENCE, agent.watches.room().acquire_many(2)).await.unwrap().unwrap());
    assert_eq!(agent.watches.directories(), 0, "with the last of them it is over");
}

#[tokio::test]
async fn a_reader_who_does_not_read_costs_the_others_nothing() {
    let agent = testing::agent();
    let root = agent.root.path().to_owned();
    let (mut slow, _) = watch(&agent, r#"{"debounceMs": 10}"#).await;
    let (mut quick, _) = watch(&agent, r#"{"debounceMs": 10}"#).await;
    assert_eq!(agent.watches.directories(), 1);
    // More than is kept for one reader.
    let long = "x".repeat(200);
    for round in 0..60 {
        for file in 0..100 {
            fs::write(root.join(format!("{round}-{file}{long}")), "").unwrap();
        }
        while shown(&quick.next().await) != format!("+{round}-99{long}") {}
    }
    fs::write(root.join("end"), "").unwrap();
    while shown(&quick.next().await) != "+end" {}
    let mut told = 0;
    let resync = loop {
        match slow.next().await {
            WatchEvent::Resync { path, reason } => break (path.to_string(), reason),
            _ => told += 1,
        }
    };
    assert_eq!(resync, (".".to_owned(), ResyncReason::Overflow));
    assert!(told < 3000, "{told}: what is kept for it goes when it is too much");
    assert_eq!(slow.until("after").await, Vec::<String>::new());
}

/// What is there: each path, and whether it is a directory.
type Tree = BTreeMap<String, bool>;

fn tree(root: &Path) -> Tree {
    fn collect(root: &Path, directory: &Path, tree: &mut Tree) {
        // It may be gone again, or a file by now.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            tree.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), is_directory);
            if is_directory {
                collect(root, &path, tree);
            }
        }
    }
    let mut found = Tree::new();
    collect(root, root, &mut found);
    found
}

/// Does to the model what an event says. Whether something of it was not seen.
fn apply(tree: &mut Tree, event: &WatchEvent) -> bool {
    let beneath = |tree: &Tree, path: &str| -> Vec<String> {
        let prefix = format!("{path}/");
        tree.keys().filter(|other| *other == path || other.starts_with(&prefix)).cloned().collect()
    };
    match event {
        WatchEvent::Created { path, directory } => {
            tree.insert(path.to_string(), *directory);
        }
        WatchEvent::Removed { path, .. } => {
            for path in beneath(tree, &path.to_string()) {
                tree.remove(&path);
            }
        }
        WatchEvent::Renamed { from, to, .. } => {
            let (from, to) = (from.to_string(), to.to_string());
            let moved: Vec<_> =
                beneath(tree, &from).into_iter().map(|path| (path.clone(), tree.remove(&path).unwrap())).collect();
            for path in beneath(tree, &to) {
                tree.remove(&path);
            }
            tree.extend(moved.into_iter().map(|(path, directory)| (format!("{to}{}", &path[from.len()..]), directory)));
        }
        WatchEvent::Ready { .. } | WatchEvent::Modified { .. } => {}
        WatchEvent::Resync { .. } => return true,
    }
    false
}

/// Runs of random changes.
const SEEDS: u64 = 8;

/// Random changes, made as fast as the disk allows: the model of whoever listens is the tree in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_made_from_the_events_is_the_tree() {
    for seed in 1..=SEEDS {
        random_changes(seed, false).await;
    }
}

/// The same with directories that are moved: then there may be a word that it is better to look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_the_tree_or_is_told_to_look_again() {
    for seed in 1..=SEEDS {
        random_changes(seed, true).await;
    }
}

async fn random_changes(seed: u64, moves_directories: bool) {
    let agent = testing::agent();
    let root = agent.root.path().to_owned();
    let (mut client, _) = watch(&agent, r#"{"debounceMs": 10}"#).await;
    let worker = root.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..4000 {
            let mut path = || {
                let depth = 1 + random(3);
                (0..depth).map(|_| char::from(b'a' + random(4) as u8).to_string()).collect::<Vec<_>>().join("/")
            };
            let (one, two) = (worker.join(path()), worker.join(path()));
            // Most of them fail, as things are at that moment.
            let _ = match random(7) {
                0 | 1 => fs::create_dir(one),
                2 | 3 => fs::write(one, "x"),
                4 if moves_directories || !one.is_dir() => fs::rename(one, two),
                5 => fs::remove_file(one),
                _ => fs::remove_dir_all(one),
            };
        }
        fs::write(worker.join("end"), "").unwrap();
    });
    let mut model = Tree::new();
    let take = |model: &mut Tree, event: WatchEvent| {
        if apply(model, &event) {
            assert!(moves_directories, "{event:?}");
            *model = tree(&root);
        }
    };
    loop {
        take(&mut model, client.next().await);
        if model.contains_key("end") {
            break;
        }
    }
    work.await.unwrap();
    // Two, since what came with the first may be told after it.
    for last in ["last", "very-last"] {
        fs::write(root.join(last), "").unwrap();
        while !model.contains_key(last) {
            take(&mut model, client.next().await);
        }
    }
    assert_eq!(model, tree(&root), "seed {seed}");
}

/// 100,000 files in a directory that is ignored cost nothing; in one that isn't, whoever listens knows all of them in the end, also
/// when some are exchanged as npm does it: the old package is moved aside, the new one made, and the old one removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_of_a_hundred_thousand_files_is_survived() {
    const PACKAGES: usize = 1_000;
    const FILES: usize = 100;
    let agent = testing::agent_in_memory();
    let root = agent.root.path().to_owned();
    fs::write(root.join(".gitignore"), "ignored/\n").unwrap();
    let (mut client, _) = watch(&agent, "{}").await;
    let worker = root.clone();
    let install = tokio::task::spawn_blocking(move || {
        let package = |folder: &str, package: usize, files: usize| {
            let package = worker.join(folder).join(format!("package{package}/lib"));
            fs::create_dir_all(&package).unwrap();
            for file in 0..files {
                fs::File::create(package.join(format!("{file}.js"))).unwrap();
            }
        };
        for folder in ["ignored", "node_modules"] {
            (0..PACKAGES).for_each(|number| package(folder, number, FILES));
        }
        for number in (0..PACKAGES).step_by(10) {
            let aside = worker.join(format!("node_modules/.package{number}-x7Tq"));
            fs::rename(worker.join(format!("node_modules/package{number}")), &aside).unwrap();
            package("node_modules", number, FILES / 2);
            fs::remove_dir_all(aside).unwrap();
        }
    });
    let visible = || -> Tree {
        let all = tree(&root).into_iter();
        all.filter(|(path, _)| path != "ignored" && !path.starts_with("ignored/")).collect()
    };
    let mut model = visible();
    let mut installed = Some(install);
    // Two at the end, since what came with the first may be told after it.
    for last in ["last", "very-last"] {
        if let Some(install) = installed.take() {
            let mut install = std::pin::pin!(install);
            loop {
                let event = tokio::select! {
                    done = &mut install => break done.unwrap(),
                    event = client.next() => event,
                };
                if apply(&mut model, &event) {
                    model = visible();
                }
            }
        }
        fs::write(root.join(last), "").unwrap();
        while !model.contains_key(last) {
            let event = client.next().await;
            assert!(!shown(&event).contains("ignored"), "it isn't watched: {event:?}");
            if apply(&mut model, &event) {
                model = visible();
            }
        }
    }
    assert_eq!(model.len(), visible().len());
    assert!(model == visible(), "the same names");
    assert_eq!(model.keys().filter(|path| path.ends_with(".js")).count(), PACKAGES * FILES - PACKAGES / 10 * FILES / 2);
}
