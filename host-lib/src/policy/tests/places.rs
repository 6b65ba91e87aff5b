//! What is mounted, and how a workspace is held: allowed or not, and true over all that befalls a workspace.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    Class, CreateVolume, Mount, PoolOptions,
    runtime::{Capability, ContainerSpec, Hardening, MountSource},
};

fn volume(name: &str) -> Mount {
    Mount::volume(name).at("/data")
}

/// A folder that may be mounted, and one beside it.
fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let real = scratch.path().canonicalize().unwrap();
    let (allowed, other) = (real.join("allowed/project"), real.join("other"));
    fs::create_dir_all(&allowed).unwrap();
    fs::create_dir_all(&other).unwrap();
    (scratch, allowed, other)
}

fn targets(spec: &ContainerSpec) -> Vec<(&str, bool)> {
    spec.mounts.iter().map(|mount| (mount.target.as_str(), mount.read_only)).collect()
}

#[tokio::test]
async fn what_was_asked_for_stays_true_over_all_that_befalls_a_workspace() {
    let fixture = fixture().await;
    let (scratch, allowed, _) = folders();
    let rules = || {
        let root = scratch.path().join("allowed");
        Policy::new().mount_root(root).capability(Capability::Chown)
    };
    let builder = || fixture.builder().policy(rules()).config_folder(scratch.path().join("other"));
    let host = builder().build().await.unwrap();
    host.volumes().create(CreateVolume::new("cache")).await.unwrap();
    let link = scratch.path().join("allowed/link");
    std::os::unix::fs::symlink(&allowed, &link).unwrap();
    let request = CreateWorkspace::empty()
        .id("web")
        .mount(Mount::volume("cache").at("/var/cache"))
        .mount(Mount::folder(&link).at("/data").read_only(true))
        .read_only_root(true)
        .capability(Capability::Chown)
        .sandbox("runsc");
    let workspace = host.create(request).await.unwrap();
    let check = |name: &str| {
        let spec = fixture.engine.spec(name);
        let all = [
            ("/app", false),
            ("/data", true),
            ("/etc/corehold", true),
            ("/home/workspace", false),
            ("/tmp", false),
            ("/var/cache", false),
            ("/var/tmp", false),
        ];
        assert_eq!(targets(&spec), all);
        // Not the link: that may lead elsewhere tomorrow.
        assert_eq!(spec.mounts[1].source, MountSource::Folder(allowed.clone()));
        let engines = format!("corehold-volume-{}-cache", host.fingerprint());
        assert_eq!(spec.mounts[5].source, MountSource::Volume(engines));
        assert!(spec.hardening.read_only_root && spec.hardening.capabilities.contains(&Capability::Chown));
        assert_eq!(spec.hardening.sandbox.as_deref(), Some("runsc"));
    };
    check("corehold-web");
    workspace.restart(GRACE).await.unwrap();
    check("corehold-web");
    workspace.sleep(GRACE).await.unwrap();
    let again = builder().build().await.unwrap();
    again.workspace("web").await.unwrap().wake().await.unwrap();
    check("corehold-web");
    let copy = workspace.fork(1).await.unwrap().remove(0);
    check(&format!("corehold-{}", copy.id()));
}

#[tokio::test]
async fn what_is_not_allowed_any_more_is_not_mounted_by_waking() {
    let fixture = fixture().await;
    let (scratch, allowed, other) = folders();
    let host = ruled(&fixture, Policy::new().mount_root(scratch.path())).await;
    let workspace = host.create(CreateWorkspace::empty().id("web").mount(Mount::folder(&allowed).at("/data"))).await;
    workspace.unwrap().sleep(GRACE).await.unwrap();

    let strict = ruled(&fixture, Policy::new().mount_root(&other)).await;
    let error = strict.workspace("web").await.unwrap().wake().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    // Where a link lies now.
    fs::remove_dir(&allowed).unwrap();
    std::os::unix::fs::symlink("/", &allowed).unwrap();
    let workspace = host.workspace("web").await.unwrap();
    assert_eq!(workspace.wake().await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!((workspace.state().await.unwrap(), fixture.engine.names().len()), (WorkspaceState::Asleep, 0));
    fs::remove_file(&allowed).unwrap();
    fs::create_dir(&allowed).unwrap();
    workspace.wake().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_makes_nothing() {
    let fixture = fixture().await;
    let (scratch, allowed, other) = folders();
    let rules = Policy::new().mount_root(scratch.path().join("allowed")).mount_root(fixture.host.home());
    let host = ruled(&fixture, rules).await;
    let empty = CreateWorkspace::empty;
    for (request, kind) in [
        (empty().mount(Mount::folder("/").at("/host")), ErrorKind::Forbidden),
        (empty().mount(Mount::folder("/var/run/docker.sock").at("/engine")), ErrorKind::Forbidden),
        (empty().mount(Mount::folder(&other).at("/data")), ErrorKind::Forbidden),
        (empty().mount(Mount::folder(host.home()).at("/data")), ErrorKind::Forbidden),
        (empty().mount(Mount::folder(host.home().join("cache")).at("/data")), ErrorKind::Forbidden),
        (empty().mount(Mount::folder(allowed.join("missing")).at("/data")), ErrorKind::NotFound),
        (empty().mount(Mount::folder(&allowed).at("/app")), ErrorKind::Invalid),
        (empty().mount(Mount::folder(&allowed).at("/tools/x")), ErrorKind::Invalid),
        (empty().mount(Mount::folder(&allowed)), ErrorKind::Invalid),
        (empty().mount(volume("missing")), ErrorKind::NotFound),
        (empty().mount(volume("../../x")), ErrorKind::Invalid),
        (empty().capability(Capability::Kill), ErrorKind::Forbidden),
        (empty().sandbox("privileged"), ErrorKind::Forbidden),
    ] {
        let error = host.create(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert!(fixture.engine.names().is_empty() && host.list().await.unwrap().is_empty());
    for builder in [
        fixture.builder().config_folder("/"),
        fixture.builder().config_folder(host.home()),
        fixture.builder().policy(Policy::new().mount_root("relative")),
        fixture.builder().pool(Class::default().mount(Mount::folder("/proc").at("/data")), PoolOptions::default()),
    ] {
        assert!(builder.build().await.is_err());
    }
}

#[tokio::test]
async fn a_pool_meets_who_wants_exactly_what_its_class_has() {
    let fixture = fixture().await;
    let (scratch, allowed, _) = folders();
    let class = Class::default().mount(Mount::folder(&allowed).at("/data").read_only(true)).read_only_root(true);
    let builder = fixture.builder().policy(Policy::new().mount_root(scratch.path()));
    let host = builder.pool(class, PoolOptions::default().min(1).max(1)).build().await.unwrap();
    host.pools_filled().await.unwrap();
    let like =
        || CreateWorkspace::empty().mount(Mount::folder(&allowed).at("/data").read_only(true)).read_only_root(true);
    for request in [
        CreateWorkspace::empty(),
        CreateWorkspace::empty().read_only_root(true),
        like().read_only_root(false),
        like().mount(Mount::memory(1 << 20).at("/cache")),
        like().sandbox("runc"),
        CreateWorkspace::empty().mount(Mount::folder(&allowed).at("/data")).read_only_root(true),
    ] {
        host.create(request).await.unwrap();
    }
    assert_eq!(host.pools()[0].claimed, 0);
    let workspace = host.create(like()).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1);
    let spec = fixture.engine.spec(&format!("corehold-{}", workspace.id()));
    assert!(spec.hardening.read_only_root && targets(&spec).contains(&("/data", true)), "{spec:?}");
    // It wakes from there too.
    host.pools_filled().await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    workspace.wake().await.unwrap();
    assert_eq!(host.pools()[0].claimed, 2);
}

#[tokio::test]
async fn a_volume_is_for_whom_it_was_made_and_stays_while_anybody_needs_it() {
    let fixture = fixture().await;
    let host = &fixture.host;
    let volumes = host.volumes();
    volumes.create(CreateVolume::new("adas").owner("ada").team("acme")).await.unwrap();
    volumes.create(CreateVolume::new("everybodys")).await.unwrap();
    assert_eq!(volumes.create(CreateVolume::new("adas")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let empty = CreateWorkspace::empty;
    for request in [empty(), empty().owner("bob").team("acme"), empty().owner("ada"), empty().team("acme")] {
        let error = host.create(request.mount(volume("adas"))).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "there is no volume \"adas\""));
    }
    let adas = host.create(empty().id("web").owner("ada").team("acme").mount(volume("adas"))).await.unwrap();
    host.create(empty().owner("bob").mount(volume("everybodys").read_only(true)))
        .await
        .unwrap()
        .remove()
        .await
        .unwrap();

    // Of another home nothing is seen.
    let other = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let stranger =
        crate::Host::builder().runtime(fixture.engine.clone()).home(other.host.home()).build().await.unwrap();
    assert_eq!(stranger.volumes().list().await.unwrap(), []);
    assert_eq!(stranger.volumes().remove("adas").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(stranger.create(empty().mount(volume("everybodys"))).await.is_err());

    let listed = volumes.list().await.unwrap();
    assert_eq!(listed.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["adas", "everybodys"]);
    assert_eq!((listed[0].owner.as_deref(), listed[0].workspaces.len()), (Some("ada"), 1));
    assert!(listed[0].created.is_some() && listed[1].workspaces.is_empty());
    for _ in 0..2 {
        let error = volumes.remove("adas").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("web"), "{error}");
        adas.sleep(GRACE).await.unwrap();
    }
    adas.wake().await.unwrap();
    adas.remove().await.unwrap();
    volumes.remove("adas").await.unwrap();
    assert_eq!(volumes.remove("adas").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_recipe_of_before_has_nothing_mounted_and_is_held_as_it_was() {
    let recipe: crate::state::Recipe = serde_json::from_str(r#"{"owner": "ada"}"#).unwrap();
    assert_eq!((recipe.mounts.len(), recipe.hardening()), (0, Wanted::default()));
    assert_eq!(serde_json::to_string(&recipe).unwrap(), r#"{"owner":"ada"}"#);
    assert_eq!(Policy::new().harden(&recipe.hardening()).unwrap(), Hardening::default());
}
