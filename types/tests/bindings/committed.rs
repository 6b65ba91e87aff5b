//! Compares generated files with the committed ones, or writes them.

use std::{collections::BTreeMap, fs, path::Path};

/// Whether this run writes the committed files instead of comparing them.
fn updating() -> bool {
    std::env::var_os("COREHOLD_UPDATE").is_some_and(|value| value == "1")
}

/// Compares the whole folder (relative to `types/`): a file that differs, lacks or is left over fails the test.
///
/// `files` are names and contents. Other kinds of files than `extension` are not this folder's business.
pub(crate) fn verify(folder: &str, extension: &str, files: &BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if updating() {
        write(&folder, extension, files);
        return;
    }
    let mut complaints = Vec::new();
    for (name, expected) in files {
        match fs::read_to_string(folder.join(name)) {
            Ok(found) if found == *expected => {}
            Ok(found) => complaints.push(format!("{name} differs: {}", first_difference(&found, expected))),
            Err(error) => complaints.push(format!("{name} can't be read: {error}")),
        }
    }
    for name in names_in(&folder, extension) {
        if !files.contains_key(&name) {
            complaints.push(format!("{name} is left over: nothing generates it any more"));
        }
    }
    assert!(
        complaints.is_empty(),
        "{} is not what the types say; run `cargo xtask gen` and commit the result:\n  {}",
        folder.display(),
        complaints.join("\n  ")
    );
}

fn write(folder: &Path, extension: &str, files: &BTreeMap<String, String>) {
    fs::create_dir_all(folder).unwrap();
    for name in names_in(folder, extension) {
        if !files.contains_key(&name) {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
}

fn names_in(folder: &Path, extension: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(extension))
        .collect();
    names.sort();
    names
}

fn first_difference(found: &str, expected: &str) -> String {
    let mut lines = found.lines().zip(expected.lines()).enumerate();
    match lines.find(|(_, (found, expected))| found != expected) {
        Some((index, (found, expected))) => {
            format!("line {} is\n      {found}\n    and should be\n      {expected}", index + 1)
        }
        None => format!("{} lines instead of {}", found.lines().count(), expected.lines().count()),
    }
}

#[test]
fn a_difference_names_its_line() {
    assert!(first_difference("a\nb", "a\nc").starts_with("line 2 is\n      b\n"));
    assert_eq!(first_difference("a\nb", "a"), "2 lines instead of 1");
}
