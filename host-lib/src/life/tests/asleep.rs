//! Sleep and wake.

use std::sync::atomic::Ordering;

use super::{
    kept::{Kept, Objects},
    *,
};
use crate::SaveOptions;

#[tokio::test]
async fn asleep_it_has_no_container_and_awake_it_has_its_files_and_its_handles_still_work() {
    let (fixture, bed, host) = with_bed().await;
    let workspace = web(&fixture, &host).await;
    let subject = workspace.for_subject("ada");
    let other = fixture.builder().bed(bed.clone()).reconciles(false).build().await.unwrap();
    let elsewhere = other.workspace("web").await.unwrap();
    let created = workspace.info().await.unwrap().created;
    for round in 1..4 {
        let content = format!("round {round}");
        elsewhere.write_file("kept", content.clone()).await.unwrap();
        if round == 2 {
            workspace.pause().await.unwrap();
        }
        if round == 3 {
            workspace.stop(GRACE).await.unwrap();
        }
        for _ in 0..2 {
            workspace.sleep(GRACE).await.unwrap();
            assert_eq!((state(&workspace).await, fixture.engine.names().len()), (WorkspaceState::Asleep, 0));
        }
        let listed = host.list().await.unwrap();
        assert_eq!((listed.len(), listed[0].state, &listed[0].container), (1, WorkspaceState::Asleep, &None));
        let error = workspace.agent_endpoint().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        workspace.stop(GRACE).await.expect("nothing runs");
        for _ in 0..2 {
            other.workspace("web").await.unwrap().wake().await.unwrap();
        }
        assert_eq!(fixture.engine.dev_servers("corehold-web"), 1);
        for handle in [&workspace, &subject, &elsewhere] {
            assert_eq!(handle.read_file("kept").await.unwrap(), content, "round {round}");
        }
        let spec = fixture.engine.spec("corehold-web");
        assert_eq!((spec.env["A"].as_str(), spec.env["B"].as_str()), ("template", "request"));
        let info = workspace.info().await.unwrap();
        assert_eq!((info.state, info.created, info.template.as_deref()), (WorkspaceState::Ready, created, Some("web")));
        assert_eq!(bed.names().len(), 1, "of its archives the newest stays");
    }
    // What it woke from is what is left when its container is lost.
    fixture.engine.forget("corehold-web");
    assert_eq!(state(&workspace).await, WorkspaceState::Asleep);
    workspace.start().await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "round 3");
    workspace.sleep(GRACE).await.unwrap();
    workspace.remove().await.unwrap();
    assert_eq!((bed.names().len(), host.list().await.unwrap().len()), (0, 0));
    assert_eq!(workspace.read_file("kept").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_cant_be_saved_goes_on_as_before() {
    let (fixture, bed, host) = with_bed().await;
    let workspace = web(&fixture, &host).await;
    workspace.write_file("kept", "a").await.unwrap();
    bed.full.store(true, Ordering::Relaxed);
    let error = workspace.sleep(GRACE).await.unwrap_err();
    assert!(error.to_string().contains("is full"), "{error}");
    assert_eq!((state(&workspace).await, fixture.engine.dev_servers("corehold-web")), (WorkspaceState::Ready, 1));
    workspace.stop(GRACE).await.unwrap();
    workspace.sleep(GRACE).await.unwrap_err();
    assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
    bed.full.store(false, Ordering::Relaxed);
    workspace.sleep(GRACE).await.unwrap();
    assert_eq!(state(&workspace).await, WorkspaceState::Asleep);
}

#[tokio::test]
async fn what_cant_be_restored_sleeps_on_and_leaves_no_container() {
    let (fixture, bed, host) = with_bed().await;
    let workspace = web(&fixture, &host).await;
    workspace.write_file("kept", "a").await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    bed.damaged.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = workspace.wake().await.unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert_eq!((state(&workspace).await, fixture.engine.names().len()), (WorkspaceState::Asleep, 0));
    }
    bed.damaged.store(false, Ordering::Relaxed);
    workspace.wake().await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "a");
}

/// With the real archive store: what it can't save isn't lost.
#[tokio::test]
async fn it_sleeps_in_the_hosts_archives() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    workspace.sleep(GRACE).await.unwrap();
    assert_eq!((state(&workspace).await, fixture.engine.names().len()), (WorkspaceState::Asleep, 0));
    let archives = fixture.host.archives().list(Some(workspace.id())).await.unwrap();
    assert_eq!(archives.len(), 1);
    workspace.wake().await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    let newer = fixture.host.archives().list(Some(workspace.id())).await.unwrap();
    assert_eq!(newer, archives, "what hasn't changed is the same archive, and stays");
    workspace.wake().await.unwrap();
    workspace.remove().await.unwrap();
    assert!(fixture.host.archives().list(Some(workspace.id())).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_somebody_saved_is_never_what_a_workspace_sleeps_in() {
    let fixture = fixture().await;
    let (workspace, archives) = (web(&fixture, &fixture.host).await, fixture.host.archives());
    let saved = archives.save(&workspace, SaveOptions::default()).await.unwrap();
    for _ in 0..2 {
        workspace.sleep(GRACE).await.unwrap();
        let all = archives.list(Some(workspace.id())).await.unwrap();
        let bed = all.iter().find(|archive| archive.sleeper.is_some()).unwrap();
        assert_eq!((all.len(), &bed.index), (2, &saved.index), "the same files, and nothing of them is stored twice");
        let error = archives.delete(&bed.reference()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        // Saving wakes it, and makes one that is no bed.
        assert!(archives.save(&workspace, SaveOptions::default()).await.unwrap().sleeper.is_none());
        archives.load(&saved, &workspace).await.unwrap();
    }
    workspace.sleep(GRACE).await.unwrap();
    archives.load(&saved, &workspace).await.expect("it wakes for that too");
    workspace.remove().await.unwrap();
    let left = archives.list(None).await.unwrap();
    assert!(left.contains(&saved) && left.iter().all(|archive| archive.sleeper.is_none()), "{left:?}");
}

#[tokio::test]
async fn a_host_that_ends_puts_all_to_sleep() {
    let (fixture, bed, host) = with_bed().await;
    for id in ["a", "b", "c"] {
        let workspace = host.create(CreateWorkspace::empty().id(id)).await.unwrap();
        workspace.write_file("kept", id).await.unwrap();
    }
    host.workspace("c").await.unwrap().stop(GRACE).await.unwrap();
    let report = host.shutdown(Shutdown::Sleep, GRACE).await.unwrap();
    assert_eq!((report.done.len(), report.failed.len()), (3, 0), "{report:?}");
    assert_eq!((bed.names().len(), fixture.engine.names().len()), (3, 0));
}

/// What asked for is told from what sleeping needs: neither takes the other's archive.
#[tokio::test]
async fn what_somebody_saved_stays_when_the_workspace_sleeps_again_or_is_removed() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let archives = fixture.host.archives();
    let saved = archives.save(&workspace, crate::SaveOptions::default()).await.unwrap();
    for round in 0..2 {
        fixture.engine.set_tar("corehold-web", crate::testing::tar_of(&[("round", &[round])]));
        workspace.sleep(GRACE).await.unwrap();
        let all = archives.list(Some(workspace.id())).await.unwrap();
        assert_eq!((all.len(), all.contains(&saved)), (2, true), "its own, and the newest that it sleeps in");
        workspace.wake().await.unwrap();
        let again = archives.save(&workspace, crate::SaveOptions::default()).await.unwrap();
        assert!(again.sleeper.is_none(), "what it slept in goes, and is nobody's to have");
        archives.delete(&again.reference()).await.unwrap();
    }
    workspace.remove().await.unwrap();
    assert_eq!(archives.list(Some(workspace.id())).await.unwrap(), [saved]);
}

#[tokio::test]
async fn what_a_workspace_sleeps_in_cant_be_deleted_until_it_wakes() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let archives = fixture.host.archives();
    workspace.sleep(GRACE).await.unwrap();
    let archive = archives.list(None).await.unwrap().remove(0);
    for damaged in [false, true] {
        if damaged {
            let file = fixture.host.home().join(format!("archives/archives/{}.json", archive.reference()));
            std::fs::rename(&file, file.with_extension("kept")).unwrap();
            std::fs::write(&file, "{").unwrap();
        }
        let error = archives.delete(&archive.reference()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.hint_text().unwrap().contains("wake it first"), "{error:?}");
        if damaged {
            let file = fixture.host.home().join(format!("archives/archives/{}.json", archive.reference()));
            std::fs::rename(file.with_extension("kept"), &file).unwrap();
        }
    }
    workspace.wake().await.unwrap();
    archives.delete(&archive.reference()).await.unwrap();
    assert_eq!(fixture.host.inner.store.get(workspace.id()).await.unwrap().unwrap().archive, None);
    workspace.sleep(GRACE).await.unwrap();
    workspace.wake().await.unwrap();
}

/// What somebody saved outlives the workspace, unless they say otherwise.
#[tokio::test]
async fn what_was_saved_goes_with_it_only_where_that_is_asked_for() {
    let fixture = fixture().await;
    let (host, archives) = (&fixture.host, fixture.host.archives());
    let saved = async || archives.list(Some(&"web".parse().unwrap())).await.unwrap().len();
    let workspace = web(&fixture, host).await;
    archives.save(&workspace, SaveOptions::default()).await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    assert_eq!(saved().await, 2);
    workspace.remove().await.unwrap();
    assert_eq!(saved().await, 1, "what it slept in went");

    let workspace = web(&fixture, host).await;
    workspace.sleep(GRACE).await.unwrap();
    let everything = RemoveOptions::default().archives(true);
    // One that can't be read goes too.
    std::fs::write(host.home().join("archives/archives/web/damaged.json"), "{").unwrap();
    workspace.remove_with(everything).await.unwrap();
    assert_eq!(saved().await, 0);
    assert!(!host.home().join("archives/archives/web/damaged.json").exists());
    assert_eq!(host.list().await.unwrap(), []);
}

/// Archives go first: what can't be given up leaves the workspace as it was.
#[tokio::test]
async fn a_removal_whose_archives_can_not_be_given_up_leaves_the_workspace_as_it_was() {
    let fixture = fixture().await;
    let objects = Arc::new(Objects::default());
    let host = Kept::Objects(objects.clone()).by(fixture.builder()).reconciles(false).build().await.unwrap();
    let workspace = web(&fixture, &host).await;
    let saved = host.archives().save(&workspace, SaveOptions::default()).await.unwrap();
    let everything = RemoveOptions::default().archives(true);
    objects.keeps_all.store(true, Ordering::Relaxed);
    let error = workspace.remove_with(everything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(
        (state(&workspace).await, fixture.engine.names()),
        (WorkspaceState::Ready, vec!["corehold-web".to_owned()])
    );
    assert_eq!(host.archives().list(None).await.unwrap(), [saved]);
    workspace.write_file("kept", "goes on").await.unwrap();

    objects.keeps_all.store(false, Ordering::Relaxed);
    workspace.remove_with(everything).await.unwrap();
    assert_eq!((host.archives().list(None).await.unwrap(), fixture.engine.names().len()), (vec![], 0));
    assert_eq!(host.list().await.unwrap(), []);
}
