//! The command tools over plain HTTP: a terminal with several viewers, floods, many finished commands, and bad input.

use axum::body::{Body, BodyDataStream};
use corehold_types::Code;
use futures_util::{StreamExt as _, future::join_all};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::{
    served::{PATIENCE, until},
    support::TestAgent,
};

/// One who follows a command's output, from an offset.
pub(crate) struct Viewer {
    body: BodyDataStream,
    /// Of an event that hasn't come whole.
    rest: Vec<u8>,
    /// What the command wrote.
    text: String,
    /// Where the next bytes begin.
    at: u64,
    exit: Option<Value>,
    /// Whether the stream came to its proper end.
    ended: bool,
}

impl Viewer {
    pub(crate) async fn open(agent: &TestAgent, id: &str, offset: u64) -> Self {
        let request = Request::post("/v1/tools/commandOutput")
            .header("authorization", "Bearer token")
            .header("content-type", "application/json")
            .header("accept", "application/x-ndjson")
            .body(Body::from(json!({"id": id, "offset": offset}).to_string()))
            .unwrap();
        let response = agent.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().into_data_stream();
        Self { body, rest: Vec::new(), text: String::new(), at: offset, exit: None, ended: false }
    }

    /// Takes in what comes next; false at the end.
    async fn read(&mut self) -> bool {
        let Some(piece) = timeout(PATIENCE, self.body.next()).await.expect("more comes") else { return false };
        self.rest.extend_from_slice(&piece.unwrap());
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            match event["type"].as_str() {
                Some("stdout" | "stderr") => {
                    assert_eq!(event["offset"], self.at, "nothing is left out: {event}");
                    self.text.push_str(event["data"]["text"].as_str().unwrap());
                    self.at = event["end"].as_u64().unwrap();
                }
                Some("exit") => self.exit = Some(event["exit"].clone()),
                Some("end") => self.ended = true,
                _ => assert_eq!((&event["type"], &event["offset"]), (&json!("status"), &json!(self.at))),
            }
        }
        true
    }

    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.read().await, "it ended after {:?}", self.text);
        }
    }

    /// All that was written, once the command has ended.
    pub(crate) async fn all(&mut self) -> String {
        while self.read().await {}
        assert!(self.ended, "cut off after {:?}", self.text);
        self.text.clone()
    }

    async fn finish(mut self) -> (String, Value) {
        (self.all().await, self.exit.unwrap())
    }
}

async fn call(agent: &TestAgent, tool: &str, request: Value) -> Value {
    timeout(PATIENCE, agent.tool(tool, request.to_string())).await.expect("an answer").assert_ok().json()
}

pub(crate) async fn detach(agent: &TestAgent, mut request: Value) -> String {
    request["detach"] = json!(true);
    call(agent, "command", request).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_terminal_is_typed_to_resized_and_watched_by_several() {
    let agent = TestAgent::new();
    // The shell puts the words together, so that the echo of what is typed isn't taken for an answer.
    let line = "stty size; while read -r word; do echo got''=$word $(stty size); done; echo ended; exit 7";
    let id = detach(&agent, json!({"line": line, "pty": {"columns": 80, "rows": 24}})).await;
    let mut one = Viewer::open(&agent, &id, 0).await;
    let mut two = Viewer::open(&agent, &id, 0).await;
    one.until("24 80").await;
    let typed = call(&agent, "commandInput", json!({"id": id, "data": {"text": "first\r"}})).await;
    assert_eq!(typed, json!({"accepted": 6, "complete": true}));
    one.until("got=first 24 80").await;
    two.until("got=first").await;

    let got = call(&agent, "commandGet", json!({"id": id})).await;
    assert_eq!((&got["takesInput"], &got["terminal"]), (&json!(true), &json!({"columns": 80, "rows": 24})));
    assert_eq!((got["processes"].as_u64(), &got["stderrBytes"]), (Some(1), &json!(0)));
    assert!(got["stdoutBytes"].as_u64() >= Some(one.at) && got["command"].get("exit").is_none(), "{got}");

    assert_eq!(call(&agent, "commandResize", json!({"id": id, "columns": 132, "rows": 50})).await, json!({}));
    let got = call(&agent, "commandGet", json!({"id": id})).await;
    assert_eq!(got["terminal"], json!({"columns": 132, "rows": 50}));

    // One who comes in the middle, and one who goes away.
    let middle = one.at;
    let late = Viewer::open(&agent, &id, middle).await;
    drop(two);
    call(&agent, "commandInput", json!({"id": id, "data": {"base64": "c2Vjb25kDQ=="}})).await;
    one.until("got=second 50 132").await;
    assert_eq!(
        call(&agent, "commandInput", json!({"id": id, "end": true})).await,
        json!({"accepted": 0, "complete": true})
    );
    let (text, exit) = one.finish().await;
    assert!(text.contains("ended") && exit["code"] == 7, "{text:?} {exit}");
    let (rest, late_exit) = late.finish().await;
    assert_eq!((rest.as_str(), &late_exit), (&text[usize::try_from(middle).unwrap()..], &exit));

    // Afterwards: every offset gives the rest, also as one answer.
    let end = text.len() as u64;
    for offset in [0, 1, end / 3, end / 2, end - 1, end] {
        let (rest, _) = Viewer::open(&agent, &id, offset).await.finish().await;
        assert_eq!(rest, text[usize::try_from(offset).unwrap()..]);
        let collected = call(&agent, "commandOutput", json!({"id": id, "offset": offset})).await;
        assert_eq!((collected["stdout"]["text"].as_str(), &collected["offset"]), (Some(rest.as_str()), &json!(end)));
    }
    let got = call(&agent, "commandGet", json!({"id": id})).await;
    assert_eq!((&got["takesInput"], got.get("terminal"), &got["processes"]), (&json!(false), None, &json!(0)));
    assert_eq!((&got["command"]["exit"]["code"], &got["stdoutBytes"]), (&json!(7), &json!(end)));
    for (tool, request) in [
        ("commandInput", json!({"id": id, "data": {"text": "x"}})),
        ("commandInput", json!({"id": id, "end": true})),
        ("commandResize", json!({"id": id, "columns": 80, "rows": 24})),
    ] {
        agent.tool(tool, request.to_string()).await.assert_problem(409, Code::InputClosed);
    }
}

#[tokio::test]
async fn input_through_a_pipe_waits_for_who_does_not_read_and_ends() {
    let agent = TestAgent::new();
    let fifo = agent.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let id = detach(&agent, json!({"line": "read -r go < pipe; exec wc -c", "interactive": true})).await;
    let much = "x".repeat(1 << 20);
    let waited = json!({"id": id, "data": {"text": much}, "timeoutMs": 20});
    let typed = call(&agent, "commandInput", waited).await;
    let accepted = typed["accepted"].as_u64().unwrap();
    assert!(typed["complete"] == false && accepted > 0 && accepted < much.len() as u64, "{typed}");
    tokio::fs::write(&fifo, "go\n").await.unwrap();
    let rest = json!({"id": id, "data": {"text": &much[usize::try_from(accepted).unwrap()..]}, "end": true});
    assert_eq!(call(&agent, "commandInput", rest).await["complete"], true);
    let output = call(&agent, "commandOutput", json!({"id": id, "follow": true})).await;
    assert_eq!(output["stdout"]["text"], "1048576\n");
    agent
        .tool("commandResize", json!({"id": id, "columns": 80, "rows": 24}).to_string())
        .await
        .assert_problem(409, Code::InputClosed);
}

#[tokio::test]
async fn what_is_typed_again_under_its_key_is_typed_once() {
    let agent = TestAgent::new();
    let id = detach(&agent, json!({"argv": ["cat"], "interactive": true})).await;
    let again = async |request: Value, key: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        agent.call(Method::POST, "/v1/tools/commandInput", &headers, request.to_string()).await
    };
    let typed = json!({"id": id, "data": {"text": "once\n"}});
    for _ in 0..3 {
        assert_eq!(again(typed.clone(), "key").await.assert_ok().json(), json!({"accepted": 5, "complete": true}));
    }
    let other = json!({"id": id, "data": {"text": "twice\n"}});
    again(other.clone(), "key").await.assert_problem(422, Code::IdempotencyMismatch);
    again(other, "another key").await.assert_ok();
    for _ in 0..2 {
        again(json!({"id": id, "end": true}), "end").await.assert_ok();
    }
    assert_eq!(Viewer::open(&agent, &id, 0).await.finish().await.0, "once\ntwice\n");
}

#[tokio::test]
async fn each_signal_arrives_by_its_name_at_every_process() {
    let agent = TestAgent::new();
    const CAUGHT: [&str; 8] = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT", "WINCH"];
    // No shell: what it starts in the background ignores some of them for good.
    let script = format!(
        "for my $name (qw({})) {{ $SIG{{$name}} = sub {{ syswrite STDOUT, \"$ARGV[0] got $name\\n\" }} }} \
         syswrite STDOUT, \"$ARGV[0] ready\\n\"; sleep 1000 while 1",
        CAUGHT.join(" ")
    );
    let line = format!("perl -e '{script}' child & exec perl -e '{script}' leader");
    let id = detach(&agent, json!({"line": line})).await;
    let mut viewer = Viewer::open(&agent, &id, 0).await;
    viewer.until("child ready").await;
    viewer.until("leader ready").await;
    for name in CAUGHT {
        let signalled = call(&agent, "commandSignal", json!({"id": id, "signal": format!("SIG{name}")})).await;
        assert_eq!(signalled["processes"], 2);
        viewer.until(&format!("child got {name}")).await;
        viewer.until(&format!("leader got {name}")).await;
    }
    let pid = call(&agent, "commandGet", json!({"id": id})).await["command"]["pid"].as_u64().unwrap();
    let state = move || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    call(&agent, "commandSignal", json!({"id": id, "signal": "SIGSTOP"})).await;
    until(|| state() == Some('T')).await;
    call(&agent, "commandSignal", json!({"id": id, "signal": "SIGCONT"})).await;
    until(|| state() != Some('T')).await;
    call(&agent, "commandSignal", json!({"id": id, "signal": "SIGKILL"})).await;
    assert_eq!(viewer.finish().await.1["signal"], "SIGKILL");
    // The leader may be gone a little before its child is.
    while call(&agent, "commandGet", json!({"id": id})).await["processes"] != 0 {}
    let afterwards = call(&agent, "commandSignal", json!({"id": id, "signal": "SIGTERM"})).await;
    assert_eq!(afterwards["processes"], 0, "nobody is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_floods_at_once_are_each_whole() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_COMMAND_LOG_BYTES", "4194304")]);
    let runs = (0..50).map(|number| {
        let line = format!("head -c {} /dev/zero | tr '\\0' {}; echo end >&2", 2_000_000 + number, number % 10);
        let request = json!({"line": line, "maxOutputBytes": 10}).to_string();
        agent.tool("command", request)
    });
    for (number, answer) in join_all(runs).await.iter().enumerate() {
        let answer = answer.assert_ok().json();
        let digit = (number % 10).to_string().repeat(5);
        let stdout = &answer["stdout"];
        assert_eq!(
            (&stdout["totalBytes"], &answer["offset"]),
            (&json!(2_000_000 + number), &json!(2_000_004 + number))
        );
        assert_eq!((&stdout["text"], &stdout["tail"]["text"]), (&json!(digit), &json!(digit)), "{answer}");
        assert_eq!((&answer["stderr"]["text"], &answer["exit"]["code"]), (&json!("end\n"), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_thousands_of_finished_commands_the_last_are_listed_in_pages() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_COMMANDS_KEPT", "250")]);
    for round in 0..25 {
        let runs = (0..40).map(|number| {
            let label = if number % 2 == 0 { "even" } else { "odd" };
            agent.tool("command", json!({"argv": ["true", round.to_string()], "label": label}).to_string())
        });
        for answer in join_all(runs).await {
            answer.assert_ok();
        }
    }
    let (mut ids, mut cursor, mut rounds) = (std::collections::HashSet::new(), None, Vec::new());
    loop {
        let page = call(&agent, "commandList", json!({"limit": 99, "cursor": cursor})).await;
        for command in page["commands"].as_array().unwrap() {
            assert!(ids.insert(command["id"].as_str().unwrap().to_owned()), "listed twice");
            rounds.push(command["line"].as_str().unwrap()[5..].parse::<u32>().unwrap());
        }
        match page.get("cursor") {
            Some(next) => cursor = Some(next.clone()),
            None => break,
        }
    }
    // The one that ended last may not have driven out the oldest yet.
    assert!((250..=251).contains(&ids.len()), "{}", ids.len());
    assert!(
        rounds.is_sorted_by(|newer, older| newer >= older) && rounds.iter().all(|round| *round >= 18),
        "{rounds:?}"
    );
    let odd = call(&agent, "commandList", json!({"label": "odd", "limit": 1000})).await;
    assert!((100..=150).contains(&odd["commands"].as_array().unwrap().len()));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_and_starts_nothing() {
    let agent = TestAgent::new();
    std::fs::write(agent.root().join("file"), "").unwrap();
    let huge = 9_007_199_254_740_991_u64;
    let cases = [
        (json!({"argv": []}), 400, Code::InvalidRequest),
        (json!({"argv": [""]}), 400, Code::InvalidRequest),
        (json!({"argv": ["a\0b"]}), 400, Code::InvalidRequest),
        (json!({"argv": ["true", "\0"]}), 400, Code::InvalidRequest),
        (json!({"argv": "true"}), 400, Code::InvalidRequest),
        (json!({"argv": [1]}), 400, Code::InvalidRequest),
        (json!({"line": ""}), 400, Code::InvalidRequest),
        (json!({"line": "true\0"}), 400, Code::InvalidRequest),
        (json!({"line": "true", "argv": ["true"]}), 400, Code::InvalidRequest),
        (json!({"argv": vec!["x".repeat(1000); 1100]}), 413, Code::LimitExceeded),
        (json!({"argv": ["true", "x".repeat(200_000)]}), 400, Code::CommandNotStarted),
        (json!({"argv": vec!["x"; 600_000]}), 413, Code::LimitExceeded),
        (json!({"argv": ["true"], "env": {"": "x"}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "env": {"A=B": "x"}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "env": {"A\0": "x"}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "env": {"A": "\0"}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "env": {"A": 1}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "env": {"A": "x".repeat(2 << 20)}}), 413, Code::LimitExceeded),
        (json!({"argv": ["true"], "cwd": ".."}), 403, Code::PathOutsideRoot),
        (json!({"argv": ["true"], "cwd": "/"}), 403, Code::PathOutsideRoot),
        (json!({"argv": ["true"], "cwd": "none"}), 404, Code::NotFound),
        (json!({"argv": ["true"], "cwd": "file"}), 409, Code::NotADirectory),
        (json!({"argv": ["true"], "cwd": "a\0b"}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "timeoutMs": -1}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "timeoutMs": 0.5}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "stallTimeoutMs": "1"}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "maxOutputBytes": huge}), 413, Code::LimitExceeded),
        (json!({"argv": ["true"], "label": "x".repeat(65)}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "stdin": {"base64": "*"}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "pty": {"columns": 0, "rows": 24}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "pty": {"columns": 80, "rows": 65_535}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "pty": {"columns": 80, "rows": 65_536}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "pty": {"columns": 80}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "pty": {"columns": 80, "rows": 24, "term": "x\0"}}), 400, Code::InvalidRequest),
        (
            json!({"argv": ["true"], "pty": {"columns": 80, "rows": 24}, "interactive": false}),
            400,
            Code::InvalidRequest,
        ),
        (json!({"argv": ["true"], "limits": {"cpuMs": 0}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "limits": {"memoryBytes": 0}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "limits": {"openFiles": huge}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "limits": {"processes": -1}}), 400, Code::InvalidRequest),
        (json!({"argv": ["true"], "limits": {"disk": 1}}), 400, Code::InvalidRequest),
        (json!({"argv": ["no such program"]}), 400, Code::CommandNotStarted),
        (json!({"argv": ["./file"]}), 400, Code::CommandNotStarted),
    ];
    for (request, status, code) in cases {
        let shown: String = request.to_string().chars().take(100).collect();
        let answer = agent.tool("command", request.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code), (status, code), "{shown}: {}", answer.text());
    }
    assert_eq!(call(&agent, "commandList", json!({})).await["commands"], json!([]), "nothing of this was started");

    // Time-outs that no clock reaches are none.
    for field in ["timeoutMs", "stallTimeoutMs"] {
        for value in [json!(huge), json!(u64::MAX), json!(0)] {
            let answer = call(&agent, "command", json!({"argv": ["true"], field: value})).await;
            assert_eq!((&answer["exit"]["code"], &answer["exit"]["timedOut"]), (&json!(0), &json!(false)));
        }
    }
    // Limits that leave a program no room end it; the agent says how, and lives.
    for limits in [
        json!({"openFiles": 1}),
        json!({"memoryBytes": 1}),
        json!({"fileBytes": 1}),
        json!({"cpuMs": 1}),
        json!({"processes": 1}),
    ] {
        let answer = call(&agent, "command", json!({"argv": ["cat", "/proc/self/limits"], "limits": limits})).await;
        assert!(answer["exit"].is_object(), "{limits}: {answer}");
    }
}

#[tokio::test]
async fn wrong_questions_about_a_command_are_refused() {
    let agent = TestAgent::new();
    let id = detach(&agent, json!({"line": "echo four; exec sleep 600", "pty": {"columns": 80, "rows": 24}})).await;
    Viewer::open(&agent, &id, 0).await.until("four").await;
    let cases = [
        ("commandResize", json!({"id": id, "columns": 0, "rows": 24}), 400, Code::InvalidRequest),
        ("commandResize", json!({"id": id, "columns": 80, "rows": 0}), 400, Code::InvalidRequest),
        ("commandResize", json!({"id": id, "columns": 65_535, "rows": 65_535}), 400, Code::InvalidRequest),
        ("commandResize", json!({"id": id, "columns": 65_536, "rows": 24}), 400, Code::InvalidRequest),
        ("commandResize", json!({"id": id, "columns": -1, "rows": 24}), 400, Code::InvalidRequest),
        ("commandResize", json!({"id": "none", "columns": 80, "rows": 24}), 404, Code::NotFound),
        ("commandSignal", json!({"id": id, "signal": "TERM"}), 400, Code::InvalidRequest),
        ("commandSignal", json!({"id": id, "signal": "sigterm"}), 400, Code::InvalidRequest),
        ("commandSignal", json!({"id": id, "signal": "SIGSEGV"}), 400, Code::InvalidRequest),
        ("commandSignal", json!({"id": id, "signal": 15}), 400, Code::InvalidRequest),
        ("commandSignal", json!({"id": id}), 400, Code::InvalidRequest),
        ("commandSignal", json!({"id": "none", "signal": "SIGTERM"}), 404, Code::NotFound),
        ("commandOutput", json!({"id": id, "offset": 1000}), 400, Code::InvalidRequest),
        ("commandOutput", json!({"id": id, "offset": u64::MAX}), 400, Code::InvalidRequest),
        ("commandOutput", json!({"id": id, "offset": -1}), 400, Code::InvalidRequest),
        ("commandOutput", json!({"id": "../x"}), 404, Code::NotFound),
        ("commandOutput", json!({"id": "x".repeat(100_000)}), 404, Code::NotFound),
        ("commandInput", json!({"id": id, "data": {"base64": "*"}}), 400, Code::InvalidRequest),
        ("commandInput", json!({"id": id, "data": "x"}), 400, Code::InvalidRequest),
        ("commandInput", json!({"id": id, "timeoutMs": -1}), 400, Code::InvalidRequest),
        ("commandInput", json!({"id": id, "timeoutMs": u64::MAX}), 413, Code::LimitExceeded),
        ("commandInput", json!({"id": "", "data": {"text": "x"}}), 404, Code::NotFound),
        ("commandSearch", json!({"id": id}), 400, Code::InvalidRequest),
        ("commandSearch", json!({"id": id, "pattern": "("}), 400, Code::InvalidRequest),
        ("commandSearch", json!({"id": id, "pattern": "a", "offset": 1000}), 400, Code::InvalidRequest),
        ("commandSearch", json!({"id": id, "pattern": "a", "paths": ["a"]}), 400, Code::InvalidRequest),
        ("commandSearch", json!({"id": id, "pattern": "a", "multiline": true}), 400, Code::InvalidRequest),
        ("commandSearch", json!({"id": id, "pattern": "a", "maxMatches": u64::MAX}), 413, Code::LimitExceeded),
        ("commandSearch", json!({"id": "none", "pattern": "a"}), 404, Code::NotFound),
        ("commandGet", json!({"id": "none"}), 404, Code::NotFound),
        ("commandGet", json!({}), 400, Code::InvalidRequest),
        ("commandList", json!({"limit": 0}), 400, Code::InvalidRequest),
        ("commandList", json!({"limit": 1_001}), 400, Code::InvalidRequest),
        ("commandList", json!({"cursor": "-1"}), 400, Code::InvalidRequest),
    ];
    for (tool, request, status, code) in cases {
        let answer = agent.tool(tool, request.to_string()).await;
        let shown: String = request.to_string().chars().take(100).collect();
        assert_eq!(
            (answer.status.as_u16(), answer.problem().code),
            (status, code),
            "{tool} {shown}: {}",
            answer.text()
        );
    }
    // Streamed, it is refused before the stream begins.
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let beyond = json!({"id": id, "offset": 1000}).to_string();
    agent
        .call(Method::POST, "/v1/tools/commandOutput", &headers, beyond)
        .await
        .assert_problem(400, Code::InvalidRequest);
    // All of this has changed nothing.
    let got = call(&agent, "commandGet", json!({"id": id})).await;
    assert_eq!((&got["terminal"], &got["processes"]), (&json!({"columns": 80, "rows": 24}), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_output_is_searched_in_every_form() {
    let agent = TestAgent::new();
    let id = call(&agent, "command", json!({"line": "seq 1 20; sleep 0.3; echo late 7 >&2"})).await["id"].clone();
    let request = json!({"id": id, "pattern": "7$", "before": 1});
    let answer = call(&agent, "commandSearch", request.clone()).await;
    let line = |kind: &str, stream: &str, offset: u64, text: &str| {
        let mut line = json!({"type": kind, "stream": stream, "offset": offset, "end": offset + text.len() as u64 + 1, "text": text});
        if kind == "match" {
            line["ranges"] = json!([[text.len() - 1, text.len()]]);
        }
        line
    };
    let found = [
        line("context", "stdout", 10, "6"),
        line("match", "stdout", 12, "7"),
        line("context", "stdout", 36, "16"),
        line("match", "stdout", 39, "17"),
        line("match", "stderr", 51, "late 7"),
    ];
    assert_eq!(answer["found"], json!(found));
    assert_eq!((&answer["matchedLines"], &answer["offset"], &answer["end"]), (&json!(3), &json!(58), &json!(58)));

    let form = async |accept: &str| {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        agent
            .call(Method::POST, "/v1/tools/commandSearch", &headers, request.to_string())
            .await
            .assert_ok()
            .text()
            .to_owned()
    };
    let lines: Vec<Value> =
        form("application/x-ndjson").await.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[..5], found);
    assert_eq!((&lines[5]["type"], &lines[5]["response"]["matchedLines"]), (&json!("end"), &json!(3)));
    let events = form("text/event-stream").await;
    assert_eq!((events.matches("event: match\n").count(), events.matches("event: context\n").count()), (3, 2));
    assert!(events.split_terminator("\n\n").last().unwrap().starts_with("event: end\n"), "{events}");
}
