//! The pipeline over an engine and an agent in memory: what goes well, and everything that can go wrong.

use std::{sync::Arc, time::Duration};

use corehold_types::{Code, Problem};
use http::StatusCode;
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::{
    error::{Error, ErrorKind},
    life::WorkspaceState,
    runtime::ContainerStatus,
    testing::{AgentScript, EngineScript, Fixture},
};

const FULL: &str = r#"{"name": "web", "setup": ["exit 0"], "dev": "serve", "ready": {"timeoutSeconds": 1}}"#;

async fn events_of(creation: &mut Creation) -> Vec<CreateEvent> {
    let mut events = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    events
}

/// Creates from a template and expects it to fail; nothing may be left.
async fn failure(engine: EngineScript, agent: AgentScript, json: &str) -> (Error, Vec<CreateEvent>) {
    let fixture = Fixture::new(engine, agent).await;
    let template = fixture.template(json);
    let request = CreateWorkspace::from_template(&template).agent_timeout(Duration::from_millis(300));
    let mut creation = fixture.host.create(request);
    let events = events_of(&mut creation).await;
    let error = creation.await.unwrap_err();
    assert_eq!(fixture.engine.names(), Vec::<String>::new(), "nothing is left behind");
    let failed = events.iter().find(|event| matches!(event.kind, CreateEventKind::Failed { .. }));
    assert_eq!(failed.map(|event| event.step), error.step(), "the event and the error name the same step");
    (error, events)
}

#[tokio::test]
async fn every_step_is_told_in_order_and_the_workspace_is_there() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let template = fixture.template(FULL);
    let mut creation = fixture.host.create(CreateWorkspace::from_template(&template).id("mine").label("run", "7"));
    let events = events_of(&mut creation).await;
    let workspace = creation.await.unwrap();

    let finished: Vec<Step> = events
        .iter()
        .filter(|event| matches!(event.kind, CreateEventKind::Finished { .. }))
        .map(|event| event.step)
        .filter(|step| *step != Step::Pack)
        .collect();
    let all = [Step::Create, Step::Start, Step::Agent, Step::Ship, Step::Setup, Step::Keep, Step::Dev, Step::Ready];
    assert_eq!(finished, all);
    let position = |step, finished: bool| {
        let kind = |event: &CreateEvent| matches!(event.kind, CreateEventKind::Finished { .. }) == finished;
        events.iter().position(|event| event.step == step && kind(event)).unwrap()
    };
    assert!(position(Step::Pack, false) < position(Step::Create, true), "packing does not wait for the engine");
    assert!(
        events.iter().any(|event| matches!(&event.kind, CreateEventKind::Output { line, .. } if line == "setting up"))
    );

    let infos = fixture.host.list().await.unwrap();
    assert_eq!(infos.len(), 1);
    assert_eq!((infos[0].id.as_str(), infos[0].template.as_deref()), ("mine", Some("web")));
    assert_eq!((infos[0].state, infos[0].own), (WorkspaceState::Ready, true));
    assert_eq!((infos[0].preview_port, &infos[0].preview_url), (Some(4321), &None), "a listing opens no preview");
    let url = workspace.preview_url().await.unwrap();
    assert_eq!(fixture.host.list().await.unwrap()[0].preview_url.as_deref(), Some(url.as_str()));
    let spec = fixture.engine.spec("corehold-mine");
    assert_eq!((spec.publish.as_slice(), spec.agent_port), (&[][..], 3001), "nothing is published unasked");
    assert_eq!((spec.labels["run"].as_str(), spec.labels["dev.corehold.workspace"].as_str()), ("7", "mine"));
    assert_eq!(spec.env["COREHOLD_INSTANCE"], spec.labels["dev.corehold.instance"]);

    let found = fixture.host.workspace("mine").await.unwrap();
    found.remove().await.unwrap();
    assert_eq!(fixture.host.workspace("mine").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn whoever_only_awaits_needs_no_events() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    // Far more output than the channel of events holds.
    let template = fixture.template(r#"{"setup": ["flood"], "dev": "serve"}"#);
    fixture.host.create(CreateWorkspace::from_template(&template)).await.unwrap();
}

#[tokio::test]
async fn an_empty_workspace_runs_nothing() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let mut creation = fixture.host.create(CreateWorkspace::empty());
    let steps: Vec<Step> = events_of(&mut creation).await.into_iter().map(|event| event.step).collect();
    assert_eq!(steps.last(), Some(&Step::Agent));
    assert!(creation.await.unwrap().id().as_str().starts_with("workspace-"));
}

#[tokio::test]
async fn a_failure_in_any_step_names_it_and_leaves_nothing() {
    let fine = EngineScript::default;
    let agent = AgentScript::default;
    let refused = Problem::new(Code::ArchiveInvalid, "cut off");
    for (step, kind, says, engine, agent, json) in [
        (
            Step::Image,
            ErrorKind::NotFound,
            "image workspace-core:latest is not there",
            EngineScript { create: Some(ErrorKind::NotFound), ..fine() },
            agent(),
            FULL,
        ),
        (
            Step::Create,
            ErrorKind::AlreadyExists,
            "already",
            EngineScript { create: Some(ErrorKind::AlreadyExists), ..fine() },
            agent(),
            FULL,
        ),
        (
            Step::Create,
            ErrorKind::Conflict,
            // Not that its name is taken: it says itself what is.
            "no such thing",
            EngineScript { create: Some(ErrorKind::Conflict), ..fine() },
            agent(),
            FULL,
        ),
        (
            Step::Create,
            ErrorKind::Engine,
            "fails at create",
            EngineScript { create_then_fail: true, ..fine() },
            agent(),
            FULL,
        ),
        (Step::Start, ErrorKind::Engine, "fails at start", EngineScript { start: true, ..fine() }, agent(), FULL),
        (
            Step::Agent,
            ErrorKind::AgentUnavailable,
            "ended with exit code 7",
            EngineScript { dies: true, ..fine() },
            agent(),
            FULL,
        ),
        (
            Step::Agent,
            ErrorKind::Timeout,
            "did not answer within 0.3 s",
            fine(),
            AgentScript { silent: true, ..agent() },
            FULL,
        ),
        (Step::Agent, ErrorKind::Unsupported, "protocol 9", fine(), AgentScript { protocol: 9, ..agent() }, FULL),
        (Step::Ship, ErrorKind::Agent, "cut off", fine(), AgentScript { extract: Some(refused), ..agent() }, FULL),
        (
            Step::Setup,
            ErrorKind::CommandFailed,
            "`exit 3` ended with exit code 3",
            fine(),
            agent(),
            r#"{"setup": ["exit 0", "exit 3"]}"#,
        ),
        (
            Step::Setup,
            ErrorKind::Timeout,
            "`exit 124` was not done within 600 s",
            fine(),
            agent(),
            r#"{"setup": ["exit 124"]}"#,
        ),
        (
            Step::Ready,
            ErrorKind::CommandFailed,
            "ended with exit code 1 before",
            fine(),
            AgentScript { dev_exits: Some(1), preview: None, ..agent() },
            FULL,
        ),
        (Step::Ready, ErrorKind::Timeout, "does not answer", fine(), AgentScript { preview: None, ..agent() }, FULL),
        (
            Step::Ready,
            ErrorKind::Timeout,
            "/ answers 502",
            fine(),
            AgentScript { preview: Some(StatusCode::BAD_GATEWAY), ..agent() },
            FULL,
        ),
    ] {
        let (error, _) = failure(engine, agent, json).await;
        assert_eq!((error.step(), error.kind()), (Some(step), kind), "{error}");
        assert!(error.to_string().contains(says), "{step}: {error}");
    }
}

#[tokio::test]
async fn what_a_command_wrote_last_comes_with_the_error() {
    let (error, _) = failure(EngineScript::default(), AgentScript::default(), r#"{"setup": ["exit 3"]}"#).await;
    assert_eq!(error.output(), Some("setting up\nlast line before the end\n"));
    let exits = AgentScript { dev_exits: Some(1), preview: None, ..AgentScript::default() };
    assert_eq!(failure(EngineScript::default(), exits, FULL).await.0.output(), Some("port in use\n"));
    let silent = AgentScript { silent: true, ..AgentScript::default() };
    assert_eq!(failure(EngineScript::default(), silent, FULL).await.0.output(), Some("the agent's last words\n"));
}

#[tokio::test]
async fn a_folder_that_cant_be_packed_ends_a_start_that_is_under_way() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript { silent: true, ..AgentScript::default() }).await;
    let template = fixture.template(FULL);
    std::os::unix::fs::symlink("/etc/passwd", fixture.template_folder().join("link")).unwrap();
    // The agent would be waited for much longer than this test may take.
    let error = fixture.host.create(CreateWorkspace::from_template(&template)).await.unwrap_err();
    assert_eq!((error.step(), error.kind()), (Some(Step::Pack), ErrorKind::Invalid));
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_one_is_kept_if_asked_for_and_can_be_removed() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let template = fixture.template(r#"{"setup": ["exit 3"]}"#);
    let request = CreateWorkspace::from_template(&template).id("broken").keep_on_failure(true);
    let error = fixture.host.create(request).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("`corehold down broken` removes it"), "{error:?}");
    fixture.host.settled().await;
    assert_eq!(fixture.engine.names(), ["corehold-broken"]);
    fixture.host.workspace("broken").await.unwrap().remove().await.unwrap();
}

#[tokio::test]
async fn a_removal_that_fails_is_said_and_not_hidden() {
    let engine = EngineScript { start: true, remove_failures: 9, ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let error = fixture.host.create(CreateWorkspace::empty().id("stuck")).await.unwrap_err();
    assert!(error.to_string().contains("fails at start"), "the first failure is the one that matters: {error}");
    assert!(error.hint_text().unwrap().contains("could not be removed"), "{error:?}");
    assert_eq!(fixture.host.list().await.unwrap()[0].id.as_str(), "stuck");
}

#[tokio::test]
async fn dropped_after_any_event_it_leaves_nothing() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let template = fixture.template(FULL);
    let mut dropped_after = 0;
    loop {
        fixture.host.clear_setup_cache().await.unwrap();
        let mut creation = fixture.host.create(CreateWorkspace::from_template(&template));
        let mut seen = 0;
        while seen < dropped_after && creation.next_event().await.is_some() {
            seen += 1;
        }
        if seen < dropped_after {
            break;
        }
        drop(creation);
        fixture.host.settled().await;
        assert_eq!(fixture.engine.names(), Vec::<String>::new(), "dropped after {dropped_after} events");
        dropped_after += 1;
    }
    assert!(dropped_after > 18, "there are two events a step");
}

#[tokio::test]
async fn dropped_while_the_engine_makes_the_container_it_leaves_nothing() {
    let gate = Arc::new(Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let mut creation = fixture.host.create(CreateWorkspace::empty());
    creation.next_event().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), creation.next_event()).await.is_err());
    drop(creation);
    // The engine's answer comes when nobody waits for it any more.
    gate.notify_one();
    fixture.host.settled().await;
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

#[tokio::test]
async fn many_at_once_dont_collide_and_one_name_is_given_once() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let template = fixture.template(FULL);
    let create = |request: CreateWorkspace| fixture.host.create(request);
    let all = futures_util::future::join_all((0..20).map(|_| create(CreateWorkspace::from_template(&template)))).await;
    let ids: std::collections::BTreeSet<_> = all.into_iter().map(|made| made.unwrap().id().to_string()).collect();
    assert_eq!(ids.len(), 20);
    let same = futures_util::future::join_all((0..8).map(|_| create(CreateWorkspace::empty().id("one")))).await;
    let (made, refused): (Vec<_>, Vec<_>) = same.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 7));
    assert!(refused.into_iter().all(|refused| refused.unwrap_err().kind() == ErrorKind::AlreadyExists));
    assert!(fixture.engine.names().contains(&"corehold-one".to_owned()), "the losers don't remove the winner's");
}

#[tokio::test]
async fn bad_wishes_are_refused_before_anything_is_made() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    for request in [
        CreateWorkspace::empty().id("My App"),
        CreateWorkspace::empty().env("COREHOLD_PUBLIC_KEY", "x"),
        CreateWorkspace::empty().env("A=B", "x"),
        CreateWorkspace::empty().env("A", "x\0"),
        CreateWorkspace::empty().env("A", "x".repeat(131_070)),
        (0..9).fold(CreateWorkspace::empty(), |request, number| request.env(format!("A{number}"), "x".repeat(130_000))),
        CreateWorkspace::empty().label("dev.corehold.home", "x"),
        CreateWorkspace::empty().publish(3001),
        CreateWorkspace::empty().publish(0),
    ] {
        assert_eq!(fixture.host.create(request).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

#[tokio::test]
async fn ports_are_published_where_it_is_asked_for_and_from_the_hosts_range() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let host =
        crate::Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home()).port_range(20_000..=20_010);
    let host = host.build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty().id("w").publish(8080).publish(4321)).await.unwrap();
    let spec = fixture.engine.spec("corehold-w");
    assert_eq!((spec.publish, spec.publish_on), (vec![4321, 8080], Some(20_000..=20_010)));
    let info = workspace.info().await.unwrap();
    assert_eq!(info.published.keys().collect::<Vec<_>>(), [&4321, &8080]);
    assert_eq!(info.preview_url, Some(format!("http://{}", info.published[&4321])));
    assert_eq!(workspace.preview_url().await.unwrap(), info.preview_url.unwrap());
    assert!(workspace.previews().is_empty(), "a published port needs no listener");
}

/// Text of all that makes trouble somewhere: on its way through JSON, through the engine's `NAME=VALUE`, or in a name.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        "[a-z0-9-]{0,40}",
        Just("COREHOLD_".to_owned()),
        Just("dev.corehold.".to_owned()),
        prop::sample::select(vec![
            "=", "\0", "\n", "\r\n", "\"", "\\", "😀", "\u{feff}", "\u{2028}", " ", "\x1b[", "/", ".."
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

#[test]
fn any_name_label_and_variable_is_refused_or_carried_exactly() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(Fixture::new(EngineScript::default(), AgentScript::default()));
    let texts = (any_text(), any_text(), any_text(), any_text(), any_text());
    proptest!(ProptestConfig::with_cases(200), |((id, name, value, label, content) in texts)| {
        let variable_is_fine = !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("COREHOLD_") && !value.contains('\0');
        let label_is_fine = !label.is_empty() && !label.starts_with("dev.corehold.");
        for (id, name, value, label, content, fine) in [
            (id.as_str(), "A", "", "l", "", None),
            ("w", name.as_str(), value.as_str(), "l", "", Some(variable_is_fine)),
            ("w", "A", "", label.as_str(), content.as_str(), Some(label_is_fine)),
        ] {
            let request = CreateWorkspace::empty().id(id).env(name, value).label(label, content);
            match runtime.block_on(async { fixture.host.create(request).await }) {
                Ok(workspace) => {
                    prop_assert!(fine != Some(false), "{name:?} {label:?} was taken");
                    let spec = fixture.engine.spec(&format!("corehold-{id}"));
                    prop_assert_eq!(spec.env.get(name).map(String::as_str), Some(value));
                    prop_assert_eq!(spec.labels.get(label).map(String::as_str), Some(content));
                    prop_assert_eq!((workspace.id().as_str(), spec.labels["dev.corehold.workspace"].as_str()), (id, id));
                    runtime.block_on(workspace.remove()).unwrap();
                }
                Err(error) => {
                    prop_assert!(fine != Some(true), "{name:?} {label:?} was refused: {error}");
                    prop_assert_eq!(error.kind(), ErrorKind::Invalid);
                }
            }
        }
    });
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

#[tokio::test]
async fn other_homes_are_told_apart_and_damaged_labels_hide_nobody() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    fixture.host.create(CreateWorkspace::empty().id("ours")).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let other = crate::Host::builder().runtime(fixture.engine.clone()).home(home.path()).build().await.unwrap();
    other.create(CreateWorkspace::empty().id("theirs")).await.unwrap();
    let ids = |infos: Vec<crate::WorkspaceInfo>| infos.iter().map(|info| info.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(fixture.host.list().await.unwrap()), ["ours"]);
    assert_eq!(ids(fixture.host.list_all_homes().await.unwrap()), ["theirs", "ours"]);
    fixture.engine.set_status("corehold-ours", ContainerStatus::Paused);
    assert_eq!(fixture.host.list().await.unwrap()[0].state, WorkspaceState::Paused);
    let error = fixture.host.workspace("our").await.unwrap_err();
    assert_eq!(error.hint_text(), Some("did you mean ours?"));
}

#[tokio::test]
async fn an_image_without_the_agent_gets_that_of_the_hosts_image_or_of_the_core_image() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let host = fixture.builder().image("registry.example/core:7").build().await.unwrap();
    host.create(CreateWorkspace::empty().id("mine").image("debian:12")).await.unwrap();
    host.create(CreateWorkspace::empty().id("own").image("debian:12").image_user()).await.unwrap();
    let injection = |name: &str| fixture.engine.spec(name).agent.unwrap();
    assert_eq!(injection("corehold-mine").from, ["registry.example/core:7", "workspace-core:latest"]);
    assert!(!injection("corehold-mine").own_user && injection("corehold-own").own_user);
    // One that is made again, and a copy, are as they were asked for.
    let own = host.workspace("own").await.unwrap();
    own.sleep(Duration::ZERO).await.unwrap();
    own.wake().await.unwrap();
    let copies = own.fork(1).await.unwrap();
    for name in ["own", copies[0].id().as_str()] {
        assert!(injection(&format!("corehold-{name}")).own_user, "{name}");
    }
}
