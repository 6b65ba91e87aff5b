//! Isolation modes of teams: at creation, at each later container, and for teams that come later.

use super::*;
use crate::{
    Class, PoolOptions, SaveOptions,
    runtime::{ContainerSpec, Egress},
};

fn modes(default: &str) -> Policy {
    Policy::new()
        .isolation(Isolation::new("standard"))
        .isolation(Isolation::new("strict").sandbox("runsc").read_only_root(true))
        .default_isolation(default)
}

fn of(fixture: &Fixture, id: &str) -> (bool, Option<String>) {
    let spec: ContainerSpec = fixture.engine.spec(&format!("corehold-{id}"));
    (spec.hardening.read_only_root, spec.hardening.sandbox)
}

const STANDARD: (bool, Option<String>) = (false, None);

fn strict() -> (bool, Option<String>) {
    (true, Some("runsc".to_owned()))
}

fn in_team(id: &str, team: &str) -> CreateWorkspace {
    CreateWorkspace::empty().id(id).team(team)
}

#[tokio::test]
async fn a_team_keeps_the_default_that_it_came_under() {
    let fixture = fixture().await;
    let first = ruled(&fixture, modes("standard")).await;
    first.create(in_team("a", "early")).await.unwrap();
    first.create(CreateWorkspace::empty().id("b")).await.unwrap();
    assert_eq!([of(&fixture, "a"), of(&fixture, "b")], [STANDARD, STANDARD]);
    let second = ruled(&fixture, modes("strict")).await;
    second.create(in_team("c", "early")).await.unwrap();
    second.create(in_team("d", "late")).await.unwrap();
    second.create(CreateWorkspace::empty().id("e")).await.unwrap();
    assert_eq!([of(&fixture, "c"), of(&fixture, "d"), of(&fixture, "e")], [STANDARD, strict(), strict()]);
    // Taken back, it comes anew.
    second.set_isolation("early", None).await.unwrap();
    second.create(in_team("f", "early")).await.unwrap();
    assert_eq!(of(&fixture, "f"), strict());
    // Without modes nothing is asked of anybody.
    fixture.host.create(in_team("g", "late").sandbox("runc")).await.unwrap();
}

#[tokio::test]
async fn a_weaker_request_is_refused_and_a_later_container_is_as_the_team_is_then() {
    let fixture = fixture().await;
    let host = ruled(&fixture, modes("standard")).await;
    let workspace = host.create(in_team("web", "acme")).await.unwrap();
    workspace.write_file("kept", "x").await.unwrap();
    host.set_isolation("acme", Some("strict")).await.unwrap();
    for weaker in [in_team("x", "acme").read_only_root(false), in_team("x", "acme").sandbox("runc")] {
        assert_eq!(host.create(weaker).await.unwrap_err().kind(), ErrorKind::Forbidden);
    }
    workspace.restart(GRACE).await.unwrap();
    assert_eq!(of(&fixture, "web"), STANDARD, "the same container");
    workspace.sleep(GRACE).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(of(&fixture, "web"), strict());
    let copy = workspace.fork(1).await.unwrap().remove(0);
    assert_eq!(of(&fixture, copy.id().as_str()), strict());
    // Back again: it isn't held by what it was held by.
    host.set_isolation("acme", Some("standard")).await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(of(&fixture, "web"), STANDARD);
    // A mode that there is no more is none weaker.
    host.set_isolation("acme", Some("strict")).await.unwrap();
    let fewer =
        ruled(&fixture, Policy::new().isolation(Isolation::new("standard")).default_isolation("standard")).await;
    assert_eq!(fewer.create(in_team("y", "acme")).await.unwrap_err().kind(), ErrorKind::Forbidden);
    workspace.sleep(GRACE).await.unwrap();
    let error = fewer.workspace("web").await.unwrap().wake().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
}

#[tokio::test]
async fn a_mode_that_cannot_be_is_named() {
    let fixture = fixture().await;
    for policy in [
        Policy::new().isolation(Isolation::new("standard")),
        Policy::new().default_isolation("standard"),
        modes("other"),
        modes("standard").isolation(Isolation::new("odd").sandbox("privileged")),
        modes("standard").isolation(Isolation::new("")),
        modes("standard").isolation(Isolation::new("odd").egress(Egress::Only(Vec::new()))),
        Policy::new().plan(Plan::new("odd").egress(Egress::Only(Vec::new()))),
    ] {
        let error = fixture.builder().policy(policy).build().await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let host = ruled(&fixture, modes("standard")).await;
    let error = host.set_isolation("acme", Some("gold")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.hint_text().unwrap().contains("strict"), "{error}");
    assert_eq!(host.set_isolation("", None).await.unwrap_err().kind(), ErrorKind::Invalid);
    let odd = "'; DROP TABLE isolation; --\u{1f980}";
    host.set_isolation(odd, Some("strict")).await.unwrap();
    host.create(in_team("web", odd)).await.unwrap();
    assert_eq!(of(&fixture, "web"), strict());
}

/// What a workspace may reach outside, and whether it meets others: the runtime's own network is open.
fn let_out(fixture: &Fixture, id: &str) -> (Egress, bool) {
    let network = fixture.engine.spec(&format!("corehold-{id}")).network;
    network.map_or((Egress::Open, false), |network| (network.egress, network.meet))
}

fn closed(default: &str) -> Policy {
    Policy::new()
        .isolation(Isolation::new("standard").meet(Meet::Team))
        .isolation(Isolation::new("internet").egress(Egress::Internet).meet(Meet::Team))
        .isolation(Isolation::new("closed").egress(Egress::None).meet(Meet::Nobody))
        .default_isolation(default)
}

#[tokio::test]
async fn a_team_is_let_out_as_its_mode_says_whatever_is_asked_for() {
    let fixture = fixture().await;
    let host = ruled(&fixture, closed("standard")).await;
    host.set_isolation("acme", Some("internet")).await.unwrap();
    for (id, request) in [
        ("unsaid", in_team("unsaid", "acme")),
        ("team", in_team("team", "acme").network(Network::team().meet())),
        ("same", in_team("same", "acme").network(Network::shared().egress(Egress::Internet))),
    ] {
        host.create(request).await.unwrap();
        assert_eq!(let_out(&fixture, id), (Egress::Internet, id == "team"), "{id}");
    }
    host.create(in_team("less", "acme").network(Network::none())).await.unwrap();
    assert_eq!(let_out(&fixture, "less"), (Egress::None, false));
    host.create(in_team("others", "other")).await.unwrap();
    assert_eq!(let_out(&fixture, "others"), (Egress::Open, false));
    let before = fixture.engine.names().len();
    for weaker in [Network::shared().egress(Egress::Open), Network::owner().egress("10.0.0.0/8".parse().unwrap())] {
        let error = host.create(in_team("x", "acme").owner("ada").network(weaker)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        assert!(error.to_string().contains("internet") && error.hint_text().is_some(), "{error}");
    }
    assert_eq!(fixture.engine.names().len(), before);
    // A host's default is nobody's request: a mode holds it, and it a mode.
    let private: Egress = "10.0.0.0/8,203.0.113.0/24".parse().unwrap();
    let named = fixture.builder().policy(closed("internet")).network(Network::shared().egress(private));
    let named = named.build().await.unwrap();
    named.create(in_team("default", "new")).await.unwrap();
    assert_eq!(let_out(&fixture, "default"), ("203.0.113.0/24".parse().unwrap(), false));
}

#[tokio::test]
async fn how_a_team_is_let_out_holds_over_sleep_wake_copy_and_load() {
    let fixture = fixture().await;
    let host = ruled(&fixture, closed("standard")).await;
    let workspace =
        host.create(in_team("web", "acme").network(Network::team().meet().egress(Egress::Open))).await.unwrap();
    workspace.write_file("kept", "x").await.unwrap();
    assert_eq!(let_out(&fixture, "web"), (Egress::Open, true));
    host.set_isolation("acme", Some("closed")).await.unwrap();
    let archive = host.archives().save(&workspace, SaveOptions::default()).await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(let_out(&fixture, "web"), (Egress::None, false));
    let copy = workspace.fork(1).await.unwrap().remove(0);
    assert_eq!(let_out(&fixture, copy.id().as_str()), (Egress::None, false));
    let loaded = host.archives().create_from(&archive, in_team("loaded", "acme")).await.unwrap();
    assert_eq!(let_out(&fixture, loaded.id().as_str()), (Egress::None, false));
    // Its networks go with it, those of earlier modes too; back again, it has what it had asked for.
    for gone in [&copy, &loaded] {
        gone.remove().await.unwrap();
    }
    workspace.sleep(GRACE).await.unwrap();
    host.settled().await;
    assert!(fixture.engine.networks().is_empty(), "{:?}", fixture.engine.networks());
    host.set_isolation("acme", Some("standard")).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(let_out(&fixture, "web"), (Egress::Open, true));
}

#[tokio::test]
async fn a_pool_serves_those_whose_mode_lets_them_out_as_it_does() {
    let fixture = fixture().await;
    let class = Class::default().network(Network::none());
    let pool = PoolOptions::default().min(1).max(1);
    let host = fixture.builder().policy(closed("standard")).pool(class, pool).build().await.unwrap();
    host.pools_filled().await.unwrap();
    host.create(in_team("open", "other")).await.unwrap();
    host.set_isolation("acme", Some("internet")).await.unwrap();
    host.create(in_team("internet", "acme")).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 0, "made for them");
    host.set_isolation("acme", Some("closed")).await.unwrap();
    host.create(in_team("none", "acme")).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1);
    let let_out = ["open", "internet", "none"].map(|id| let_out(&fixture, id).0);
    assert_eq!(let_out, [Egress::Open, Egress::Internet, Egress::None]);
}

#[tokio::test]
async fn a_plan_lets_its_owners_out_and_stays_with_what_was_made_under_it() {
    let fixture = fixture().await;
    let policy = |most: Egress| Policy::new().plan(Plan::new("free").egress(most));
    let host = ruled(&fixture, policy(Egress::Internet)).await;
    let of_ada = |id: &str| CreateWorkspace::empty().id(id).owner("ada");
    let workspace = host.create(of_ada("web")).await.unwrap();
    host.create(of_ada("own").network(Network::owner().meet())).await.unwrap();
    host.create(CreateWorkspace::empty().id("nobodys")).await.unwrap();
    let all = ["web", "own", "nobodys"].map(|id| let_out(&fixture, id).0);
    assert_eq!(all, [Egress::Internet, Egress::Internet, Egress::Open]);
    let open = of_ada("x").network(Network::shared().egress(Egress::Open));
    let error = host.create(open.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("plan free"), "{error}");
    // Another plan is for what comes later; its copies are made later.
    let stricter = ruled(&fixture, policy(Egress::None)).await;
    workspace.sleep(GRACE).await.unwrap();
    let workspace = stricter.workspace("web").await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(let_out(&fixture, "web").0, Egress::Internet);
    let copy = workspace.fork(1).await.unwrap().remove(0);
    assert_eq!(let_out(&fixture, copy.id().as_str()).0, Egress::None);
    fixture.host.create(open).await.unwrap();
}

#[tokio::test]
async fn members_of_a_team_meet_only_where_its_policy_says_so() {
    let fixture = fixture().await;
    let asked = || in_team("asked", "acme").owner("ada").network(Network::team().meet());
    // By default any request for it is refused, and an owner's own workspaces meet.
    let host = ruled(&fixture, Policy::new()).await;
    let error = host.create(asked()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("a team may not meet"), "{error}");
    host.create(in_team("own", "acme").owner("ada").network(Network::owner().meet())).await.unwrap();
    assert!(let_out(&fixture, "own").1);
    let network = Network::team().meet();
    let refused = fixture.builder().network(network.clone()).build().await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");

    let open = ruled(&fixture, Policy::new().meet(Meet::Team)).await;
    let workspace = open.create(asked()).await.unwrap();
    assert!(let_out(&fixture, "asked").1);
    // A policy that doesn't any more is for the next container.
    workspace.write_file("kept", "x").await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    let woken = host.workspace("asked").await.unwrap();
    woken.wake().await.unwrap();
    assert!(!let_out(&fixture, "asked").1);
    // The network of before goes when nobody is in it.
    woken.remove().await.unwrap();
    host.settled().await;
    let names = fixture.engine.networks();
    assert_eq!(names.len(), 1, "the owner's own: {names:?}");
}
