//! `read`, `list`, `extract`.

use corehold_types::{Code, Data, Problem, Timestamp, WorkspacePath, tools::*};

use super::{LARGEST, Sample, event, sample};

fn path_of_bytes() -> WorkspacePath {
    WorkspacePath::from_bytes(b"caf\xe9")
}

fn full_content() -> FileContent {
    FileContent {
        path: "src/App.jsx".into(),
        data: Data::Text("a\r\n".to_owned()),
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

fn read() -> Vec<Sample> {
    let lines = LineRange { start: 1, end: Some(LARGEST) };
    let bytes = ByteRange { start: 0, length: Some(LARGEST) };
    let failed = ReadResult::Error { path: "gone".into(), problem: Problem::new(Code::NotFound, "no such file") };
    vec![
        sample(&ReadRequest {
            files: vec![
                ReadTarget { path: "a".into(), lines: Some(lines), bytes: None },
                ReadTarget { path: path_of_bytes(), lines: None, bytes: Some(bytes) },
                ReadTarget { path: "b".into(), lines: Some(LineRange { end: None, ..lines }), bytes: None },
            ],
            max_bytes: Some(LARGEST),
        }),
        sample(&ReadResponse { files: vec![ReadResult::Ok(full_content()), ReadResult::Ok(bare_content()), failed] }),
    ]
}

fn list() -> Vec<Sample> {
    let request = ListRequest {
        path: Some(path_of_bytes()),
        depth: Some(u32::MAX),
        limit: Some(1),
        cursor: Some("x".to_owned()),
    };
    let entry = ListEntry {
        path: path_of_bytes(),
        kind: EntryKind::Symlink,
        size: LARGEST,
        modified: Timestamp::from_unix(1_700_000_000, 5),
        mode: 0o777,
        target: Some("to".into()),
    };
    let file = ListEntry { kind: EntryKind::File, target: None, ..entry.clone() };
    vec![
        sample(&ListRequest::default()),
        sample(&request),
        sample(&ListResponse { entries: vec![entry, file], cursor: Some("x".to_owned()) }),
        sample(&ListResponse { entries: Vec::new(), cursor: None }),
    ]
}

fn extract() -> Vec<Sample> {
    let archive = ArchiveSource::Inbox("a.tar.gz".to_owned());
    let bare = ExtractRequest { archive, destination: None, expected_hash: None, remove: None };
    let full = ExtractRequest {
        archive: ArchiveSource::Path("a.tar".into()),
        destination: Some("to".into()),
        expected_hash: Some("00".to_owned()),
        remove: Some(true),
    };
    vec![
        sample(&bare),
        sample(&full),
        sample(&ExtractResponse { files: LARGEST, directories: 1, symlinks: 2, bytes: LARGEST, duration_ms: 3 }),
    ]
}

fn listening() -> ListeningPort {
    ListeningPort {
        address: "::1".to_owned(),
        port: u16::MAX,
        loopback: true,
        pid: Some(7),
        command: Some("aaaaaaaaaaaaaaaa".to_owned()),
    }
}

fn ports() -> Vec<Sample> {
    let request = PortsRequest {
        wait_for: Some(3000),
        timeout_ms: Some(1),
        interval_ms: Some(250),
        limit: Some(1),
        cursor: Some("80/::".to_owned()),
    };
    let bare = ListeningPort { pid: None, command: None, ..listening() };
    let ports = vec![listening(), bare];
    vec![
        sample(&PortsRequest::default()),
        sample(&request),
        sample(&PortsResponse::default()),
        sample(&PortsResponse { ports, opened: Some(true), cursor: Some("80/::".to_owned()) }),
    ]
}

fn watch() -> Vec<Sample> {
    let request = WatchRequest {
        path: Some("src".into()),
        recursive: Some(true),
        globs: vec!["*.rs".to_owned()],
        hidden: Some(true),
        ignore_files: Some(true),
        debounce_ms: Some(50),
        timeout_ms: Some(1),
    };
    vec![
        sample(&WatchRequest::default()),
        sample(&request),
        sample(&WatchResponse::default()),
        sample(&WatchResponse { changes: vec![WatchEvent::Modified { path: "a".into() }] }),
    ]
}

pub(super) fn samples() -> Vec<Sample> {
    [read(), list(), extract(), ports(), watch()].into_iter().flatten().collect()
}

pub(super) fn events() -> Vec<Sample> {
    vec![
        event(&ExtractEvent::Progress { entries: 1, bytes: LARGEST }),
        event(&WatchEvent::Ready { directories: LARGEST }),
        event(&WatchEvent::Created { path: "a".into(), directory: true }),
        event(&WatchEvent::Modified { path: "a".into() }),
        event(&WatchEvent::Removed { path: "a".into(), directory: false }),
        event(&WatchEvent::Renamed { from: "a".into(), to: "b".into(), directory: false }),
        event(&WatchEvent::Resync { path: ".".into(), reason: ResyncReason::Overflow }),
        event(&PortsEvent::Ready),
        event(&PortsEvent::Opened(listening())),
        event(&PortsEvent::Closed { address: "::".to_owned(), port: 1 }),
    ]
}
