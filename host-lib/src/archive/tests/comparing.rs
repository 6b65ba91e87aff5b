//! What is told to differ, and copies.

use super::*;
use crate::{HealthPolicy, IdlePolicy, idle::Stored, runtime::Resources};

fn told(differences: &[Difference]) -> Vec<(String, Change)> {
    differences.iter().map(|difference| (difference.path.to_string(), difference.change)).collect()
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    target: &str,
    content: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    builder.append_data(&mut header, path, content).unwrap();
}

#[tokio::test]
async fn each_kind_of_change_is_told_once_in_the_order_of_paths() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let room = Room::new().await;
    let build = |build: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        room.fixture.engine.set_tar("corehold-w", builder.into_inner().unwrap());
    };
    build(&|tar| {
        append(tar, "content", Regular, 0o644, "", b"one");
        append(tar, "gone", Regular, 0o600, "", b"x");
        append(tar, "kind", Directory, 0o755, "", b"");
        append(tar, "linked", Link, 0o644, "content", b"");
        append(tar, "mode", Regular, 0o644, "", b"same");
        append(tar, "same", Regular, 0o644, "", b"same");
        append(tar, "way", Symlink, 0o777, "here", b"");
    });
    let before = room.save().await;
    build(&|tar| {
        append(tar, "a new one", Regular, 0o644, "", b"x");
        append(tar, "content", Regular, 0o755, "", b"two");
        append(tar, "kind", Regular, 0o644, "", b"");
        append(tar, "linked", Regular, 0o644, "", b"one");
        append(tar, "mode", Regular, 0o755, "", b"same");
        append(tar, "same", Regular, 0o644, "", b"same");
        append(tar, "way", Symlink, 0o777, "there", b"");
    });
    let expected = [
        ("a new one", Change::Added),
        ("content", Change::Content),
        ("gone", Change::Removed),
        ("kind", Change::Kind),
        ("mode", Change::Mode),
        ("way", Change::Content),
    ]
    .map(|(path, change)| (path.to_owned(), change));
    let differences = room.archives().diff(&before, &room.workspace).await.unwrap();
    assert_eq!(told(&differences), expected);
    let after = room.save().await;
    assert_eq!(room.archives().diff(&before, &after).await.unwrap(), differences);
    assert!(room.archives().diff(&after, &room.workspace).await.unwrap().is_empty());
    let json = serde_json::to_value(&differences[2]).unwrap();
    let expected = serde_json::json!({
        "path": "gone", "change": "removed", "before": { "kind": "file", "mode": 0o600, "size": 1 },
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_template_is_compared_as_it_would_be_packed() {
    let room = Room::new().await;
    let template = room.fixture.template("{}");
    room.set_files(&[("index.html", b"hello"), ("dist/out.js", b"made")]);
    let differences = room.archives().diff(&template, &room.workspace).await.unwrap();
    assert_eq!(told(&differences), [("dist/out.js".to_owned(), Change::Added)]);
    room.set_files(&[("index.html", b"other")]);
    let differences = room.archives().diff(&template, &room.workspace).await.unwrap();
    assert_eq!(told(&differences), [("index.html".to_owned(), Change::Content)]);
}

#[tokio::test]
async fn a_side_that_can_not_be_read_is_named() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let archive = room.save().await;
    for chunk in room.objects_of("chunks") {
        fs::write(chunk, "damaged").unwrap();
    }
    let error = room.archives().diff(&archive, &room.workspace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&archive.reference().to_string()), "{error}");
    room.fixture.engine.set_tar("corehold-w", b"no tar".to_vec());
    let error = room.archives().diff(&room.workspace, &archive).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Agent || error.kind() == ErrorKind::Damaged, "{error}");
}

#[tokio::test]
async fn a_workspace_is_made_of_an_archive_without_set_up() {
    let room = Room::new().await;
    // Its set-up would fail.
    let template = room.fixture.template(r#"{"setup": ["exit 1"], "dev": "serve"}"#);
    room.set_files(&[("a", b"one")]);
    let archive = room.save().await;
    let mut creation = room.archives().create_from(&archive, CreateWorkspace::from_template(&template).id("again"));
    let mut steps = Vec::new();
    while let Some(event) = creation.next_event().await {
        if let crate::CreateEventKind::Finished { .. } = event.kind {
            steps.push(event.step);
        }
    }
    creation.await.unwrap();
    assert_eq!(room.fixture.engine.tar("corehold-again"), room.tar());
    use crate::Step::{Dev, Load, Pack, Ready, Setup, Ship};
    assert!([Load, Dev, Ready].iter().all(|step| steps.contains(step)), "{steps:?}");
    assert!(![Pack, Ship, Setup].iter().any(|step| steps.contains(step)), "{steps:?}");
}

#[tokio::test]
async fn an_archive_that_is_damaged_makes_no_workspace() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let archive = room.save().await;
    for chunk in room.objects_of("chunks") {
        fs::write(chunk, "damaged").unwrap();
    }
    let error = room.archives().create_from(&archive, CreateWorkspace::empty().id("again")).await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Damaged, Some(crate::Step::Load)));
    assert_eq!(room.fixture.engine.names(), ["corehold-w"], "nothing is left of it");
}

#[tokio::test]
async fn copies_have_the_files_and_names_of_their_own() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let copies = room.workspace.fork(3).await.unwrap();
    assert_eq!(copies.len(), 3);
    for copy in &copies {
        assert!(copy.id().as_str().starts_with("w-"), "{}", copy.id());
        let name = format!("corehold-{}", copy.id());
        assert_eq!(room.fixture.engine.tar(&name), room.tar());
        room.fixture.engine.set_tar(&name, tar_of(&[("a", b"of the copy")]));
    }
    assert_eq!(room.tar(), tar_of(&[("a", b"one")]), "a copy's files are its own");
    assert!(room.archives().list(None).await.unwrap().is_empty(), "what they were made from is given up");

    let archive = room.save().await;
    room.workspace.fork(1).await.unwrap();
    assert_eq!(room.archives().list(None).await.unwrap(), [archive], "somebody's archive stays");
    assert!(room.workspace.fork(0).await.unwrap().is_empty());
    assert_eq!(room.workspace.fork(65).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn copies_are_as_their_original_was_asked_for() {
    let room = Room::new().await;
    let template = room.fixture.template(r#"{"dev": "serve", "env": {"A": "template", "B": "template"}}"#);
    let (idle, health) = (IdlePolicy::default().pause_after(Duration::from_secs(60)), HealthPolicy::default());
    let limits =
        Resources { memory_bytes: Some(64 << 20), cpu_millis: Some(500), pids: Some(77), ..Resources::default() };
    let request = CreateWorkspace::from_template(&template)
        .id("original")
        .image("other:1")
        .env("B", "request")
        .label("team.example/x", "y")
        .owner("ada")
        .resources(limits)
        .publish(9000)
        .idle(idle)
        .health(health);
    let original = room.host().create(request).await.unwrap();
    let made = room.fixture.engine.spec("corehold-original");
    let store = &room.host().inner.store;
    let first = store.get(original.id()).await.unwrap().unwrap();
    // Also when the template is another one by now, or is no more.
    fs::remove_dir_all(room.fixture.template_folder()).unwrap();
    let copy = original.fork(1).await.unwrap().remove(0);
    let spec = room.fixture.engine.spec(&format!("corehold-{}", copy.id()));
    assert_eq!((&spec.image, spec.resources, &spec.publish), (&made.image, made.resources, &made.publish));
    assert_eq!(
        (spec.env["A"].as_str(), spec.env["B"].as_str(), &*spec.labels["team.example/x"]),
        ("template", "request", "y")
    );
    assert_eq!(room.fixture.engine.dev_servers(&spec.name), 1);
    let second = store.get(copy.id()).await.unwrap().unwrap();
    assert_eq!(second.owner, None, "the key by which `get_or_create` finds the original");
    let policies = [&second, &first].map(|entry| (Stored::of(entry).idle, Stored::of(entry).health));
    assert_eq!(policies[0], policies[1]);
    assert_eq!(second.recipe, first.recipe);
}
