//! `find`: what it finds, in which order, and page by page.

use std::fs;

use corehold_types::tools::{EntryKind, FindKind, FindRequest, FindResponse};

use crate::support::find;

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "src/search/mod.rs",
        "src/search/walk.rs",
        "src/server/mod.rs",
        "src/main.rs",
        "tests/walk.rs",
        "README.md",
        ".env",
        "node_modules/walk/index.js",
        "src/a walk.txt",
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(folder.path().join(".gitignore"), "node_modules\n").unwrap();
    std::os::unix::fs::symlink("src/main.rs", folder.path().join("link.rs")).unwrap();
    folder
}

fn names(response: &FindResponse) -> Vec<String> {
    response.entries.iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn without_a_query_everything_comes_in_the_order_of_paths() {
    let folder = tree();
    let found = find(folder.path(), &FindRequest::default()).unwrap();
    let expected = [
        "README.md",
        "link.rs",
        "src/a walk.txt",
        "src/main.rs",
        "src/search/mod.rs",
        "src/search/walk.rs",
        "src/server/mod.rs",
        "tests/walk.rs",
    ];
    assert_eq!(names(&found), expected);
    assert_eq!((found.total, found.considered, found.cursor), (8, 8, None));
    assert!(found.entries.iter().all(|entry| entry.score.is_none()));
    assert_eq!(found.entries[1].kind, EntryKind::Symlink);
}

#[test]
fn globs_types_and_kinds_choose() {
    let folder = tree();
    let by_glob = FindRequest { globs: vec!["src/**/*.rs".to_owned(), "!mod.rs".to_owned()], ..FindRequest::default() };
    assert_eq!(names(&find(folder.path(), &by_glob).unwrap()), ["src/main.rs", "src/search/walk.rs"]);
    let by_type = FindRequest { types: vec!["markdown".to_owned()], ..FindRequest::default() };
    assert_eq!(names(&find(folder.path(), &by_type).unwrap()), ["README.md"]);
    let directories = FindRequest { kind: Some(FindKind::Directories), ..FindRequest::default() };
    assert_eq!(names(&find(folder.path(), &directories).unwrap()), ["src", "src/search", "src/server", "tests"]);
    let beneath = FindRequest { path: Some("src".into()), max_depth: Some(1), ..FindRequest::default() };
    assert_eq!(names(&find(folder.path(), &beneath).unwrap()), ["src/a walk.txt", "src/main.rs"]);
    let hidden = FindRequest { hidden: Some(true), ignore_files: Some(false), ..FindRequest::default() };
    assert_eq!(find(folder.path(), &hidden).unwrap().total, 11);
}

#[test]
fn a_query_ranks() {
    let folder = tree();
    let query = |query: &str| FindRequest { query: Some(query.to_owned()), ..FindRequest::default() };
    let found = find(folder.path(), &query("walkrs")).unwrap();
    assert_eq!(names(&found)[..2], ["tests/walk.rs", "src/search/walk.rs"], "shorter first where they match as well");
    assert_eq!(names(&find(folder.path(), &query("sea mod")).unwrap()), ["src/search/mod.rs"]);
    assert_eq!(names(&find(folder.path(), &query("README")).unwrap()), ["README.md"]);
    assert_eq!(find(folder.path(), &query("Walk")).unwrap().total, 0, "an upper-case letter means itself");
    assert_eq!(find(folder.path(), &query("zzz")).unwrap().total, 0);
    let positions = FindRequest { positions: Some(true), ..query("main") };
    assert_eq!(find(folder.path(), &positions).unwrap().entries[0].positions.as_deref(), Some(&[4, 5, 6, 7][..]));
}

#[test]
fn pages_give_each_entry_once() {
    let folder = tree();
    for query in [None, Some("s".to_owned())] {
        let all = find(folder.path(), &FindRequest { query: query.clone(), ..FindRequest::default() }).unwrap();
        let mut request = FindRequest { query, limit: Some(2), ..FindRequest::default() };
        let mut paged = Vec::new();
        loop {
            let page = find(folder.path(), &request).unwrap();
            assert_eq!(page.total, all.total, "the total is that of all pages");
            assert!(page.entries.len() <= 2);
            paged.extend(page.entries);
            request.cursor = page.cursor;
            if request.cursor.is_none() {
                break;
            }
        }
        assert!(paged.len() > 4);
        assert_eq!(paged, all.entries);
    }
}
