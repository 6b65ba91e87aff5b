//! One workspace for an owner.

use super::*;

#[tokio::test]
async fn however_many_ask_at_once_there_is_one() {
    let fixture = fixture().await;
    let hosts = [fixture.host.clone(), another(&fixture).await, another(&fixture).await];
    let template = fixture.template(DEV);
    let ask = |number: usize| {
        hosts[number % 3]
            .get_or_create(if number < 15 { "ada" } else { "bob" }, CreateWorkspace::from_template(&template))
    };
    let got = futures_util::future::join_all((0..20).map(ask)).await;
    let ids: Vec<String> = got.into_iter().map(|got| got.unwrap().id().to_string()).collect();
    assert!(ids[..15].iter().all(|id| *id == ids[0]) && ids[15..].iter().all(|id| *id == ids[15]), "{ids:?}");
    assert_ne!(ids[0], ids[15]);
    assert_eq!(fixture.engine.names().len(), 2);
    let infos = fixture.host.list().await.unwrap();
    assert!(infos.iter().any(|info| info.owner.as_deref() == Some("ada") && info.id.as_str() == ids[0]));
}

#[tokio::test]
async fn whatever_it_is_doing_it_is_ready_then() {
    let fixture = fixture().await;
    let get = || fixture.host.get_or_create("ada", CreateWorkspace::empty());
    let workspace = get().await.unwrap();
    workspace.stop(GRACE).await.unwrap();
    get().await.unwrap().write_file("a", "b").await.unwrap();
    workspace.pause().await.unwrap();
    get().await.unwrap().write_file("a", "b").await.unwrap();
    assert_eq!(fixture.engine.names().len(), 1);
    workspace.remove().await.unwrap();
    assert_ne!(get().await.unwrap().id(), workspace.id(), "and where there is none, one is made");
    // Behind our back.
    let gone = get().await.unwrap();
    fixture.engine.forget(&format!("corehold-{}", gone.id()));
    assert_ne!(get().await.unwrap().id(), gone.id());
}

#[tokio::test]
async fn a_creation_that_fails_is_each_callers_own_and_leaves_nothing() {
    let script = EngineScript { start: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let asked = (0..4).map(|_| fixture.host.get_or_create("ada", CreateWorkspace::empty()));
    for got in futures_util::future::join_all(asked).await {
        assert!(got.unwrap_err().to_string().contains("fails at start"));
    }
    assert!(fixture.engine.names().is_empty());
    assert_eq!(fixture.host.inner.store.all().await.unwrap(), []);
}

#[tokio::test]
async fn one_who_gives_up_leaves_it_to_those_who_wait() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let mut first = Box::pin(fixture.host.get_or_create("ada", CreateWorkspace::empty()));
    let making = async { until(|| async { fixture.host.inner.store.by_owner("ada").await.unwrap().is_some() }).await };
    tokio::select! {
        _ = &mut first => panic!("it waits at the gate"),
        () = making => {}
    }
    let other = another(&fixture).await;
    let second = tokio::spawn(async move { other.get_or_create("ada", CreateWorkspace::empty()).await });
    drop(first);
    gate.notify_one();
    fixture.host.settled().await;
    gate.notify_one();
    let workspace = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    assert_eq!(fixture.engine.names(), [format!("corehold-{}", workspace.id())]);
}

#[tokio::test]
async fn an_owner_that_is_none_and_a_name_that_is_taken_are_refused() {
    let fixture = fixture().await;
    for owner in ["", "a\0b", &"x".repeat(257)] {
        let error = fixture.host.get_or_create(owner, CreateWorkspace::empty()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    fixture.host.create(CreateWorkspace::empty().id("taken")).await.unwrap();
    let error = fixture.host.get_or_create("ada", CreateWorkspace::empty().id("taken")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

/// Regression: it was taken for somebody else's being faster, and tried again for ever.
#[tokio::test]
async fn a_conflict_that_is_no_names_is_told() {
    let engine = EngineScript { create: Some(ErrorKind::Conflict), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    for request in [CreateWorkspace::empty(), CreateWorkspace::empty().id("w")] {
        let asked = fixture.host.get_or_create("ada", request);
        let error = tokio::time::timeout(PATIENCE, asked).await.expect("it is told").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
}
