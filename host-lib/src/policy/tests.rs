//! Rules over an engine in memory: what is admitted, counted, and given back.

mod isolations;
mod places;
mod volumes;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::*;
use crate::{
    CreateWorkspace, Host, WorkspaceState,
    testing::{AgentScript, EngineScript, Fixture},
};

const GRACE: Duration = Duration::ZERO;
const MIB: u64 = 1 << 20;

async fn fixture() -> Fixture {
    Fixture::new(EngineScript::default(), AgentScript::default()).await
}

async fn ruled(fixture: &Fixture, policy: Policy) -> Host {
    fixture.builder().policy(policy).build().await.unwrap()
}

fn sized(mib: u64) -> CreateWorkspace {
    let memory_bytes = Some(mib * MIB);
    CreateWorkspace::empty().resources(Resources { memory_bytes, cpu_millis: Some(500), ..Resources::default() })
}

fn quota(result: Result<impl std::fmt::Debug>) -> Quota {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Quota, "{error}");
    assert!(error.hint_text().is_some());
    error.quota().unwrap().clone()
}

fn owner(name: &str) -> Account {
    Account::Owner(name.to_owned())
}

#[tokio::test]
async fn of_all_who_ask_at_once_as_many_get_one_as_there_is_room_for() {
    let fixture = fixture().await;
    let policy = Policy::new().host(Totals::unlimited().workspaces(37));
    let hosts = [ruled(&fixture, policy.clone()).await, ruled(&fixture, policy.clone()).await];
    let create = |number: usize| {
        let creation = hosts[number % 2].create(CreateWorkspace::empty().owner(format!("owner {}", number % 7)));
        async move { creation.await.map(|workspace| workspace.id().clone()) }
    };
    let all = futures_util::future::join_all((0..100).map(create)).await;
    let (made, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (37, 63));
    for refused in refused {
        let quota = quota(refused);
        assert_eq!((quota.account, quota.limit, quota.used, quota.asked), (Account::Host, 37, 37, 1));
    }
    assert_eq!(fixture.engine.names().len(), 37, "for what was refused the engine was asked nothing");
    hosts[0].workspace(made[0].as_ref().unwrap().as_str()).await.unwrap().remove().await.unwrap();
    create(0).await.unwrap();
    quota(create(0).await);
}

#[test]
fn what_a_killed_host_had_begun_counts_until_it_is_cleared_away() {
    // Its engine takes longer than the host lives.
    let gate = Arc::new(Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let policy = Policy::new().host(Totals::unlimited().workspaces(5));
    let doomed = tokio::runtime::Runtime::new().unwrap();
    let fixture = doomed.block_on(async {
        let fixture = Fixture::new(engine, AgentScript::default()).await;
        let host = ruled(&fixture, policy.clone()).await;
        for _ in 0..5 {
            tokio::spawn(host.create(CreateWorkspace::empty()));
        }
        while fixture.host.inner.store.all().await.unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        quota(host.create(CreateWorkspace::empty()).await);
        fixture
    });
    // With all that its hosts were at.
    drop(doomed);

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let host = fixture.builder().policy(policy).reconciles(false).build().await.unwrap();
        quota(host.create(CreateWorkspace::empty()).await);
        assert_eq!(host.reconcile().await.unwrap().undone.len(), 5);
        let opened = tokio::spawn(async move {
            loop {
                gate.notify_waiters();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let again = (0..8).map(|_| host.create(CreateWorkspace::empty()));
        let again = futures_util::future::join_all(again).await;
        opened.abort();
        assert_eq!(again.iter().filter(|made| made.is_ok()).count(), 5);
        assert_eq!(host.usage(&Account::Host).await.unwrap().used.workspaces, Some(5));
    });
}

#[tokio::test]
async fn an_owners_plan_limits_each_workspace_and_all_together() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().plans(Plan::shipped())).await;

    // Nobody gave ada a plan: she has the least.
    let asked = host.create(CreateWorkspace::empty().owner("ada")).await.unwrap();
    let spec = fixture.engine.spec(&format!("corehold-{}", asked.id()));
    assert_eq!((spec.resources.memory_bytes, spec.resources.cpu_millis), (Some(128 * MIB), Some(250)));
    let refused = quota(host.create(CreateWorkspace::empty().owner("ada")).await);
    assert_eq!((refused.account, refused.measure, refused.limit), (owner("ada"), Measure::Workspaces, 1));
    assert_eq!(refused.plan.as_deref(), Some("free"));

    let too_large = quota(host.create(sized(256).owner("bob")).await);
    assert_eq!((too_large.measure, too_large.limit, too_large.asked), (Measure::Memory, 128 * MIB, 256 * MIB));
    let template = fixture.template(r#"{"name": "web", "resources": {"memory": "1GiB"}}"#);
    assert!(quota(host.create(CreateWorkspace::from_template(&template).owner("bob")).await).of_each);

    host.set_plan("ada", Some("pro")).await.unwrap();
    for _ in 0..2 {
        host.create(CreateWorkspace::empty().owner("ada")).await.unwrap();
    }
    assert_eq!(quota(host.create(CreateWorkspace::empty().owner("ada")).await).plan.as_deref(), Some("pro"));
    let usage = host.usage(&owner("ada")).await.unwrap();
    assert_eq!(
        (usage.plan.as_deref(), usage.used.workspaces, usage.limits.workspaces),
        (Some("pro"), Some(3), Some(3))
    );
    assert_eq!(usage.used.memory_bytes, Some((128 + 512 + 512) * MIB));

    let error = host.set_plan("ada", Some("gold")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint_text().unwrap().contains("enterprise"));
    // Of nobody's only the host's totals speak.
    host.create(sized(4096)).await.unwrap();
    // A plan that there is no more is the least.
    host.set_plan("ada", Some("enterprise")).await.unwrap();
    let fewer = ruled(&fixture, Policy::new().plans(Plan::shipped().into_iter().take(2))).await;
    assert_eq!(fewer.usage(&owner("ada")).await.unwrap().plan.as_deref(), Some("free"));
}

#[tokio::test]
async fn what_rests_takes_no_memory_and_is_refused_where_there_is_none_left_for_it() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().each_team(Totals::unlimited().memory_bytes(1024 * MIB))).await;
    let in_team = |mib| sized(mib).team("acme");
    let first = host.create(in_team(600)).await.unwrap();
    let refused = quota(host.create(in_team(600)).await);
    assert_eq!((refused.account, refused.used), (Account::Team("acme".into()), 600 * MIB));
    first.stop(GRACE).await.unwrap();
    let second = host.create(in_team(600)).await.unwrap();
    assert_eq!(quota(first.start().await).asked, 600 * MIB);
    assert_eq!(first.state().await.unwrap(), WorkspaceState::Stopped);
    second.pause().await.unwrap();
    quota(first.start().await);
    second.stop(GRACE).await.unwrap();
    first.start().await.unwrap();
    first.restart(GRACE).await.unwrap();
    host.create(sized(4096).team("other's")).await.unwrap_err();
}

#[tokio::test]
async fn an_accounts_own_totals_come_before_its_plans() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().plans(Plan::shipped())).await;
    let create = |host: &Host| host.create(CreateWorkspace::empty().owner("ada").team("acme"));
    host.set_totals(&owner("ada"), Some(Totals::unlimited().workspaces(2))).await.unwrap();
    let kept = create(&host).await.unwrap();
    create(&host).await.unwrap();
    quota(create(&host).await);
    // Below what there is: nothing is taken away, and nothing is added.
    host.set_totals(&Account::Team("acme".into()), Some(Totals::unlimited().workspaces(1))).await.unwrap();
    host.set_totals(&owner("ada"), Some(Totals::unlimited())).await.unwrap();
    let refused = quota(create(&host).await);
    assert_eq!((refused.account, refused.used, refused.limit), (Account::Team("acme".into()), 2, 1));
    kept.restart(GRACE).await.unwrap();
    kept.stop(GRACE).await.unwrap();
    kept.start().await.unwrap();
    for account in [owner("ada"), Account::Team("acme".into())] {
        host.set_totals(&account, None).await.unwrap();
    }
    assert_eq!(host.usage(&owner("ada")).await.unwrap().limits.workspaces, Some(1), "its plan's again");
    // Whatever its name is.
    let odd = owner("'; DROP TABLE accounts; --\u{1f980}");
    host.set_totals(&odd, Some(Totals::unlimited().cpu_millis(1))).await.unwrap();
    assert_eq!(host.usage(&odd).await.unwrap().limits.cpu_millis, Some(1));
    assert_eq!(host.usage(&owner("")).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn where_cpu_is_counted_a_workspace_without_a_limit_of_it_is_not_admitted() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().host(Totals::unlimited().cpu_millis(1000))).await;
    let refused = quota(host.create(CreateWorkspace::empty()).await);
    assert_eq!((refused.measure, refused.asked), (Measure::Cpu, 0));
    assert!(refused.to_string().contains("without a limit"), "{refused}");
    host.create(sized(64)).await.unwrap();
    host.create(sized(64)).await.unwrap();
    assert_eq!(quota(host.create(sized(64)).await).used, 1000);
}

#[tokio::test]
async fn the_owners_only_workspace_is_found_by_all_who_ask_for_it_at_once() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().plans(Plan::shipped())).await;
    let asked = (0..20).map(|_| host.get_or_create("ada", CreateWorkspace::empty()));
    let got = futures_util::future::join_all(asked).await;
    let ids: Vec<_> = got.into_iter().map(|got| got.unwrap().id().clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn an_image_that_is_not_allowed_is_not_asked_for() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().images(Images::allow(["node"]).unwrap())).await;
    let error = host.create(CreateWorkspace::empty().image("evil.example/node")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    let template = fixture.template(r#"{"name": "web", "image": "python:3"}"#);
    let error = host.create(CreateWorkspace::from_template(&template)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Forbidden && error.to_string().contains("docker.io/library/python:3"),
        "{error}"
    );
    assert!(fixture.engine.names().is_empty());
    host.create(CreateWorkspace::empty()).await.unwrap();
}

#[tokio::test]
async fn limits_that_cannot_be_are_named_before_anything_is_made() {
    let fixture = fixture().await;
    let none = Resources::default();
    for resources in [
        Resources { memory_bytes: Some(0), ..none },
        Resources { memory_bytes: Some(u64::MAX), ..none },
        Resources { cpu_millis: Some(0), ..none },
        Resources { pids: Some(u64::MAX), ..none },
    ] {
        let error = fixture.host.create(CreateWorkspace::empty().resources(resources)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{resources:?}");
        let plan = Plan::new("odd").workspace(resources);
        let error = fixture.builder().policy(Policy::new().plan(plan)).build().await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("odd"), "{error}");
    }
    assert!(fixture.engine.names().is_empty());
}

#[test]
fn a_quota_says_whose_it_is_of_what_and_how_much() {
    let quota = |measure, limit, used, asked, of_each| Quota {
        account: owner("ada"),
        measure,
        limit,
        used,
        asked,
        of_each,
        plan: Some("free".to_owned()),
    };
    let told = [
        quota(Measure::Workspaces, 3, 3, 1, false),
        quota(Measure::Memory, 1024 * MIB, 900 * MIB, 512 * MIB, false),
        quota(Measure::Cpu, 250, 0, 1500, true),
        quota(Measure::Cpu, 250, 0, 0, false),
    ]
    .map(|quota| quota.to_string());
    let wanted = [
        r#"the owner "ada" has 3 of at most 3 workspaces (plan free)"#,
        r#"the owner "ada" has 900 MiB of at most 1024 MiB of memory; 512 MiB more is too much (plan free)"#,
        r#"1.5 of CPU is more than a workspace of the owner "ada" may have: 0.25 (plan free)"#,
        r#"the owner "ada" may have 0.25 of CPU together, and no workspace without a limit of it (plan free)"#,
    ];
    assert_eq!(told, wanted);
}

#[test]
fn a_plan_has_one_meaning_and_who_has_none_has_the_least() {
    let policy = Policy::new().plans(Plan::shipped()).plan(Plan::new("pro"));
    assert_eq!(policy.plans.len(), 3, "one of a name");
    assert_eq!(policy.plan_of(Some("pro")).unwrap().totals, Totals::default());
    assert_eq!(policy.plan_of(None).unwrap().name, "free");
    assert!(Policy::new().plan_of(Some("pro")).is_none());
}

#[tokio::test]
async fn the_shipped_plans_have_these_figures_and_their_workspaces_too() {
    let fixture = fixture().await;
    let host = ruled(&fixture, Policy::new().plans(Plan::shipped())).await;
    let table = [("free", 128, 250, 1, 60), ("pro", 512, 1_000, 3, 300), ("enterprise", 2_048, 2_000, 10, 1_800)];
    assert_eq!(Plan::shipped().len(), table.len());
    for (plan, (name, mib, cpu_millis, workspaces, idle)) in Plan::shipped().into_iter().zip(table) {
        let resources =
            Resources { memory_bytes: Some(mib * MIB), cpu_millis: Some(cpu_millis), ..Resources::default() };
        let totals = Totals::unlimited().workspaces(workspaces);
        let idle = IdlePolicy::default().pause_after(Duration::from_secs(idle));
        assert_eq!((plan.name.as_str(), plan.workspace, plan.totals, plan.egress), (name, resources, totals, None));
        assert_eq!(plan.idle, Some(idle.clone()), "{name}");

        let owner = format!("on {name}");
        host.set_plan(&owner, Some(name)).await.unwrap();
        let create = |id: &str| host.create(CreateWorkspace::empty().owner(&owner).id(id));
        let workspace = create(&format!("{name}-0")).await.unwrap();
        let in_force = fixture.engine.spec(&format!("corehold-{name}-0")).resources;
        assert_eq!((in_force.memory_bytes, in_force.cpu_millis), (Some(mib * MIB), Some(cpu_millis)), "{name}");
        assert_eq!(workspace.idle_policy().await.unwrap(), Some(idle), "{name}");
        for number in 1..workspaces {
            create(&format!("{name}-{number}")).await.unwrap();
        }
        assert_eq!(quota(create("more").await).limit, workspaces, "{name}");
    }
    // A request says otherwise, and who has no owner has no plan.
    let own = IdlePolicy::default().pause_after(Duration::from_secs(7));
    host.set_plan("ada", Some("pro")).await.unwrap();
    let workspace = host.create(CreateWorkspace::empty().owner("ada").idle(own.clone())).await.unwrap();
    assert_eq!(workspace.idle_policy().await.unwrap(), Some(own));
    let nobodys = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(nobodys.idle_policy().await.unwrap(), None);
    // An owner with a plan that there isn't, or with none, has the least.
    let least = host.create(CreateWorkspace::empty().owner("new")).await.unwrap();
    assert_eq!(least.idle_policy().await.unwrap().unwrap().pause_after, Some(Duration::from_secs(60)));
}
