//! What every public item of the host library keeps, as far as a look at the sources can tell: what dropping a future does is
//! said, what may grow is `#[non_exhaustive]`, and no type of the engine's library is handed out.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Values that callers build themselves field by field, or match as a whole: what is added to them is meant to break.
const WHOLE: &[&str] = &[
    "BuildRequest",
    "CaBundle",
    "ContainerEvent",
    "ContainerId",
    "ContainerSpec",
    "DockerAddress",
    "Frame",
    "ImageBuild",
    "OutputStream",
    "Surroundings",
    "VolumeSpec",
];

/// A public item: where it stands, its documentation and attributes, its code up to the end of its head or of its fields.
struct Item<'a> {
    line: usize,
    above: Vec<&'a str>,
    code: String,
}

/// The items of a file whose lines begin so, those of its tests left out.
fn items<'a>(text: &'a str, begins: &[&str]) -> Vec<Item<'a>> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let begun =
        lines.iter().enumerate().filter(|(_, line)| begins.iter().any(|word| line.trim_start().starts_with(word)));
    let item = |(at, line): (usize, &&'a str)| {
        let indent = line.len() - line.trim_start().len();
        let is_above = |line: &&&str| line.trim_start().starts_with("///") || line.trim_start().starts_with("#[");
        let above = lines[..at].iter().rev().take_while(is_above).copied().collect();
        let is_type = line.contains("struct ") || line.contains("enum ");
        // A head ends with its line that opens or ends it, a type with the line that closes it.
        let is_last = |line: &str| match is_type {
            true => line.ends_with(';') || line.get(indent..).is_some_and(|rest| rest.starts_with('}')),
            false => line.ends_with('{') || line.ends_with(';'),
        };
        let end = lines[at..].iter().position(|line| is_last(line)).map_or(lines.len(), |length| at + length + 1);
        Item { line: at + 1, above, code: lines[at..end].join("\n") }
    };
    begun.map(item).collect()
}

fn dropping_is_told(path: &Path, text: &str) -> Vec<String> {
    let told = |item: &Item<'_>| {
        item.above.iter().any(|line| line.contains("Cancel-safe") || line.contains("Dropping the future"))
    };
    let silent = items(text, &["pub async fn "]).into_iter().filter(|item| !told(item));
    silent
        .map(|item| {
            let head = item.code.lines().next().unwrap_or_default().trim().to_owned();
            format!(
                "{}:{}: `{head}` says neither \"Cancel-safe\" nor what \"Dropping the future\" does",
                path.display(),
                item.line
            )
        })
        .collect()
}

fn what_may_grow_is_marked(path: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for item in items(text, &["pub enum ", "pub struct "]) {
        let head = item.code.split_whitespace().nth(2).unwrap_or_default();
        let name = head.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
        let can_be_built = item.code.trim_start().starts_with("pub enum")
            || item.code.lines().skip(1).any(|line| line.trim_start().starts_with("pub "))
            || item.code.contains("(pub ");
        let marked = item.above.iter().any(|line| line.contains("non_exhaustive"));
        if can_be_built && !marked && !WHOLE.contains(&name) {
            complaints.push(format!("{}:{}: `{name}` may grow: make it #[non_exhaustive]", path.display(), item.line));
        }
    }
    complaints
}

/// The names that a file takes from the engine's library.
fn of_the_engine(text: &str) -> Vec<&str> {
    let uses = text.split("use bollard::").skip(1).filter_map(|rest| rest.split(';').next());
    let words = uses.flat_map(|list| list.split(|character: char| !character.is_alphanumeric() && character != '_'));
    words.filter(|word| word.starts_with(char::is_uppercase)).chain(["bollard"]).collect()
}

fn no_type_of_the_engines_library(path: &Path, text: &str) -> Vec<String> {
    let foreign = of_the_engine(text);
    let mut complaints = Vec::new();
    for item in items(text, &["pub async fn ", "pub fn ", "pub struct ", "pub enum ", "pub type ", "pub use "]) {
        let is_enum = item.code.trim_start().starts_with("pub enum");
        let public: Vec<&str> = match item.code.trim_start().starts_with("pub struct") {
            true => item.code.lines().filter(|line| line.trim_start().starts_with("pub ")).collect(),
            false => item.code.lines().filter(|line| is_enum || !line.trim_start().starts_with("//")).collect(),
        };
        let mut words = public.iter().flat_map(|line| line.split(|character: char| !character.is_alphanumeric()));
        if let Some(word) = words.find(|word| foreign.contains(word)) {
            complaints.push(format!(
                "{}:{}: `{word}` is the engine's library's, and public",
                path.display(),
                item.line
            ));
        }
    }
    complaints
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !["tests", "testing"].contains(&name.as_str()) {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

#[test]
fn the_host_librarys_public_items_keep_their_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-lib/src");
    let mut found = Vec::new();
    sources(&folder, &mut found);
    assert!(found.len() > 100, "only {} sources were found", found.len());
    found.sort();
    let mut complaints = Vec::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(&folder).unwrap();
        for rule in [dropping_is_told, what_may_grow_is_marked, no_type_of_the_engines_library] {
            complaints.extend(rule(shown, &text));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let path = Path::new("a.rs");
    let silent = "impl A {\n    /// Waits.\n    pub async fn a(\n        &self,\n    ) {\n    }\n}\n";
    assert_eq!(dropping_is_told(path, silent).len(), 1);
    assert!(dropping_is_told(path, &silent.replace("Waits.", "Waits. Cancel-safe.")).is_empty());
    assert!(dropping_is_told(path, &format!("#[cfg(test)]\nmod tests {{\n{silent}}}")).is_empty());
    let marked = "#[non_exhaustive]\npub enum A {\n    B,\n}\n";
    assert!(what_may_grow_is_marked(path, marked).is_empty());
    assert_eq!(what_may_grow_is_marked(path, "pub enum A {\n    B,\n}\n").len(), 1);
    assert_eq!(what_may_grow_is_marked(path, "pub struct A {\n    pub b: u8,\n}\n").len(), 1);
    assert_eq!(what_may_grow_is_marked(path, "pub struct A(pub u8);\n").len(), 1);
    assert!(what_may_grow_is_marked(path, "pub struct A {\n    b: u8,\n}\npub struct B(u8);\n").is_empty());
    let uses = "use bollard::models::{\n    ContainerState,\n};\n";
    for public in [
        "pub fn a() -> Result<ContainerState> {\n}\n",
        "pub async fn a(\n    state: &ContainerState,\n) {\n}\n",
        "pub struct A {\n    pub state: ContainerState,\n}\n",
        "pub enum A {\n    B(ContainerState),\n}\n",
        "pub type A = ContainerState;\n",
        "pub use bollard::Docker;\n",
    ] {
        assert_eq!(no_type_of_the_engines_library(path, &format!("{uses}{public}")).len(), 1, "{public}");
    }
    let inside = "pub struct A {\n    state: ContainerState,\n}\npub(crate) fn a() -> ContainerState {\n}\n";
    assert!(no_type_of_the_engines_library(path, &format!("{uses}{inside}")).is_empty());
}
