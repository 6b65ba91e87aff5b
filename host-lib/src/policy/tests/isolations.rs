//! Isolation modes of teams: at creation, at each later container, and for teams that come later.

use super::*;
use crate::runtime::ContainerSpec;

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
