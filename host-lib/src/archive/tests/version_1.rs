//! An archive of version 1, as it was written when that was the newest, is loaded for ever. `tests/fixtures/archive-v1` is never
//! written again: what can't read it is wrong.

use super::*;
use crate::archive::{
    entry::{Entry, Kind},
    scan,
};

fn expected() -> Vec<Entry> {
    use Kind::{Directory, File, HardLink, Symlink};
    let file = |content: &[u8]| File { size: content.len() as u64, hash: *blake3::hash(content).as_bytes() };
    let entry = |path: &[u8], mode, modified, kind| Entry { path: path.to_vec(), kind, mode, modified };
    vec![
        entry(b"caf\xe9", 0o644, (1_700_000_000, 0), file(b"a name that is no UTF-8")),
        entry(b"empty", 0o755, (1_700_000_001, 0), Directory),
        entry(b"large.txt", 0o600, (1_700_000_002, 123_456_789), file(&lines())),
        entry(b"program", 0o755, (-2, 750_000_000), file(b"#!/bin/sh\n")),
        entry(b"second name", 0o755, (-2, 750_000_000), HardLink { target: b"program".to_vec() }),
        entry(b"way", 0o777, (1_700_000_003, 0), Symlink { target: b"../else/where".to_vec() }),
    ]
}

/// More than two chunks of it.
fn lines() -> Vec<u8> {
    (0..400_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

#[tokio::test]
async fn an_archive_of_version_1_is_loaded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archive-v1");
    let room = Room::new().await;
    let archives = room.archives_in(ArchiveStore::folder(folder)).await;
    let all = archives.list(None).await.unwrap();
    let [archive] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((archive.format, archive.workspace.as_str(), archive.template.as_deref()), (1, "w", None));
    assert_eq!((archive.files, archive.directories, archive.symlinks), (4, 1, 1));
    assert_eq!(archive.exclusions, ["*.tmp"]);
    archives.verify(archive).await.unwrap();
    archives.load(archive, &room.workspace).await.unwrap();
    let mut entries = Vec::new();
    scan::read(&room.tar()[..], |entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    assert_eq!(entries, expected());
}
