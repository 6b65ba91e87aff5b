use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// Something in a tar: its name as it stands there, its kind, what it links to, its content.
type Item<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const FOLDER: EntryType = EntryType::Directory;

/// Written by hand: a builder would refuse what is hostile.
fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, target, content) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if name.ends_with(".sh") { 0o6711 } else { 0o600 });
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn load(items: &[Item<'_>]) -> Result<Template> {
    Template::from_archive(Room::new().file("some.tar", &tar_of(items)))
}

fn refusal(items: &[Item<'_>]) -> String {
    let error = load(items).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error.to_string()
}

#[test]
fn an_archive_is_the_folder_that_it_holds_however_it_is_compressed() {
    let room = Room::new();
    let tar = tar_of(&[
        ("./", FOLDER, "", b""),
        ("./template.json", FILE, "", br#"{"dev": "serve", "port": 5000}"#),
        ("./bin/run.sh", FILE, "", b"#!/bin/sh\n"),
        ("./same", HARD, "bin/run.sh", b""),
        ("./link", LINK, "bin/run.sh", b""),
        ("./bin/run.sh", FILE, "", b"later\n"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let archives = [
        room.file("My App.tar", &tar),
        room.file("my-app.tar.gz", &gzip.finish().unwrap()),
        room.file("my-app.TAR.zst", &zstd::encode_all(&tar[..], 1).unwrap()),
        room.file("my-app", &tar),
    ];
    for archive in archives {
        let template = Template::from_archive(&archive).unwrap();
        assert_eq!((template.name.as_str(), template.port, template.dev.as_deref()), ("my-app", 5000, Some("serve")));
        let read = |name: &str| fs::read(template.folder.join(name)).unwrap();
        assert_eq!((read("bin/run.sh"), read("same")), (b"later\n".to_vec(), b"#!/bin/sh\n".to_vec()), "newer, apart");
        assert_eq!(fs::read_link(template.folder.join("link")).unwrap(), Path::new("bin/run.sh"));
        let mode = fs::metadata(template.folder.join("same")).unwrap().permissions().mode();
        assert_eq!((mode & 0o6000, mode & 0o100), (0, 0o100), "what is run stays so, in nobody else's name");
    }
}

#[test]
fn it_goes_with_the_last_clone() {
    let template = load(&[("index.html", FILE, "", b"hello")]).unwrap();
    let other = template.clone();
    assert_eq!(other, template);
    let folder = template.folder.clone();
    drop(template);
    assert!(folder.join("index.html").is_file());
    drop(other);
    assert!(!folder.exists());
}

#[test]
fn what_is_in_one_folder_is_the_template() {
    let global = ("pax_global_header", EntryType::XGlobalHeader, "", &b"19 comment=0123456\n"[..]);
    let template = load(&[global, ("app-1.0/", FOLDER, "", b""), ("app-1.0/index.html", FILE, "", b"")]).unwrap();
    assert!(template.folder.ends_with("app-1.0") && template.folder.join("index.html").is_file());
    assert_eq!(template.name, "some");
    let template = load(&[("one/a", FILE, "", b""), ("l", LINK, "one/a", b"")]).unwrap();
    assert!(template.folder.join("one/a").is_file(), "a link beside it is something beside it");
    let named = br#"{"name": "app"}"#;
    assert_eq!(load(&[("app/template.json", FILE, "", named)]).unwrap().name, "app");
}

/// What must not be is not done, and said; the staged files are gone with it.
#[test]
fn nothing_leads_out_of_it() {
    let up_by_links: &[Item<'_>] = &[("a", LINK, ".", b""), ("b", LINK, "a/..", b""), ("c", LINK, "b/..", b"")];
    for items in [
        &[("../up", FILE, "", &b"x"[..])][..],
        &[("/tmp/abs", FILE, "", b"x")],
        &[("a/../../up", FOLDER, "", b"")],
        &[("a", LINK, "/tmp", b""), ("a/x", FILE, "", b"x")],
        &[("a/x", FILE, "", b"x"), ("a", LINK, "/tmp", b"")],
        &[("a", LINK, "/tmp", b""), ("a/x", LINK, "y", b"")],
        &[("a", LINK, "/tmp", b""), ("a", FOLDER, "", b"")],
        &[("hard", HARD, "/etc/passwd", b"")],
        &[("hard", HARD, "../../../etc/passwd", b"")],
        &[("l", LINK, "/etc/passwd", b""), ("hard", HARD, "l", b"")],
        &[("l", LINK, "/etc", b""), ("hard", HARD, "l/passwd", b"")],
        &[("template.json", LINK, "/etc/passwd", b"")],
        &[("template.json", LINK, "../../../../../../../etc/passwd", b"")],
        up_by_links,
    ] {
        refusal(items);
    }
}

#[test]
fn what_a_template_cannot_hold_is_named() {
    for (items, said) in [
        (&[("fifo", EntryType::Fifo, "", &b""[..])][..], "fifo"),
        (&[("device", EntryType::Char, "", b"")], "device"),
        (&[("a", FILE, "", b""), ("a/b", FILE, "", b"")], "a/b"),
        (&[("a/b", FILE, "", b""), ("a", FILE, "", b"")], "two kinds"),
        (&[("a", FILE, "", b""), ("a", FOLDER, "", b"")], "two kinds"),
        (&[(".", FILE, "", b"")], "its root is no folder"),
        (&[("l", LINK, "", b"")], "l leads nowhere"),
    ] {
        let error = refusal(items);
        assert!(error.contains(said) && error.contains("some.tar"), "{said}: {error}");
    }
    let mut sparse = Builder::new(Vec::new());
    sparse.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut bytes = sparse.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(tar_of(&[("holes", FILE, "", b"x")]));
    let error = Template::from_archive(Room::new().file("s.tar", &bytes)).unwrap_err();
    assert!(error.to_string().contains("has holes"), "{error}");
}

#[test]
fn what_is_damaged_or_cut_off_anywhere_is_refused() {
    let room = Room::new();
    let tar = tar_of(&[("index.html", FILE, "", &[7; 512])]);
    let compressed = zstd::encode_all(&tar[..], 1).unwrap();
    for (whole, step) in [(&tar, 64), (&compressed, 1)] {
        for end in (0..whole.len()).step_by(step) {
            let cut = Template::from_archive(room.file("cut", &whole[..end]));
            assert_eq!(cut.unwrap_err().kind(), ErrorKind::Invalid, "cut at {end} of {}", whole.len());
        }
    }
    for strange in [&b"PK\x03\x04 a zip"[..], b"", &[b'x'; 5000], &[0x1f, 0x8b, 8, 0]] {
        let error = Template::from_archive(room.file("strange", strange)).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.hint_text().is_some(), "{error}");
    }
    let missing = Template::from_archive(room.0.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn what_would_fill_the_disk_or_the_memory_is_refused_before_it_does() {
    let room = Room::new();
    let limits = Limits { bytes: 10_000, entries: 10, ..Limits::default() };
    let refused = |bytes: &[u8]| {
        let error = from_archive(&room.file("bomb", bytes), &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    let zeros = vec![0; 4 << 20];
    let bomb = zstd::encode_all(&tar_of(&[("zeros", FILE, "", &zeros)])[..], 1).unwrap();
    assert!(bomb.len() < 2000 && refused(&bomb).contains("more than the 10000 bytes"));
    let many: Vec<Item<'_>> = (0..11).map(|_| ("same", FILE, "", &b""[..])).collect();
    assert!(refused(&tar_of(&many)).contains("more than 10 files"));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(2 << 20);
    header.set_cksum();
    let name = zstd::encode_all(&[header.as_bytes(), &vec![b'a'; 2 << 20][..]].concat()[..], 1).unwrap();
    let error = from_archive(&room.file("name", &name), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("bytes of headers"), "{error}");
    // What comes after its end is read no further than that either.
    assert!(
        refused(&zstd::encode_all(&[tar_of(&[("a", FILE, "", b"")]), zeros].concat()[..], 1).unwrap())
            .contains("more than")
    );
}

#[test]
fn who_says_how_much_it_may_hold_is_heard() {
    let room = Room::new();
    let archive = room.file("app.tar", &tar_of(&[("a", FILE, "", &[7; 3000])]));
    Template::from_archive_within(&archive, 3000).unwrap();
    let error = Template::from_archive_within(&archive, 2999).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.hint_text().unwrap().contains("COREHOLD_ARCHIVE_BYTES"));
    let catalog = crate::Catalog::new([room.0.path()]).archive_bytes(2999);
    assert_eq!(catalog.resolve(archive.to_str().unwrap()).unwrap_err().to_string(), error.to_string());
    catalog.archive_bytes(3000).resolve(archive.to_str().unwrap()).unwrap();
}

/// A path of which some parts lead up, are links, or nothing.
fn some_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "a", "b", "b", "c", "..", ".", "", "template.json"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn some_item() -> impl Strategy<Value = (String, EntryType, String, Vec<u8>)> {
    let elsewhere = prop::sample::select(vec!["/etc/passwd", "/", "../..", "../../../../../../../../etc"]);
    let target = prop_oneof![3 => some_path(), 1 => elsewhere.prop_map(str::to_owned)];
    let link = (some_path(), prop::sample::select(vec![LINK, LINK, HARD]), target, Just(Vec::new()));
    let folder = (some_path(), Just(FOLDER), Just(String::new()), Just(Vec::new()));
    let file = (some_path(), Just(FILE), Just(String::new()), prop::collection::vec(any::<u8>(), 0..700));
    prop_oneof![3 => link, 1 => folder, 3 => file]
}

proptest! {
    #[test]
    fn whatever_an_archive_holds_stays_within(
        items in prop::collection::vec(some_item(), 1..12),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        compressed in any::<bool>(),
    ) {
        let items: Vec<Item<'_>> =
            items.iter().map(|(name, kind, target, content)| (&name[..], *kind, &target[..], &content[..])).collect();
        let mut bytes = tar_of(&items);
        if compressed {
            bytes = zstd::encode_all(&bytes[..], 1).unwrap();
        }
        if let Some((place, byte)) = damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        fuzz::archive(&bytes);
    }
}

#[test]
fn what_is_fine_is_taken_where_hostile_archives_are_tried() {
    assert!(fuzz::archive(&tar_of(&[("a/b", FILE, "", b"x"), ("a/c", LINK, "b", b""), ("d", HARD, "a/b", b"")])));
}
