//! What single operations do to files, and what is refused.

use corehold_types::{WorkspacePath, tools::FileChange};

use super::*;

#[test]
fn an_edit_answers_with_diff_hash_and_version() {
    let world = World::with(&[("src/a.txt", "one\ntwo\nthree\n")]);
    let response = world.edit(vec![file("src/a.txt", vec![replace("two", "2"), insert(4, "four")])]).unwrap();
    let edited = &response.files[0];
    assert_eq!(world.text("src/a.txt"), "one\n2\nthree\nfour\n");
    assert_eq!(edited.change, FileChange::Modified);
    assert_eq!((edited.lines_added, edited.lines_removed, edited.size), (2, 1, 17));
    assert_eq!(edited.hash.as_deref(), Some(&*hash("one\n2\nthree\nfour\n")));
    let diff = "--- a/src/a.txt\n+++ b/src/a.txt\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n";
    assert_eq!(edited.diff.as_deref(), Some(diff));
    let version = edited.version.clone().unwrap();
    let again = expecting(&version, file("src/a.txt", vec![replace("2", "two")]));
    assert!(world.edit(vec![again.clone()]).is_ok(), "the version that came back is the current one");
    let problem = world.edit(vec![again]).unwrap_err();
    assert_eq!(problem.code, Code::VersionMismatch);
    let current = problem.context["version"].as_str().unwrap();
    assert!(world.edit(vec![expecting(current, file("src/a.txt", vec![replace("two", "2")]))]).is_ok());
}

#[test]
fn what_an_edit_does_not_name_stays() {
    let world = World::with(&[("a", "\u{feff}one\r\ntwo\r\nthree"), ("other", "x")]);
    let path = world.folder.join("a");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4705)).unwrap();
    rustix::fs::setxattr(&path, "user.test", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4705)).unwrap();
    }
    let before = look(&world.folder);
    world.edit(vec![file("a", vec![replace("two\nth", "2\nand\nth")])]).unwrap();
    let after = look(&world.folder);
    assert_eq!(world.text("a"), "\u{feff}one\r\n2\r\nand\r\nthree");
    let plain = |seen: &Seen| Seen { bytes: Vec::new(), ..seen.clone() };
    assert_eq!(plain(&after[Path::new("a")].0), plain(&before[Path::new("a")].0));
    assert_eq!(after[Path::new("other")], before[Path::new("other")]);
}

#[test]
fn an_edit_that_comes_to_nothing_touches_nothing() {
    let world = World::with(&[("a", "x\n")]);
    let before = look(&world.folder);
    for operation in [replace("x", "x"), create("x\n", true)] {
        let response = world.edit(vec![file("a", vec![operation])]).unwrap();
        assert_eq!(response.files[0].change, FileChange::Unchanged);
        assert!(response.files[0].version.is_some() && response.files[0].diff.is_none());
        assert_eq!(response.files[0].hash.as_deref(), Some(&*hash("x\n")));
    }
    assert_eq!(look(&world.folder), before);
}

#[test]
fn links_lead_to_their_file_and_are_renamed_and_deleted_themselves() {
    let world = World::with(&[("dir/real", "x\n"), ("twin", "t\n")]);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, world.folder.join(name)).unwrap();
    link("dir/real", "link");
    link(world.folder.join("dir/real").to_str().unwrap(), "absolute");
    link("/etc/passwd", "outside");
    std::fs::hard_link(world.folder.join("twin"), world.folder.join("twin2")).unwrap();
    world.edit(vec![file("link", vec![replace("x", "y")])]).unwrap();
    world.edit(vec![file("absolute", vec![replace("y", "z")])]).unwrap();
    assert_eq!(world.text("dir/real"), "z\n");
    assert!(world.folder.join("link").symlink_metadata().unwrap().is_symlink());
    assert_eq!(world.refused(vec![file("outside", vec![replace("root", "x")])]), Code::PathOutsideRoot);
    assert_eq!(world.refused(vec![file("link", vec![replace("z", "x"), rename("l", false)])]), Code::InvalidRequest);
    let twice = vec![file("link", vec![replace("z", "a")]), file("dir/real", vec![replace("z", "b")])];
    assert_eq!(world.refused(twice), Code::InvalidRequest);
    world.edit(vec![file("link", vec![rename("moved-link", false)]), file("outside", vec![delete()])]).unwrap();
    assert_eq!(std::fs::read_link(world.folder.join("moved-link")).unwrap(), Path::new("dir/real"));
    let twin = world.edit(vec![file("twin", vec![replace("t", "T")])]).unwrap();
    assert_eq!((twin.files[0].other_names, world.text("twin2").as_str()), (Some(1), "t\n"));
}

#[test]
fn all_or_nothing_when_one_operation_does_not_fit() {
    let world = World::with(&[("a", "x\n"), ("b", "y\n")]);
    let before = look(&world.folder);
    let problem = world
        .edit(vec![
            file("a", vec![replace("x", "1")]),
            file("c/d", vec![create("new", false)]),
            file("b", vec![replace("y", "2"), replace("nope", "3")]),
        ])
        .unwrap_err();
    assert_eq!(problem.code, Code::NoMatch);
    assert_eq!((problem.context["file"].as_u64(), problem.context["operation"].as_u64()), (Some(2), Some(1)));
    assert_eq!(problem.context["path"], "b");
    assert_eq!(look(&world.folder), before);
}

#[test]
fn binary_files_change_only_byte_for_byte() {
    let world = World::new();
    world.put("latin", b"caf\xe9\r\n");
    assert_eq!(world.refused(vec![file("latin", vec![replace("caf", "x")])]), Code::NotText);
    assert_eq!(world.refused(vec![file("latin", vec![insert(1, "x")])]), Code::NotText);
    let exact = EditOperation::Replace {
        old: corehold_types::Content::from_bytes(b"\xe9\r"),
        new: "e".into(),
        all: None,
        count: None,
        exact: Some(true),
    };
    let response = world.edit(vec![file("latin", vec![exact])]).unwrap();
    assert_eq!((world.text("latin").as_str(), &response.files[0].diff), ("cafe\n", &None));
    assert_eq!(response.files[0].lines_added, 1);
}

#[test]
fn a_diff_is_applied_and_says_where() {
    let world = World::with(&[("a", "0\n0\n1\n2\n3\n")]);
    let diff = EditOperation::Diff { diff: "@@ -2,2 +2,2 @@\n 2\n-3\n+three\n".to_owned(), fuzz: None };
    let response = world.edit(vec![file("a", vec![diff.clone()])]).unwrap();
    assert_eq!(world.text("a"), "0\n0\n1\n2\nthree\n");
    assert_eq!((response.files[0].displaced_hunks[0].line, response.files[0].displaced_hunks[0].offset), (4, 2));
    assert_eq!(world.refused(vec![file("a", vec![diff])]), Code::NoMatch);
}

#[test]
fn bad_requests_are_refused_and_leave_nothing() {
    let world = World::with(&[("a", "x\n"), ("dir/b", "y\n")]);
    rustix::fs::mknodat(rustix::fs::CWD, world.folder.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let before = look_without_pipe(&world);
    let one = |path: &str, operation: EditOperation| vec![file(path, vec![operation])];
    let mode = |mode| EditOperation::Create { content: "x".into(), overwrite: None, mode: Some(mode) };
    let fuzz = EditOperation::Diff { diff: "@@ -1 +1 @@\n-x\n+y\n".to_owned(), fuzz: Some(11) };
    let both =
        EditOperation::Replace { old: "x".into(), new: "y".into(), all: Some(true), count: Some(1), exact: None };
    let base64 = EditOperation::Create {
        content: corehold_types::Content::Bytes { base64: "*".to_owned() },
        overwrite: None,
        mode: None,
    };
    let long = "n".repeat(256);
    let cases = [
        (Vec::new(), Code::InvalidRequest),
        (vec![file("a", Vec::new())], Code::InvalidRequest),
        (one("gone", replace("x", "y")), Code::NotFound),
        (one("gone/gone", replace("x", "y")), Code::NotFound),
        (one("gone", delete()), Code::NotFound),
        (one("dir", replace("x", "y")), Code::NotAFile),
        (one("dir", delete()), Code::NotAFile),
        (one("dir", rename("d", false)), Code::NotAFile),
        (one(".", delete()), Code::NotAFile),
        (one("pipe", replace("x", "y")), Code::NotAFile),
        (one("a/b", create("x", false)), Code::NotADirectory),
        (one("../x", create("x", false)), Code::PathOutsideRoot),
        (one("/etc/x", create("x", false)), Code::PathOutsideRoot),
        (one("a", rename("../a", false)), Code::PathOutsideRoot),
        (one("a\0b", create("x", false)), Code::InvalidRequest),
        (one(&long, create("x", false)), Code::InvalidRequest),
        (one("new/../x", create("x", false)), Code::InvalidRequest),
        (one(".corehold-journal/x", create("x", false)), Code::InvalidRequest),
        (one("dir/.corehold-edit-abcdefghijklmnop", create("x", false)), Code::InvalidRequest),
        (one("new/.corehold-edit-abcdefghijklmnop/y", create("x", false)), Code::InvalidRequest),
        (one("a", create("x", false)), Code::AlreadyExists),
        (one("dir", create("x", true)), Code::NotAFile),
        (one("a", rename("dir/b", false)), Code::AlreadyExists),
        (one("a", rename("dir", true)), Code::NotAFile),
        (one("new", mode(0o1777)), Code::InvalidRequest),
        (one("new", base64), Code::InvalidRequest),
        (one("a", fuzz), Code::InvalidRequest),
        (one("a", both), Code::InvalidRequest),
        (vec![file("a", vec![replace("x", "y"), create("z", true)])], Code::InvalidRequest),
        (vec![file("a", vec![replace("x", "y"), delete()])], Code::InvalidRequest),
        (vec![file("a", vec![rename("b", false), rename("c", false)])], Code::InvalidRequest),
        (vec![file("new", vec![create("x", false), rename("c", false)])], Code::InvalidRequest),
        (vec![file("a", vec![delete()]), file("./a", vec![delete()])], Code::InvalidRequest),
        (vec![file("a", vec![rename("z", false)]), file("dir/b", vec![rename("z", false)])], Code::InvalidRequest),
        (vec![expecting("", file("a", vec![replace("x", "y")]))], Code::VersionMismatch),
        (vec![expecting(&"0".repeat(64), file("a", vec![delete()]))], Code::VersionMismatch),
        (vec![expecting("v", file("new", vec![create("x", true)]))], Code::VersionMismatch),
    ];
    for (files, code) in cases {
        let shown = format!("{files:?}");
        let result = world.edit(files);
        assert_eq!(result.as_ref().err().map(|problem| problem.code), Some(code), "{shown} gives {result:?}");
        assert_eq!(look_without_pipe(&world), before, "{shown}");
    }
    let bad_base64 = FileEdit { path: WorkspacePath::Bytes { base64: "*".into() }, ..file("", vec![delete()]) };
    assert_eq!(world.refused(vec![bad_base64]), Code::InvalidRequest);
}

/// Reading a pipe would wait for ever, so it is out of the way while the test looks.
fn look_without_pipe(world: &World) -> BTreeMap<PathBuf, (Seen, Same)> {
    let (pipe, aside) = (world.folder.join("pipe"), world.folder.with_extension("pipe"));
    std::fs::rename(&pipe, &aside).unwrap();
    let seen = look(&world.folder);
    std::fs::rename(&aside, &pipe).unwrap();
    seen
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let mut world = World::with(&[("a", "0123456789"), ("b", "0123456789")]);
    world.limits.edit_bytes.value = 30;
    let both = |new: &str| vec![file("a", vec![replace("0", new)]), file("b", vec![replace("0", new)])];
    assert_eq!(world.refused(both("x")), Code::LimitExceeded, "two old and two new are more than 30 bytes");
    assert!(world.edit(vec![file("a", vec![replace("0", "x")])]).is_ok());
    world.limits.edit_files.value = 1;
    let problem = world.edit(both("x")).unwrap_err();
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_EDIT_FILES");
}

#[test]
fn the_diff_of_all_files_together_is_bounded() {
    let world = World::with(&[("a", "x\n"), ("b", "y\n")]);
    let files = vec![file("a", vec![replace("x", "1")]), file("b", vec![replace("y", "2")])];
    let request = EditRequest { files, dry_run: Some(true), max_diff_bytes: Some(60), ..EditRequest::default() };
    let response = world.transact(&request).unwrap();
    assert!(response.dry_run && response.files[0].diff.is_some() && !response.files[0].diff_truncated);
    assert!(response.files[1].diff.is_none() && response.files[1].diff_truncated);
    assert_eq!(world.text("a"), "x\n");
    let none = EditRequest { max_diff_bytes: Some(0), ..request };
    assert!(world.transact(&none).unwrap().files.iter().all(|file| file.diff.is_none() && file.lines_added == 1));
}
