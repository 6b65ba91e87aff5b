//! `command`, `commandOutput`, `commandInput`, `commandResize`, `commandSignal`, `commandList`, `commandGet`.

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

pub(super) fn events() -> Vec<Sample> {
    let started = Timestamp::from_unix(1_700_000_000, 5);
    let (offset, end) = (0, LARGEST);
    vec![
        event(&CommandEvent::Status { id: "c1".to_owned(), pid: 2, started, offset }),
        event(&CommandEvent::Stdout { offset, end, data: Data::Text("out".to_owned()) }),
        event(&CommandEvent::Stderr { offset, end, data: Data::from_bytes(vec![0xff]) }),
        event(&CommandEvent::Gap { from: 0, to: LARGEST }),
        event(&CommandEvent::Exit { exit: bare_exit(), offset }),
    ]
}
