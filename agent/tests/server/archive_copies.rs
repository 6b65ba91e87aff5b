//! `GET /v1/archive` and back: a copy is the same in all that an archive promises to keep; and what `replace` and `exclude` do.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

use axum::body::Body;
use corehold_types::Code;
use http::Method;
use proptest::prelude::*;

use crate::{support::TestAgent, tars::Tar};

const EXACT: &str = "format=tar&exactTimes=true";

async fn archive(agent: &TestAgent, query: &str) -> Vec<u8> {
    agent.get(&format!("/v1/archive?{query}"), &[]).await.assert_ok().body.to_vec()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[derive(Debug, Clone)]
enum Node {
    File { content: Vec<u8>, mode: u32 },
    Directory { mode: u32 },
    Symlink(Vec<u8>),
    HardLinkToFirst,
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..2000), 0_u32..=0o777)
            .prop_map(|(content, mode)| Node::File { content, mode: mode | 0o400 }),
        3 => (0_u32..=0o777).prop_map(|mode| Node::Directory { mode: mode | 0o500 }),
        1 => proptest::collection::vec(1_u8.., 1..300).prop_map(Node::Symlink),
        1 => Just(Node::HardLinkToFirst),
    ]
}

/// Names without a slash or NUL, of any other bytes, some too long for a tar's own field.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(1_u8.., 1..12), proptest::collection::vec(b'a'..=b'c', 90..120)].prop_map(
        |mut name| {
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            if name.iter().all(|byte| *byte == b'.') { b"dots".to_vec() } else { name }
        },
    )
}

fn plant(root: &Path, nodes: &[(Vec<u8>, usize, Node, i64, i64)]) {
    let (mut directories, mut file) = (vec![root.to_owned()], None);
    let mut made = Vec::new();
    for (name, parent, node, seconds, nanoseconds) in nodes {
        let path = directories[parent % directories.len()].join(OsStr::from_bytes(name));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        let mode = match node {
            Node::File { content, mode } => {
                fs::write(&path, content).unwrap();
                file.get_or_insert(path.clone());
                Some(*mode)
            }
            Node::Directory { mode } => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
                Some(*mode)
            }
            Node::Symlink(target) => {
                symlink(OsStr::from_bytes(target), &path).unwrap();
                None
            }
            Node::HardLinkToFirst => match &file {
                Some(file) => {
                    fs::hard_link(file, &path).unwrap();
                    continue;
                }
                None => continue,
            },
        };
        made.push((path, mode, *seconds, *nanoseconds));
    }
    // Last, and the deepest first: making something in a directory changes its time, and needs its permission.
    for (path, mode, seconds, nanoseconds) in made.into_iter().rev() {
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        set_modified(&path, seconds, nanoseconds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_comes_back_as_it_was(
        nodes in proptest::collection::vec((name(), any::<usize>(), node(), -5_000_000_000_i64..50_000_000_000, 0_i64..1_000_000_000), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (from, to) = (TestAgent::new(), TestAgent::new());
            plant(from.root(), &nodes);
            let sent = archive(&from, EXACT).await;
            to.put("/v1/archive?replace=true", sent.clone()).await.assert_ok();
            assert!(archive(&to, EXACT).await == sent, "{:?} became {:?}", names(&sent), to.names());
        });
    }
}

#[tokio::test]
async fn times_are_exact_where_that_is_asked_for() {
    let agent = TestAgent::new();
    fs::write(agent.root().join("f"), "").unwrap();
    set_modified(&agent.root().join("f"), 1_700_000_000, 123_456_789);
    for (query, nanoseconds) in [(EXACT, 123_456_789), ("format=tar", 0), ("format=tar&exactTimes=false", 0)] {
        let to = TestAgent::new();
        to.put("/v1/archive", archive(&agent, query).await).await.assert_ok();
        let metadata = fs::metadata(to.root().join("f")).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_700_000_000, nanoseconds), "{query}");
    }
    agent.get("/v1/archive?exactTimes=1", &[]).await.assert_problem(400, Code::InvalidRequest);
}

#[tokio::test]
async fn a_sparse_file_takes_no_more_room_than_before() {
    let (from, to) = (TestAgent::new(), TestAgent::new());
    let sparse = fs::File::create(from.root().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 30 << 20).unwrap();
    drop(sparse);
    let sent = archive(&from, "format=tar.zst").await;
    to.put("/v1/archive", sent).await.assert_ok();
    let [was, is] = [&from, &to].map(|agent| fs::read(agent.root().join("sparse")).unwrap());
    assert!(was == is);
    let blocks = fs::metadata(to.root().join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 2 << 20, "{blocks} blocks");
}

#[tokio::test]
async fn what_patterns_match_is_left_out_and_not_asked_for() {
    let agent = TestAgent::new();
    for name in ["src/main.js", "node_modules/a/index.js", "src/node_modules/b", "app.log", "keep.log", "caf\u{e9}/x"] {
        let path = agent.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    // A second name of a file whose first is left out.
    fs::hard_link(agent.root().join("node_modules/a/index.js"), agent.root().join("src/copy.js")).unwrap();
    let query = "format=tar&exclude=node_modules&exclude=*.log&exclude=%21keep.log&exclude=caf%C3%A9%2F";
    let sent = archive(&agent, query).await;
    assert_eq!(names(&sent), ["keep.log", "src", "src/copy.js", "src/main.js"]);
    let to = TestAgent::new();
    to.put("/v1/archive", sent).await.assert_ok();
    assert_eq!(fs::read_to_string(to.root().join("src/copy.js")).unwrap(), "node_modules/a/index.js");
    for wrong in ["exclude=%FF", "exclude=%5Bz-a%5D", "exclude=a&exclude=b&excluded=c"] {
        agent.get(&format!("/v1/archive?{wrong}"), &[]).await.assert_problem(400, Code::InvalidRequest);
    }
}

#[tokio::test]
async fn replacing_leaves_what_the_archive_has_and_nothing_else() {
    let agent = TestAgent::new();
    let root = agent.root();
    fs::create_dir_all(root.join("d/old")).unwrap();
    fs::write(root.join("d/both"), "old").unwrap();
    fs::create_dir(root.join("becomes-file")).unwrap();
    fs::write(root.join("becomes-directory"), "old").unwrap();
    fs::create_dir_all(root.join("closed/inner")).unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("/etc", root.join("link")).unwrap();
    let tar = Tar::default()
        .directory("d")
        .file("d/both", "new")
        .file("becomes-file", "new")
        .file("becomes-directory/x", "new")
        .end();
    agent.put("/v1/archive?replace=true", tar).await.assert_ok();
    assert_eq!(agent.names(), ["becomes-directory", "becomes-directory/x", "becomes-file", "d", "d/both"]);
    assert_eq!(fs::read_to_string(root.join("d/both")).unwrap(), "new");
    assert_eq!(fs::read_dir(root).unwrap().count(), 3, "no stage is left");
    agent.put("/v1/archive?replace=true&path=d", Tar::default().file("only", "").end()).await.assert_ok();
    assert_eq!(agent.names(), ["becomes-directory", "becomes-directory/x", "becomes-file", "d", "d/only"]);
    agent.put("/v1/archive?replace=true", Tar::default().end()).await.assert_ok();
    assert_eq!(fs::read_dir(root).unwrap().count(), 0, "an empty archive leaves nothing");
}

#[tokio::test]
async fn what_can_not_be_replaced_whole_stays_as_it_was() {
    let agent = TestAgent::new();
    fs::create_dir(agent.root().join("d")).unwrap();
    fs::write(agent.root().join("d/f"), "old").unwrap();
    let good = Tar::default().file("new", "new").end();
    let refused = Tar::default().file("new", "new").file("../out", "x").end();
    let other = blake3::hash(b"other").to_hex();
    for (query, body) in [
        ("replace=true".to_owned(), good[..700].to_vec()),
        ("replace=true".to_owned(), refused),
        (format!("replace=true&hash={other}"), good.clone()),
        ("replace=yes".to_owned(), good),
    ] {
        let answer = agent.call(Method::PUT, &format!("/v1/archive?{query}"), &[], Body::from(body)).await;
        assert!(answer.status.is_client_error(), "{query}: {}", answer.status);
        assert_eq!(agent.names(), ["d", "d/f"], "{query}");
        assert_eq!(fs::read_dir(agent.root()).unwrap().count(), 1, "no stage is left");
    }
}
