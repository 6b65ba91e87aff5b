//! Archives that are refused, whole: hostile, damaged, foreign, too large. Whatever entry comes before the bad one, nothing
//! of the archive is left, inside or outside.

use std::{fs, os::unix::fs::symlink};

use corehold_types::Code;

use crate::{
    support::TestAgent,
    tars::{Raw, Tar, gzip, zstd},
};

/// What a workspace looked like before, and must look like after.
async fn workspace() -> TestAgent {
    let agent =
        TestAgent::with(&[("COREHOLD_LIMIT_ARCHIVE_BYTES", "1000000"), ("COREHOLD_LIMIT_ARCHIVE_ENTRIES", "100")]);
    fs::create_dir(agent.outside().join("outside")).unwrap();
    fs::write(agent.outside().join("secret"), "secret").unwrap();
    fs::write(agent.root().join("kept"), "kept").unwrap();
    fs::create_dir(agent.root().join("directory")).unwrap();
    symlink("../outside", agent.root().join("way-out")).unwrap();
    agent
}

/// Sends an archive and checks that it is refused for its own reason and leaves nothing.
async fn refuse(name: &str, archive: Vec<u8>, code: Code, reason: &str) {
    let agent = workspace().await;
    let (names, outside) = (agent.names(), fs::read_dir(agent.outside()).unwrap().count());
    let problem = agent.put("/v1/archive?path=directory/../new/deep", archive.clone()).await.problem();
    assert_eq!(problem.code, code, "{name}: {}", problem.detail);
    assert!(problem.detail.contains(reason), "{name}: {}", problem.detail);
    let problem = agent.put("/v1/archive", archive).await.problem();
    assert_eq!(problem.code, code, "{name}: {}", problem.detail);
    assert_eq!(agent.names(), names, "{name} left something in the workspace");
    assert_eq!(fs::read_dir(agent.outside()).unwrap().count(), outside, "{name} left something outside");
    assert_eq!(fs::read_dir(agent.outside().join("outside")).unwrap().count(), 0, "{name} wrote outside");
    assert_eq!(fs::read_to_string(agent.outside().join("secret")).unwrap(), "secret", "{name}");
    assert_eq!(fs::read_to_string(agent.root().join("kept")).unwrap(), "kept", "{name}");
}

/// An archive in which something good comes first.
fn good() -> Tar {
    Tar::default().directory("good").file("good/file", "content").file("kept", "overwritten")
}

/// A file of this name.
fn named(name: &[u8]) -> Raw<'_> {
    Raw { name, ..Raw::default() }
}

#[tokio::test]
async fn names_that_lead_out_are_refused() {
    let long = "x/".repeat(150) + "f";
    for (name, tar, reason) in [
        ("absolute", good().file("/etc/cron.d/x", "x"), "absolute name"),
        ("absolute within the root's name", good().file("//app/x", "x"), "absolute name"),
        ("upwards", good().file("../outside/x", "x"), "leads upwards"),
        ("upwards behind a directory", good().file("good/../../outside/x", "x"), "leads upwards"),
        ("upwards and back", good().file("good/../x", "x"), "leads upwards"),
        ("only upwards", good().directory(".."), "leads upwards"),
        ("upwards at the end", good().directory("good/.."), "leads upwards"),
        ("absolute by pax", good().pax("path", b"/outside/x").file("innocent", "x"), "absolute name"),
        ("upwards by pax", good().pax("path", b"../outside/x").file("innocent", "x"), "leads upwards"),
        ("upwards by GNU's long name", good().gnu_long_name(b"../outside/x").file("innocent", "x"), "leads upwards"),
        ("a NUL by pax", good().pax("path", b"a\0b").file("innocent", "x"), "NUL byte"),
        ("no name", good().file("", "x"), "has no name"),
        ("no name by pax", good().pax("path", b"").file("innocent", "x"), "has no name"),
        ("the destination as a file", good().file("./.", "x"), "destination itself"),
        ("the destination as a link", good().symlink(".", "outside"), "destination itself"),
        ("a component too long", good().pax("path", &[b'n'; 256]).file("i", "x"), "more than 255 bytes"),
        ("a name too long", good().pax("path", &b"d/".repeat(2049)).file("i", "x"), "more than 4096 bytes"),
        ("too deep", good().pax("path", long.repeat(2).as_bytes()).file("i", "x"), "more than 256 levels"),
        ("64 KiB by pax", good().pax("path", &b"d/".repeat(32 << 10)).file("i", "x"), "more than 4096 bytes"),
        ("64 KiB by GNU's long name", good().gnu_long_name(&[b'n'; 64 << 10]).file("i", "x"), "more than 4096 bytes"),
        (
            "upwards by ustar's prefix",
            good().changed(&named(b"outside/x"), |header| header[345..347].copy_from_slice(b"..")),
            "leads upwards",
        ),
        ("absolute by ustar's prefix", good().changed(&named(b"x"), |header| header[345] = b'/'), "absolute name"),
        ("a stage of the agent's", good().file(".corehold-stage-abcdefghijklmnop/x", "x"), "keeps for itself"),
        ("a pointer of the agent's", good().symlink(".corehold-at-abcdefghijklmnop", ".."), "keeps for itself"),
        ("a file of the agent's", good().file("good/.corehold-file-abcdefghijklmnop", "x"), "keeps for itself"),
        ("a file of a transaction's", good().directory(".corehold-edit-abcdefghijklmnop"), "keeps for itself"),
        ("a journal", good().file(".corehold-journal/abcdefghijklmnop", "x"), "keeps for itself"),
    ] {
        refuse(name, tar.end(), Code::ArchiveEntryRefused, reason).await;
    }
}

#[tokio::test]
async fn links_are_never_written_through() {
    let beneath = "beneath something that is not a directory";
    for (name, tar, reason) in [
        ("through a link out", good().symlink("way", "../outside").file("way/x", "x"), beneath),
        ("through an absolute link", good().symlink("way", "/tmp").file("way/x", "x"), beneath),
        ("through a link to the inside", good().symlink("way", "good").file("way/x", "x"), beneath),
        ("through a link to itself", good().symlink("way", "way").file("way/x", "x"), beneath),
        ("through a chain", good().symlink("a", ".").symlink("b", "a/..").file("b/outside/x", "x"), beneath),
        ("through a link in a directory", good().symlink("good/up", "..").file("good/up/x", "x"), beneath),
        ("a directory through a link", good().symlink("way", "../outside").directory("way/x"), beneath),
        ("a link through a link", good().symlink("way", "../outside").symlink("way/x", "y"), beneath),
        ("a hard link through a link", good().symlink("way", "../outside").hard_link("way/x", "kept"), beneath),
        ("beneath a file", good().file("kept/x", "x"), beneath),
        ("a hard link to the outside", good().hard_link("x", "/etc/passwd"), "hard link to something outside"),
        ("a hard link upwards", good().hard_link("x", "../secret"), "hard link to something outside"),
        ("a hard link into the workspace", good().hard_link("x", "directory/f"), "doesn't come before it"),
        ("a hard link to a directory", good().hard_link("x", "good"), "doesn't come before it"),
        ("a hard link behind a link", good().symlink("w", "..").hard_link("x", "w/secret"), "doesn't come before it"),
        ("a hard link to what comes later", good().hard_link("x", "y").file("y", ""), "doesn't come before it"),
        ("a hard link to nothing", good().hard_link("x", ""), "hard link to something"),
        ("a link to nothing", good().symlink("x", ""), "without a possible target"),
        ("a link with a NUL", good().pax("linkpath", b"a\0b").symlink("x", "y"), "without a possible target"),
        ("a link of 64 KiB", good().pax("linkpath", &[b'l'; 64 << 10]).symlink("x", "y"), "without a possible target"),
        ("a hard link out by pax", good().pax("linkpath", b"/etc/passwd").hard_link("x", "kept"), "something outside"),
        ("through a hard link to a link", good().symlink("w", "..").hard_link("h", "w").file("h/secret", "x"), beneath),
        (
            "a directory that becomes a link",
            good().directory("d").symlink("d", "..").file("d/x", "x"),
            "name of a directory",
        ),
        ("a file that becomes a link", good().file("d", "").symlink("d", "..").file("d/outside/x", "x"), beneath),
        ("a link that becomes another", good().symlink("d", "good").symlink("d", "..").file("d/x", "x"), beneath),
    ] {
        refuse(name, tar.end(), Code::ArchiveEntryRefused, reason).await;
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    for (flag, reason) in [
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "named pipe"),
        (b's', "unknown kind 's'"),
        (b'X', "unknown kind 'X'"),
        (b'A', "unknown kind 'A'"),
        (0xff, "unknown kind"),
        (b'Z', "unknown kind 'Z'"),
    ] {
        refuse(reason, good().of_kind(flag, "special").end(), Code::ArchiveEntryRefused, reason).await;
    }
    let tar = good().directory("same").file("same", "x");
    refuse("a file over a directory", tar.end(), Code::ArchiveEntryRefused, "name of a directory").await;
}

#[tokio::test]
async fn damaged_and_foreign_archives_are_refused() {
    let whole = good().end();
    let packed = gzip(&whole);
    let compressed = zstd(&whole);
    let mut wrong_sum = packed.clone();
    let crc = wrong_sum.len() - 8;
    wrong_sum[crc] ^= 1;
    let mut damaged = compressed.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut changed = whole.clone();
    changed[0] = b'b';
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    std::io::Write::write_all(&mut window, &whole).unwrap();
    let window = window.finish().unwrap();
    let mut wrong_length = packed.clone();
    let last = wrong_length.len() - 1;
    wrong_length[last] ^= 1;
    let sized = |field: &[u8]| {
        let raw = Raw { content: b"x", ..named(b"x") };
        good().changed(&raw, |header| header[124..136].copy_from_slice(field)).end()
    };
    let mut unsummed = whole.clone();
    unsummed[148..156].fill(b' ');
    let extended = good().raw(&Raw { name: b"pax", flag: b'x', size: Some(1 << 30), ..Raw::default() }).end();
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip".repeat(1000);
    for (name, archive, reason) in [
        ("nothing", Vec::new(), "it is empty"),
        ("a text", b"Hello, this is no archive. ".repeat(50), "no tar"),
        ("a short text", b"Hello".to_vec(), "cut off"),
        ("a zip", b"PK\x03\x04rest".to_vec(), "it is zip"),
        ("an xz", b"\xfd7zXZ\0rest".to_vec(), "it is xz"),
        ("a bzip2", b"BZh9rest".to_vec(), "it is bzip2"),
        ("a 7z", b"7z\xbc\xaf\x27\x1c".to_vec(), "it is 7z"),
        ("a tar cut off in a file", good().file("f", &"x".repeat(2000)).unfinished()[..3000].to_vec(), "cut off"),
        ("a tar without an end", good().unfinished(), "cut off"),
        ("a changed header", changed, "checksum"),
        ("a gzip cut off", packed[..packed.len() - 4].to_vec(), "cut off"),
        ("a gzip cut off early", packed[..20].to_vec(), "cut off"),
        ("a gzip with a wrong sum", wrong_sum, "damaged"),
        ("a gzip with something behind it", [&packed[..], b"garbage"].concat(), "damaged"),
        ("a gzip of something else", gzip(&b"no archive".repeat(100)), "no tar"),
        ("a zstd cut off", compressed[..compressed.len() - 3].to_vec(), "cut off"),
        ("a damaged zstd", damaged, ""),
        ("a zstd that wants 128 MiB", window, "damaged"),
        ("GNU sparse", good().of_kind(b'S', "sparse").end(), "sparse"),
        ("pax sparse", good().pax("GNU.sparse.major", b"1").file("sparse", "x").end(), "sparse"),
        ("a second volume", good().of_kind(b'M', "rest").end(), "volumes"),
        ("a label", good().of_kind(b'V', "label").end(), "volumes"),
        ("an extended header at the end", good().pax("path", b"x").end(), "ends after an extended header"),
        ("endless extended headers", (0..99).fold(good(), |tar, _| tar.pax("comment", b"x")).end(), "more than 8"),
        ("an absurd size by pax", good().pax("size", b"18446744073709551615").file("x", "").end(), "impossible"),
        ("a size that is no number", good().pax("size", b"many").file("x", "").end(), "not a number"),
        ("a negative size by pax", good().pax("size", b"-1").file("x", "").end(), "not a number"),
        ("a negative size in binary", sized(&[0xff; 12]), "not a number"),
        ("a size beyond 64 bits", sized(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), "not a number"),
        ("a size beyond 63 bits", sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), "impossible"),
        ("a size in hexadecimal", sized(b"0x10\0\0\0\0\0\0\0\0"), "not a number"),
        ("a size with something behind it", sized(b"1 1\0\0\0\0\0\0\0\0\0"), "not a number"),
        ("no checksum", unsummed, "checksum"),
        (
            "a global header with a name",
            good().of_kind_with(b'g', b"10 path=x\n").file("y", "x").end(),
            "global header sets",
        ),
        ("a record without an end", good().of_kind_with(b'x', b"99 path=x\n").file("y", "x").end(), "malformed"),
        ("a record without a value", good().of_kind_with(b'x', b"7 path\n").file("y", "x").end(), "malformed"),
        ("a record of no length", good().of_kind_with(b'x', b"0 path=x\n").file("y", "x").end(), "malformed"),
        ("a time that is none", good().pax("mtime", b"yesterday").file("y", "x").end(), "not a number"),
        ("a time before all", good().pax("mtime", b"-9223372036854775808.5").file("y", "x").end(), "not a number"),
        ("an extended header of 1 GB", extended, "impossible"),
        ("sparse as GNU tar 1.0 writes it", good().pax("GNU.sparse.name", b"s").file("x", "x").end(), "sparse"),
        ("a gzip in a gzip", gzip(&packed), "cut off"),
        ("a gzip whose second part is damaged", [&packed[..], &packed[..20]].concat(), "cut off"),
        ("a gzip with a wrong length", wrong_length, "damaged"),
        ("a gzip by no known method", b"\x1f\x8b\x07\0\0\0\0\0\0\0rest".to_vec(), "damaged"),
        ("zstd frames to skip, and nothing else", skipped.clone(), "cut off"),
        ("a zstd in a zstd", zstd(&compressed), "cut off"),
        ("a zstd with something behind it", [&compressed[..], b"garbage"].concat(), "damaged"),
    ] {
        refuse(name, archive, Code::ArchiveInvalid, reason).await;
    }
}

#[tokio::test]
async fn archives_beyond_the_limits_are_refused_early() {
    let announced = good().raw(&Raw { name: b"bomb", size: Some(8 << 30), ..Raw::default() });
    let zeros = vec![0; 2_000_000];
    let padded = [good().end(), zeros.clone()].concat();
    let many = (0..100).fold(good(), |tar, number| tar.file(&format!("f{number}"), ""));
    let empties = (0..100_000).fold(good(), |tar, _| tar.file("f", "")).end();
    let comment = vec![b'c'; 100_000];
    let long = format!("{}/", "n".repeat(200)).repeat(18) + "n";
    let split = (0..9).fold(good(), |tar, number| tar.file(&format!("f{number}"), &"x".repeat(150_000)));
    for (name, archive, reason) in [
        ("10 GB announced", announced.clone().unfinished(), "unpacked content"),
        ("10 GB announced, packed", gzip(&announced.unfinished()), "unpacked content"),
        ("2 MB of zeros in 2 kB", gzip(&good().file("x", &"\0".repeat(2_000_000)).end()), "unpacked content"),
        ("2 MB in many files", zstd(&split.end()), "unpacked content"),
        ("2 MB behind the end", padded.clone(), "follows the archive's end"),
        ("2 MB behind the end, packed", gzip(&padded), "follows the archive's end"),
        ("101 entries", many.end(), "number of the archive's entries"),
        ("100,000 empty files in 1 MB", gzip(&empties), "number of the archive's entries"),
        ("200 directories in one name", good().pax("path", &b"d/".repeat(200)).file("i", "").end(), "entries"),
        (
            "names of 20 kB",
            (0..6).fold(good(), |tar, _| tar.pax("path", long.as_bytes()).symlink("d", "e")).end(),
            "entries",
        ),
        (
            "3 MB of comments",
            (0..30).fold(good(), |tar, _| tar.pax("comment", &comment).directory("d")).end(),
            "extended headers",
        ),
    ] {
        refuse(name, archive, Code::LimitExceeded, reason).await;
    }
}

#[tokio::test]
async fn another_hash_than_expected_refuses_the_archive() {
    let agent = workspace().await;
    let names = agent.names();
    let archive = gzip(&good().end());
    let other = blake3::hash(b"other").to_hex();
    let problem = agent.put(&format!("/v1/archive?hash={other}"), archive.clone()).await;
    problem.assert_problem(400, Code::ArchiveInvalid);
    agent.put("/v1/archive?hash=short", archive.clone()).await.assert_problem(400, Code::InvalidRequest);
    assert_eq!(agent.names(), names);
    let own = blake3::hash(&archive).to_hex();
    agent.put(&format!("/v1/archive?hash={own}"), archive).await.assert_ok();
}

#[tokio::test]
async fn a_file_does_not_take_the_place_of_a_directory() {
    let agent = workspace().await;
    let names = agent.names();
    for tar in [good().file("directory", "x"), good().symlink("directory", "elsewhere")] {
        let problem = agent.put("/v1/archive", tar.end()).await.assert_problem(409, Code::AlreadyExists);
        assert!(problem.detail.contains("directory is a directory"), "{}", problem.detail);
        assert_eq!(agent.names(), names);
        assert_eq!(fs::read_to_string(agent.root().join("kept")).unwrap(), "kept");
    }
}
