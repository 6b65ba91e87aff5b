//! The image of a pool: missing, pulled, built anew.

use super::*;
use crate::{
    EventKind,
    policy::{Images, Policy},
};

#[tokio::test]
async fn a_missing_image_is_pulled_and_told_before_the_pool_is_filled() {
    let fixture = fixture().await;
    fixture.engine.images.missing.lock().unwrap().insert("acme/web:1".to_owned());
    fixture.engine.images.failing_pulls.store(1, std::sync::atomic::Ordering::Relaxed);
    let host = fixture.pooled_class(Class::default().image("acme/web:1"), exactly(1)).await;
    let failed = tokio::time::timeout(PATIENCE, host.pools_filled()).await.expect("it is told").unwrap_err();
    assert!(failed.to_string().contains("acme/web:1"), "{failed}");
    until(|| host.pools()[0].ready == 1).await;
    let pulls = fixture.engine.images.pulls.lock().unwrap().clone();
    assert_eq!((pulls.len(), host.pools()[0].failure.clone()), (2, None), "one failed, the next did not: {pulls:?}");
    host.create(CreateWorkspace::empty().image("acme/web:1")).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1);
    // Removed under a pool that is there.
    let mut events = host.events();
    fixture.engine.images.missing.lock().unwrap().insert("acme/web:1".to_owned());
    look_again(&host);
    let mut told = Vec::new();
    while told.len() < 2 {
        match events.next().await.unwrap().kind {
            EventKind::PoolImagePulling { image } => told.push(("pulling", image)),
            EventKind::PoolImagePulled { image, .. } => told.push(("pulled", image)),
            _ => {}
        }
    }
    assert_eq!(told, [("pulling", "acme/web:1".to_owned()), ("pulled", "acme/web:1".to_owned())]);
}

#[tokio::test]
async fn what_may_not_be_pulled_is_waited_for() {
    let images = |host: &Host| host.pools()[0].failure.clone();
    for (image, pulls, policy) in [
        ("acme/web:1", false, Policy::new()),
        ("acme/web:1", true, Policy::new().images(Images::default())),
        // Our own, and the host's, are in no registry.
        ("workspace-python:latest", true, Policy::new()),
        ("workspace-core:latest", true, Policy::new()),
    ] {
        let fixture = fixture().await;
        fixture.engine.images.missing.lock().unwrap().insert(image.to_owned());
        let builder = fixture.builder().policy(policy).pull_missing(pulls);
        let host = builder.pool(Class::default().image(image), exactly(1)).build().await.unwrap();
        until(|| images(&host).is_some()).await;
        assert!(fixture.engine.images.pulls.lock().unwrap().is_empty());
        // Somebody makes it.
        fixture.engine.images.missing.lock().unwrap().clear();
        until(|| host.pools()[0].ready == 1).await;
    }
}

#[tokio::test]
async fn an_image_that_is_built_anew_is_another_class() {
    let fixture = fixture().await;
    let host = filled(&fixture, exactly(2)).await;
    let before = fixture.engine.ids();
    fixture.engine.images.builds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    look_again(&host);
    until(|| before.iter().all(|id| !fixture.engine.ids().contains(id))).await;
    host.pools_filled().await.unwrap();
    host.create(CreateWorkspace::empty().id("new")).await.unwrap();
    let spec = fixture.engine.spec("corehold-new");
    assert_eq!((spec.image.as_str(), host.pools()[0].claimed), ("workspace-core:latest@1", 1));
}

#[tokio::test]
async fn one_that_is_started_while_its_image_is_built_anew_is_not_handed_out() {
    let gate = Arc::new(Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let host = fixture.pooled(exactly(1)).await;
    until(|| host.pools()[0].starting == 1).await;
    let before = host.pool(0).blank().slot(0);
    fixture.engine.images.builds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    look_again(&host);
    until(|| host.pool(0).blank().slot(0) != before).await;
    gate.notify_one();
    until(|| host.pools()[0].starting == 1 && fixture.engine.ids().is_empty()).await;
    gate.notify_one();
    host.pools_filled().await.unwrap();
    let waiting = fixture.engine.waiting();
    assert_eq!((waiting.len(), fixture.engine.spec(&waiting[0]).image.as_str()), (1, "workspace-core:latest@1"));
}
