//! What documents say of the code is there: the tests that `SECURITY.md` names.

use std::{fs, path::Path};

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

#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    assert_eq!(missing(&text, root), Vec::<String>::new(), "SECURITY.md names what is not there");
    for row in text.lines().filter(|line| line.starts_with("| it ") || line.starts_with("| to ")) {
        assert!(
            row == "| it tries | what holds it | shown by |" || !references(row).is_empty(),
            "no test shows this: {row}"
        );
    }
    assert!(missing("`no_such_test` (xtask/tests/docs.rs)", root).len() == 1, "what is not there is found");
}
