//! `command`, `commandOutput`, `commandInput`, `commandResize`, `commandSignal`, `commandList`, `commandGet`, `commandSearch`.

use std::collections::BTreeMap;

use corehold_types::{CollectedOutput, Data, Timestamp, tools::*};

use super::{LARGEST, Sample, event, sample};

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

pub(super) fn command_response() -> CommandResponse {
    let cut = CollectedOutput {
        head: Data::Text("head".to_owned()),
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

pub(super) fn samples() -> Vec<Sample> {
    let bare = CommandRequest { line: Some("npm test".to_owned()), ..CommandRequest::default() };
    let full = CommandRequest {
        argv: Some(vec!["ls".to_owned()]),
        line: None,
        cwd: Some("src".into()),
        env: BTreeMap::from([("EMPTY".to_owned(), String::new())]),
        stdin: Some(Data::from_bytes(vec![0xff])),
        interactive: Some(true),
        pty: Some(Pty { columns: 80, rows: 24, term: Some("xterm".to_owned()) }),
        limits: Some(CommandLimits {
            cpu_ms: Some(LARGEST),
            memory_bytes: Some(1),
            processes: Some(2),
            open_files: Some(3),
            file_bytes: Some(4),
        }),
        timeout_ms: Some(LARGEST),
        stall_timeout_ms: Some(0),
        detach: Some(true),
        max_output_bytes: Some(1),
        label: Some("dev".to_owned()),
    };
    let id = || "c1".to_owned();
    let output =
        CommandOutputRequest { id: id(), offset: Some(LARGEST), follow: Some(false), max_output_bytes: Some(0) };
    let list = CommandListRequest { label: Some("dev".to_owned()), limit: Some(1), cursor: Some("x".to_owned()) };
    let running = CommandInfo {
        id: id(),
        label: None,
        line: "npm run dev".to_owned(),
        pid: 2,
        started: Timestamp::from_unix(0, 0),
        exit: None,
        first_offset: 0,
        offset: LARGEST,
    };
    let ended = CommandInfo { label: Some("dev".to_owned()), exit: Some(full_exit()), ..running.clone() };
    vec![
        sample(&bare),
        sample(&full),
        sample(&command_response()),
        sample(&running_response()),
        sample(&CommandOutputRequest { id: id(), ..CommandOutputRequest::default() }),
        sample(&output),
        sample(&CommandSignalRequest { id: id(), signal: Signal::Winch }),
        sample(&CommandSignalResponse { processes: 2 }),
        sample(&CommandInputRequest { id: id(), ..CommandInputRequest::default() }),
        sample(&CommandInputRequest {
            id: id(),
            data: Some(Data::from_bytes(vec![0xff])),
            end: Some(true),
            timeout_ms: Some(LARGEST),
        }),
        sample(&CommandInputResponse { accepted: LARGEST, complete: false }),
        sample(&CommandResizeRequest { id: id(), columns: 80, rows: 24 }),
        sample(&CommandResizeResponse {}),
        sample(&CommandGetRequest { id: id() }),
        sample(&CommandGetResponse {
            command: running.clone(),
            takes_input: true,
            terminal: Some(PtySize { columns: 80, rows: 24 }),
            processes: 2,
            stdout_bytes: LARGEST,
            stderr_bytes: 0,
        }),
        sample(&CommandListRequest::default()),
        sample(&list),
        sample(&CommandListResponse { commands: vec![running, ended], cursor: Some("x".to_owned()) }),
        sample(&CommandListResponse { commands: Vec::new(), cursor: None }),
    ]
}

fn search_line() -> CommandSearchLine {
    CommandSearchLine {
        stream: OutputStream::Stderr,
        offset: 7,
        end: LARGEST,
        data: Data::from_bytes(vec![0xff]),
        ranges: vec![[0, LARGEST]],
        cut: Some(SearchCut { start: 1, length: LARGEST, hidden_matches: 3 }),
    }
}

/// The search of a log.
pub(super) fn search_samples() -> Vec<Sample> {
    let bare = CommandSearchRequest { id: "c1".to_owned(), pattern: "x".to_owned(), ..CommandSearchRequest::default() };
    let full = CommandSearchRequest {
        offset: Some(LARGEST),
        literal: Some(true),
        case: Some(SearchCase::Smart),
        word: Some(true),
        whole_line: Some(false),
        crlf: Some(true),
        invert: Some(true),
        before: Some(100),
        after: Some(0),
        columns: Some(SearchColumns::Utf16),
        max_matches: Some(1),
        max_line_bytes: Some(1),
        timeout_ms: Some(1),
        ..bare.clone()
    };
    let response = CommandSearchResponse {
        id: "c1".to_owned(),
        found: search_events(),
        matched_lines: 1,
        searched_bytes: LARGEST,
        long_lines: 1,
        offset: 1,
        end: LARGEST,
        truncated: vec![SearchTruncation::MaxMatches],
        elapsed_ms: 2,
    };
    let nothing = CommandSearchResponse { id: "c1".to_owned(), ..CommandSearchResponse::default() };
    vec![sample(&bare), sample(&full), sample(&response), sample(&nothing)]
}

fn search_events() -> Vec<CommandSearchEvent> {
    let plain = CommandSearchLine {
        stream: OutputStream::Stdout,
        data: Data::Text("line".to_owned()),
        ranges: Vec::new(),
        cut: None,
        ..search_line()
    };
    vec![
        CommandSearchEvent::Gap { from: 0, to: 7 },
        CommandSearchEvent::Context(plain),
        CommandSearchEvent::Match(search_line()),
    ]
}

pub(super) fn events() -> Vec<Sample> {
    let started = Timestamp::from_unix(1_700_000_000, 5);
    let (offset, end) = (0, LARGEST);
    let mut events = vec![
        event(&CommandEvent::Status { id: "c1".to_owned(), pid: 2, started, offset }),
        event(&CommandEvent::Stdout { offset, end, data: Data::Text("out".to_owned()) }),
        event(&CommandEvent::Stderr { offset, end, data: Data::from_bytes(vec![0xff]) }),
        event(&CommandEvent::Gap { from: 0, to: LARGEST }),
        event(&CommandEvent::Exit { exit: bare_exit(), offset }),
    ];
    events.extend(search_events().iter().map(event));
    events
}
