//! Folders of every kind, packed and read back.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    cache: tempfile::TempDir,
    limits: Limits,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap(), limits: Limits::default() }
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let fixture = Self::new();
        for (name, content) in files {
            fixture.write(name, content);
        }
        fixture
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn packer(&self) -> Packer {
        Packer::new(self.cache.path().join("templates"), self.limits)
    }

    fn pack(&self) -> Result<PackedArchive> {
        self.packer().pack(self.folder.path(), &[])
    }

    /// Writes the index as if the files had lain untouched for an hour (their change time is the kernel's and can't be
    /// made up), with what `content` says they hold.
    fn settle(&self, content: impl Fn(&Path) -> Vec<u8>) {
        let scan = Scan::of(self.folder.path(), &Excludes::new(&[]).unwrap(), &self.limits).unwrap();
        let hash = |entry: &scan::Entry| *blake3::hash(&content(&entry.path)).as_bytes();
        let contents: Vec<_> = scan.entries.iter().map(hash).collect();
        let path = self.packer().store.index_path(self.folder.path()).unwrap();
        Index::write(&path, &scan.entries, &contents, index::now() + 3_600_000_000_000).unwrap();
    }
}

/// What an archive holds: path to (kind, mode, content or target).
type Held = BTreeMap<Vec<u8>, (char, u32, Vec<u8>)>;

fn read(archive: &mut PackedArchive) -> Held {
    let mut held = Held::new();
    let mut tar = tar::Archive::new(zstd::Decoder::new(&mut archive.file).unwrap());
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (OWNER, OWNER));
        assert_eq!(entry.header().mtime().unwrap(), MODIFIED);
        let path = entry.path_bytes().trim_ascii_end().to_vec();
        let path = path.strip_suffix(b"/").map_or(path.clone(), <[u8]>::to_vec);
        let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let held_as = match kind {
            tar::EntryType::Directory => ('d', mode, vec![]),
            tar::EntryType::Symlink => ('l', mode, entry.link_name_bytes().unwrap().into_owned()),
            tar::EntryType::Regular => ('f', mode, content),
            other => panic!("{other:?} in an archive"),
        };
        assert!(held.insert(path, held_as).is_none(), "twice in one archive");
    }
    held
}

fn bytes_of(archive: &mut PackedArchive) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), archive.hash);
    assert_eq!(bytes.len() as u64, archive.size);
    bytes
}

#[test]
fn the_same_folder_gives_the_same_bytes_whoever_packs_it_and_when() {
    let files = [("a/b.txt", "one"), ("a.txt", "two"), ("run.sh", "#!/bin/sh")];
    let (one, other) = (Fixture::with(&files), Fixture::with(&files));
    for (fixture, mode) in [(&one, 0o700), (&other, 0o777)] {
        fs::set_permissions(fixture.path("run.sh"), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(other.path("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::options().append(true).open(other.path("a.txt")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let (mut first, mut second) = (one.pack().unwrap(), other.pack().unwrap());
    assert_eq!(first.key, second.key);
    assert_eq!(bytes_of(&mut first), bytes_of(&mut second));
    assert_eq!((first.about.files, first.about.content_bytes, first.cached), (3, 15, false));
}

#[test]
fn what_is_read_back_is_what_was_packed() {
    let fixture =
        Fixture::with(&[("src/App.jsx", "<App/>"), ("run", "x"), (".git/config", "no"), ("node_modules/m/i.js", "no")]);
    fs::set_permissions(fixture.path("run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(fixture.path("empty")).unwrap();
    symlink("src/App.jsx", fixture.path("link")).unwrap();
    symlink(".//nowhere/./x", fixture.path("dangling")).unwrap();
    let expected = Held::from([
        (b"dangling".to_vec(), ('l', 0o777, b".//nowhere/./x".to_vec())),
        (b"empty".to_vec(), ('d', 0o755, vec![])),
        (b"link".to_vec(), ('l', 0o777, b"src/App.jsx".to_vec())),
        (b"run".to_vec(), ('f', 0o755, b"x".to_vec())),
        (b"src".to_vec(), ('d', 0o755, vec![])),
        (b"src/App.jsx".to_vec(), ('f', 0o644, b"<App/>".to_vec())),
    ]);
    assert_eq!(read(&mut fixture.pack().unwrap()), expected);
}

#[test]
fn an_unchanged_folder_is_not_read_again_and_a_changed_one_is() {
    let fixture = Fixture::with(&[("a", "1")]);
    let first = fixture.pack().unwrap();
    fs::write(fixture.path("a"), "2").unwrap();
    let second = fixture.pack().unwrap();
    assert_ne!(second.key, first.key);

    // An index that lies about an untouched file is believed: so the file was not read.
    fixture.settle(|_| b"1".to_vec());
    assert_eq!(fixture.pack().unwrap().key, first.key);

    // Once the file is touched, the index says nothing about it any more.
    fs::write(fixture.path("a"), "2").unwrap();
    let third = fixture.pack().unwrap();
    assert!(third.cached && third.key == second.key, "touched, read again, and as it was");
}

#[test]
fn a_file_changed_within_the_clocks_grain_is_never_taken_for_unchanged() {
    let fixture = Fixture::with(&[("a", "1")]);
    let mut keys = std::collections::BTreeSet::new();
    for content in ["1", "2", "3", "4"] {
        fs::write(fixture.path("a"), content).unwrap();
        keys.insert(fixture.pack().unwrap().key);
    }
    assert_eq!(keys.len(), 4);
}

#[test]
fn damaged_and_evicted_archives_are_packed_anew() {
    let fixture = Fixture::with(&[("a", "1")]);
    let mut first = fixture.pack().unwrap();
    let whole = bytes_of(&mut first);
    let store = fixture.cache.path().join("templates");
    let archive = || {
        let found = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
        found.filter(|path| path.to_string_lossy().ends_with(".tar.zst")).collect::<Vec<_>>()
    };
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    for content in [&damaged[..], &whole[..10], b""] {
        fs::write(&archive()[0], content).unwrap();
        let mut again = fixture.pack().unwrap();
        assert!(!again.cached);
        assert_eq!(bytes_of(&mut again), whole);
    }
    fs::remove_file(&archive()[0]).unwrap();
    assert!(!fixture.pack().unwrap().cached);
    let description = store.join(format!("{}.json", first.key));
    fs::write(&description, format!(r#"{{"hash":"../../{}","size":1,"files":1,"contentBytes":1}}"#, "a".repeat(58)))
        .unwrap();
    assert!(!fixture.pack().unwrap().cached, "a description can't name a file elsewhere");
}

#[test]
fn the_cache_is_bounded_and_what_killed_processes_left_is_swept() {
    let mut fixture = Fixture::with(&[("a", "")]);
    fixture.limits.cache_bytes = 3 << 10;
    let store = fixture.cache.path().join("templates");
    fs::create_dir_all(&store).unwrap();
    for (name, hours) in [(".draft-old", 2), (".draft-new", 0), ("lost-0123.tar.zst", 2)] {
        let file = fs::File::create(store.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    let mut keys = Vec::new();
    for seed in 0..6_u8 {
        // Not compressible, so that the archive's size is known.
        let content: Vec<u8> = blake3::Hasher::new_derive_key(&seed.to_string()).finalize_xof().take_bytes(1000);
        fs::write(fixture.path("a"), content).unwrap();
        let archive = fixture.pack().unwrap();
        let used = fs::File::options().append(true).open(store.join(format!("{}.json", archive.key))).unwrap();
        used.set_modified(SystemTime::now() - Duration::from_secs(60 - u64::from(seed))).unwrap();
        keys.push(archive.key);
    }
    let kept = |key: &Key| store.join(format!("{key}.json")).exists();
    assert_eq!(keys.iter().map(kept).collect::<Vec<_>>(), [false, false, false, false, true, true]);
    let names: Vec<_> = fs::read_dir(&store).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.contains(&".draft-new".to_owned()), "{names:?}");
    assert!(!names.contains(&".draft-old".to_owned()) && !names.contains(&"lost-0123.tar.zst".to_owned()), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".tar.zst")).count(), 2);
}

trait TakeBytes {
    fn take_bytes(self, count: usize) -> Vec<u8>;
}

impl TakeBytes for blake3::OutputReader {
    fn take_bytes(mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }
}

#[test]
fn what_cant_be_packed_is_named_with_what_to_do() {
    let fixture = Fixture::with(&[("a", "1")]);
    let refused = |name: &str| {
        let error = fixture.pack().unwrap_err();
        fs::remove_file(fixture.path(name)).unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.hint_text().unwrap().contains(&format!("\"/{name}\"")), "{:?}", error.hint_text());
        error.to_string()
    };
    let _listener = UnixListener::bind(fixture.path("s.sock")).unwrap();
    assert!(refused("s.sock").ends_with("s.sock is a socket, which can't be packed"));
    rustix::fs::mknodat(rustix::fs::CWD, fixture.path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refused("fifo").ends_with("fifo is a named pipe, which can't be packed"));
    let null = rustix::fs::makedev(1, 3);
    match rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.path("null"),
        rustix::fs::FileType::CharacterDevice,
        0o600.into(),
        null,
    ) {
        Ok(()) => assert!(refused("null").ends_with("null is a device, which can't be packed")),
        // Only root makes devices; who runs this as somebody else can't have one in a folder either.
        Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
    }
    symlink("/etc/passwd", fixture.path("absolute")).unwrap();
    assert!(refused("absolute").contains("absolute path /etc/passwd"));
    symlink("x/../../etc/passwd", fixture.path("escape")).unwrap();
    assert!(refused("escape").contains("outside of the folder"));
    for name in ["one", "two", "three"] {
        symlink("/x", fixture.path(name)).unwrap();
    }
    let error = fixture.pack().unwrap_err();
    assert!(error.to_string().contains("(and 2 more like it)"), "{error}");
    let excluded = ["/one".to_owned(), "t*".to_owned()];
    fixture.packer().pack(fixture.folder.path(), &excluded).unwrap();
}

#[test]
fn links_within_the_folder_are_kept_at_any_depth() {
    let fixture = Fixture::with(&[("a/b/c", "1")]);
    symlink("../../a/b/c", fixture.path("a/b/up")).unwrap();
    assert_eq!(read(&mut fixture.pack().unwrap())[&b"a/b/up"[..]].2, b"../../a/b/c");
    symlink("../../../a", fixture.path("a/b/too-far")).unwrap();
    assert!(fixture.pack().unwrap_err().to_string().contains("a/b/too-far"));
}

#[test]
fn a_huge_sparse_file_is_refused_before_it_is_read() {
    let fixture = Fixture::with(&[("a", "1")]);
    fs::File::create(fixture.path("disk.img")).unwrap().set_len(4 << 30).unwrap();
    let began = std::time::Instant::now();
    let error = fixture.pack().unwrap_err();
    assert!(error.to_string().contains("the largest file is disk.img with 4294967296"), "{error}");
    assert!(error.hint_text().unwrap().contains("COREHOLD_ARCHIVE_BYTES"));
    assert!(began.elapsed() < Duration::from_secs(1), "4 GiB can't be read in that time");
}

#[test]
fn too_many_files_and_none_at_all() {
    let mut fixture = Fixture::with(&[("a", ""), ("b", ""), ("c", "")]);
    fixture.limits.entries = 2;
    assert!(fixture.pack().unwrap_err().to_string().contains("more than 2 files"));
    let described = Fixture::with(&[("template.json", "{}")]);
    assert_eq!(described.pack().unwrap().about.files, 0);
    let empty = Fixture::with(&[(".DS_Store", "")]);
    let error = empty.pack().unwrap_err();
    assert!(error.to_string().ends_with("is empty"), "{error}");
    assert!(error.hint_text().unwrap().contains("excluded"));
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_noticed() {
    let fixture = Fixture::with(&[("a", "1"), ("b", "2")]);
    let scan = || Scan::of(fixture.folder.path(), &Excludes::new(&[]).unwrap(), &fixture.limits).unwrap();
    let write = |scan: &Scan| {
        let draft = fixture.packer().store.draft().unwrap();
        write::write(fixture.folder.path(), &scan.entries, draft).map(drop)
    };
    for change in [
        (|path| fs::write(path, "longer")) as fn(PathBuf) -> std::io::Result<()>,
        |path| fs::remove_file(&path).and_then(|()| fs::write(path, "2")),
        |path| fs::remove_file(&path).and_then(|()| symlink("a", path)),
        |path| fs::remove_file(&path).and_then(|()| fs::create_dir(path)),
    ] {
        let _ = fs::remove_dir(fixture.path("b")).or_else(|_| fs::remove_file(fixture.path("b")));
        fixture.write("b", "2");
        let before = scan();
        change(fixture.path("b")).unwrap();
        let error = write(&before).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("b changed while it was being packed"), "{error}");
    }
    fs::remove_dir(fixture.path("b")).unwrap();
    let before = scan();
    fs::remove_file(fixture.path("a")).unwrap();
    assert_eq!(write(&before).unwrap_err().kind(), ErrorKind::Conflict);
    let drafts = fs::read_dir(fixture.cache.path().join("templates")).unwrap().count();
    assert_eq!(drafts, 0, "a failed packing leaves nothing");
}

#[test]
fn names_of_any_bytes_and_any_length_survive() {
    let fixture = Fixture::new();
    let long: Vec<u8> = std::iter::once(0xff).chain(std::iter::repeat_n(b'x', 200)).collect();
    let target: Vec<u8> = std::iter::repeat_n(&b"caf\xe9/"[..], 30).flatten().copied().collect();
    fs::create_dir(fixture.path(OsStr::from_bytes(b"\x01\n"))).unwrap();
    let deep = Path::new(OsStr::from_bytes(b"\x01\n")).join(OsStr::from_bytes(&long));
    fs::write(fixture.path(&deep), "deep").unwrap();
    symlink(OsStr::from_bytes(&target), fixture.path("link")).unwrap();
    let held = read(&mut fixture.pack().unwrap());
    assert_eq!(held[deep.as_os_str().as_bytes()].2, b"deep");
    assert_eq!(held[&b"link"[..]].2, target);
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let any =
        prop::collection::vec(any::<u8>().prop_filter("no separator", |byte| *byte != b'/' && *byte != 0), 1..140);
    any.prop_filter("a name of its own", |name| {
        let special =
            [&b"."[..], b"..", b".git", b"node_modules", b".venv", b"__pycache__", b".DS_Store", b"template.json"];
        // The reader of this test trims what tar pads names with.
        !special.contains(&name.as_slice()) && !name.last().unwrap().is_ascii_whitespace()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_comes_back_as_it_was(
        files in prop::collection::vec((prop::collection::vec(name(), 1..4), prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 1..12)
    ) {
        let fixture = Fixture::new();
        let mut expected = Held::new();
        for (path, content, executable) in files {
            let path = PathBuf::from(std::ffi::OsString::from_vec(path.join(&b"/"[..])));
            // A file where a folder is, or the other way round: the first one stays.
            if fs::create_dir_all(fixture.path(path.parent().unwrap())).is_err() || fixture.path(&path).exists() {
                continue;
            }
            fs::write(fixture.path(&path), &content).unwrap();
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(fixture.path(&path), fs::Permissions::from_mode(mode)).unwrap();
            expected.insert(path.as_os_str().as_bytes().to_vec(), ('f', mode, content));
        }
        let mut held = read(&mut fixture.pack().unwrap());
        held.retain(|_, (kind, ..)| *kind != 'd');
        prop_assert_eq!(held, expected);
    }
}
