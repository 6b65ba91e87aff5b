//! An agent that is started where another one was killed in the middle of a transaction: its first answers.

use std::{io::Read as _, sync::Arc};

use axum::body::Body;
use corehold_types::{
    Data,
    tools::{ReadResponse, ReadResult},
};
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{
    faults::{Check, edit_until_killed, prepare},
    *,
};
use crate::{server, testing};

/// Contents by path.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Contents of what is a file of its own.
fn files(seen: &BTreeMap<PathBuf, Seen>) -> Contents {
    let is_file = |seen: &Seen| rustix::fs::FileType::from_raw_mode(seen.mode) == rustix::fs::FileType::RegularFile;
    seen.iter().filter(|(_, seen)| is_file(seen)).map(|(path, seen)| (path.clone(), seen.bytes.clone())).collect()
}

async fn ask(agent: &testing::TestAgent, request: http::request::Builder, body: String) -> Vec<u8> {
    let request: Request<Body> = request
        .header("authorization", "Bearer token")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let response = server::router(Arc::clone(agent)).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap().to_bytes().into()
}

async fn read(agent: &testing::TestAgent, paths: &[PathBuf]) -> Contents {
    let files: Vec<_> = paths.iter().map(|path| serde_json::json!({ "path": path })).collect();
    let request = serde_json::json!({ "files": files }).to_string();
    let answer = ask(agent, Request::post("/v1/tools/read"), request).await;
    let answer: ReadResponse = serde_json::from_slice(&answer).unwrap();
    let content = |result: ReadResult| match result {
        ReadResult::Ok(file) => {
            let corehold_types::WorkspacePath::Text(path) = file.path else { panic!("no such path") };
            let Data::Text(text) = file.data else { panic!("no such content") };
            Some((path.into(), text.into_bytes()))
        }
        ReadResult::Error { .. } => None,
    };
    answer.files.into_iter().filter_map(content).collect()
}

async fn archive(agent: &testing::TestAgent) -> Contents {
    let tar = ask(agent, Request::get("/v1/archive?format=tar"), String::new()).await;
    let mut contents = Contents::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        match entry.header().entry_type() {
            tar::EntryType::Regular => _ = contents.insert(path, bytes),
            tar::EntryType::Link => {
                let target = contents[entry.link_name().unwrap().unwrap().as_ref()].clone();
                contents.insert(path, target);
            }
            _ => {}
        }
    }
    contents
}

#[tokio::test]
async fn an_agent_that_starts_behind_a_killed_one_shows_all_old_or_all_new() {
    let check = Check::new();
    let (old, new) = (files(&check.old), files(&check.new));
    let paths: Vec<PathBuf> = old.keys().chain(new.keys()).cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let (mut both, mut half) = ([0, 0], 0);
    for step in 0.. {
        let folder = in_memory();
        prepare(folder.path());
        if edit_until_killed(folder.path(), step, true).status.success() {
            break;
        }
        let left = files(&without_identity(&look(folder.path())));
        half += u32::from(left != old && left != new);
        let agent = testing::agent_in(folder, &[]);
        let (first, second) = (read(&agent, &paths).await, archive(&agent).await);
        let is_new = first == new;
        let differing = |wanted: &Contents| {
            paths.iter().filter(|path| first.get(*path) != wanted.get(*path)).cloned().collect::<Vec<_>>()
        };
        let (not_old, not_new) = (differing(&old), differing(&new));
        assert!(is_new || first == old, "killed at step {step}: not old {not_old:?}, not new {not_new:?}");
        assert!(second == first, "the archive holds something else, killed at step {step}: {:?}", second.keys());
        both[usize::from(is_new)] += 1;
    }
    assert!(both[0] > 20 && both[1] > 2 && half > 10, "old and new: {both:?}; left half done: {half}");
}

/// Whatever is wrong with the journals, what they are about stays until somebody can read them.
#[tokio::test]
async fn an_agent_that_can_not_recover_transactions_takes_nothing_of_them_away() {
    let folder = in_memory();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("aaaaaaaaaaaaaaaa"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join(crate::root::JOURNALS)).unwrap();
    std::fs::write(folder.path().join(".corehold-edit-aaaaaaaaaaaaaaaa"), "the old content").unwrap();
    std::fs::create_dir(folder.path().join(".corehold-stage-aaaaaaaaaaaaaaaa")).unwrap();
    let place = folder.path().to_owned();
    let agent = testing::agent_in(folder, &[]);
    let left: Vec<_> = look(&place).into_keys().collect();
    assert_eq!(left, [".corehold-edit-aaaaaaaaaaaaaaaa", crate::root::JOURNALS].map(PathBuf::from));
    drop(agent);
}
