//! Pools over an engine and agents in memory: what is handed out, what isn't, and what a killed host leaves.

mod images;

use std::{collections::BTreeMap, time::Duration};

use corehold_types::{Code, Problem, Timestamp};

use super::*;
use crate::{
    CreateEvent, CreateEventKind, CreateWorkspace, Host, Step, WorkspaceState, labels,
    runtime::{ContainerStatus, Resources, Runtime as _},
    testing::{AgentScript, EngineScript, Fixture},
};

/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn fixture() -> Fixture {
    Fixture::new(EngineScript::default(), AgentScript::default()).await
}

async fn filled(fixture: &Fixture, options: PoolOptions) -> Host {
    let host = fixture.pooled(options).await;
    tokio::time::timeout(PATIENCE, host.pools_filled()).await.expect("it is filled").unwrap();
    host
}

fn exactly(containers: usize) -> PoolOptions {
    PoolOptions::default().min(containers).max(containers)
}

/// The steps that began, in their order.
async fn steps(host: &Host, request: CreateWorkspace) -> (Result<crate::Workspace>, Vec<Step>) {
    let mut creation = host.create(request);
    let mut events: Vec<CreateEvent> = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    let began = events.iter().filter(|event| matches!(event.kind, CreateEventKind::Started { .. }));
    (creation.await, began.map(|event| event.step).collect())
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it becomes so");
}

#[tokio::test]
async fn whose_a_workspace_is_its_commands_see_wherever_its_container_comes_from() {
    let fixture = fixture().await;
    let builder = fixture.builder().api_url("http://api.example").pool(Class::default(), exactly(1));
    let host = builder.build().await.unwrap();
    tokio::time::timeout(PATIENCE, host.pools_filled()).await.expect("it is filled").unwrap();
    let wanted =
        [("COREHOLD_API_URL", "http://api.example"), ("COREHOLD_OWNER_ID", "ada \u{fc}"), ("COREHOLD_TEAM_ID", "acme")];
    let wanted = BTreeMap::from(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let request = CreateWorkspace::empty().owner("ada \u{fc}").team("acme");
    host.create(request.clone().id("pooled")).await.unwrap();
    assert_eq!(fixture.engine.claimed_env("corehold-pooled"), wanted);
    host.create(request.id("cold").label("a", "b")).await.unwrap();
    let spec = fixture.engine.spec("corehold-cold");
    assert!(wanted.iter().all(|(name, value)| spec.env.get(name) == Some(value)), "{:?}", spec.env);
    for info in host.list().await.unwrap() {
        assert_eq!((info.owner.as_deref(), info.team.as_deref()), (Some("ada \u{fc}"), Some("acme")));
    }
    for request in [CreateWorkspace::empty().owner(""), CreateWorkspace::empty().team("a\0b")] {
        assert_eq!(host.create(request).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    host.drain_pools().await.unwrap();
}

#[tokio::test]
async fn a_workspace_is_handed_over_with_all_that_a_claim_brings() {
    let fixture = fixture().await;
    let template = fixture.template(r#"{"name": "web", "env": {"A": "template", "B": "template"}}"#);
    let host = filled(&fixture, exactly(2)).await;
    assert_eq!(fixture.engine.waiting().len(), 2);
    assert!(host.list().await.unwrap().is_empty(), "what waits belongs to nobody");

    let request = CreateWorkspace::from_template(&template).id("mine").env("B", "request");
    let (workspace, steps) = steps(&host, request).await;
    let workspace = workspace.unwrap();
    assert_eq!(
        steps.iter().filter(|step| **step != Step::Pack).collect::<Vec<_>>(),
        [&Step::Claim, &Step::Ship, &Step::Dev, &Step::Ready]
    );
    let env = fixture.engine.claimed_env("corehold-mine");
    assert_eq!((env["A"].as_str(), env["B"].as_str(), env.len()), ("template", "request", 2));
    let spec = fixture.engine.spec("corehold-mine");
    assert!(!spec.env.contains_key("COREHOLD_WORKSPACE_ID") && !spec.env.contains_key("A"));

    // Another host, without a pool, knows it for what it is.
    for host in [&fixture.host, &host] {
        let listed = host.list().await.unwrap();
        assert_eq!(listed, [workspace.info().await.unwrap()]);
        assert_eq!((listed[0].id.as_str(), listed[0].template.as_deref()), ("mine", Some("web")));
        assert_eq!((listed[0].state, listed[0].own), (WorkspaceState::Ready, true));
        host.workspace("mine").await.unwrap().write_file("a", "b").await.unwrap();
    }
    host.pools_filled().await.unwrap();
    assert_eq!((fixture.engine.waiting().len(), host.pools()[0].claimed), (2, 1));

    fixture.host.workspace("mine").await.unwrap().remove().await.unwrap();
    assert!(host.seat().records.all().await.is_empty(), "its record went with it");
    assert_eq!(host.drain_pools().await.unwrap(), 2);
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

/// The refill rate: between two starts there is the time that was asked for, however many are missing.
#[tokio::test]
async fn a_pool_is_filled_no_faster_than_it_may_be() {
    let fixture = fixture().await;
    tokio::time::pause();
    let pause = Duration::from_secs(60);
    let began = Instant::now();
    let host = fixture.pooled(exactly(4).starts_at_once(4).start_interval(pause)).await;
    let mut grown = Vec::new();
    while grown.len() < 4 {
        if fixture.engine.waiting().len() > grown.len() {
            grown.push(began.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let between: Vec<u64> = grown.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(grown[0] < 60 && between.iter().all(|seconds| (59..=62).contains(seconds)), "{grown:?}");
    drop(host);
}

#[tokio::test]
async fn what_no_claim_can_bring_is_made() {
    let script = EngineScript { limits_are_fixed: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let host = filled(&fixture, exactly(1)).await;
    let limits = Resources { pids: Some(7), ..Default::default() };
    for request in [
        CreateWorkspace::empty().image("another:1"),
        CreateWorkspace::empty().resources(limits),
        CreateWorkspace::empty().label("mine", "1"),
        CreateWorkspace::empty().publish(8080),
        CreateWorkspace::empty().env("LARGE", "x".repeat(64 << 10)),
    ] {
        let (workspace, steps) = steps(&host, request).await;
        workspace.unwrap();
        assert!(!steps.contains(&Step::Claim) && steps.contains(&Step::Create), "{steps:?}");
    }
    assert_eq!(fixture.engine.waiting().len(), 1);
}

#[tokio::test]
async fn limits_of_the_owner_are_in_force_on_what_is_handed_over() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(1)).await;
    let own = Resources { memory_bytes: Some(64 << 20), cpu_millis: Some(500), ..Default::default() };
    let (workspace, steps) = steps(&host, CreateWorkspace::empty().id("own").resources(own)).await;
    workspace.unwrap();
    assert!(steps.contains(&Step::Claim) && !steps.contains(&Step::Create), "{steps:?}");
    let limits = fixture.engine.spec("corehold-own").resources;
    assert_eq!((limits.memory_bytes, limits.cpu_millis), (own.memory_bytes, own.cpu_millis));
    assert!(limits.pids.is_some(), "the host's");
}

#[tokio::test]
async fn a_class_with_the_limits_is_taken_first_and_no_limit_is_taken_away() {
    let fixture = fixture().await;
    let limited =
        |cpu_millis| Class::default().resources(Resources { cpu_millis: Some(cpu_millis), ..Default::default() });
    let builder = fixture.builder().pool(limited(500), exactly(1)).pool(limited(700), exactly(1));
    let host = builder.build().await.unwrap();
    for (cpu_millis, claimed) in [(None, [0, 0]), (Some(700), [0, 1]), (Some(300), [1, 1])] {
        host.pools_filled().await.unwrap();
        host.create(CreateWorkspace::empty().resources(Resources { cpu_millis, ..Default::default() })).await.unwrap();
        let pools = host.pools();
        assert_eq!([pools[0].claimed, pools[1].claimed], claimed, "{cpu_millis:?}");
    }
}

#[tokio::test]
async fn a_workspace_whose_limits_cant_be_had_is_not_made() {
    let script = EngineScript { update_limits: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let host = filled(&fixture, exactly(1)).await;
    let own = Resources { pids: Some(7), ..Default::default() };
    let error = host.create(CreateWorkspace::empty().resources(own)).await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Engine, Some(Step::Claim)));
    host.pools_filled().await.unwrap();
    assert_eq!(fixture.engine.names(), fixture.engine.waiting(), "nothing is left of it");
}

/// Its preview goes through the agent, so the port need not be known when the container is made.
#[tokio::test]
async fn a_template_on_any_port_is_handed_over_and_the_port_is_not_forgotten() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(1)).await;
    let other_port = fixture.template(r#"{"name": "port", "port": 8080}"#);
    let (workspace, steps) = steps(&host, CreateWorkspace::from_template(&other_port).id("other")).await;
    assert!(steps.contains(&Step::Claim) && !steps.contains(&Step::Create), "{steps:?}");
    let found = fixture.host.workspace("other").await.unwrap().info().await.unwrap();
    assert_eq!((found.preview_port, workspace.unwrap().info().await.unwrap().preview_port), (Some(8080), Some(8080)));
}

#[tokio::test]
async fn a_class_publishes_what_its_requests_want() {
    let fixture = fixture().await;
    let host = fixture.pooled_class(Class::default().publish(4321).publish(8080), exactly(1)).await;
    for (request, met) in [(CreateWorkspace::empty().publish(9), false), (CreateWorkspace::empty().publish(8080), true)]
    {
        host.pools_filled().await.unwrap();
        let (workspace, steps) = steps(&host, request).await;
        assert_eq!(steps.contains(&Step::Create), !met, "{steps:?}");
        assert!(!workspace.unwrap().info().await.unwrap().published.is_empty());
    }
}

#[tokio::test]
async fn a_pool_that_is_empty_too_often_grows() {
    let fixture = fixture().await;
    let host = filled(&fixture, PoolOptions::default().min(1).max(3).wait(Duration::ZERO)).await;
    for _ in 0..5 {
        let creations = (0..4).map(|_| async { host.create(CreateWorkspace::empty()).await.unwrap() });
        futures_util::future::join_all(creations).await;
    }
    let status = host.pools().remove(0);
    assert!(status.missed >= 2 && status.claimed >= 1, "{status:?}");
    assert_eq!(status.claimed + status.missed, 20, "{status:?}");
    assert_eq!(status.wanted, 3);
    host.pools_filled().await.unwrap();
    assert_eq!(fixture.engine.waiting().len(), 3, "and never beyond its bound");
}

#[tokio::test]
async fn a_claim_waits_for_one_that_is_on_its_way() {
    let gate = Arc::new(Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let host = fixture.pooled(exactly(1).wait(PATIENCE)).await;
    until(|| host.pools()[0].starting == 1).await;
    let creation = host.create(CreateWorkspace::empty().id("w"));
    let opening = async {
        until(|| host.pool(0).state().waiting == 1).await;
        gate.notify_one();
    };
    let (workspace, ()) = tokio::join!(creation, opening);
    workspace.unwrap();
    assert_eq!((host.pools()[0].claimed, host.pools()[0].missed), (1, 0));
    assert_eq!(host.pool(0).state().waiting, 0);
}

#[tokio::test]
async fn nothing_is_started_while_a_workspace_is_handed_over_unless_somebody_finds_the_pool_empty() {
    for empty in [false, true] {
        let fixture = fixture().await;
        let host = filled(&fixture, exactly(2)).await;
        let pool = host.pool(0);
        let (member, handing_over) = pool.take(tokio::time::Instant::now()).await.unwrap();
        // As if it had just begun, however long this takes.
        pool.state().held_since = Some(Instant::now() + PATIENCE * 2);
        fixture.engine.rename(&member.container, "corehold-taken").await.unwrap();
        assert!(pool.refill(&mut tokio::task::JoinSet::new()).await.is_some(), "it looks again when the time is up");
        assert_eq!((host.pools()[0].starting, host.pools()[0].ready), (0, 1));
        if empty {
            pool.missed();
        } else {
            drop(handing_over);
        }
        until(|| host.pools()[0].ready == 2).await;
    }
}

#[tokio::test]
async fn nothing_is_held_up_for_long_when_none_is_left() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(2)).await;
    let pool = host.pool(0);
    let (_first, first_on_its_way) = pool.take(tokio::time::Instant::now()).await.unwrap();
    let until_then = pool.state().held_until().expect("one is on its way");
    let (_second, second_on_its_way) = pool.take(tokio::time::Instant::now()).await.unwrap();
    assert!(pool.state().held_until().expect("two are on their way") < until_then, "none is left");
    drop((first_on_its_way, second_on_its_way));
    assert!(pool.state().held_until().is_none());
}

#[tokio::test]
async fn who_loses_a_claim_takes_the_next_one() {
    let script = EngineScript { no_events: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let first = filled(&fixture, exactly(3)).await;
    let second = filled(&fixture, exactly(3)).await;
    assert_eq!(fixture.engine.waiting().len(), 3, "they share it");
    // Without events the second doesn't hear that the first one took what it knows.
    first.create(CreateWorkspace::empty().id("a")).await.unwrap();
    second.create(CreateWorkspace::empty().id("b")).await.unwrap();
    assert_eq!((second.pools()[0].claimed, second.pools()[0].missed), (1, 0));
    for id in ["a", "b"] {
        fixture.host.workspace(id).await.unwrap().write_file("whose", id).await.unwrap();
    }
    assert_eq!(second.seat().records.all().await.len(), 2, "whoever lost took their record back");
}

#[tokio::test]
async fn a_claim_that_no_agent_takes_is_made_anew_and_nothing_is_used_up() {
    let claim = Some(Problem::new(Code::LimitExceeded, "too much"));
    let fixture = Fixture::new(EngineScript::default(), AgentScript { claim, ..AgentScript::default() }).await;
    let host = filled(&fixture, exactly(2)).await;
    let (workspace, steps) = steps(&host, CreateWorkspace::empty()).await;
    workspace.unwrap();
    assert!(steps.contains(&Step::Create), "{steps:?}");
    assert_eq!((fixture.engine.waiting().len(), host.pools()[0].ready), (2, 2));
    assert!(host.seat().records.all().await.is_empty());
}

#[tokio::test]
async fn one_whose_agent_is_gone_is_passed_over() {
    let script = EngineScript { no_events: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let host = filled(&fixture, exactly(2)).await;
    let first = host.pool(0).state().ready[0].container.clone();
    let name = fixture.engine.inspect(&first).await.unwrap().name;
    fixture.engine.silence(&name);
    host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    assert_eq!((host.pools()[0].claimed, host.pools()[0].missed), (1, 0));
    assert!(fixture.engine.names().contains(&name), "whose it is nobody knows, so it stays");
}

#[tokio::test]
async fn a_name_that_is_taken_leaves_nothing() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(1)).await;
    fixture.host.create(CreateWorkspace::empty().id("taken")).await.unwrap();
    let error = host.create(CreateWorkspace::empty().id("taken")).await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::AlreadyExists, Some(Step::Create)));
    host.pools_filled().await.unwrap();
    assert_eq!(fixture.engine.names().len(), 2, "the one that was there, and a new one that waits");
    assert!(host.seat().records.all().await.is_empty());
}

/// The agent may be claimed although nobody waits for its answer any more.
#[tokio::test]
async fn dropped_in_the_middle_of_a_claim_it_leaves_nothing_of_ours_and_all_of_others() {
    for (refusal, left) in [(None, 0), (Some(Problem::new(Code::AlreadyClaimed, "another's")), 1)] {
        let gate = Arc::new(Notify::new());
        let agent = AgentScript { claim_gate: Some(gate.clone()), claim: refusal, ..AgentScript::default() };
        let fixture = Fixture::new(EngineScript::default(), agent).await;
        let host = filled(&fixture, exactly(1)).await;
        let member = host.pool(0).state().ready[0].container.0.clone();
        let mut creation = host.create(CreateWorkspace::empty().id("w"));
        while host.seat().records.all().await.is_empty() {
            let polled = tokio::time::timeout(Duration::from_millis(1), creation.next_event());
            let _ = polled.await;
        }
        drop(creation);
        gate.notify_one();
        tokio::time::timeout(PATIENCE, host.settled()).await.expect("it is settled");
        let there = fixture.engine.ids().contains(&member);
        assert_eq!(usize::from(there), left);
        assert!(host.seat().records.all().await.is_empty());
    }
}

/// Claims as a host does, and is left before the engine knows whose it is. The host lives as long as it is held.
async fn claimed(fixture: &Fixture, workspace: &str) -> (Host, ContainerId) {
    let host = filled(fixture, exactly(1)).await;
    let pool = host.pool(0);
    let (member, _) = pool.take(tokio::time::Instant::now()).await.unwrap();
    let id = member.container.clone();
    let wish = Wish {
        workspace: workspace.parse().unwrap(),
        template: Some("web".to_owned()),
        created: Timestamp::now(),
        preview_port: Some(4321),
        env: Default::default(),
    };
    assert!(matches!(pool.clone().claim(member, wish).await, Outcome::Won(_)));
    (host, id)
}

/// Ends a host, as the end of its process does.
async fn ended(fixture: &Fixture, host: Host) {
    let name = host.inner.process.name().to_owned();
    drop(host);
    until(|| !fixture.host.inner.process.lives(&name)).await;
}

fn long_ago() -> Timestamp {
    Timestamp::from_unix(Timestamp::now().as_unix_seconds() - 100, 0)
}

/// No clock is waited for: its host is dead.
#[tokio::test]
async fn a_claim_that_was_cut_off_is_undone() {
    for forgotten in [false, true] {
        let fixture = fixture().await;
        let (host, id) = claimed(&fixture, "cut-off").await;
        if forgotten {
            host.seat().records.forget(&id, &"cut-off".parse().unwrap()).await;
        }
        ended(&fixture, host).await;
        let next = fixture.pooled(exactly(0)).await;
        until(|| !fixture.engine.ids().contains(&id.0)).await;
        until(|| host_is_idle(&next)).await;
        assert!(fixture.host.seat().records.all().await.iter().all(|record| record.container != id.0));
        assert!(fixture.host.list().await.unwrap().is_empty());
    }
}

/// What a workspace needs is only said to be ready when it has its name; one that was renamed since the listing is somebody's.
#[tokio::test]
async fn what_was_named_meanwhile_is_left_alone() {
    let fixture = fixture().await;
    let (host, id) = claimed(&fixture, "named").await;
    let listed = fixture.engine.inspect(&id).await.unwrap();
    fixture.engine.rename(&id, "corehold-named").await.unwrap();
    ended(&fixture, host).await;
    let next = fixture.pooled(exactly(0)).await;
    assert!(next.pool(0).examine(&listed).await.unwrap().is_none());
    assert!(fixture.engine.names().contains(&"corehold-named".to_owned()));
}

fn host_is_idle(host: &Host) -> bool {
    let pool = host.pool(0);
    let state = pool.state();
    state.attended.len() == state.ready.len()
}

#[tokio::test]
async fn a_claim_that_is_under_way_is_left_to_its_host() {
    let fixture = fixture().await;
    let (host, id) = claimed(&fixture, "fresh").await;
    let next = fixture.pooled(exactly(1)).await;
    until(|| next.pool(0).state().recheck.is_some()).await;
    next.drain_pools().await.unwrap();
    assert!(fixture.engine.inspect(&id).await.unwrap().name.contains("pool."), "neither renamed nor removed");
    // Its own host knows that nobody there is at it: an answer that never came leaves such a claim.
    host.drain_pools().await.unwrap();
    assert!(!fixture.engine.ids().contains(&id.0));
}

#[tokio::test]
async fn what_ended_or_was_restarted_is_replaced() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(2)).await;
    let before = fixture.engine.ids();
    let ids: Vec<_> = host.pool(0).state().ready.iter().map(|member| member.container.clone()).collect();
    fixture.engine.stop(&ids[0], Duration::ZERO).await.unwrap();
    until(|| !fixture.engine.ids().contains(&ids[0].0)).await;
    drop(host);
    // While nobody looks.
    fixture.engine.stop(&ids[1], Duration::ZERO).await.unwrap();
    fixture.engine.start(&ids[1]).await.unwrap();
    let host = fixture.pooled(exactly(2)).await;
    until(|| !fixture.engine.ids().contains(&ids[1].0)).await;
    until(|| host.pools()[0].ready == 2).await;
    assert!(before.iter().all(|id| !fixture.engine.ids().contains(id)));
}

/// Of what happened while the engine was away nobody tells.
#[tokio::test]
async fn what_a_restart_of_the_engine_ended_is_replaced_and_claims_are_made_meanwhile() {
    for ended in [true, false] {
        let fixture = fixture().await;
        let host = filled(&fixture, exactly(2)).await;
        let before = fixture.engine.ids();
        fixture.engine.go_away();
        until(|| host.pools()[0].ready == 0).await;
        if ended {
            fixture.engine.waiting().iter().for_each(|name| fixture.engine.set_status(name, ContainerStatus::Exited));
        }
        let (workspace, steps) = steps(&host, CreateWorkspace::empty().id("meanwhile")).await;
        workspace.unwrap();
        assert!(steps.contains(&Step::Create), "{steps:?}");
        fixture.engine.come_back();
        until(|| host.pools()[0].ready == 2).await;
        let kept = before.iter().filter(|id| fixture.engine.ids().contains(id)).count();
        assert_eq!(kept, if ended { 0 } else { 2 });
        assert_eq!((fixture.engine.waiting().len(), host.pools()[0].failure.clone()), (2, None));
    }
}

/// Containers of a host that was configured otherwise: nobody keeps them, and nobody would claim them.
#[tokio::test]
async fn what_has_waited_too_long_is_replaced_whosever_class_it_is() {
    let fixture = fixture().await;
    let other = fixture.pooled_class(Class::default().publish(9), exactly(1)).await;
    other.pools_filled().await.unwrap();
    let host = filled(&fixture, exactly(2)).await;
    let before = fixture.engine.ids();
    drop(other);
    fixture.engine.backdate(labels::EXPIRES, &long_ago().to_string());
    look_again(&host);
    until(|| before.iter().all(|id| !fixture.engine.ids().contains(id))).await;
    host.pools_filled().await.unwrap();
    assert_eq!(fixture.engine.waiting().len(), 2);
}

#[tokio::test]
async fn a_limit_of_disk_is_brought_by_the_claim_where_the_host_looks_after_it() {
    let sized = |bytes: u64| Resources { disk_bytes: Some(bytes << 20), ..Default::default() };
    for (quotas, fixed) in [(false, false), (false, true), (true, false)] {
        let script = EngineScript { quotas, limits_are_fixed: fixed, ..EngineScript::default() };
        let fixture = Fixture::new(script, AgentScript::default()).await;
        let host = fixture.pooled_class(Class::default().resources(sized(100)), exactly(1)).await;
        host.pools_filled().await.unwrap();
        host.create(CreateWorkspace::empty().id("other").resources(sized(200))).await.unwrap();
        assert_eq!(host.pools()[0].claimed, u64::from(!quotas), "quotas: {quotas}, fixed: {fixed}");
        let info = host.workspace("other").await.unwrap().info().await.unwrap();
        assert_eq!(info.resources.unwrap().disk_bytes, Some(200 << 20));
        host.pools_filled().await.unwrap();
        host.create(CreateWorkspace::empty().id("same").resources(sized(100))).await.unwrap();
        assert_eq!(host.pools()[0].claimed, 1 + u64::from(!quotas));
        if quotas {
            let given = fixture.engine.spec("corehold-other").resources.disk_bytes;
            assert_eq!(given, Some(200 << 20), "made with it");
        }
    }
}

fn look_again(host: &Host) {
    host.pool(0).state().recheck = Some(Instant::now());
    host.pool(0).wanted.notify_one();
}

#[tokio::test]
async fn a_start_that_fails_is_told_and_leaves_nothing() {
    let fixture = Fixture::new(EngineScript { start: true, ..EngineScript::default() }, AgentScript::default()).await;
    let host = fixture.pooled(exactly(2)).await;
    let error = tokio::time::timeout(PATIENCE, host.pools_filled()).await.expect("it is told").unwrap_err();
    assert!(error.to_string().contains("the fake engine fails at start"), "{error}");
    assert!(host.pools()[0].failure.is_some());
    until(|| fixture.engine.names().is_empty()).await;
}

#[tokio::test]
async fn hosts_that_fill_a_pool_at_once_never_overfill_it() {
    let fixture = fixture().await;
    let options = PoolOptions::default().min(3).max(8);
    let hosts = futures_util::future::join_all((0..4).map(|_| filled(&fixture, options.clone()))).await;
    for host in &hosts {
        until(|| host.pools()[0].ready == 3 && host_is_idle(host)).await;
    }
    assert_eq!(fixture.engine.waiting().len(), 3);
}

#[test]
fn options_that_cant_be_meant_are_refused() {
    for options in
        [exactly(2).min(3), exactly(20_000), exactly(1).starts_at_once(0), exactly(1).max_age(Duration::ZERO)]
    {
        assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
    PoolOptions::default().check().unwrap();
    exactly(0).check().unwrap();
}
