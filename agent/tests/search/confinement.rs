//! Nothing outside of the root is found, whatever the links in it say, also while somebody swaps directories for links.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use corehold_types::tools::{FindKind, FindRequest, SearchRequest};

use crate::support::{find, paths, pattern, search};

/// A folder with a root in it, and a secret beside the root.
fn beside_a_secret() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("root/a/b")).unwrap();
    fs::create_dir_all(folder.path().join("outside/b")).unwrap();
    fs::write(folder.path().join("outside/secret"), "SECRET\n").unwrap();
    fs::write(folder.path().join("outside/b/secret"), "SECRET\n").unwrap();
    folder
}

fn following(request: SearchRequest) -> SearchRequest {
    SearchRequest { follow: Some(true), hidden: Some(true), ..request }
}

#[test]
fn links_that_lead_outside_are_counted_and_not_followed() {
    let folder = beside_a_secret();
    let root = folder.path().join("root");
    symlink("../outside", root.join("up")).unwrap();
    symlink(folder.path().join("outside"), root.join("absolute")).unwrap();
    symlink("../../outside/secret", root.join("a/file")).unwrap();
    symlink("up", root.join("twice")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let (response, events) = search(&root, &following(pattern("SECRET"))).unwrap();
    assert_eq!(paths(&events), [""; 0]);
    assert_eq!(response.skipped.links_refused, 5, "{response:?}");
    let found = find(&root, &FindRequest { follow: Some(true), ..FindRequest::default() }).unwrap();
    assert_eq!(found.total, 0, "{found:?}");
}

#[test]
fn links_that_stay_inside_are_followed_and_loops_end() {
    let folder = beside_a_secret();
    let root = folder.path().join("root");
    fs::write(root.join("a/b/f"), "SECRET\n").unwrap();
    symlink("a/b", root.join("relative")).unwrap();
    symlink(root.join("a/b/f"), root.join("absolute")).unwrap();
    symlink("..", root.join("a/b/loop")).unwrap();
    symlink("self", root.join("self")).unwrap();
    let (response, events) =
        search(&root, &SearchRequest { sorted: Some(true), ..following(pattern("SECRET")) }).unwrap();
    assert_eq!(paths(&events), ["a/b/f", "absolute", "relative/f", "relative/loop/b/f"]);
    assert_eq!(response.skipped.links_refused, 3, "a loop on each way, and the link to itself: {response:?}");
}

#[test]
fn ignore_files_outside_say_nothing() {
    let folder = beside_a_secret();
    let root = folder.path().join("root");
    fs::write(root.join("f"), "foo\n").unwrap();
    for name in [".ignore", ".gitignore", ".rgignore"] {
        fs::write(folder.path().join(name), "f\n").unwrap();
        symlink(format!("../{name}"), root.join(name)).unwrap();
    }
    fs::write(root.join(".git"), format!("gitdir: {}\n", folder.path().join("outside").display())).unwrap();
    let (response, events) = search(&root, &pattern("foo")).unwrap();
    assert_eq!(paths(&events), ["f"]);
    assert_eq!(response.troubles.len(), 4, "{:?}", response.troubles);
}

#[test]
fn special_files_are_never_opened() {
    let folder = beside_a_secret();
    let root = folder.path().join("root");
    // Opening a pipe for reading would wait for a writer, for ever.
    for name in ["pipe", ".gitignore", "a/.ignore"] {
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join(name), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    symlink("pipe", root.join("to-pipe")).unwrap();
    let (response, _) = search(&root, &following(pattern("x"))).unwrap();
    assert_eq!((response.skipped.special, response.searched_files), (5, 0), "{response:?}");
    let explicit = SearchRequest { paths: vec!["pipe".into(), "socket".into()], ..pattern("x") };
    let (response, _) = search(&root, &explicit).unwrap();
    assert_eq!(response.searched_files, 0, "{response:?}");
    let all = find(&root, &FindRequest { kind: Some(FindKind::Any), ..FindRequest::default() }).unwrap();
    assert!(all.total >= 3, "special files have names: {all:?}");
}

/// A second thread swaps a directory for a link that leads outside and back, as fast as it can.
#[test]
fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    let folder = beside_a_secret();
    let root = folder.path().join("root");
    for index in 0..20 {
        fs::create_dir_all(root.join(format!("a/b/{index}"))).unwrap();
        fs::write(root.join(format!("a/b/{index}/f")), "inside\n").unwrap();
    }
    fs::write(root.join("a/secret"), "inside\n").unwrap();
    symlink("../outside", root.join("bait")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = |from: &Path, to: &Path| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).unwrap();
            };
            while !stop.load(Ordering::Relaxed) {
                exchange(&root.join("a"), &root.join("bait"));
            }
        });
        let until = std::time::Instant::now() + Duration::from_secs(1);
        let mut found = 0;
        while std::time::Instant::now() < until {
            for follow in [true, false] {
                let request = SearchRequest { follow: Some(follow), ..pattern("SECRET|inside") };
                let (_, events) = search(&root, &request).unwrap();
                let text = serde_json::to_string(&events).unwrap();
                assert!(!text.contains("SECRET"), "{text}");
                found += events.len();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(found > 0, "the directory was never found, so nothing was raced");
    });
}
