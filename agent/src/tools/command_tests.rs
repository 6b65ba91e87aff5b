//! The command tools together: what is refused, and how one call's answer fits the next one's question.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use corehold_types::{
    Code, Data, Problem,
    tools::{
        CommandEvent, CommandList, CommandListRequest, CommandOutput, CommandOutputRequest, CommandRequest,
        CommandResponse, CommandSignal, CommandSignalRequest, Signal,
    },
};
use tokio::sync::mpsc;

use crate::{
    handler::{Call, Events, Handler},
    testing::{self, TestAgent},
};

fn by(agent: &TestAgent) -> Call {
    crate::testing::call(agent)
}

fn line(line: &str) -> CommandRequest {
    CommandRequest { line: Some(line.into()), ..Default::default() }
}

async fn run(agent: &TestAgent, request: CommandRequest) -> Result<CommandResponse, Problem> {
    corehold_types::tools::Command::handle(by(agent), request, Events::none()).await
}

async fn output(agent: &TestAgent, request: CommandOutputRequest) -> Result<CommandResponse, Problem> {
    CommandOutput::handle(by(agent), request, Events::none()).await
}

/// All events of a streamed answer, and its response.
async fn stream(agent: &TestAgent, request: CommandRequest) -> (Vec<CommandEvent>, CommandResponse) {
    let (sender, mut receiver) = mpsc::channel(1);
    let answer = corehold_types::tools::Command::handle(by(agent), request, Events::into_channel(sender));
    let events = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (answer, events) = tokio::join!(answer, events);
    (events, answer.unwrap())
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let agent = testing::agent();
    let too_long = "x".repeat(65);
    for (field, request) in [
        ("argv", CommandRequest::default()),
        ("line", CommandRequest { argv: Some(vec!["true".into()]), ..line("true") }),
        ("label", CommandRequest { label: Some(too_long), ..line("true") }),
        ("stdin", CommandRequest { stdin: Some(Data::Base64("*".into())), ..line("true") }),
    ] {
        let problem = run(&agent, request).await.unwrap_err();
        assert_eq!((problem.code, problem.context["field"].as_str()), (Code::InvalidRequest, Some(field)));
    }
    for request in [line(""), line("a\0b"), CommandRequest { argv: Some(Vec::new()), ..Default::default() }] {
        assert_eq!(run(&agent, request).await.unwrap_err().code, Code::InvalidRequest);
    }
    let much = CommandRequest { max_output_bytes: Some(1 << 40), ..line("true") };
    let problem = run(&agent, much).await.unwrap_err();
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_COMMAND_COLLECTED_BYTES");
    assert_eq!(agent.processes.list(None, None, 9).0, [], "nothing of this was started");
}

#[tokio::test]
async fn the_working_directory_is_one_of_the_workspace() {
    let agent = testing::agent();
    std::fs::create_dir(agent.root.path().join("sub")).unwrap();
    std::fs::write(agent.root.path().join("file"), "").unwrap();
    symlink("/etc", agent.root.path().join("out")).unwrap();
    let within = |cwd: &str| CommandRequest { cwd: Some(cwd.into()), ..line("pwd") };
    let ran = run(&agent, within("sub")).await.unwrap();
    assert_eq!(ran.stdout.head, Data::Text(format!("{}/sub\n", agent.root.path().display())));
    let ran = run(&agent, line("pwd")).await.unwrap();
    assert_eq!(ran.stdout.head, Data::Text(format!("{}\n", agent.root.path().display())));
    for (cwd, code) in [
        ("missing", Code::NotFound),
        ("file", Code::NotADirectory),
        ("../..", Code::PathOutsideRoot),
        ("/etc", Code::PathOutsideRoot),
        ("out", Code::PathOutsideRoot),
    ] {
        assert_eq!(run(&agent, within(cwd)).await.unwrap_err().code, code, "{cwd}");
    }
}

#[tokio::test]
async fn a_stream_has_status_output_and_exit_and_an_empty_response() {
    let agent = testing::agent();
    let request = CommandRequest {
        argv: Some(["sh", "-c", "cat; echo \"$A\" >&2; exit 4"].map(str::to_owned).into()),
        stdin: Some(Data::Base64("aW4K".into())),
        env: BTreeMap::from([("A".into(), "err".into())]),
        ..Default::default()
    };
    let (events, response) = stream(&agent, request).await;
    let kinds: Vec<_> = events.iter().map(corehold_types::Event::kind).collect();
    assert_eq!(kinds, ["status", "stdout", "stderr", "exit"]);
    assert!(matches!(&events[0], CommandEvent::Status { id, offset: 0, .. } if *id == response.id));
    let exit = response.exit.unwrap();
    assert!(matches!(&events[3], CommandEvent::Exit { exit: told, offset: 7 } if *told == exit));
    assert_eq!((exit.code, response.offset), (Some(4), 7));
    assert_eq!((response.stdout, response.stderr), Default::default());
}

#[tokio::test]
async fn detached_it_answers_at_once_and_is_found_by_its_id() {
    let agent = testing::agent();
    let request = CommandRequest { detach: Some(true), label: Some("dev".into()), ..line("echo up; sleep 1000") };
    let started = run(&agent, request).await.unwrap();
    assert_eq!((&started.exit, started.offset), (&None, 0));

    let list = CommandListRequest { label: Some("dev".into()), ..Default::default() };
    let listed = CommandList::handle(by(&agent), list, Events::none()).await.unwrap();
    assert_eq!(listed.commands[0].id, started.id);
    assert_eq!(listed.commands[0].line, "echo up; sleep 1000");

    let signal = CommandSignalRequest { id: started.id.clone(), signal: Signal::Kill };
    assert!(CommandSignal::handle(by(&agent), signal, Events::none()).await.unwrap().processes >= 1);
    let rest = CommandOutputRequest { id: started.id, follow: Some(true), ..Default::default() };
    assert_eq!(output(&agent, rest).await.unwrap().exit.unwrap().signal.as_deref(), Some("SIGKILL"));
}

#[tokio::test]
async fn output_is_asked_for_by_offset_and_in_bounds() {
    let agent = testing::agent();
    let ran = run(&agent, line("seq 1000 1999")).await.unwrap();
    let ask = |offset, most| CommandOutputRequest {
        id: ran.id.clone(),
        offset: Some(offset),
        max_output_bytes: most,
        follow: None,
    };
    let rest = output(&agent, ask(4_990, None)).await.unwrap();
    assert_eq!(rest.stdout.head, Data::Text("1998\n1999\n".into()));
    assert_eq!((rest.offset, rest.stdout.total_bytes, rest.stdout.omitted_bytes), (5_000, 5_000, 0));
    let ends = output(&agent, ask(0, Some(10))).await.unwrap();
    assert_eq!(ends.stdout.head, Data::Text("1000\n".into()));
    assert_eq!((ends.stdout.tail, ends.stdout.omitted_bytes), (Some(Data::Text("1999\n".into())), 4_990));
    let problem = output(&agent, ask(5_001, None)).await.unwrap_err();
    assert_eq!((problem.code, problem.context["end"].as_u64()), (Code::InvalidRequest, Some(5_000)));
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let agent = testing::agent();
    let ask = CommandOutputRequest { id: "cnone".into(), ..Default::default() };
    assert_eq!(output(&agent, ask).await.unwrap_err().code, Code::NotFound);
    let signal = CommandSignalRequest { id: String::new(), signal: Signal::Term };
    assert_eq!(CommandSignal::handle(by(&agent), signal, Events::none()).await.unwrap_err().code, Code::NotFound);
    for request in [
        CommandListRequest { limit: Some(0), ..Default::default() },
        CommandListRequest { limit: Some(1_001), ..Default::default() },
        CommandListRequest { cursor: Some("x".into()), ..Default::default() },
    ] {
        let refused = CommandList::handle(by(&agent), request, Events::none()).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest);
    }
}
