//! `info`, and the bodies that are no tool's.

use std::collections::BTreeMap;

use corehold_types::{
    Code, Problem, Scope, Timestamp,
    rpc::{Cancel, Credit, Refresh, RpcError, RpcId, StreamEvent, StreamOpened, codes},
    tools::*,
    wire::{FileWritten, Health, HealthStatus, StreamEnd},
};

use super::{LARGEST, Sample, command::command_response, event, sample};

fn problem() -> Problem {
    let mut problem =
        Problem::limit("the answer", LARGEST, "COREHOLD_X").with("nested", serde_json::json!([{ "a": 1 }]));
    problem.request_id = Some("r1".to_owned());
    problem
}

fn info() -> Vec<Sample> {
    let tool =
        ToolInfo { name: "read".to_owned(), since: "0.1".to_owned(), summary: "Reads.".to_owned(), scope: Scope::Read };
    let limit = LimitInfo {
        name: "readBytes".to_owned(),
        value: LARGEST,
        unit: "bytes".to_owned(),
        variable: "COREHOLD_READ_BYTES".to_owned(),
    };
    let unclaimed = InfoResponse {
        version: "0.1.0".to_owned(),
        protocol: 1,
        boot_id: "b".to_owned(),
        instance: "i".to_owned(),
        workspace: None,
        claimed: None,
        root: "/app".into(),
        tools: vec![tool],
        limits: vec![limit],
        features: vec!["x".to_owned()],
        guards: vec!["openat2".to_owned()],
    };
    let claimed = InfoResponse {
        workspace: Some("w".to_owned()),
        claimed: Some(Timestamp::from_unix(0, 0)),
        ..unclaimed.clone()
    };
    vec![sample(&InfoRequest {}), sample(&unclaimed), sample(&claimed)]
}

fn claim() -> Vec<Sample> {
    let plain = ClaimRequest { workspace: "w".to_owned(), claim_id: "abcdefgh".to_owned(), env: BTreeMap::new() };
    let full = ClaimRequest { env: [("A".to_owned(), "b".to_owned())].into(), ..plain.clone() };
    let response = ClaimResponse {
        workspace: "w".to_owned(),
        claimed: Timestamp::from_unix(0, 0),
        instance: "i".to_owned(),
        boot_id: "b".to_owned(),
    };
    vec![sample(&plain), sample(&full), sample(&response)]
}

fn activity() -> Vec<Sample> {
    let source = ActiveSource {
        source: ActivitySource::Tunnel,
        count: LARGEST,
        since: Timestamp::from_unix(0, 0),
        reason: "1 tunnel is open: port 4321".to_owned(),
        labels: BTreeMap::from([("dev".to_owned(), LARGEST)]),
    };
    let awake = ActivityResponse {
        sources: vec![source],
        idle_since: None,
        last_request: Some(Timestamp::from_unix(1, 0)),
        ended: vec![EndedSource { source: ActivitySource::Command, at: Timestamp::from_unix(1, 0) }],
        now: Timestamp::from_unix(2, 0),
    };
    let idle = ActivityResponse {
        sources: Vec::new(),
        idle_since: awake.last_request,
        last_request: None,
        ended: Vec::new(),
        now: awake.now,
    };
    vec![sample(&ActivityRequest {}), sample(&awake), sample(&idle)]
}

fn record() -> AuditRecord {
    let path = AuditPath { path: "src/a.rs".into(), before: Some("1f".to_owned()), after: Some("2e".to_owned()) };
    let exit = AuditExit { code: Some(-1), signal: Some("SIGKILL".to_owned()), timed_out: true, stalled: false };
    AuditRecord {
        seq: LARGEST,
        time: Timestamp::from_unix(0, 0),
        subject: Some("me".to_owned()),
        surface: AuditSurface::WebSocket,
        request_id: "r1".to_owned(),
        tool: "edit".to_owned(),
        paths: vec![path, AuditPath { path: "b".into(), before: None, after: None }],
        paths_omitted: Some(1),
        detail: Some("npm test".to_owned()),
        command: Some(AuditCommand { id: "c1".to_owned(), exit: Some(exit) }),
        changed: Some(AuditChanged { entries: LARGEST, bytes: Some(LARGEST) }),
        bytes_in: Some(LARGEST),
        bytes_out: Some(LARGEST),
        duration_ms: LARGEST,
        outcome: AuditOutcome::Failed,
        code: Some(Code::VersionMismatch),
        replayed: true,
        times: Some(LARGEST),
        since: Some(Timestamp::from_unix(0, 0)),
    }
}

fn audit() -> Vec<Sample> {
    let bare = AuditRecord {
        subject: None,
        surface: AuditSurface::Http,
        paths: Vec::new(),
        paths_omitted: None,
        detail: None,
        command: Some(AuditCommand { id: "c1".to_owned(), exit: None }),
        changed: Some(AuditChanged { entries: 0, bytes: None }),
        bytes_in: None,
        bytes_out: None,
        outcome: AuditOutcome::Ended,
        code: None,
        replayed: false,
        times: None,
        since: None,
        ..record()
    };
    let full = AuditReadRequest {
        after: Some(LARGEST),
        tool: Some("edit".to_owned()),
        subject: Some("me".to_owned()),
        path: Some("src".into()),
        command: Some("c1".to_owned()),
        since: Some(Timestamp::from_unix(0, 0)),
        limit: Some(1),
        cursor: Some("1".to_owned()),
        follow: Some(false),
    };
    let gap = AuditGap { from: 1, to: LARGEST, refusals_only: false };
    let response = AuditReadResponse {
        records: vec![record(), bare],
        gap: Some(gap),
        cursor: Some("1".to_owned()),
        last: LARGEST,
    };
    let empty = AuditReadResponse { records: Vec::new(), gap: None, cursor: None, last: 0 };
    vec![sample(&AuditReadRequest::default()), sample(&full), sample(&response), sample(&empty)]
}

pub(super) fn events() -> Vec<Sample> {
    let gap = AuditGap { from: 1, to: 2, refusals_only: true };
    vec![event(&AuditEvent::Record { record: Box::new(record()) }), event(&AuditEvent::Gap { gap })]
}

fn socket() -> Vec<Sample> {
    let error = RpcError { code: codes::FAILED, message: "a mistake".to_owned(), data: problem() };
    vec![
        sample(&error),
        sample(&StreamOpened { id: RpcId::Number(7), stream: 1 }),
        sample(&StreamEvent { stream: 1, event: CommandEvent::Gap { from: 1, to: LARGEST } }),
        sample(&Credit { stream: 1, bytes: LARGEST }),
        sample(&Cancel { id: RpcId::Text("a".to_owned()) }),
        sample(&Refresh { token: "t".to_owned() }),
    ]
}

pub(super) fn samples() -> Vec<Sample> {
    let health =
        Health { status: HealthStatus::ShuttingDown, version: "0.1.0".to_owned(), protocol: 1, uptime_ms: LARGEST };
    let bodies = vec![
        sample(&health),
        sample(&Health { status: HealthStatus::Ok, ..health.clone() }),
        sample(&FileWritten { version: "v".to_owned(), size: LARGEST, created: true }),
        sample(&problem()),
        sample(&Problem::new(Code::Internal, "a mistake")),
        sample(&StreamEnd::End { response: command_response() }),
        sample(&StreamEnd::<CommandResponse>::Error { problem: problem() }),
    ];
    [info(), claim(), activity(), audit(), socket(), bodies].into_iter().flatten().collect()
}
