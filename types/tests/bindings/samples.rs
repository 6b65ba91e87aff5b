//! Real JSON for the TypeScript compiler: values as serde writes them, each declared to be of its generated type.
//!
//! The bindings come from one derive macro and the JSON from another; `tsc` finds where they disagree, since it refuses a
//! literal with a field too many, too few or of another type. Each value is read back too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
};

use corehold_types::{
    Code, CollectedOutput, Data, Event, Problem, Scope, Timestamp, Tool, WorkspacePath, for_each_tool,
    tools::{self, *},
    wire::{FileWritten, Health, HealthStatus, StreamEnd},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use ts_rs::TS;

use crate::{
    committed, schema,
    typescript::{NOTE, config},
};

/// The largest integer that the wire carries: JavaScript's `Number.MAX_SAFE_INTEGER`.
const LARGEST: u64 = (1 << 53) - 1;

pub(crate) struct Sample {
    /// The type in TypeScript, with its parameters.
    pub(crate) type_name: String,
    pub(crate) json: Value,
}

/// Writes the value, reads it back and writes it again: nothing may be lost or change its form.
fn sample<T: TS + Serialize + DeserializeOwned + Debug>(value: &T) -> Sample {
    let json = serde_json::to_value(value).unwrap();
    let back: T =
        serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{json} is not read back: {error}"));
    assert_eq!(serde_json::to_value(&back).unwrap(), json, "{value:?} changes on its way through JSON");
    Sample { type_name: T::name(&config()), json }
}

fn event<E: Event + Debug>(value: &E) -> Sample {
    let sample = sample(value);
    assert_eq!(sample.json["type"], value.kind(), "`kind` and the JSON's `type` differ in {value:?}");
    sample
}

fn text(text: &str) -> Data {
    Data::Text(text.to_owned())
}

fn path_of_bytes() -> WorkspacePath {
    WorkspacePath::from_bytes(b"caf\xe9")
}

fn full_exit() -> CommandExit {
    CommandExit {
        code: Some(-1),
        signal: Some("SIGKILL".to_owned()),
        timed_out: true,
        stalled: false,
        oom_killed: Some(true),
        duration_ms: LARGEST,
        peak_memory_bytes: Some(LARGEST),
        cpu_ms: Some(1),
        survivors: vec![7, 8],
    }
}

fn bare_exit() -> CommandExit {
    CommandExit {
        code: None,
        signal: None,
        timed_out: false,
        stalled: false,
        oom_killed: None,
        duration_ms: 0,
        peak_memory_bytes: None,
        cpu_ms: None,
        survivors: Vec::new(),
    }
}

fn problem() -> Problem {
    let mut problem =
        Problem::limit("the answer", LARGEST, "COREHOLD_X").with("nested", serde_json::json!([{ "a": 1 }]));
    problem.request_id = Some("r1".to_owned());
    problem
}

fn command_response() -> CommandResponse {
    let cut = CollectedOutput {
        head: text("head"),
        tail: Some(Data::from_bytes(vec![0xff])),
        total_bytes: LARGEST,
        omitted_bytes: 5,
    };
    CommandResponse {
        id: "c1".to_owned(),
        exit: Some(full_exit()),
        stdout: cut,
        stderr: CollectedOutput { head: Data::from_bytes(vec![0xff]), ..CollectedOutput::default() },
        offset: LARGEST,
    }
}

fn running_response() -> CommandResponse {
    CommandResponse {
        id: "c1".to_owned(),
        exit: None,
        stdout: CollectedOutput::default(),
        stderr: CollectedOutput::default(),
        offset: 0,
    }
}

fn full_content() -> FileContent {
    FileContent {
        path: "src/App.jsx".into(),
        data: text("a\r\n"),
        version: "v".to_owned(),
        hash: Some("00".to_owned()),
        size: LARGEST,
        start_byte: LARGEST,
        start_line: Some(1),
        total_lines: Some(LARGEST),
        encoding: Encoding::Utf8Bom,
        line_ending: Some(LineEnding::CrLf),
        binary: false,
        truncated: false,
    }
}

fn bare_content() -> FileContent {
    FileContent {
        path: path_of_bytes(),
        data: Data::from_bytes(vec![0xff, 0]),
        hash: None,
        start_line: None,
        total_lines: None,
        encoding: Encoding::Unknown,
        line_ending: None,
        binary: true,
        truncated: true,
        ..full_content()
    }
}

fn tool_requests() -> Vec<Sample> {
    let lines = LineRange { start: 1, end: Some(LARGEST) };
    let bytes = ByteRange { start: 0, length: Some(LARGEST) };
    vec![
        sample(&InfoRequest {}),
        sample(&ReadRequest {
            files: vec![
                ReadTarget { path: "a".into(), lines: Some(lines), bytes: None },
                ReadTarget { path: path_of_bytes(), lines: None, bytes: Some(bytes) },
                ReadTarget { path: "b".into(), lines: Some(LineRange { end: None, ..lines }), bytes: None },
            ],
            max_bytes: Some(LARGEST),
        }),
        sample(&ListRequest::default()),
        sample(&ListRequest {
            path: Some(path_of_bytes()),
            depth: Some(u32::MAX),
            limit: Some(1),
            cursor: Some("x".to_owned()),
        }),
        sample(&ExtractRequest {
            archive: ArchiveSource::Inbox("a.tar.gz".to_owned()),
            destination: None,
            expected_hash: None,
            remove: None,
        }),
        sample(&ExtractRequest {
            archive: ArchiveSource::Path("a.tar".into()),
            destination: Some("to".into()),
            expected_hash: Some("00".to_owned()),
            remove: Some(true),
        }),
        sample(&CommandRequest { line: Some("npm test".to_owned()), ..CommandRequest::default() }),
        sample(&CommandRequest {
            argv: Some(vec!["ls".to_owned()]),
            line: None,
            cwd: Some("src".into()),
            env: BTreeMap::from([("EMPTY".to_owned(), String::new())]),
            stdin: Some(Data::from_bytes(vec![0xff])),
            timeout_ms: Some(LARGEST),
            stall_timeout_ms: Some(0),
            detach: Some(true),
            max_output_bytes: Some(1),
            label: Some("dev".to_owned()),
        }),
        sample(&CommandOutputRequest { id: "c1".to_owned(), ..CommandOutputRequest::default() }),
        sample(&CommandOutputRequest {
            id: "c1".to_owned(),
            offset: Some(LARGEST),
            follow: Some(false),
            max_output_bytes: Some(0),
        }),
        sample(&CommandSignalRequest { id: "c1".to_owned(), signal: Signal::Winch }),
        sample(&CommandListRequest::default()),
        sample(&CommandListRequest { label: Some("dev".to_owned()), limit: Some(1), cursor: Some("x".to_owned()) }),
    ]
}

fn tool_responses() -> Vec<Sample> {
    let info = InfoResponse {
        version: "0.1.0".to_owned(),
        protocol: 1,
        boot_id: "b".to_owned(),
        instance: "i".to_owned(),
        workspace: None,
        root: "/app".into(),
        tools: vec![ToolInfo {
            name: "read".to_owned(),
            since: "0.1".to_owned(),
            summary: "Reads.".to_owned(),
            scope: Scope::Read,
        }],
        limits: vec![LimitInfo {
            name: "readBytes".to_owned(),
            value: LARGEST,
            unit: "bytes".to_owned(),
            variable: "COREHOLD_READ_BYTES".to_owned(),
        }],
        features: vec!["x".to_owned()],
        guards: vec!["openat2".to_owned()],
    };
    let entry = ListEntry {
        path: path_of_bytes(),
        kind: EntryKind::Symlink,
        size: LARGEST,
        modified: Timestamp::from_unix(1_700_000_000, 5),
        mode: 0o777,
        target: Some("to".into()),
    };
    let running = CommandInfo {
        id: "c1".to_owned(),
        label: None,
        line: "npm run dev".to_owned(),
        pid: 2,
        started: Timestamp::from_unix(0, 0),
        exit: None,
        first_offset: 0,
        offset: LARGEST,
    };
    let ended = CommandInfo { label: Some("dev".to_owned()), exit: Some(full_exit()), ..running.clone() };
    let failed = ReadResult::Error { path: "gone".into(), problem: Problem::new(Code::NotFound, "no such file") };
    vec![
        sample(&InfoResponse { workspace: Some("w".to_owned()), ..info.clone() }),
        sample(&info),
        sample(&ReadResponse { files: vec![ReadResult::Ok(full_content()), ReadResult::Ok(bare_content()), failed] }),
        sample(&ListResponse {
            entries: vec![entry.clone(), ListEntry { kind: EntryKind::File, target: None, ..entry }],
            cursor: Some("x".to_owned()),
        }),
        sample(&ListResponse { entries: Vec::new(), cursor: None }),
        sample(&ExtractResponse { files: LARGEST, directories: 1, symlinks: 2, bytes: LARGEST, duration_ms: 3 }),
        sample(&command_response()),
        sample(&running_response()),
        sample(&CommandSignalResponse { processes: 2 }),
        sample(&CommandListResponse { commands: vec![running, ended], cursor: Some("x".to_owned()) }),
        sample(&CommandListResponse { commands: Vec::new(), cursor: None }),
    ]
}

pub(crate) fn events() -> Vec<Sample> {
    let started = Timestamp::from_unix(1_700_000_000, 5);
    let (offset, end) = (0, LARGEST);
    vec![
        event(&ExtractEvent::Progress { entries: 1, bytes: LARGEST }),
        event(&CommandEvent::Status { id: "c1".to_owned(), pid: 2, started, offset }),
        event(&CommandEvent::Stdout { offset, end, data: text("out") }),
        event(&CommandEvent::Stderr { offset, end, data: Data::from_bytes(vec![0xff]) }),
        event(&CommandEvent::Gap { from: 0, to: LARGEST }),
        event(&CommandEvent::Exit { exit: bare_exit(), offset }),
    ]
}

fn other_bodies() -> Vec<Sample> {
    let health =
        Health { status: HealthStatus::ShuttingDown, version: "0.1.0".to_owned(), protocol: 1, uptime_ms: LARGEST };
    vec![
        sample(&health),
        sample(&Health { status: HealthStatus::Ok, ..health.clone() }),
        sample(&FileWritten { version: "v".to_owned(), size: LARGEST, created: true }),
        sample(&problem()),
        sample(&Problem::new(Code::Internal, "a mistake")),
        sample(&StreamEnd::End { response: command_response() }),
        sample(&StreamEnd::<CommandResponse>::Error { problem: problem() }),
    ]
}

pub(crate) fn all() -> Vec<Sample> {
    [tool_requests(), tool_responses(), events(), other_bodies()].into_iter().flatten().collect()
}

fn file(samples: &[Sample]) -> String {
    let imported: BTreeSet<&str> = samples.iter().flat_map(|sample| sample.type_name.split(['<', '>'])).collect();
    let mut file = NOTE.to_owned();
    file.push_str("// JSON as serde writes it, for the compiler to compare with the bindings.\n");
    file.push_str("import type {\n");
    for name in imported.into_iter().filter(|name| !name.is_empty()) {
        writeln!(file, "  {name},").unwrap();
    }
    file.push_str("} from \"../../bindings/index.js\";\n");
    for (index, Sample { type_name, json }) in samples.iter().enumerate() {
        writeln!(file, "\nexport const sample{index}: {type_name} = {};", serde_json::to_string_pretty(json).unwrap())
            .unwrap();
    }
    file
}

#[test]
fn samples_are_what_serde_writes() {
    committed::verify("tests/typescript", "samples.ts", &BTreeMap::from([("samples.ts".to_owned(), file(&all()))]));
}

#[test]
fn every_body_of_every_tool_has_a_sample() {
    fn needed<T: Tool>() -> Vec<String> {
        let mut names = vec![T::Request::name(&config()), T::Response::name(&config())];
        if schema::has_events::<T>() {
            names.push(T::Event::name(&config()));
        }
        names
    }
    macro_rules! all_needed {
        ($($tool:ident),*) => { [$(needed::<tools::$tool>()),*].concat() };
    }
    let there: BTreeSet<_> = all().into_iter().map(|sample| sample.type_name).collect();
    let missing: Vec<_> = for_each_tool!(all_needed).into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "add samples of {missing:?}");
}
