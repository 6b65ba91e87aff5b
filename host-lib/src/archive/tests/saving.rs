//! What is saved, what it says, and what is written twice: nothing.

use super::*;
use crate::testing::{Answer, Route, reply};

#[tokio::test]
async fn what_was_saved_is_listed_verified_and_loaded() {
    let room = Room::new().await;
    let (readme, large) = (b"hello".as_slice(), noise("large", 9 << 20));
    room.set_files(&[("README", readme), ("large", &large)]);
    let saved = room.tar();
    let archive = room.archives().save(&room.workspace, SaveOptions::default().exclude("*.log")).await.unwrap();
    assert_eq!((archive.format, archive.workspace.as_str(), archive.files), (1, "w", 2));
    assert_eq!((archive.bytes, archive.content_bytes), (saved.len() as u64, 5 + (9 << 20)));
    assert_eq!(archive.hash, blake3::hash(&saved).to_hex().as_str());
    assert_eq!(archive.exclusions, ["*.log"]);
    assert_eq!(room.archives().list(None).await.unwrap(), std::slice::from_ref(&archive));
    assert_eq!(room.archives().get(&archive.reference()).await.unwrap(), archive);
    room.archives().verify(&archive).await.unwrap();
    assert!(room.objects_of("saves").is_empty(), "nothing is under way any more");

    room.set_files(&[("other", b"later")]);
    room.archives().load(&archive, &room.workspace).await.unwrap();
    assert!(room.tar() == saved);
}

#[tokio::test]
async fn an_empty_workspace_is_saved_too() {
    let room = Room::new().await;
    let archive = room.save().await;
    assert_eq!((archive.files, archive.content_bytes, archive.bytes), (0, 0, 1024));
    room.set_files(&[("f", b"x")]);
    room.archives().restore(&archive.reference(), &room.workspace).await.unwrap();
    assert_eq!(room.tar(), vec![0; 1024]);
}

#[tokio::test]
async fn the_same_files_are_not_written_again() {
    let room = Room::new().await;
    let large = noise("large", 20 << 20);
    room.set_files(&[("a", b"one"), ("large", &large)]);
    let first = room.save().await;
    let objects = room.objects();
    assert_eq!(room.save().await, first, "nothing has changed");
    assert_eq!(room.objects(), objects);

    room.set_files(&[("a", b"two"), ("large", &large)]);
    let second = room.save().await;
    assert_ne!(second.id, first.id);
    let new = room.objects_of("chunks").len()
        - objects.iter().filter(|path| path.to_str().unwrap().contains("chunks/")).count();
    assert!((1..=3).contains(&new), "{new} chunks for a file of three bytes");

    room.set_files(&[("a", b"one"), ("large", &large)]);
    let third = room.save().await;
    assert!(third.id != first.id && third.index == first.index, "as it was before is newer than what was in between");
    let listed = room.archives().list(Some(room.workspace.id())).await.unwrap();
    assert_eq!(listed, [third, second.clone(), first], "newest first");
    for archive in listed {
        room.archives().verify(&archive).await.unwrap();
    }
    let other: WorkspaceId = "x".parse().unwrap();
    assert!(room.archives().list(Some(&other)).await.unwrap().is_empty());
}

#[tokio::test]
async fn deleting_gives_up_one_archive_and_no_other() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let first = room.save().await;
    room.set_files(&[("a", b"two")]);
    let second = room.save().await;
    room.archives().delete(&first.reference()).await.unwrap();
    assert_eq!(room.archives().list(None).await.unwrap(), std::slice::from_ref(&second));
    room.archives().verify(&second).await.unwrap();
    for error in [
        room.archives().delete(&first.reference()).await.unwrap_err(),
        room.archives().get(&first.reference()).await.unwrap_err(),
        room.archives().restore(&first.reference(), &room.workspace).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&first.reference().to_string()), "{error}");
    }
}

#[tokio::test]
async fn savers_at_the_same_time_do_not_disturb_one_another() {
    let room = Room::new().await;
    room.set_files(&[("large", &noise("large", 6 << 20))]);
    let saves = (0..6).map(|_| {
        let (archives, workspace) = (room.archives(), room.workspace.clone());
        async move { archives.save(&workspace, SaveOptions::default()).await }
    });
    let archives = futures_util::future::try_join_all(saves).await.unwrap();
    for archive in &archives {
        room.archives().verify(archive).await.unwrap();
        assert_eq!(archive.index, archives[0].index);
    }
}

#[tokio::test]
async fn what_is_no_tar_is_no_archive() {
    let room = Room::new().await;
    let good = tar_of(&[("f", b"content")]);
    for bad in [vec![], b"no tar".to_vec(), good[..600].to_vec(), good[..1024].to_vec(), tar_with_a_pipe()] {
        room.fixture.engine.set_tar("corehold-w", bad);
        let error = room.archives().save(&room.workspace, SaveOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Agent, "{error}");
        assert!(error.to_string().contains("workspace w can't be saved"), "{error}");
    }
    assert!(room.archives().list(None).await.unwrap().is_empty() && room.objects_of("saves").is_empty());
}

fn tar_with_a_pipe() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "pipe", &b""[..]).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn what_no_agent_would_take_back_is_not_saved() {
    let routes: [Route; 2] =
        [|request| limited(request, "archiveBytes", 4), |request| limited(request, "archiveEntries", 1)];
    for (route, fitting) in routes.into_iter().zip([["four", ""], ["one", "-"]]) {
        let script = AgentScript { route: Some(route), ..AgentScript::default() };
        let fixture = Fixture::new(EngineScript::default(), script).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        let archives = fixture.host.archives();
        let save = || archives.save(&workspace, SaveOptions::default());
        let files: Vec<_> = [("a", fitting[0]), ("b", fitting[1])].into_iter().filter(|file| file.1 != "-").collect();
        let files: Vec<_> = files.into_iter().map(|(path, content)| (path, content.as_bytes())).collect();
        fixture.engine.set_tar("corehold-w", tar_of(&files));
        save().await.unwrap();
        fixture.engine.set_tar("corehold-w", tar_of(&[("a", b"four"), ("b", b"more")]));
        let error = save().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("THE_VARIABLE")), "{error}");
    }
}

fn limited(request: &http::Request<hyper::body::Incoming>, name: &str, value: u64) -> Option<Answer> {
    if request.uri().path() != "/v1/tools/info" {
        return None;
    }
    let limit = serde_json::json!({ "name": name, "value": value, "unit": "things", "variable": "THE_VARIABLE" });
    let info = serde_json::json!({
        "version": "0", "protocol": 1, "bootId": "b", "instance": "i", "root": "/app",
        "tools": [], "limits": [limit], "features": [], "guards": [],
    });
    Some(reply(http::StatusCode::OK, info.to_string()))
}

/// Regression: who slept couldn't be saved, and of who was paused the agent was waited for in vain.
#[tokio::test]
async fn what_is_paused_or_asleep_is_woken_to_be_saved_and_loaded() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let saved = room.save().await;
    room.workspace.sleep(Duration::ZERO).await.unwrap();
    room.save().await;
    assert_eq!(room.workspace.state().await.unwrap(), WorkspaceState::Ready);
    room.workspace.sleep(Duration::ZERO).await.unwrap();
    room.archives().load(&saved, &room.workspace).await.unwrap();
    assert_eq!(room.workspace.state().await.unwrap(), WorkspaceState::Ready);
    room.workspace.pause().await.unwrap();
    room.save().await;
    assert_eq!(room.workspace.state().await.unwrap(), WorkspaceState::Ready);
}
