//! Archives that are odd and yet taken: what programs have written in forty years, and what harms nobody.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::PathBuf,
};

use corehold_types::Code;

use crate::{
    support::TestAgent,
    tars::{Raw, Tar, gzip, zstd},
};

/// Extracts an archive; where its files are.
async fn extracted(agent: &TestAgent, archive: Vec<u8>) -> PathBuf {
    agent.put("/v1/archive", archive).await.assert_ok();
    agent.root().to_owned()
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn compressed_parts_one_after_the_other_are_one_archive() {
    let tar = Tar::default().file("a", "first").file("b", "second").end();
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
    let (head, tail) = tar.split_at(700);
    for archive in [
        [gzip(head), gzip(tail)].concat(),
        [gzip(b""), gzip(&tar), gzip(b"")].concat(),
        [skipped.to_vec(), zstd(head), skipped.to_vec(), zstd(tail), skipped.to_vec()].concat(),
    ] {
        let agent = TestAgent::new();
        let root = extracted(&agent, archive).await;
        assert_eq!((read(root.join("a")), read(root.join("b"))), ("first".to_owned(), "second".to_owned()));
    }
}

#[tokio::test]
async fn what_old_programs_wrote_is_read() {
    let agent = TestAgent::new();
    let full = [b'n'; 100];
    let tar = Tar::default()
        // Before POSIX: no magic, and no kind.
        .changed(&Raw { name: b"v7", content: b"old", ..Raw::default() }, |header| {
            header[156] = 0;
            header[257..265].fill(0);
        })
        .raw(&Raw { name: b"slash/", ..Raw::default() })
        .raw(&Raw { name: b"contiguous", flag: b'7', content: b"c", ..Raw::default() })
        .raw(&Raw { name: &full, content: b"100 bytes, no NUL", ..Raw::default() })
        .changed(&Raw { name: b"spaces", content: b"s", ..Raw::default() }, |header| {
            header[124..136].copy_from_slice(b"          1 ");
        })
        .changed(&Raw { name: b"binary", content: b"b", ..Raw::default() }, |header| {
            header[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x01");
        })
        // A directory's size is room to reserve: what follows is the next header.
        .raw(&Raw { name: b"room", flag: b'5', mode: 0o755, size: Some(512), ..Raw::default() })
        .file("after-room", "after")
        .end();
    let root = extracted(&agent, tar).await;
    assert!(root.join("slash").is_dir() && root.join("room").is_dir());
    for (name, content) in
        [("v7", "old"), ("contiguous", "c"), ("spaces", "s"), ("binary", "b"), ("after-room", "after")]
    {
        assert_eq!(read(root.join(name)), content, "{name}");
    }
    assert_eq!(read(root.join(OsStr::from_bytes(&full))), "100 bytes, no NUL");
}

#[tokio::test]
async fn an_extended_header_goes_before_the_fields() {
    let agent = TestAgent::new();
    let tar = Tar::default()
        // The field says that nothing follows: who believed it would take the content for a header.
        .pax("size", b"7")
        .raw(&Raw { name: b"sized", size: Some(0), content: b"content", ..Raw::default() })
        .pax("linkpath", b"sized")
        .symlink("link", "/etc/passwd")
        .pax("linkpath", b"sized")
        .hard_link("hard", "/etc/passwd")
        // The last one counts.
        .pax("path", b"../outside")
        .pax("path", b"named")
        .file("unnamed", "n")
        // GNU's long name ends at its first NUL.
        .gnu_long_name(b"cut\0/../../outside")
        .file("uncut", "c")
        // Nothing is carried over to the next one.
        .file("plain", "p")
        .end();
    let root = extracted(&agent, tar).await;
    assert_eq!(agent.names(), ["cut", "hard", "link", "named", "plain", "sized"]);
    assert_eq!(fs::read_link(root.join("link")).unwrap(), PathBuf::from("sized"));
    assert_eq!((read(root.join("sized")), read(root.join("hard"))), ("content".to_owned(), "content".to_owned()));
}

#[tokio::test]
async fn times_may_be_any() {
    let agent = TestAgent::new();
    let file = |name| Raw { name, ..Raw::default() };
    let field = |bytes: [u8; 12]| move |header: &mut [u8; 512]| header[136..148].copy_from_slice(&bytes);
    let tar = Tar::default()
        .changed(&file(b"before"), field(*b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"))
        .changed(&file(b"beyond"), field(*b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"))
        .changed(&file(b"long-before"), field(*b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0"))
        .changed(&file(b"no-number"), field(*b"yesterday\0\0\0"))
        .pax("mtime", b"9223372036854775807.999999999")
        .raw(&file(b"beyond-by-pax"))
        .pax("mtime", b"-1.25")
        .raw(&file(b"before-by-pax"))
        .pax("mtime", b"-9223372036854775808")
        .raw(&Raw { name: b"directory", flag: b'5', mode: 0o755, ..Raw::default() })
        .pax("mtime", b"9223372036854775807")
        .symlink("link", "before")
        .end();
    let root = extracted(&agent, tar).await;
    let time = |name: &str| {
        let metadata = fs::metadata(root.join(name)).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!((time("before"), time("before-by-pax")), ((-2, 0), (-2, 750_000_000)));
    assert_eq!(time("no-number"), (0, 0));
    // The file system keeps what it can; whatever that is, it can be told.
    for name in ["beyond", "long-before", "beyond-by-pax", "directory", "link"] {
        let answer = agent.tool("stat", format!(r#"{{"paths":["{name}"]}}"#)).await;
        assert!(answer.status.as_u16() < 500, "{name}: {}", answer.text());
    }
    agent.tool("list", "{}").await.assert_ok();
}

#[tokio::test]
async fn names_that_only_look_alike_are_different_names() {
    let agent = TestAgent::new();
    let names: [&[u8]; 9] = [
        b"README",
        b"readme",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"caf\xe9",
        b"line\nfeed",
        b"\x1b[31mred",
        "right\u{202e}left".as_bytes(),
        b" . ",
    ];
    let tar = names.iter().fold(Tar::default(), |tar, name| tar.raw(&Raw { name, content: name, ..Raw::default() }));
    let root = extracted(&agent, tar.end()).await;
    for name in names {
        assert_eq!(fs::read(root.join(OsStr::from_bytes(name))).unwrap(), name);
    }
}

#[tokio::test]
async fn a_hard_link_to_a_symbolic_link_is_one_too_and_leads_nowhere_else() {
    let agent = TestAgent::new();
    fs::write(agent.outside().join("secret"), "secret").unwrap();
    let tar = Tar::default()
        .symlink("way", "../secret")
        .hard_link("hard", "way")
        .file("f", "old")
        .hard_link("f2", "f")
        // Replaces the name, not what both have.
        .file("f2", "new")
        .raw(&Raw { name: b"set-id", flag: b'5', mode: 0o7755, ..Raw::default() })
        .end();
    let root = extracted(&agent, tar).await;
    assert_eq!(fs::read_link(root.join("hard")).unwrap(), PathBuf::from("../secret"));
    agent.get("/v1/files/hard", &[]).await.assert_problem(403, Code::PathOutsideRoot);
    assert_eq!((read(root.join("f")), read(root.join("f2"))), ("old".to_owned(), "new".to_owned()));
    assert_eq!(fs::metadata(root.join("set-id")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn an_archive_of_nothing_is_an_archive() {
    for archive in [Tar::default().end(), gzip(&Tar::default().end()), Tar::default().directory("./").end()] {
        let agent = TestAgent::new();
        extracted(&agent, archive).await;
        assert!(agent.names().is_empty());
    }
}
