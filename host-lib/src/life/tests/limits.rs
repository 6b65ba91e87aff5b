//! Limits that are changed while a workspace is there.

use super::*;
use crate::{
    policy::{Account, Plan, Policy, Totals},
    runtime::Resources,
};

const MIB: u64 = 1 << 20;

fn memory(mib: u64) -> Resources {
    Resources { memory_bytes: Some(mib * MIB), ..Resources::default() }
}

fn in_force(fixture: &Fixture, name: &str) -> Option<u64> {
    fixture.engine.spec(name).resources.memory_bytes.map(|bytes| bytes / MIB)
}

async fn asked(workspace: &Workspace) -> (Option<u64>, Option<u64>) {
    let limits = workspace.info().await.unwrap().resources.unwrap();
    (limits.memory_bytes.map(|bytes| bytes / MIB), limits.cpu_millis)
}

#[tokio::test]
async fn changed_limits_are_in_force_at_once_and_stay() {
    let (fixture, _bed, host) = with_bed().await;
    let request = CreateWorkspace::empty().id("web").resources(memory(256));
    let workspace = host.create(request).await.unwrap();
    workspace.set_resources(Resources { cpu_millis: Some(700), ..memory(512) }).await.unwrap();
    assert_eq!((in_force(&fixture, "corehold-web"), asked(&workspace).await), (Some(512), (Some(512), Some(700))));
    // What isn't given stays, and what it is doing too.
    workspace.pause().await.unwrap();
    workspace.set_resources(memory(300)).await.unwrap();
    assert_eq!(state(&workspace).await, WorkspaceState::Paused);
    assert_eq!((in_force(&fixture, "corehold-web"), asked(&workspace).await), (Some(300), (Some(300), Some(700))));
    workspace.restart(GRACE).await.unwrap();
    assert_eq!(in_force(&fixture, "corehold-web"), Some(300));
    workspace.stop(GRACE).await.unwrap();
    workspace.set_resources(memory(128)).await.unwrap();
    assert_eq!(in_force(&fixture, "corehold-web"), Some(128));
    workspace.start().await.unwrap();
    workspace.write_file("kept", "x").await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    workspace.set_resources(memory(200)).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!((in_force(&fixture, "corehold-web"), asked(&workspace).await), (Some(200), (Some(200), Some(700))));
    let entry = host.inner.store.get(workspace.id()).await.unwrap().unwrap();
    assert!(!entry.recipe.limits_pending);
    for odd in [memory(0), Resources { pids: Some(0), ..Resources::default() }] {
        assert_eq!(workspace.set_resources(odd).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    workspace.remove().await.unwrap();
    assert_eq!(workspace.set_resources(memory(300)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn more_than_there_is_is_refused_and_less_never_is() {
    let (fixture, _bed, _) = with_bed().await;
    let totals = Totals::unlimited().memory_bytes(1000 * MIB);
    let plan = Plan::new("small").workspace(memory(600));
    let host = fixture.builder().policy(Policy::new().plan(plan).host(totals)).build().await.unwrap();
    let create = |id: &str| host.create(CreateWorkspace::empty().id(id).owner("ada").resources(memory(400)));
    let (one, two) = (create("one").await.unwrap(), create("two").await.unwrap());

    let refused = one.set_resources(memory(700)).await.unwrap_err();
    assert!(refused.quota().unwrap().of_each, "{refused}");
    one.set_resources(memory(600)).await.unwrap();
    let refused = two.set_resources(memory(401)).await.unwrap_err();
    let quota = refused.quota().unwrap();
    assert_eq!((&quota.account, quota.used, quota.limit), (&Account::Host, 600 * MIB, 1000 * MIB));
    assert_eq!((in_force(&fixture, "corehold-two"), asked(&two).await.0), (Some(400), Some(400)));
    // Of what rests it is asked when it runs again.
    two.stop(GRACE).await.unwrap();
    two.set_resources(memory(500)).await.unwrap();
    assert_eq!(two.start().await.unwrap_err().kind(), ErrorKind::Quota);
    two.set_resources(memory(100)).await.unwrap();
    two.start().await.unwrap();
    // Totals that were lowered since are in nobody's way who wants less, or more of something else.
    host.set_totals(&Account::Host, Some(Totals::unlimited().memory_bytes(MIB))).await.unwrap();
    two.set_resources(memory(90)).await.unwrap();
    two.set_resources(Resources { pids: Some(99), ..Resources::default() }).await.unwrap();
    assert_eq!(two.set_resources(memory(91)).await.unwrap_err().kind(), ErrorKind::Quota);
}

#[tokio::test]
async fn of_all_who_ask_for_more_at_once_as_many_get_it_as_there_is_room_for() {
    let (fixture, _bed, _) = with_bed().await;
    let totals = Totals::unlimited().memory_bytes(1000 * MIB);
    let host = fixture.builder().policy(Policy::new().host(totals)).build().await.unwrap();
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(host.create(CreateWorkspace::empty().resources(memory(100))).await.unwrap());
    }
    let asked = all.iter().map(|workspace| workspace.set_resources(memory(150)));
    let results = futures_util::future::join_all(asked).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    let used = host.usage(&Account::Host).await.unwrap().used.memory_bytes;
    assert_eq!(used, Some(1000 * MIB));
    let names = all.iter().map(|workspace| format!("corehold-{}", workspace.id()));
    assert_eq!(names.filter_map(|name| in_force(&fixture, &name)).sum::<u64>(), 1000);
}

#[tokio::test]
async fn what_the_engine_refuses_is_not_written_down() {
    let script = EngineScript { update_limits: true, ..EngineScript::default() };
    let fixture = Fixture::new(script, AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().resources(memory(256))).await.unwrap();
    assert_eq!(workspace.set_resources(memory(512)).await.unwrap_err().kind(), ErrorKind::Engine);
    assert_eq!(asked(&workspace).await.0, Some(256));

    let fixed = EngineScript { limits_are_fixed: true, ..EngineScript::default() };
    let fixture = Fixture::new(fixed, AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().resources(memory(256))).await.unwrap();
    assert_eq!(workspace.set_resources(memory(512)).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A host that is killed between writing limits down and changing them.
#[tokio::test]
async fn what_a_killed_host_had_written_down_is_given_to_the_container() {
    let (fixture, _bed, host) = with_bed().await;
    let workspace = host.create(CreateWorkspace::empty().id("web").resources(memory(256))).await.unwrap();
    let pending = async |mib| {
        let mut entry = host.inner.store.get(workspace.id()).await.unwrap().unwrap();
        let before = entry.recipe.resources();
        entry.recipe.memory_bytes = Some(mib * MIB);
        entry.recipe.limits_pending = true;
        host.inner.store.put_limits(entry, before).await.unwrap().unwrap();
    };
    pending(512).await;
    let reconciled = host.reconcile().await.unwrap();
    assert_eq!((reconciled.finished.len(), in_force(&fixture, "corehold-web")), (1, Some(512)));
    assert!(host.reconcile().await.unwrap().is_empty());
    // A start does so too, without anybody who reconciles.
    workspace.stop(GRACE).await.unwrap();
    pending(128).await;
    workspace.start().await.unwrap();
    assert_eq!(in_force(&fixture, "corehold-web"), Some(128));
}
