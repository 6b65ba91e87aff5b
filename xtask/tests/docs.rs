//! What documents say of the code is there: the tests that `SECURITY.md` names, the files and folders that the others do.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each `` `name` (file.rs) `` of a text.
fn references(text: &str) -> Vec<(String, String)> {
    let words = text.split('`').skip(1).step_by(2);
    let after = text.split('`').skip(2).step_by(2);
    let file = |after: &str| {
        Some(after.strip_prefix(" (")?.split_once(')')?.0.to_owned()).filter(|file| file.ends_with(".rs"))
    };
    words.zip(after).filter_map(|(name, after)| Some((name.to_owned(), file(after)?))).collect()
}

fn missing(text: &str, root: &Path) -> Vec<String> {
    let is_there = |(name, file): &(String, String)| {
        let source = fs::read_to_string(root.join(file)).unwrap_or_default();
        source.contains(&format!("fn {name}("))
    };
    references(text)
        .into_iter()
        .filter(|reference| !is_there(reference))
        .map(|(name, file)| format!("{name} in {file}"))
        .collect()
}

/// What a document states: each row of its tables, each point of its lists and each paragraph, in one line. Not its headings, the heads of its
/// tables, and what only leads over to a list or a table by a colon.
fn statements(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.starts_with('#')) {
        if block.starts_with('|') {
            all.extend(block.lines().skip(2).map(str::to_owned));
        } else {
            let points = format!("\n{block}").replace('\n', "\u{0}").replace("\u{0}- ", "\n- ").replace('\u{0}', " ");
            all.extend(points.split('\n').map(|point| point.trim().to_owned()));
        }
    }
    all.retain(|statement| !statement.is_empty() && !statement.ends_with(':'));
    all
}

/// Those that neither name a test nor say why there is none: `(no test: reason)`.
fn unshown(text: &str) -> Vec<String> {
    let says_why = |statement: &str| {
        let reason = statement.split_once("(no test: ").and_then(|(_, rest)| rest.split_once(')'));
        reason.is_some_and(|(reason, _)| reason.split(' ').count() > 3)
    };
    statements(text).into_iter().filter(|statement| references(statement).is_empty() && !says_why(statement)).collect()
}

#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    assert_eq!(missing(&text, root), Vec::<String>::new(), "SECURITY.md names what is not there");
    assert_eq!(unshown(&text), Vec::<String>::new(), "no test shows this, and no reason is given");
    assert!(statements(&text).len() > 50, "{:#?}", statements(&text));
    assert!(missing("`no_such_test` (xtask/tests/docs.rs)", root).len() == 1, "what is not there is found");

    let text = "# Head\n\nIt can:\n\n- a `t` (a.rs)\n- b\n  more (no test: )\n- c (no test: nobody\n  could wait so long)\n\n\
                | it | by |\n|---|---|\n| d | `u` (b.rs) |\n| e | |\n\nf\ng";
    assert_eq!(unshown(text), ["- b   more (no test: )", "| e | |", "f g"]);
}

/// Where something in this folder listens for connections, but for tests: files and the lines in them.
fn listeners(root: &Path, folder: &str) -> Vec<String> {
    let sources =
        everything(&root.join(folder)).into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str().to_string_lossy().contains("test"));
    let mut found = Vec::new();
    for path in sources.filter(|path| !is_test(path)) {
        let source = fs::read_to_string(root.join(folder).join(&path)).unwrap();
        let shipped = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let listens = |line: &&str| line.contains("Listener::bind(") || line.contains(".bind(");
        found.extend(shipped.lines().filter(listens).map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    found.sort();
    found
}

#[test]
fn the_library_listens_on_loopback_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert_eq!(listeners(root, "cli/src"), Vec::<String>::new());
    let known = [
        "runtime/docker/network/probe.rs: let listener = TcpListener::bind((\"0.0.0.0\", 0)).await?;",
        "workspace/forward/listener.rs: socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;",
    ];
    assert_eq!(listeners(root, "host-lib/src"), known);
}

/// What the suite is made of, as its macro lists it.
fn conformance_tests(root: &Path) -> usize {
    let source = fs::read_to_string(root.join("tests/src/conformance/mod.rs")).unwrap();
    let (_, listed) = source.split_once("@each $fixture;\n").unwrap();
    listed.lines().take_while(|line| line.trim() != "}").count()
}

#[test]
fn the_engines_are_tried_as_the_documents_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let (count, readme, contributing) = (conformance_tests(root), read("README.md"), read("CONTRIBUTING.md"));
    assert!(count > 20, "{count}");
    for (text, says) in [
        (&readme, format!("(`tests/src/conformance/`, {count} tests)")),
        (&contributing, format!("The conformance suite has {count} tests")),
        (&contributing, format!("| engine | all {count}, on ")),
    ] {
        assert!(text.contains(&says), "no document says {says:?}");
    }
    // What an engine is said to be tested by is there to be typed.
    let tested = readme.lines().find(|line| line.starts_with("| tested by |")).unwrap();
    let commands: Vec<_> = tested.split('`').skip(1).step_by(2).collect();
    assert_eq!(commands.len(), 3, "{tested}");
    let arguments = read("xtask/src/arguments.rs");
    for command in commands {
        let flags: Vec<_> = command.strip_prefix("cargo xtask test").unwrap().split_whitespace().collect();
        assert!(flags.iter().all(|flag| arguments.contains(&format!("\"{flag}\""))), "{command}");
    }
}

/// Every file and folder of the repository but for what is built, by its path from the root.
fn everything(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if ["target", ".git", "node_modules"].iter().any(|built| name == *built) {
                continue;
            }
            found.push(entry.path().strip_prefix(root).unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}

/// Each path of this repository that a text names between backticks: what begins with one of its folders, is a Rust file, or ends
/// with a slash. What is built is no part of it, and where something else is to be put in (`<home>`, `…`, `*`), it is no path.
fn paths<'a>(text: &'a str, there: &[PathBuf]) -> Vec<&'a str> {
    let is_path = |word: &&str| {
        let first = word.split('/').next().unwrap_or_default();
        let is_ours = word.contains('/') && there.iter().any(|path| path.as_os_str() == first);
        (is_ours || word.ends_with(".rs") || word.ends_with('/'))
            && !word.starts_with(['/', '.', '-'])
            && !word.starts_with("target/")
            && !word.contains([' ', '<', '{', '*', '…', ':', '='])
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_path).collect()
}

/// Those that aren't there, from the root or from some folder of it.
fn gone<'a>(text: &'a str, there: &[PathBuf]) -> Vec<&'a str> {
    let is_there = |word: &str| there.iter().any(|path| path.ends_with(word.trim_end_matches('/')));
    paths(text, there).into_iter().filter(|word| !is_there(word)).collect()
}

#[test]
fn each_path_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let there = everything(root);
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into_iter().chain(docs);
    let (mut named, mut missing) = (0, Vec::new());
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        named += paths(&text, &there).len();
        let of_document = |path: &&str| format!("{path} in {}", document.display());
        missing.extend(gone(&text, &there).iter().map(of_document));
    }
    assert_eq!(missing, Vec::<String>::new(), "documents name what is not there");
    assert!(named > 100, "only {named} paths were found");
    let text = "`xtask/tests/docs.rs`, `tests/docs.rs` and `xtask/` are there; `agent/src/gone.rs`, `gone.rs` and `agent/gone` aren't";
    assert_eq!(gone(text, &there), ["agent/src/gone.rs", "gone.rs", "agent/gone"]);
}
