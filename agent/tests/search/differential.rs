//! The same answers as ripgrep: every line, number, text and column, over trees that proptest makes and over the sources
//! of our dependencies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use corehold_types::{
    WorkspacePath,
    tools::{SearchCase, SearchEvent, SearchRequest},
};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};

use crate::{
    ripgrep::{self, assert_same},
    support::{pattern, search},
    trees,
};

fn config() -> Config {
    Config {
        // Each case runs ripgrep four times. PROPTEST_CASES asks for more.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(128),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn finds_what_ripgrep_finds_in_generated_trees(
        tree in trees::tree(),
        requests in prop::collection::vec(trees::request(), 4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        trees::write(&tree, folder.path());
        for request in requests {
            compare(folder.path(), &request);
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: config().cases / 5, ..config() })]

    #[test]
    fn finds_what_ripgrep_finds_in_large_files(content in trees::large_file(), mut request in trees::request()) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.rs"), content).unwrap();
        // These match each blank of the filler: megabytes of columns that show nothing.
        if ["", ".", "x*", "[^x]"].contains(&request.pattern.as_str()) {
            request.pattern = "foo".to_owned();
        }
        request.max_file_bytes = None;
        compare(folder.path(), &request);
    }
}

fn compare(folder: &Path, request: &SearchRequest) {
    // A starting path that isn't there is ripgrep's complaint and our problem.
    if request.paths.iter().any(|path| !folder.join(path.to_path_buf().unwrap()).exists()) {
        search(folder, request).unwrap_err();
        return;
    }
    let (response, events) = match search(folder, request) {
        Ok(found) => found,
        Err(problem) => {
            assert_eq!(problem.context["field"], "pattern", "{problem}");
            assert!(ripgrep::refuses(folder, request), "ripgrep accepts what we don't: {problem}");
            return;
        }
    };
    let matched_lines = events.iter().filter(|event| matches!(event, SearchEvent::Match(_))).count();
    assert_eq!(response.matched_lines, matched_lines as u64);
    assert_same(folder, request, &ripgrep::ours(events), &ripgrep::run(folder, request));
}

/// The folders of the sources that cargo unpacked for this very build, of all our dependencies: real trees, with what real trees
/// have. Others may unpack more beside them meanwhile.
fn dependencies() -> Vec<PathBuf> {
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut packages: Vec<PathBuf> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !package["source"].is_null())
        .map(|package| PathBuf::from(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned())
        .collect();
    packages.sort();
    packages
}

/// The folder that they are in, and some of them.
fn real_trees() -> (PathBuf, Vec<WorkspacePath>) {
    let packages = dependencies();
    let folder = packages.first().expect("we have dependencies").parent().unwrap().to_owned();
    let names = packages.iter().filter_map(|package| package.strip_prefix(&folder).ok());
    let names = names.map(|name| WorkspacePath::from_bytes(name.as_os_str().as_encoded_bytes()));
    (folder.clone(), names.take(80).collect())
}

/// Gives a tree's files names elsewhere too. Returns how many.
fn link(from: &Path, to: &Path) -> usize {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap().map(Result::unwrap);
    let linked = entries.map(|entry| {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            return link(&path, &to);
        }
        // Another file system, or other people's files.
        fs::hard_link(&path, &to).or_else(|_| fs::copy(&path, &to).map(drop)).unwrap();
        1
    });
    linked.sum()
}

/// All our dependencies as one tree of so many files at least: again and again, where they are fewer.
fn large_tree(files: usize) -> tempfile::TempDir {
    let packages = dependencies();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut linked = 0;
    for (round, package) in (0..).flat_map(|round| packages.iter().map(move |package| (round, package))) {
        if linked >= files {
            break;
        }
        linked += link(package, &folder.path().join(format!("round-{round}")).join(package.file_name().unwrap()));
    }
    folder
}

#[test]
fn finds_what_ripgrep_finds_in_a_tree_of_twenty_thousand_files() {
    const FILES: usize = 20_000;
    let folder = large_tree(FILES);
    let request =
        |text: &str| SearchRequest { max_matches: Some(1_000_000), max_line_bytes: Some(1 << 20), ..pattern(text) };
    for request in [
        request("unsafe impl"),
        SearchRequest {
            word: Some(true),
            case: Some(SearchCase::Insensitive),
            hidden: Some(true),
            ..request("copyright")
        },
        SearchRequest { ignore_files: Some(false), after: Some(1), ..request(r"fn poll_\w+\(") },
        SearchRequest { multiline: Some(true), ..request(r"impl Drop for \w+ \{\n\s+fn") },
    ] {
        let (response, events) = search(folder.path(), &request).unwrap();
        assert_eq!(response.truncated, [], "{request:?}");
        assert!(response.matched_lines > 100, "{request:?} finds {}, which shows little", response.matched_lines);
        let skipped = response.skipped.ignored + response.skipped.hidden;
        assert!(response.searched_files + skipped > FILES as u64 / 2, "{response:?}");
        assert_same(folder.path(), &request, &ripgrep::ours(events), &ripgrep::run(folder.path(), &request));
    }
}

#[test]
fn finds_what_ripgrep_finds_in_real_trees() {
    let (folder, paths) = real_trees();
    let everything = SearchRequest {
        paths,
        max_matches: Some(1_000_000),
        max_line_bytes: Some(1 << 20),
        ..SearchRequest::default()
    };
    let request = |text: &str| SearchRequest { pattern: text.to_owned(), ..everything.clone() };
    let requests = [
        request("unsafe impl"),
        SearchRequest { case: Some(SearchCase::Insensitive), ..request("copyright holders?") },
        SearchRequest { word: Some(true), hidden: Some(true), ..request("poll_[a-z]+") },
        SearchRequest { types: vec!["toml".to_owned()], before: Some(1), after: Some(2), ..request(r"^edition") },
        SearchRequest {
            multiline: Some(true),
            types: vec!["rust".to_owned()],
            ..request(r"impl Drop for \w+ \{\n\s+fn")
        },
        SearchRequest { literal: Some(true), ignore_files: Some(false), hidden: Some(true), ..request("Vec<u8>") },
        SearchRequest { globs: vec!["*.md".to_owned(), "!CHANGELOG.md".to_owned()], ..request("[áéíóúčřž]") },
        SearchRequest { invert: Some(true), globs: vec!["Cargo.toml.orig".to_owned()], ..request("^[a-z]") },
    ];
    let mut lines = 0;
    for request in requests {
        let (response, events) = search(&folder, &request).unwrap();
        assert_eq!(response.truncated, [], "{request:?}");
        assert!(response.matched_lines > 0, "{request:?} finds nothing, so it shows nothing");
        lines += response.matched_lines;
        assert_same(&folder, &request, &ripgrep::ours(events), &ripgrep::run(&folder, &request));
    }
    assert!(lines > 2_000, "only {lines} lines were compared");
}

#[test]
fn a_sorted_search_has_ripgreps_order() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["b/x.rs", "a.rs", "a/z.rs", "a/b/c.rs", "a-b.rs", "b.rs", "a/a.rs", "c/1", "A.rs"] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "foo\n").unwrap();
    }
    let (_, events) = search(folder.path(), &SearchRequest { sorted: Some(true), ..pattern("foo") }).unwrap();
    let output = std::process::Command::new(ripgrep::program())
        .args(["--files-with-matches", "--sort=path", "foo", "./"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let theirs: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(|path| path[2..].to_owned()).collect();
    assert_eq!(crate::support::paths(&events), theirs, "ripgrep's order");
}
