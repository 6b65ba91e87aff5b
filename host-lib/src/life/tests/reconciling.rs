//! What is found after anything happened while no host looked.

use super::{
    turn::{Taking, Turn},
    *,
};
use crate::{WorkspaceInfo, runtime::Runtime as _};

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

/// As when another host finds at the same time that its container is gone.
#[tokio::test]
async fn a_name_is_waited_for_while_its_workspace_is_removed() {
    let fixture = fixture().await;
    let host = another(&fixture).await;
    host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let inner = &fixture.host.inner;
    let entry = inner.store.get(&"w".parse().unwrap()).await.unwrap().unwrap();
    let taking = Turn::take(inner, entry, WorkspaceState::Removing, TransitionCause::Engine).await.unwrap();
    let Taking::Taken(turn) = taking else { panic!("nobody else is at it") };
    fixture.engine.forget("corehold-w");
    let mut creation = std::pin::pin!(host.create(CreateWorkspace::empty().id("w")));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut creation).await;
    assert!(early.is_err(), "{early:?}");
    turn.forget().await.unwrap();
    creation.await.unwrap();
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
    // Limits, and what it was asked for with, stand in the store alone.
    let listed = async |host: &Host| {
        let without = |mut info: WorkspaceInfo| {
            (info.resources, info.network, info.creator) = (None, None, None);
            (info.variables, info.labels) = Default::default();
            info
        };
        host.list().await.unwrap().into_iter().map(without).collect::<Vec<_>>()
    };
    let before = listed(&host).await;
    let home = host.home().to_owned();
    // Those in use keep the file that is gone; a host that begins finds none.
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(home.join(name)).unwrap();
    }
    let next = another(&fixture).await;
    assert_eq!(listed(&next).await, before, "nothing of it is needed to list");
    let reconciled = next.reconcile().await.unwrap();
    let mut adopted = ids(&reconciled.adopted);
    adopted.sort_unstable();
    assert_eq!((adopted, reconciled.failed.len()), (vec!["made", "pooled"], 0));
    assert_eq!(listed(&next).await, before);
    next.workspace("made").await.unwrap().start().await.unwrap();
    next.workspace("pooled").await.unwrap().restart(GRACE).await.unwrap();
    for id in ["made", "pooled"] {
        next.workspace(id).await.unwrap().write_file("a", "b").await.unwrap();
        assert_eq!(fixture.engine.dev_servers(&format!("corehold-{id}")), 1, "its template says what to start");
        next.workspace(id).await.unwrap().remove().await.unwrap();
    }
    assert!(next.list().await.unwrap().is_empty());
}

/// What sleeps is nowhere but in the archives then.
#[tokio::test]
async fn a_lost_store_loses_none_that_sleep() {
    let fixture = fixture().await;
    let template = fixture.template(DEV);
    let request = CreateWorkspace::from_template(&template).env("B", "request").label("mine", "1");
    let sleeps = fixture.host.get_or_create("ada", request.id("sleeps")).await.unwrap();
    let woke = web(&fixture, &fixture.host).await;
    let saved = fixture.host.create(CreateWorkspace::empty().id("saved")).await.unwrap();
    for workspace in [&sleeps, &woke] {
        let name = format!("corehold-{}", workspace.id());
        fixture.engine.set_tar(&name, crate::testing::tar_of(&[("whose", workspace.id().as_str().as_bytes())]));
        workspace.sleep(GRACE).await.unwrap();
    }
    woke.wake().await.unwrap();
    let archives = fixture.host.archives();
    let kept = archives.save(&saved, crate::SaveOptions::default()).await.unwrap();
    saved.remove().await.unwrap();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::remove_file(fixture.host.home().join(name)).unwrap();
    }
    let next = another(&fixture).await;
    let reconciled = next.reconcile().await.unwrap();
    let mut adopted = ids(&reconciled.adopted);
    adopted.sort_unstable();
    assert_eq!((adopted, reconciled.failed.len()), (vec!["sleeps", "web"], 0), "what was only saved is no workspace");
    assert!(next.reconcile().await.unwrap().is_empty());
    let found = next.get_or_create("ada", CreateWorkspace::empty()).await.unwrap();
    assert_eq!(found.id().as_str(), "sleeps");
    let tar = fixture.engine.tar("corehold-sleeps");
    assert_eq!(tar, crate::testing::tar_of(&[("whose", b"sleeps")]));
    let spec = fixture.engine.spec("corehold-sleeps");
    assert_eq!((spec.env["A"].as_str(), spec.env.get("B")), ("template", None), "variables may be secrets");
    assert_eq!((spec.labels["mine"].as_str(), fixture.engine.dev_servers("corehold-sleeps")), ("1", 1));
    for id in ["sleeps", "web"] {
        next.workspace(id).await.unwrap().remove().await.unwrap();
    }
    assert_eq!(archives.list(None).await.unwrap(), [kept], "also of one that was found by its container");
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

/// Regression: the engine may be done with a container when its host was killed and what it had begun is undone. It was adopted as one
/// that is stopped, or lay beside the workspace that slept.
#[tokio::test]
async fn a_container_that_comes_after_its_creation_was_undone_is_removed() {
    let (fixture, bed, host) = with_bed().await;
    let killed = fixture.builder().bed(bed).reconciles(false).build().await.unwrap();
    killed.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let spec = fixture.engine.spec("corehold-w");
    drop(killed);
    let workspace = host.workspace("w").await.unwrap();
    workspace.write_file("kept", "it").await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    fixture.engine.create(&spec).await.unwrap();
    // The fixture's host hears of it from the engine, and may be faster.
    assert!(host.reconcile().await.unwrap().failed.is_empty());
    until(|| async { fixture.engine.names().is_empty() }).await;
    assert!(host.reconcile().await.unwrap().is_empty());
    assert_eq!(workspace.read_file("kept").await.unwrap(), "it");

    workspace.remove().await.unwrap();
    fixture.engine.create(&spec).await.unwrap();
    assert_eq!(host.reconcile().await.unwrap().adopted, [], "nothing is in it to be kept");
    until(|| async { fixture.engine.names().is_empty() }).await;
    assert!(host.list().await.unwrap().is_empty());
    // Nobody reconciles but the host that hears of it.
    fixture.engine.create(&spec).await.unwrap();
    until(|| async { fixture.engine.names().is_empty() }).await;
}

/// Also where it isn't written down in the store that this host has: one was lost, and the other host goes on with it.
#[tokio::test]
async fn a_container_that_a_living_host_is_having_made_is_its_own() {
    let fixture = fixture().await;
    let (maker, next, host) = (another(&fixture).await, another(&fixture).await, another(&fixture).await);
    // It would hear of them from the engine.
    drop(fixture.host);
    maker.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let mut spec = fixture.engine.spec("corehold-w");
    maker.workspace("w").await.unwrap().remove().await.unwrap();
    fixture.engine.create(&spec).await.unwrap();
    assert!(host.reconcile().await.unwrap().is_empty());
    assert_eq!(fixture.engine.names(), ["corehold-w"]);
    drop(maker);
    // Without a reconcile whoever asks for it finds out, too.
    let found = host.workspace("w").await.unwrap();
    assert_eq!(found.start().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fixture.engine.names().is_empty());

    spec.labels.insert(crate::labels::MAKER.to_owned(), next.inner.process.name().to_owned());
    fixture.engine.create(&spec).await.unwrap();
    drop(next);
    assert_eq!(ids(&host.reconcile().await.unwrap().undone), ["w"]);
    assert!(fixture.engine.names().is_empty());
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

/// Of all that was ever written down, every time is another one then: years ago, or yet to come.
async fn clock_jumps(fixture: &Fixture, by: impl Fn(corehold_types::Timestamp) -> corehold_types::Timestamp) {
    let (store, home) = (&fixture.host.inner.store, fixture.host.home());
    let mut created = None;
    for entry in store.all().await.unwrap() {
        created = Some(by(entry.created));
        let jumped = crate::state::Entry { created: by(entry.created), entered_at: by(entry.entered_at), ..entry };
        store.put(jumped, crate::state::Durability::Process).await.unwrap().unwrap();
    }
    let created = created.unwrap();
    for label in [crate::labels::CREATED, crate::labels::EXPIRES] {
        fixture.engine.backdate(label, &created.to_string());
    }
    for record in fixture.host.inner.records.all().await {
        let jumped = crate::pool::Record { created: by(record.created), ..record };
        fixture.host.inner.records.write(jumped).await.unwrap();
    }
    let modified = std::time::UNIX_EPOCH + Duration::from_secs(created.as_unix_seconds().try_into().unwrap());
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().flatten() {
            match file.file_type().unwrap().is_dir() {
                true => folders.push(file.path()),
                false => std::fs::File::open(file.path()).unwrap().set_modified(modified).unwrap(),
            }
        }
    }
}

/// Who is alive, whose a container is and what sleeps is decided by locks, agents and archives. By the clock it is only decided how long
/// what nobody owns may wait in a pool, or lie in the archive store.
#[tokio::test]
async fn a_clock_that_jumps_takes_nothing_away() {
    let years = Duration::from_secs(10 * 365 * 24 * 3600);
    for ahead in [false, true] {
        let fixture = fixture().await;
        let pool = crate::PoolOptions::default().min(1).max(1);
        let host = fixture.pooled(pool.clone()).await;
        let template = fixture.template(DEV);
        for id in ["pooled", "stopped", "asleep"] {
            host.pools_filled().await.unwrap();
            let workspace = host.create(CreateWorkspace::from_template(&template).id(id)).await.unwrap();
            workspace.write_file("kept", id).await.unwrap();
        }
        assert_eq!(host.pools()[0].claimed, 3);
        host.workspace("stopped").await.unwrap().stop(GRACE).await.unwrap();
        let archived = crate::testing::tar_of(&[("kept", b"asleep")]);
        fixture.engine.set_tar("corehold-asleep", archived.clone());
        host.workspace("asleep").await.unwrap().sleep(GRACE).await.unwrap();
        drop(host);
        clock_jumps(&fixture, |time| if ahead { time.before(years) } else { time.after(years) }).await;

        let next = fixture.pooled(pool).await;
        assert!(next.reconcile().await.unwrap().is_empty());
        next.pools_filled().await.unwrap();
        assert_eq!(next.list().await.unwrap().len(), 3);
        next.archives().prune().await.unwrap();
        for id in ["pooled", "stopped"] {
            let workspace = next.workspace(id).await.unwrap();
            workspace.start().await.unwrap();
            assert_eq!(workspace.read_file("kept").await.unwrap(), id);
        }
        next.workspace("asleep").await.unwrap().wake().await.unwrap();
        assert_eq!(fixture.engine.tar("corehold-asleep"), archived);
        assert!(next.reconcile().await.unwrap().is_empty());
        let names: Vec<String> = next.list().await.unwrap().into_iter().filter_map(|info| info.container).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }
}
