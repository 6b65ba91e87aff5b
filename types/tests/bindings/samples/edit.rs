//! `edit`, `write`, `stat`, `mkdir`, `move`, `copy`, `remove`.

use corehold_types::{Code, Content, Problem, Timestamp, WorkspacePath, tools::*};

use super::{LARGEST, Sample, sample};

fn path_of_bytes() -> WorkspacePath {
    WorkspacePath::from_bytes(b"caf\xe9")
}

fn operations() -> Vec<EditOperation> {
    let (old, new) = (Content::from("a\r\n"), Content::from_bytes(b"\xff"));
    vec![
        EditOperation::Replace { old: old.clone(), new: new.clone(), all: None, count: None, exact: None },
        EditOperation::Replace { old, new, all: Some(false), count: Some(LARGEST), exact: Some(true) },
        EditOperation::Lines { start: 1, end: Some(LARGEST), text: "x".to_owned() },
        EditOperation::Lines { start: 1, end: None, text: String::new() },
        EditOperation::Insert { line: LARGEST, text: "x\n".to_owned() },
        EditOperation::Diff { diff: "@@ -1 +1 @@\n-a\n+b\n".to_owned(), fuzz: Some(2) },
        EditOperation::Diff { diff: String::new(), fuzz: None },
        EditOperation::Create { content: "".into(), overwrite: Some(true), mode: Some(0o755) },
        EditOperation::Create { content: "".into(), overwrite: None, mode: None },
        EditOperation::Delete {},
        EditOperation::Rename { to: path_of_bytes(), overwrite: Some(true) },
        EditOperation::Rename { to: "b".into(), overwrite: None },
    ]
}

fn edit() -> Vec<Sample> {
    let file = FileEdit { path: "a".into(), expected: None, operations: operations() };
    let expecting = FileEdit { path: path_of_bytes(), expected: Some("v".to_owned()), operations: Vec::new() };
    let edited = EditedFile {
        path: "a".into(),
        renamed_to: Some(path_of_bytes()),
        change: FileChange::Renamed,
        version: Some("v".to_owned()),
        previous_hash: Some("11".to_owned()),
        hash: Some("00".to_owned()),
        size: LARGEST,
        lines_added: LARGEST,
        lines_removed: 0,
        diff: Some("--- a/a\n".to_owned()),
        diff_truncated: true,
        displaced_hunks: vec![DisplacedHunk { hunk: 1, line: LARGEST, offset: -3, fuzz: 2 }],
        other_names: Some(1),
    };
    let bare = EditedFile {
        renamed_to: None,
        change: FileChange::Deleted,
        version: None,
        previous_hash: None,
        hash: None,
        diff: None,
        displaced_hunks: Vec::new(),
        other_names: None,
        ..edited.clone()
    };
    let others = [FileChange::Created, FileChange::Modified, FileChange::Unchanged];
    let others = others.map(|change| EditedFile { change, ..bare.clone() });
    vec![
        sample(&EditRequest { files: vec![file], ..EditRequest::default() }),
        sample(&EditRequest {
            files: vec![expecting],
            dry_run: Some(true),
            durable: Some(true),
            context_lines: Some(0),
            max_diff_bytes: Some(LARGEST),
        }),
        sample(&EditResponse { files: [&[edited, bare][..], &others].concat(), dry_run: false }),
    ]
}

fn write() -> Vec<Sample> {
    let bare = WriteTarget { path: "a".into(), content: "x".into(), expected: None, overwrite: None, mode: None };
    let full = WriteTarget {
        path: path_of_bytes(),
        content: Content::from_bytes(b"\xff"),
        expected: Some("v".to_owned()),
        overwrite: Some(false),
        mode: Some(0o644),
    };
    let written = WrittenFile {
        path: "a".into(),
        version: "v".to_owned(),
        previous_hash: Some("11".to_owned()),
        hash: "00".to_owned(),
        size: LARGEST,
        created: true,
        other_names: Some(1),
    };
    let failed = WriteResult::Error { path: "dir".into(), problem: Problem::new(Code::NotAFile, "a directory") };
    let results = vec![
        WriteResult::Ok(WrittenFile { previous_hash: None, other_names: None, ..written.clone() }),
        WriteResult::Ok(written),
        failed,
    ];
    vec![
        sample(&WriteRequest { files: vec![bare, full], durable: None }),
        sample(&WriteRequest { files: Vec::new(), durable: Some(true) }),
        sample(&WriteResponse { files: results }),
    ]
}

fn stat() -> Vec<Sample> {
    let entry = StatEntry {
        path: "a".into(),
        kind: EntryKind::File,
        size: LARGEST,
        mode: 0o4755,
        uid: u32::MAX,
        gid: 0,
        links: 1,
        modified: Timestamp::from_unix(1_700_000_000, 5),
        changed: Timestamp::from_unix(0, 0),
        version: Some("v".to_owned()),
        hash: Some("00".to_owned()),
        target: None,
    };
    let link = StatEntry {
        kind: EntryKind::Symlink,
        version: None,
        hash: None,
        target: Some(path_of_bytes()),
        ..entry.clone()
    };
    let failed = StatResult::Error { path: "gone".into(), problem: Problem::new(Code::NotFound, "no such file") };
    vec![
        sample(&StatRequest { paths: vec!["a".into(), path_of_bytes()], follow: Some(true), hash: Some(true) }),
        sample(&StatRequest::default()),
        sample(&StatResponse { entries: vec![StatResult::Ok(entry), StatResult::Ok(link), failed] }),
    ]
}

fn trees() -> Vec<Sample> {
    vec![
        sample(&MkdirRequest { path: "a".into(), parents: None, exist_ok: None, mode: None }),
        sample(&MkdirRequest { path: path_of_bytes(), parents: Some(false), exist_ok: Some(false), mode: Some(0o700) }),
        sample(&MkdirResponse { created: LARGEST }),
        sample(&MoveRequest { from: "a".into(), to: path_of_bytes(), overwrite: None }),
        sample(&MoveRequest { from: "a".into(), to: "b".into(), overwrite: Some(true) }),
        sample(&MoveResponse { replaced: true }),
        sample(&CopyRequest { from: "a".into(), to: "b".into(), recursive: None, overwrite: None }),
        sample(&CopyRequest { from: "a".into(), to: "b".into(), recursive: Some(true), overwrite: Some(true) }),
        sample(&CopyResponse { files: LARGEST, directories: 1, symlinks: 2, skipped: 3, bytes: LARGEST }),
        sample(&RemoveRequest { path: "a".into(), recursive: None, missing_ok: None, expected: None }),
        sample(&RemoveRequest {
            path: path_of_bytes(),
            recursive: Some(true),
            missing_ok: Some(true),
            expected: Some("v".to_owned()),
        }),
        sample(&RemoveResponse { removed: LARGEST }),
    ]
}

pub(super) fn samples() -> Vec<Sample> {
    [edit(), write(), stat(), trees()].into_iter().flatten().collect()
}
