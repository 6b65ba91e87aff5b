//! ripgrep as a process: how it is got, which flags mean a request, and what its JSON says.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{
    Data,
    tools::{SearchBinary, SearchCase, SearchEvent, SearchRequest},
};
use serde_json::Value;

/// The version whose answers count.
const VERSION: &str = "15.2.0";

/// Where ripgrep is. Gets it the first time, which takes about a minute.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools");
        let program = root.join("bin/rg");
        let has_version = |program: &Path| {
            let output = Command::new(program).arg("--version").output();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("ripgrep {VERSION}")))
        };
        if !has_version(&program) {
            eprintln!("building ripgrep {VERSION} into {}, once", root.display());
            let status = Command::new(env!("CARGO"))
                .args(["install", "ripgrep", "--locked", "--version", VERSION, "--force", "--root"])
                .arg(&root)
                .env_remove("CARGO_TARGET_DIR")
                .status();
            assert!(
                status.is_ok_and(|status| status.success()) && has_version(&program),
                "ripgrep {VERSION} is needed and could not be built: `cargo install ripgrep --locked --version {VERSION} \
                 --root {}` makes it; `cargo test -p corehold-agent -- --skip ripgrep` leaves these tests out",
                root.display()
            );
        }
        program
    })
}

/// A line that was found, in a form that both sides have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) matches: bool,
    pub(crate) text: Vec<u8>,
    pub(crate) ranges: Vec<[u64; 2]>,
}

/// What was found in a file: its lines, and where a NUL byte was seen.
pub(crate) type Found = BTreeMap<Vec<u8>, (Vec<Line>, Option<u64>)>;

/// The flags that mean the same as a request.
pub(crate) fn flags(request: &SearchRequest) -> Vec<OsString> {
    let mut flags: Vec<OsString> =
        ["--json", "--no-config", "--no-ignore-global", "--no-mmap", "--no-messages"].map(OsString::from).into();
    let mut flag = |text: &str| flags.push(text.into());
    let on = |value: Option<bool>| value == Some(true);
    for (given, name) in [
        (on(request.literal), "--fixed-strings"),
        (on(request.word), "--word-regexp"),
        // Later than --word-regexp, since the last one wins.
        (on(request.whole_line), "--line-regexp"),
        (on(request.multiline), "--multiline"),
        (on(request.dot_all), "--multiline-dotall"),
        (on(request.crlf), "--crlf"),
        (on(request.invert), "--invert-match"),
        (on(request.hidden), "--hidden"),
        (request.ignore_files == Some(false), "--no-ignore"),
        (!on(request.require_git), "--no-require-git"),
        (on(request.follow), "--follow"),
        (on(request.sorted), "--sort=path"),
        (request.case == Some(SearchCase::Insensitive), "--ignore-case"),
        (request.case == Some(SearchCase::Smart), "--smart-case"),
        (request.binary == Some(SearchBinary::Search), "--binary"),
        (request.binary == Some(SearchBinary::Text), "--text"),
    ] {
        if given {
            flag(name);
        }
    }
    let mut value = |name: &str, value: &dyn std::fmt::Display| flag(&format!("{name}={value}"));
    if let Some(lines) = request.before {
        value("--before-context", &lines);
    }
    if let Some(lines) = request.after {
        value("--after-context", &lines);
    }
    if let Some(depth) = request.max_depth {
        value("--max-depth", &depth);
    }
    if let Some(bytes) = request.max_file_bytes {
        value("--max-filesize", &bytes);
    }
    if let Some(lines) = request.max_matches_per_file {
        value("--max-count", &lines);
    }
    if let Some(encoding) = &request.encoding {
        value("--encoding", encoding);
    }
    request.globs.iter().for_each(|glob| value("--glob", glob));
    request.types.iter().for_each(|name| value("--type", name));
    request.types_not.iter().for_each(|name| value("--type-not", name));
    value("--regexp", &request.pattern);
    flags.push("--".into());
    if request.paths.is_empty() {
        flags.push("./".into());
    }
    flags.extend(request.paths.iter().map(|path| Path::new("./").join(path.to_path_buf().unwrap()).into()));
    flags
}

fn output(folder: &Path, request: &SearchRequest) -> Output {
    let mut ripgrep = Command::new(program());
    ripgrep.args(flags(request)).current_dir(folder).env_clear().stdin(Stdio::null()).output().unwrap()
}

/// Whether ripgrep refuses to search at all.
pub(crate) fn refuses(folder: &Path, request: &SearchRequest) -> bool {
    let output = output(folder, request);
    output.status.code() == Some(2) && output.stdout.is_empty() && !output.stderr.is_empty()
}

/// Runs ripgrep in a folder.
pub(crate) fn run(folder: &Path, request: &SearchRequest) -> Found {
    let output = output(folder, request);
    // 1: nothing found; 2: something could not be read.
    assert!(output.status.code().is_some_and(|code| code <= 2), "{output:?}");
    let mut found = Found::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).unwrap();
        let data = &message["data"];
        match message["type"].as_str().unwrap() {
            kind @ ("match" | "context") => {
                let mut text = bytes(&data["lines"]);
                text.pop_if(|byte| *byte == b'\n');
                let ranges = data["submatches"].as_array().unwrap().iter();
                let line = Line {
                    number: data["line_number"].as_u64().unwrap(),
                    matches: kind == "match",
                    text: without_return(text),
                    ranges: ranges.map(|one| [one["start"].as_u64().unwrap(), one["end"].as_u64().unwrap()]).collect(),
                };
                found.entry(path(data)).or_default().0.push(line);
            }
            "end" => found.entry(path(data)).or_default().1 = data["binary_offset"].as_u64(),
            _ => {}
        }
    }
    found
}

fn path(data: &Value) -> Vec<u8> {
    let path = bytes(&data["path"]);
    path.strip_prefix(b"./").map(<[u8]>::to_vec).unwrap_or(path)
}

fn bytes(data: &Value) -> Vec<u8> {
    match (data["text"].as_str(), data["bytes"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(base64)) => STANDARD.decode(base64).unwrap(),
        (None, None) => panic!("{data} is neither text nor bytes"),
    }
}

/// Our events in the same form.
pub(crate) fn ours(events: Vec<SearchEvent>) -> Found {
    let mut found = Found::new();
    for event in events {
        let matches = matches!(event, SearchEvent::Match(_));
        match event {
            SearchEvent::Match(hit) | SearchEvent::Context(hit) => {
                assert_eq!(hit.line.cut, None, "these tests ask for whole lines");
                let text = match hit.line.data {
                    Data::Text(text) => text.into_bytes(),
                    data @ Data::Base64(_) => data.to_bytes().unwrap(),
                };
                let line = Line { number: hit.line.line, matches, text: without_return(text), ranges: hit.line.ranges };
                found.entry(raw(&hit.path)).or_default().0.push(line);
            }
            SearchEvent::Binary { path, offset } => found.entry(raw(&path)).or_default().1 = Some(offset),
            SearchEvent::File { path, .. } => panic!("{path} without its lines"),
        }
    }
    found
}

fn raw(path: &corehold_types::WorkspacePath) -> Vec<u8> {
    path.to_path_buf().unwrap().into_os_string().into_vec()
}

/// We don't send a line's end, and its carriage return only if it is matched; ripgrep does.
fn without_return(mut text: Vec<u8>) -> Vec<u8> {
    while text.ends_with(b"\r") {
        text.pop();
    }
    text
}

/// Fails with the first difference, and everything that is needed to try again.
pub(crate) fn assert_same(folder: &Path, request: &SearchRequest, ours: &Found, theirs: &Found) {
    if ours == theirs {
        return;
    }
    let name = |path: &[u8]| path.escape_ascii().to_string();
    let mut report = format!("ours and ripgrep's differ in {}\n", folder.display());
    let line: Vec<_> = flags(request).into_iter().map(|flag| format!("{flag:?}")).collect();
    report += &format!("request: {}\nrg {}\n", serde_json::to_string(request).unwrap(), line.join(" "));
    for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        match (ours.get(path), theirs.get(path)) {
            (None, Some((lines, _))) => report += &format!("{}: only ripgrep's: {lines:?}\n", name(path)),
            (Some((lines, _)), None) => report += &format!("{}: only ours: {lines:?}\n", name(path)),
            (Some(one), Some(other)) if one != other => {
                report += &format!("{}:\n  ours   {one:?}\n  theirs {other:?}\n", name(path));
            }
            _ => {}
        }
        if report.len() > 8_000 {
            break;
        }
    }
    panic!("{report}");
}
