//! The client against an agent in the same process.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use corehold_types::{
    Code, Data,
    tools::{
        Command, CommandEvent, CommandRequest, CommandSearchEvent, CommandSearchRequest, Info, InfoRequest,
        OutputStream, Read, ReadRequest, SearchTruncation,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, StatusCode};

use super::*;
use crate::{
    CreateWorkspace, Workspace,
    testing::{AgentScript, EngineScript, Fixture, Route, ndjson, reply},
    types::Problem,
};

async fn workspace(route: Route) -> (Fixture, Workspace) {
    let agent = AgentScript { route: Some(route), ..AgentScript::default() };
    let fixture = Fixture::new(EngineScript::default(), agent).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    (fixture, workspace)
}

fn on(request: &Request<Incoming>, tool: &str) -> bool {
    request.uri().path() == format!("/v1/tools/{tool}")
}

async fn command_stream(workspace: &Workspace) -> Result<Vec<Frame<Command>>> {
    workspace.stream::<Command>(&CommandRequest::default()).await?.try_collect().await
}

#[tokio::test]
async fn an_agents_problem_arrives_whole() {
    let (_fixture, workspace) = workspace(|request| {
        let problem = Problem::new(Code::VersionMismatch, "it changed").with("version", "v2").suggest("read it again");
        on(request, "read").then(|| reply(StatusCode::CONFLICT, serde_json::to_vec(&problem).unwrap()))
    })
    .await;
    let error = workspace.call::<Read>(&ReadRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.problem().unwrap().code), (ErrorKind::Agent, Code::VersionMismatch));
    assert_eq!(error.problem().unwrap().context["version"], "v2");
    assert_eq!(error.hint_text(), Some("read it again"));
    let error = workspace.call::<corehold_types::tools::List>(&Default::default()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::UnknownRoute);
}

#[tokio::test]
async fn answers_that_are_no_json_or_too_long_are_errors() {
    let (_fixture, workspace) = workspace(|request| match request.uri().path() {
        "/v1/tools/info" => Some(reply(StatusCode::OK, "<html>")),
        "/v1/tools/list" => Some(reply(StatusCode::BAD_GATEWAY, "a proxy's page")),
        "/v1/files/huge" => Some(reply(StatusCode::OK, vec![0; ANSWER_BYTES + 1])),
        _ => None,
    })
    .await;
    let error = workspace.call::<Info>(&InfoRequest {}).await.unwrap_err();
    assert!(error.to_string().contains("doesn't understand"), "{error}");
    let error = workspace.call::<corehold_types::tools::List>(&Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("502") && error.to_string().contains("a proxy's page"), "{error}");
    let error = workspace.read_file("huge").await.unwrap_err();
    assert!(error.to_string().contains("longer than 67108864 bytes"), "{error}");
}

#[tokio::test]
async fn a_stream_ends_with_its_end_and_with_nothing_else() {
    const EVENT: &str = "{\"type\":\"gap\",\"from\":1,\"to\":2}\n";
    const END: &str = "{\"type\":\"end\",\"response\":{\"id\":\"7\",\"offset\":2,\"stdout\":{\"text\":\"\",\"totalBytes\":0,\"omittedBytes\":0},\"stderr\":{\"text\":\"\",\"totalBytes\":0,\"omittedBytes\":0},\"new\":1}}\n";
    let (_fixture, workspace) = workspace(|request| {
        on(request, "command").then(|| {
            // Blank lines keep a connection alive; chunks end anywhere.
            let text = format!("\n{EVENT}\r\n\n{END}{EVENT}");
            ndjson(text.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect(), false)
        })
    })
    .await;
    let frames = command_stream(&workspace).await.unwrap();
    let [Frame::Event(CommandEvent::Gap { from: 1, to: 2 }), Frame::End(response)] = frames.as_slice() else {
        panic!("{frames:?}")
    };
    assert_eq!(response.id, "7");
}

#[tokio::test]
async fn cut_off_failed_and_strange_streams_are_errors() {
    for (route, says) in [
        (
            (|request| {
                on(request, "command").then(|| ndjson(vec!["{\"type\":\"gap\",\"from\":1,\"to\":2}\n".into()], false))
            }) as Route,
            "cut off before its end",
        ),
        (
            |request| on(request, "command").then(|| ndjson(vec!["{\"type\":\"en".into()], false)),
            "cut off before its end",
        ),
        (
            |request| {
                on(request, "command").then(|| {
                    let end = serde_json::json!({"type": "error", "problem": Problem::new(Code::DiskFull, "no room")});
                    ndjson(vec![format!("{end}\n").into()], false)
                })
            },
            "no room",
        ),
        (
            |request| on(request, "command").then(|| ndjson(vec!["{\"type\":\"telepathy\"}\n".into()], false)),
            "telepathy",
        ),
        (|request| on(request, "command").then(|| ndjson(vec!["[]\n".into()], false)), "doesn't understand"),
        (|request| on(request, "command").then(|| reply(StatusCode::SERVICE_UNAVAILABLE, "")), "503"),
    ] {
        let (_fixture, workspace) = workspace(route).await;
        let error = command_stream(&workspace).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn connections_are_reused_and_a_moved_agent_is_found_again() {
    let (fixture, workspace) = workspace(|_| None).await;
    for _ in 0..10 {
        workspace.write_file("a", "b").await.unwrap();
    }
    assert!(fixture.engine.connections("corehold-w") <= 2, "{}", fixture.engine.connections("corehold-w"));
    fixture.engine.restart_agent("corehold-w").await;
    // What the client holds leads nowhere; it asks the engine again.
    workspace.write_file("a", "b").await.unwrap();
    assert_eq!(fixture.engine.connections("corehold-w"), 1);
}

/// As with an engine on another machine, whose containers have no address here.
#[tokio::test]
async fn an_agent_without_an_address_is_reached_through_its_runtime_by_few_connections() {
    let script = EngineScript { through_runtime: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    assert_eq!(workspace.agent_endpoint().await.unwrap(), crate::runtime::Endpoint::ThroughRuntime);
    for _ in 0..10 {
        workspace.write_file("a", "b").await.unwrap();
    }
    let made = fixture.engine.connections("corehold-w");
    assert!(made <= 2, "{made}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tunnel = workspace.tunnel(listener.local_addr().unwrap().port()).await.unwrap();
    let (mut inside, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut tunnel).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut inside, b"hello").await.unwrap();
    drop(inside);
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tunnel, &mut said).await.unwrap();
    assert_eq!(said, "hello");
    drop(workspace.connect_agent().await.unwrap());
    fixture.engine.restart_agent("corehold-w").await;
    workspace.write_file("a", "b").await.unwrap();
    workspace.remove().await.unwrap();
    assert_eq!(workspace.connect_agent().await.err().unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn why_the_runtime_opens_no_connection_is_told() {
    let failing = |kind| EngineScript { through_runtime: true, connect: Some(kind), ..EngineScript::default() };
    let create = async |kind| {
        let fixture = Fixture::new(failing(kind), AgentScript::default()).await;
        let request = CreateWorkspace::empty().id("w").agent_timeout(Duration::from_millis(50));
        let error = fixture.host.create(request.keep_on_failure(true)).await.unwrap_err();
        (fixture, error)
    };
    // An agent that can't be reached so never will be; one that isn't there yet may come.
    let error = create(ErrorKind::Unsupported).await.1;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint_text().unwrap().starts_with("make one"), "{error:?}");
    let (fixture, error) = create(ErrorKind::AgentUnavailable).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let workspace = fixture.host.workspace("w").await.unwrap();
    let error = impatient(&fixture, &workspace).0.health().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::AgentUnavailable, "the agent at port 3001 of its container can't be reached: no way in")
    );
}

/// An engine gives the address of a container that is gone to the next one.
#[tokio::test]
async fn an_agent_that_does_not_know_us_may_be_anothers() {
    let (fixture, workspace) = workspace(|request| {
        let problem = Problem::new(Code::Unauthorized, "the token is for another instance");
        on(request, "list").then(|| reply(StatusCode::UNAUTHORIZED, serde_json::to_vec(&problem).unwrap()))
    })
    .await;
    let list = || async { workspace.call::<corehold_types::tools::List>(&Default::default()).await.unwrap_err() };
    let error = list().await;
    assert_eq!(error.problem().unwrap().code, Code::Unauthorized, "it is ours, and says no");
    let _agent = fixture.engine.forget("corehold-w");
    let error = list().await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

fn impatient(fixture: &Fixture, workspace: &Workspace) -> (Arc<AgentClient>, TokenSource) {
    let patience = Patience { silence: Duration::from_millis(30), answer: Duration::from_millis(200) };
    let runtime = fixture.host.runtime().clone();
    let client = AgentClient::new(runtime, workspace.container(), crate::host::AGENT_PORT, patience);
    let home = tempfile::tempdir().unwrap();
    let key = Arc::new(crate::key::HostKey::load_or_create(home.path()).unwrap());
    (Arc::new(client), TokenSource::new(key, "i".into(), "w".into(), "s".into()))
}

#[tokio::test]
async fn a_silent_agent_is_noticed_and_the_engine_says_why() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let (client, tokens) = impatient(&fixture, &workspace);
    // A paused container accepts connections and stays silent: so does this agent from now on.
    let frozen = Fixture::new(EngineScript::default(), AgentScript { silent: true, ..AgentScript::default() }).await;
    let creation = frozen
        .host
        .create(CreateWorkspace::empty().id("f").agent_timeout(Duration::from_millis(50)).keep_on_failure(true));
    creation.await.unwrap_err();
    frozen.engine.set_status("corehold-f", crate::runtime::ContainerStatus::Paused);
    let silent = frozen.host.workspace("f").await.unwrap();
    let (frozen_client, _) = impatient(&frozen, &silent);
    let error = frozen_client.call::<Info>(&tokens, &InfoRequest {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AgentUnavailable);
    assert_eq!(
        (error.to_string().as_str(), error.hint_text()),
        ("the agent has stopped answering", Some("its container is paused"))
    );

    workspace.remove().await.unwrap();
    let error = client.read_file(&tokens, Path::new("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_long_silence_of_a_healthy_agent_breaks_nothing() {
    let (fixture, workspace) = workspace(|request| {
        on(request, "command").then(|| ndjson(vec!["{\"type\":\"gap\",\"from\":1,\"to\":2}\n".into()], true))
    })
    .await;
    let (client, tokens) = impatient(&fixture, &workspace);
    let mut stream = client.stream::<Command>(&tokens, &CommandRequest::default()).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Frame::Event(_)))));
    // Ten times the silence after which the agent is asked for its health.
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.next()).await.is_err(), "it still waits");
    fixture.engine.set_status("corehold-w", crate::runtime::ContainerStatus::Exited);
    fixture.host.runtime().stop(&workspace.container(), Duration::ZERO).await.unwrap();
    let error = stream.next().await.unwrap().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AgentUnavailable, "{error}");
    assert!(stream.next().await.is_none(), "an error is the last item");
}

#[tokio::test]
async fn files_of_any_name_go_in_and_out() {
    let (_fixture, workspace) = workspace(|_| None).await;
    let written = workspace.write_file("src/ä b?.txt", "content").await.unwrap();
    assert_eq!((written.size, written.created), (7, true));
    assert_eq!(workspace.read_file("src/ä b?.txt").await.unwrap(), "content");
    let chunks = stream::iter((0..1000).map(|_| Ok(Bytes::from_static(&[7; 1000]))));
    assert_eq!(workspace.upload_file("big", chunks).await.unwrap().size, 1_000_000);
    let file = workspace.open_file("big").await.unwrap();
    assert_eq!((file.size(), file.version()), (Some(1_000_000), Some("v1")));
    let sizes: Vec<usize> = file.map_ok(|bytes| bytes.len()).try_collect().await.unwrap();
    assert_eq!(sizes.iter().sum::<usize>(), 1_000_000);
    let error = workspace.read_file("nothing").await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, Code::NotFound);
}

/// The agent stops waiting for a command that doesn't read and says how much was taken; the rest is sent again.
#[tokio::test]
async fn input_is_sent_until_all_of_it_is_taken() {
    static LENGTHS: std::sync::Mutex<Vec<u64>> = std::sync::Mutex::new(Vec::new());
    let (_fixture, workspace) = workspace(|request| {
        on(request, "commandInput").then(|| {
            let mut lengths = LENGTHS.lock().unwrap();
            lengths.push(hyper::body::Body::size_hint(request.body()).exact().unwrap());
            reply(StatusCode::OK, format!("{{\"accepted\":3,\"complete\":{}}}", lengths.len() == 3))
        })
    })
    .await;
    workspace.send_input("7", "12345678").await.unwrap();
    let lengths = LENGTHS.lock().unwrap().clone();
    assert_eq!(lengths.windows(2).map(|pair| pair[0] - pair[1]).collect::<Vec<_>>(), [3, 3]);
}

/// Lines come as they are found, and the last answer says where to go on; what was asked is in the request as it is.
#[tokio::test]
async fn what_a_command_has_written_is_searched_as_a_stream() {
    let request = || CommandSearchRequest {
        id: "7".to_owned(),
        pattern: "^error".to_owned(),
        after: Some(2),
        ..CommandSearchRequest::default()
    };
    static ASKED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let (_fixture, workspace) = workspace(|request| {
        let streams = request.headers().get("accept").is_some_and(|accept| accept.as_bytes().ends_with(b"ndjson"));
        (on(request, "commandSearch") && streams).then(|| {
            let length = hyper::body::Body::size_hint(request.body()).exact().unwrap();
            if ASKED.set(length).is_err() {
                let problem = Problem::new(Code::NotFound, "it is forgotten");
                return reply(StatusCode::NOT_FOUND, serde_json::to_vec(&problem).unwrap());
            }
            let lines = [
                r#"{"type":"gap","from":0,"to":5}"#,
                r#"{"type":"match","stream":"stderr","offset":5,"end":12,"text":"error 1","ranges":[[0,5]]}"#,
                r#"{"type":"end","response":{"id":"7","matchedLines":1,"searchedBytes":7,"longLines":0,"offset":12,"end":20,"truncated":["maxMatches"],"elapsedMs":1}}"#,
            ];
            ndjson(lines.map(|line| Bytes::from(format!("{line}\n"))).into(), false)
        })
    })
    .await;
    let mut found = Vec::new();
    let stream = workspace.search_output(&request()).await.unwrap();
    let response = stream.finish(|event| found.push(event)).await.unwrap();
    assert_eq!(found[0], CommandSearchEvent::Gap { from: 0, to: 5 });
    let CommandSearchEvent::Match(line) = &found[1] else { panic!("{found:?}") };
    assert_eq!((line.stream, line.offset, line.ranges.as_slice()), (OutputStream::Stderr, 5, &[[0, 5]][..]));
    assert_eq!(line.data, Data::from_bytes(b"error 1".to_vec()));
    assert_eq!((found.len(), response.offset, response.end), (2, 12, 20));
    assert_eq!(response.truncated, [SearchTruncation::MaxMatches]);
    assert_eq!(*ASKED.get().unwrap(), serde_json::to_vec(&request()).unwrap().len() as u64);
    let error = workspace.search_output(&request()).await.err().unwrap();
    assert_eq!((error.kind(), error.problem().unwrap().code), (ErrorKind::Agent, Code::NotFound));
}

#[tokio::test]
async fn an_upload_whose_source_fails_is_an_error_and_says_why() {
    let (_fixture, workspace) = workspace(|_| None).await;
    let chunks =
        stream::iter([Ok(Bytes::from_static(b"x")), Err(Error::new(ErrorKind::Io, "the disk was pulled out"))]);
    let error = workspace.upload_file("broken", chunks).await.unwrap_err();
    assert!(error.to_string().contains("the disk was pulled out"), "{error}");
}

#[tokio::test]
async fn every_call_bears_a_token_of_its_own_subject() {
    let (_fixture, workspace) = workspace(|request| {
        let token = request.headers().get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned();
        on(request, "info").then(|| reply(StatusCode::IM_A_TEAPOT, token))
    })
    .await;
    let claims = |error: Error| {
        use base64::Engine as _;
        let text = error.to_string();
        let payload = text.split('.').nth(1).unwrap().to_owned();
        String::from_utf8(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    let own = claims(workspace.call::<Info>(&InfoRequest {}).await.unwrap_err());
    assert!(own.contains("\"sub\":\"host\"") && own.contains("\"workspace\":\"w\""), "{own}");
    let theirs = claims(workspace.for_subject("user-17").call::<Info>(&InfoRequest {}).await.unwrap_err());
    assert!(theirs.contains("\"sub\":\"user-17\""), "{theirs}");
}
