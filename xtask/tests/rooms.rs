//! What holds the rooms apart (`ARCHITECTURE.md`, "Rooms"): who imports whom, what stands where, and the house rules that a
//! look at the sources can decide. No engine, no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const TYPES: &str = "corehold-types";
const AGENT: &str = "corehold-agent";
const HOST: &str = "corehold-host";
const CLI: &str = "corehold";
const E2E: &str = "corehold-e2e";
const BENCHES: &str = "corehold-benches";

/// Every room, and which others it may import, for building and for testing alike.
const ROOMS: &[(&str, &[&str])] = &[
    (TYPES, &[]),
    (AGENT, &[TYPES]),
    (HOST, &[TYPES]),
    (CLI, &[HOST, TYPES]),
    (E2E, &[TYPES, AGENT, HOST, CLI]),
    (BENCHES, &[TYPES, HOST]),
    ("xtask", &[]),
];

/// Libraries that may not be in a room's tree, however deep.
const KEPT_OUT: &[(&str, &[&str])] = &[
    (TYPES, &["tokio", "axum", "hyper", "bollard"]),
    (AGENT, &["bollard", "kube", "clap", "openssl-sys", "native-tls"]),
    ("xtask", &["tokio", "serde"]),
];

/// Libraries that only these rooms may name.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[("bollard", &[HOST]), ("anyhow", &[CLI, "xtask", E2E, BENCHES])];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn strings<'a>(value: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    value.as_array().unwrap().iter().map(move |item| item[field].as_str().unwrap())
}

/// Our packages by name.
fn our_packages(metadata: &Value) -> BTreeMap<&str, &Value> {
    let members: Vec<_> = metadata["workspace_members"].as_array().unwrap().iter().collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| members.contains(&&package["id"]))
        .map(|package| (package["name"].as_str().unwrap(), package))
        .collect()
}

#[test]
fn rooms_import_only_whom_they_may() {
    let metadata = metadata();
    let ours = our_packages(&metadata);
    let rooms: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let named: BTreeSet<_> = rooms.keys().copied().collect();
    assert_eq!(
        ours.keys().copied().collect::<BTreeSet<_>>(),
        named,
        "the workspace and this test's list of rooms differ"
    );
    for (name, package) in &ours {
        for dependency in strings(&package["dependencies"], "name") {
            let allowed = !ours.contains_key(dependency) || rooms[name].contains(&dependency);
            assert!(allowed, "{name} may not import {dependency}");
            let only = NAMED_ONLY_BY.iter().find(|(library, _)| *library == dependency);
            assert!(only.is_none_or(|(_, rooms)| rooms.contains(name)), "{name} may not name {dependency}");
        }
    }
}

#[test]
fn libraries_stay_out_of_rooms_that_must_be_small() {
    let metadata = metadata();
    let names: BTreeMap<_, _> =
        strings(&metadata["packages"], "id").zip(strings(&metadata["packages"], "name")).collect();
    let edges: BTreeMap<_, _> = strings(&metadata["resolve"]["nodes"], "id")
        .zip(metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["deps"]))
        .collect();
    for (room, kept_out) in KEPT_OUT {
        let start = our_packages(&metadata)[room]["id"].as_str().unwrap();
        // The path by which each package was reached, for the message.
        let mut reached = BTreeMap::from([(start, (*room).to_owned())]);
        let mut open = vec![start];
        while let Some(package) = open.pop() {
            for dependency in edges[package].as_array().unwrap() {
                let for_tests_only = strings_or_null(&dependency["dep_kinds"], "kind").all(|kind| kind == Some("dev"));
                let id = dependency["pkg"].as_str().unwrap();
                if for_tests_only || reached.contains_key(id) {
                    continue;
                }
                let way = format!("{} → {}", reached[package], names[id]);
                assert!(!kept_out.contains(&names[id]), "{} must stay out of {room}: {way}", names[id]);
                reached.insert(id, way);
                open.push(id);
            }
        }
    }
}

fn strings_or_null<'a>(value: &'a Value, field: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    value.as_array().unwrap().iter().map(move |item| item[field].as_str())
}

/// A source file of ours: its path in the repository, its text.
struct Source {
    path: PathBuf,
    text: String,
}

fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(repository()).unwrap().to_owned(), text });
            }
        }
    }
    let mut found = Vec::new();
    for package in our_packages(&metadata()).values() {
        collect(Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap(), &mut found);
    }
    assert!(found.len() > 30, "only {} sources were found", found.len());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// The lines without comments, numbered from 1. (A `//` in a string ends the line too early: these rules can live with it.)
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.text.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or(line)))
}

/// A rule over one source: what is wrong there, if anything.
type Rule = fn(&Source) -> Vec<String>;

fn lines_with(source: &Source, words: &[&str], why: &str) -> Vec<String> {
    code(source)
        .flat_map(|(number, line)| words.iter().filter(|word| line.contains(*word)).map(move |word| (number, word)))
        .map(|(number, word)| format!("{}:{number}: `{word}`: {why}", source.path.display()))
        .collect()
}

fn engine_library_in_one_room(source: &Source) -> Vec<String> {
    if source.path.starts_with("host-lib/src/runtime/docker") || source.path.starts_with("xtask") {
        return Vec::new();
    }
    lines_with(source, &["bollard"], "only host-lib/src/runtime/docker knows the engine's library")
}

fn one_spawner_in_the_agent(source: &Source) -> Vec<String> {
    if !source.path.starts_with("agent") {
        return Vec::new();
    }
    let why = "the agent has one reaper; tokio's would take statuses from it, or lose its own";
    lines_with(source, &["tokio::process"], why)
}

/// Where the environment may be read: a room's `config.rs`, tests, and these.
const READ_THE_ENVIRONMENT: &[&str] = &[
    // Which engine the docker command would use: the runtime's own business, made injectable there.
    "host-lib/src/runtime/docker/address.rs",
    // Where this machine's own CA bundle is.
    "cli/src/surroundings.rs",
];

fn environment_read_in_config(source: &Source) -> Vec<String> {
    let path = &source.path;
    let in_config = path.ends_with("config.rs") || path.parent().is_some_and(|folder| folder.ends_with("config"));
    let in_test = path.components().any(|part| part.as_os_str() == "tests");
    if in_config || in_test || READ_THE_ENVIRONMENT.iter().any(|reader| path == Path::new(reader)) {
        return Vec::new();
    }
    // What only tests do is not configuration.
    let text = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    let why = "the environment is read in config.rs, one place a room";
    lines_with(&Source { path: path.clone(), text }, &["env::var"], why)
}

fn nothing_left_undone(source: &Source) -> Vec<String> {
    // Written so that this file does not find itself.
    let words = [concat!("to", "do!("), concat!("unimp", "lemented!("), concat!("d", "bg!("), concat!("#[ig", "nore")];
    lines_with(source, &words, "finish it or take it out")
}

fn not_too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= 600 {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines; past 600, split it by thing", source.path.display())]
}

const RULES: &[Rule] = &[
    engine_library_in_one_room,
    one_spawner_in_the_agent,
    environment_read_in_config,
    nothing_left_undone,
    not_too_long,
];

#[test]
fn sources_keep_the_house_rules() {
    let sources = sources();
    let complaints: Vec<_> = sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let breaks = |rule: Rule, path: &str, text: &str| {
        let complaints = rule(&Source { path: path.into(), text: text.to_owned() });
        complaints.len()
    };
    assert_eq!(breaks(engine_library_in_one_room, "host-lib/src/image.rs", "use bollard::Docker;"), 1);
    assert_eq!(breaks(engine_library_in_one_room, "host-lib/src/runtime/docker/mod.rs", "use bollard::Docker;"), 0);
    assert_eq!(breaks(engine_library_in_one_room, "cli/src/main.rs", "// not through bollard"), 0);
    assert_eq!(breaks(one_spawner_in_the_agent, "agent/src/a.rs", "\nuse tokio::process::Command;"), 1);
    assert_eq!(breaks(environment_read_in_config, "cli/src/main.rs", "std::env::var_os(\"HOME\")"), 1);
    assert_eq!(breaks(environment_read_in_config, "agent/src/config/limits.rs", "std::env::var_os(\"HOME\")"), 0);
    let in_tests = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    std::env::var_os(\"X\");\n}\n";
    assert_eq!(breaks(environment_read_in_config, "host-lib/src/template/mod.rs", in_tests), 0);
    assert_eq!(breaks(nothing_left_undone, "cli/src/main.rs", concat!("to", "do!()")), 1);
    assert_eq!(breaks(not_too_long, "cli/src/main.rs", &"\n".repeat(601)), 1);
    assert_eq!(breaks(not_too_long, "cli/src/main.rs", &"\n".repeat(600)), 0);
}

/// rustc does not look at a file that no `mod` names, so its code rots unseen.
#[test]
fn every_source_is_declared_by_a_module() {
    let sources = sources();
    let texts: BTreeMap<_, _> = sources.iter().map(|source| (source.path.as_path(), source.text.as_str())).collect();
    for Source { path, .. } in &sources {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        let is_root = ["lib", "main", "build"].contains(&stem)
            || ["tests", "benches", "bin", "examples", "fixtures"].iter().any(|roots| folder.ends_with(roots));
        if is_root {
            continue;
        }
        // The module's name, and the folder whose module declares it.
        let (name, parent) = match stem {
            "mod" => (folder.file_name().unwrap().to_str().unwrap(), folder.parent().unwrap()),
            _ => (stem, folder),
        };
        let declarers = ["lib.rs", "main.rs", "mod.rs"].map(|file| parent.join(file));
        let beside = parent.with_extension("rs");
        let declared = declarers.iter().chain([&beside]).filter_map(|file| texts.get(file.as_path())).any(|text| {
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.trim_end_matches([';', '{', ' ']).ends_with(&format!("mod {name}"))
            })
        });
        assert!(declared, "no `mod {name}` declares {}", path.display());
    }
}
