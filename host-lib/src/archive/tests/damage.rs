//! Archives that are not what they were: every kind of object, damaged in every way, is an error that says so, and the
//! workspace stays as it is.

use super::*;

type Damage = fn(&mut Vec<u8>);

/// Ways to damage a file.
const WAYS: [(&str, Damage); 6] = [
    ("a bit of the first byte", |bytes| bytes[0] ^= 1),
    ("a bit in the middle", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    }),
    ("the last byte cut off", |bytes| bytes.truncate(bytes.len() - 1)),
    ("half of it cut off", |bytes| bytes.truncate(bytes.len() / 2)),
    ("all of it cut off", Vec::clear),
    ("bytes added", |bytes| bytes.resize(bytes.len() + (2 << 20), 0)),
];

#[tokio::test]
async fn whatever_is_damaged_is_noticed_and_changes_nothing() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one"), ("large", &noise("large", 6 << 20))]);
    let (archive, saved) = (room.save().await, room.tar());
    room.set_files(&[("now", b"here")]);
    let objects = room.objects();
    assert!(objects.len() >= 4, "{objects:?}");
    for path in objects {
        let whole = fs::read(&path).unwrap();
        let (object, of_manifest) = (path.display(), path.extension().is_some());
        for (way, damage) in WAYS {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let noticed = is_noticed(&room, &archive, &saved, &format!("{object}: {way}")).await;
            // The JSON of a manifest may say the same in other bytes.
            assert!(noticed || of_manifest, "{object}: {way}");
        }
        fs::remove_file(&path).unwrap();
        assert!(is_noticed(&room, &archive, &saved, &format!("{object}: missing")).await);
        fs::write(&path, &whole).unwrap();
    }
    assert!(!is_noticed(&room, &archive, &saved, "nothing").await);
}

/// Whether verifying or loading fails. It is loaded as it was saved, or the workspace stays as it is.
async fn is_noticed(room: &Room, archive: &Archive, saved: &[u8], what: &str) -> bool {
    let before = room.tar();
    let verified = match room.archives().get(&archive.reference()).await {
        Ok(found) => room.archives().verify(&found).await,
        Err(error) => Err(error),
    };
    match room.archives().restore(&archive.reference(), &room.workspace).await {
        Ok(_) => {
            // What was damaged is not needed for loading: the list of entries, which only comparing and verifying read.
            assert!(room.tar() == saved, "{what}: loaded, and other than it was saved");
            room.set_files(&[("now", b"here")]);
        }
        Err(error) => {
            assert!(room.tar() == before, "{what}: the workspace has changed");
            assert_eq!(Some(error.kind()), verified.as_ref().err().map(Error::kind), "{what}");
        }
    }
    let Err(error) = verified else { return false };
    assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound), "{what}: {error}");
    assert!(error.to_string().contains(&archive.reference().to_string()), "{what}: {error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("corehold archives")), "{what}: {error}");
    true
}

#[tokio::test]
async fn another_version_or_an_unknown_file_hides_no_archive() {
    let room = Room::new().await;
    let archive = room.save().await;
    let folder = room.folder().join("archives/w");
    for (name, content) in
        [("newer.json", r#"{"format": 2}"#), ("broken.json", "{"), ("foreign.txt", "what"), ("UPPER.json", "{}")]
    {
        fs::write(folder.join(name), content).unwrap();
    }
    assert_eq!(room.archives().list(None).await.unwrap(), std::slice::from_ref(&archive));
    let newer = room.archives().get(&"w/newer".parse().unwrap()).await.unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::Unsupported);
    assert!(newer.to_string().contains("w/newer") && newer.hint_text().is_some());
    assert_eq!(room.save().await, archive, "the newest that can be read is built on");
}

#[tokio::test]
async fn a_manifest_that_lies_about_its_hash_is_not_loaded() {
    let room = Room::new().await;
    room.set_files(&[("a", b"one")]);
    let archive = room.save().await;
    room.set_files(&[("now", b"here")]);
    for lie in [
        Archive { hash: "0".repeat(64), ..archive.clone() },
        Archive { bytes: archive.bytes + 512, ..archive.clone() },
        Archive { index: "0".repeat(64), ..archive.clone() },
        Archive { index_bytes: 1, ..archive.clone() },
        Archive { files: 9, ..archive.clone() },
        Archive { content_bytes: 4, ..archive.clone() },
    ] {
        assert_eq!(room.archives().verify(&lie).await.unwrap_err().kind(), ErrorKind::Damaged, "{lie:?}");
    }
}

#[tokio::test]
async fn a_chunk_that_is_a_bomb_is_not_unpacked() {
    let room = Room::new().await;
    room.set_files(&[("a", &noise("a", 300_000))]);
    let archive = room.save().await;
    // A gigabyte of zeros, in the place of each chunk.
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    for chunk in room.objects_of("chunks") {
        fs::write(chunk, &bomb).unwrap();
    }
    assert_eq!(room.archives().verify(&archive).await.unwrap_err().kind(), ErrorKind::Damaged);
    let before = room.tar();
    assert_eq!(room.archives().load(&archive, &room.workspace).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(room.tar() == before);
}

#[tokio::test]
async fn saving_again_mends_what_was_damaged_in_the_store() {
    for damage in ["chunks", "indexes"] {
        let room = Room::new().await;
        room.set_files(&[("large", &noise("large", 3 << 20))]);
        let archive = room.save().await;
        for path in room.objects_of(damage) {
            fs::write(path, "damaged").unwrap();
        }
        assert!(room.archives().verify(&archive).await.is_err());
        let again = room.save().await;
        room.archives().verify(&again).await.unwrap();
        room.archives().verify(&archive).await.expect("the same content has the same chunks");
    }
}
