//! Order, depth and pages.

use std::{
    fs,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{PermissionsExt as _, symlink},
    },
};

use super::*;
use crate::testing;

fn paths(response: &ListResponse) -> Vec<String> {
    response.entries.iter().map(|entry| entry.path.to_string()).collect()
}

fn call(agent: &Agent, request: &ListRequest) -> Result<ListResponse, Problem> {
    list(agent, request, &Cancelled::default())
}

fn tree() -> testing::TestAgent {
    let agent = testing::agent();
    let root = agent.root.path();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for file in ["a/1", "a/b/2", "a/b/c/3", "a-file", "z"] {
        fs::write(root.join(file), "xyz").unwrap();
    }
    agent
}

#[test]
fn a_directory_comes_before_what_is_in_it_in_byte_order() {
    let agent = tree();
    let all = ListRequest { depth: Some(9), ..Default::default() };
    let order = ["a", "a/1", "a/b", "a/b/2", "a/b/c", "a/b/c/3", "a-file", "z"];
    assert_eq!(paths(&call(&agent, &all).unwrap()), order);
    let own = call(&agent, &ListRequest::default()).unwrap();
    assert_eq!((paths(&own), own.cursor), (vec!["a".into(), "a-file".into(), "z".into()], None));
    let beneath = ListRequest { path: Some("a/".into()), depth: Some(2), ..Default::default() };
    assert_eq!(paths(&call(&agent, &beneath).unwrap()), ["a/1", "a/b", "a/b/2", "a/b/c"]);
}

#[test]
fn pages_of_any_size_make_up_the_whole() {
    let agent = tree();
    for path in [None, Some(WorkspacePath::from("a"))] {
        let whole =
            paths(&call(&agent, &ListRequest { path: path.clone(), depth: Some(9), ..Default::default() }).unwrap());
        for limit in 1..=whole.len() + 1 {
            let mut cursor = None;
            let mut together = Vec::new();
            loop {
                let request = ListRequest { path: path.clone(), depth: Some(9), limit: Some(limit as u32), cursor };
                let page = call(&agent, &request).unwrap();
                assert!(page.entries.len() <= limit);
                together.extend(paths(&page));
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(together, whole, "pages of {limit}");
        }
    }
}

#[test]
fn a_page_goes_on_although_its_last_entry_was_removed() {
    let agent = tree();
    let request = ListRequest { depth: Some(9), limit: Some(4), ..Default::default() };
    let first = call(&agent, &request).unwrap();
    assert_eq!(paths(&first).last().unwrap(), "a/b/2");
    fs::remove_dir_all(agent.root.path().join("a/b")).unwrap();
    let next = call(&agent, &ListRequest { cursor: first.cursor, ..request }).unwrap();
    assert_eq!(paths(&next), ["a-file", "z"]);
}

#[test]
fn entries_say_what_they_are_and_links_are_not_followed() {
    let agent = testing::agent();
    let root = agent.root.path();
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("file"), "12345").unwrap();
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/etc", root.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::write(root.join(std::ffi::OsString::from_vec(b"\xff".to_vec())), "").unwrap();
    fs::create_dir(root.join(".corehold-stage-abcdefghijklmnop")).unwrap();
    let response = call(&agent, &ListRequest { depth: Some(3), ..Default::default() }).unwrap();
    let kinds: Vec<_> = response.entries.iter().map(|entry| entry.kind).collect();
    use EntryKind::{Directory, File, Special, Symlink};
    assert_eq!(kinds, [Directory, File, Symlink, Special, File]);
    assert_eq!((response.entries[1].size, response.entries[1].mode), (5, 0o750));
    assert_eq!(response.entries[2].target, Some("/etc".into()));
    assert_eq!(response.entries[4].path, WorkspacePath::from_bytes(b"\xff"));
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let agent = tree();
    for (request, code) in [
        (ListRequest { depth: Some(0), ..Default::default() }, Code::InvalidRequest),
        (ListRequest { depth: Some(101), ..Default::default() }, Code::InvalidRequest),
        (ListRequest { limit: Some(0), ..Default::default() }, Code::InvalidRequest),
        (ListRequest { limit: Some(10_001), ..Default::default() }, Code::LimitExceeded),
        (ListRequest { cursor: Some("*".into()), ..Default::default() }, Code::InvalidRequest),
        (ListRequest { cursor: Some("Li4vLi4".into()), ..Default::default() }, Code::InvalidRequest),
        (ListRequest { path: Some("z".into()), ..Default::default() }, Code::NotADirectory),
        (ListRequest { path: Some("nothing".into()), ..Default::default() }, Code::NotFound),
        (ListRequest { path: Some("..".into()), ..Default::default() }, Code::PathOutsideRoot),
    ] {
        assert_eq!(call(&agent, &request).unwrap_err().code, code, "{request:?}");
    }
}
