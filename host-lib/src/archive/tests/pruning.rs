//! What goes, what stays, and that nothing goes that somebody is about to need.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn what_no_archive_needs_goes_after_a_day() {
    let room = Room::new().await;
    let shared = noise("shared", 6 << 20);
    room.set_files(&[("a", &noise("a", 3 << 20)), ("shared", &shared)]);
    let first = room.save().await;
    room.set_files(&[("a", &noise("b", 3 << 20)), ("shared", &shared)]);
    let second = room.save().await;
    let all = room.objects().len();

    let pruned = room.archives().prune().await.unwrap();
    assert_eq!((pruned.objects, pruned.young, pruned.kept), (0, 0, all as u64 - 2));
    room.archives().delete(&first.reference()).await.unwrap();
    let pruned = room.archives().prune().await.unwrap();
    assert!(pruned.objects == 0 && pruned.young > 0, "too young: {pruned:?}");
    room.age(2 * DAY);
    let pruned = room.archives().prune().await.unwrap();
    assert!(pruned.objects > 0 && pruned.bytes > 3 << 20 && pruned.young == 0, "{pruned:?}");
    room.archives().verify(&second).await.unwrap();
    assert_eq!(room.objects().len() as u64, pruned.kept + 1, "what is needed, and the manifest");

    room.archives().delete(&second.reference()).await.unwrap();
    room.archives().prune().await.unwrap();
    assert!(room.objects().is_empty(), "{:?}", room.objects());
}

#[tokio::test]
async fn what_a_killed_saver_left_goes_and_what_is_not_ours_stays() {
    let room = Room::new().await;
    let archive = room.save().await;
    let left = [
        format!("chunks/aa/{}", "aa".repeat(32)),
        format!("chunks/aa/{}#1", "ab".repeat(32)),
        format!("indexes/bb/{}", "bb".repeat(32)),
        "saves/20200101t000000000-abc.json".to_owned(),
        "prunes/20200101t000000000-abc.json".to_owned(),
    ];
    let foreign = ["chunks/README", "notes#x", "archives/w/notes.txt"];
    for name in left.iter().map(String::as_str).chain(foreign) {
        let path = room.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "left").unwrap();
        age(&path, 2 * DAY);
    }
    room.archives().prune().await.unwrap();
    for name in &left {
        assert!(!room.folder().join(name).exists(), "{name}");
    }
    for name in foreign {
        assert!(room.folder().join(name).exists(), "{name}");
    }
    room.archives().verify(&archive).await.unwrap();
}

#[tokio::test]
async fn an_archive_that_can_not_be_read_stops_the_pruning() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let archive = room.save().await;
    let before = room.objects();
    room.age(2 * DAY);
    for (room_of, content) in [("archives", &b"{"[..]), ("archives", br#"{"format": 9}"#), ("indexes", b"x")] {
        let path = room.objects_of(room_of).remove(0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = room.archives().prune().await.unwrap_err();
        assert!(error.to_string().contains(&archive.reference().to_string()), "{error}");
        assert!(error.hint_text().unwrap().contains("`corehold archives rm "), "{error}");
        fs::write(&path, whole).unwrap();
        assert_eq!(room.objects(), before, "nothing went");
    }
    room.archives().verify(&archive).await.unwrap();
}

#[tokio::test]
async fn chunks_that_are_about_to_be_pruned_are_written_again_by_who_needs_them() {
    let room = Room::new().await;
    room.set_files(&[("a", &noise("a", 2 << 20))]);
    let first = room.save().await;
    room.archives().delete(&first.reference()).await.unwrap();
    room.age(2 * DAY);
    // Nobody's now, and old: a pruning might have decided about them already.
    let second = room.save().await;
    assert_eq!(second.index, first.index);
    let pruned = room.archives().prune().await.unwrap();
    assert_eq!(pruned.objects, 0);
    for chunk in room.objects_of("chunks") {
        let age =
            SystemTime::now().duration_since(fs::metadata(chunk).unwrap().modified().unwrap()).unwrap_or_default();
        assert!(age < DAY / 2, "it was written again");
    }
    room.archives().verify(&second).await.unwrap();
}

#[tokio::test]
async fn a_saving_keeps_what_it_builds_on_and_a_pruning_is_waited_for() {
    let room = Room::new().await;
    room.set_files(&[("a", &noise("a", 2 << 20))]);
    let base = room.save().await;
    room.age(2 * DAY);
    let store = room.host().archives().store().await.unwrap().clone();
    let subject = Subject { workspace: room.workspace.id().clone(), template: None, exclusions: vec![], sleeper: None };
    let saving = Saving::begin(&store, subject, Some(base.clone()), false).await.unwrap();
    // The base is given up while the saving is under way.
    room.archives().delete(&base.reference()).await.unwrap();
    assert_eq!(room.archives().prune().await.unwrap().objects, 0);
    room.set_files(&[("a", &noise("a", 2 << 20)), ("b", b"new")]);
    let tar = room.workspace.archive(ArchiveFormat::Tar, &[]).await.unwrap();
    let (index, summary) = saving.content(tar).await.unwrap();

    let marker = store::under_way_path(store::PRUNES, &"p".parse().unwrap());
    store.put(&marker, &b"{}"[..]).await.unwrap();
    let mut finishing = Box::pin(saving.finish(index, summary, false));
    let waited = tokio::time::timeout(Duration::from_millis(700), &mut finishing).await;
    assert!(waited.is_err() && room.archives().list(None).await.unwrap().is_empty(), "a pruning is under way");
    store.delete(&marker).await.unwrap();
    let saved = finishing.await.unwrap();
    room.archives().verify(&saved.archive).await.unwrap();
    saving.end().await;
    assert!(room.objects_of("saves").is_empty());
}

/// Each sleep gives up what the one before has saved: a store that nobody prunes would grow for ever.
#[tokio::test]
async fn a_host_prunes_by_itself_once_a_day_whoever_begins() {
    let room = Room::new().await;
    room.set_files(&[("a", &noise("a", 2 << 20))]);
    let first = room.save().await;
    room.archives().delete(&first.reference()).await.unwrap();
    room.age(2 * DAY);
    let mark = room.host().home().join("pruned");
    // The fixture's host has looked, and found a home that is new.
    while !mark.exists() {
        tokio::task::yield_now().await;
    }
    let host = async || room.fixture.builder().build().await.unwrap();
    let pruned = async |host: &Host| {
        let mut events = host.events();
        let until = async {
            loop {
                if let EventKind::Pruned { objects, bytes } = events.next().await.unwrap().kind {
                    return (objects, bytes);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until).await
    };
    let before = room.objects();
    age(&mark, DAY - Duration::from_secs(3600));
    let young = host().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), pruned(&young)).await.is_err(), "it isn't time");
    drop(young);
    assert_eq!(room.objects(), before);

    age(&mark, 2 * DAY);
    let old = host().await;
    let (objects, bytes) = pruned(&old).await.unwrap();
    assert!(objects > 0 && bytes > 2 << 20, "{objects} objects, {bytes} bytes");
    assert!(room.objects().is_empty(), "{:?}", room.objects());
    let again = SystemTime::now().duration_since(fs::metadata(&mark).unwrap().modified().unwrap());
    assert!(again.unwrap_or_default() < DAY / 2, "another one of the home needn't");
}

#[tokio::test]
async fn a_pruning_that_was_killed_or_given_up_holds_up_no_saving() {
    let room = Room::new().await;
    let store = room.host().archives().store().await.unwrap().clone();
    let marker = |process: &str| {
        let marker = serde_json::json!({ "home": room.host().fingerprint(), "process": process });
        serde_json::to_vec(&marker).unwrap()
    };
    let killed = store::under_way_path(store::PRUNES, &"killed".parse().unwrap());
    store.put(&killed, marker("killed")).await.unwrap();
    room.set_files(&[("a", b"one")]);
    tokio::time::timeout(Duration::from_secs(20), room.save()).await.expect("nobody prunes");
    assert!(room.objects_of("prunes").is_empty());

    // One that lives is waited for, and one of which nobody knows.
    let foreign = serde_json::to_vec(&serde_json::json!({ "home": "another", "process": "killed" })).unwrap();
    for lives in [marker(room.host().inner.process.name()), foreign] {
        store.put(&killed, lives).await.unwrap();
        room.set_files(&[("a", b"two")]);
        assert!(tokio::time::timeout(Duration::from_millis(700), room.save()).await.is_err());
    }
    store.delete(&killed).await.unwrap();

    let archives = room.archives();
    let mut pruning = Box::pin(archives.prune());
    while room.objects_of("prunes").is_empty() {
        assert!(futures_util::FutureExt::now_or_never(pruning.as_mut()).is_none(), "it has begun");
        tokio::task::yield_now().await;
    }
    drop(pruning);
    let gone = async {
        while !room.objects_of("prunes").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("its marker goes");
}
