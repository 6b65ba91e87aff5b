//! What is found after anything happened while no host looked.

use super::*;
use crate::runtime::Runtime as _;

fn ids(all: &[crate::WorkspaceId]) -> Vec<&str> {
    all.iter().map(crate::WorkspaceId::as_str).collect()
}

#[tokio::test]
async fn a_container_that_was_removed_behind_our_back_is_no_workspace() {
    let fixture = fixture().await;
    let host = another(&fixture).await;
    for id in ["gone", "here"] {
        host.create(CreateWorkspace::empty().id(id)).await.unwrap();
    }
    fixture.engine.forget("corehold-gone");
    assert_eq!(host.list().await.unwrap().len(), 1, "a listing knows it already");
    let reconciled = host.reconcile().await.unwrap();
    assert_eq!((ids(&reconciled.gone), reconciled.failed.len()), (vec!["gone"], 0));
    assert_eq!(host.workspace("gone").await.unwrap_err().kind(), ErrorKind::NotFound);
    host.create(CreateWorkspace::empty().id("gone")).await.expect("its name is free again");
    assert!(host.reconcile().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_whose_container_is_gone_is_free_without_a_reconcile() {
    let fixture = fixture().await;
    let host = another(&fixture).await;
    host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    fixture.engine.forget("corehold-w");
    host.create(CreateWorkspace::empty().id("w")).await.unwrap();
}

#[tokio::test]
async fn a_lost_store_loses_no_workspace() {
    let fixture = fixture().await;
    let host = fixture.pooled(crate::PoolOptions::default().min(1).max(1)).await;
    host.pools_filled().await.unwrap();
    let template = fixture.template(DEV);
    host.create(CreateWorkspace::from_template(&template).id("pooled")).await.unwrap();
    let made = CreateWorkspace::from_template(&template).id("made").label("mine", "1");
    host.create(made).await.unwrap().stop(GRACE).await.unwrap();
    let before = host.list().await.unwrap();
    let home = host.home().to_owned();
    // Those in use keep the file that is gone; a host that begins finds none.
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(home.join(name)).unwrap();
    }
    let next = another(&fixture).await;
    assert_eq!(next.list().await.unwrap(), before, "nothing of it is needed to list");
    let reconciled = next.reconcile().await.unwrap();
    let mut adopted = ids(&reconciled.adopted);
    adopted.sort_unstable();
    assert_eq!((adopted, reconciled.failed.len()), (vec!["made", "pooled"], 0));
    assert_eq!(next.list().await.unwrap(), before);
    next.workspace("made").await.unwrap().start().await.unwrap();
    next.workspace("pooled").await.unwrap().restart(GRACE).await.unwrap();
    for id in ["made", "pooled"] {
        next.workspace(id).await.unwrap().write_file("a", "b").await.unwrap();
        assert_eq!(fixture.engine.dev_servers(&format!("corehold-{id}")), 1, "its template says what to start");
        next.workspace(id).await.unwrap().remove().await.unwrap();
    }
    assert!(next.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_that_nobody_adopted_can_be_stopped_and_removed() {
    let fixture = fixture().await;
    let host = another(&fixture).await;
    for id in ["a", "b"] {
        host.create(CreateWorkspace::empty().id(id)).await.unwrap();
    }
    for entry in host.inner.store.all().await.unwrap() {
        host.inner.store.delete(&entry).await.unwrap();
    }
    host.workspace("a").await.unwrap().stop(GRACE).await.unwrap();
    assert_eq!(host.list().await.unwrap().len(), 2);
    for id in ["a", "b"] {
        host.workspace(id).await.unwrap().remove().await.unwrap();
    }
    assert!(fixture.engine.names().is_empty() && host.inner.store.all().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_in_another_engine_is_not_taken_for_gone() {
    let fixture = fixture().await;
    let host = another(&fixture).await;
    host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let engine = Arc::new(crate::testing::FakeEngine::new(EngineScript::default(), AgentScript::default()));
    engine.is_called("another");
    let other = fixture.builder().runtime(engine).reconciles(false).build().await.unwrap();
    assert!(other.reconcile().await.unwrap().is_empty());
    assert!(other.list().await.unwrap().is_empty());
    let error = other.workspace("w").await.unwrap_err();
    assert!(error.to_string().contains("in another engine (fake)"), "{error}");
    let error = host.workspace("w").await.unwrap().stop(GRACE).await;
    error.unwrap();
    assert_eq!(other.create(CreateWorkspace::empty().id("w")).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_happens_while_a_host_runs_it_takes_note_of() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let written = || async {
        let entry = fixture.host.inner.store.get(workspace.id()).await.unwrap();
        entry.map(|entry| entry.state)
    };
    let mut events = fixture.host.events();
    fixture.engine.stop(&workspace.container(), GRACE).await.unwrap();
    until(|| async { written().await == Some(WorkspaceState::Stopped) }).await;
    let told = crate::EventKind::Transition {
        from: WorkspaceState::Ready,
        to: WorkspaceState::Stopped,
        cause: TransitionCause::Engine,
    };
    while events.next().await.unwrap().kind != told {}
    fixture.engine.remove(&workspace.container()).await.unwrap();
    until(|| async { written().await.is_none() }).await;
}
