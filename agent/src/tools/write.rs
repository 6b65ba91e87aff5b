//! `write`: each file is a transaction of its own, so that one that fails doesn't fail the others.

use corehold_types::{
    Code, Problem,
    tools::{
        EditOperation, EditRequest, FileChange, FileEdit, Write, WriteRequest, WriteResponse, WriteResult, WriteTarget,
        WrittenFile,
    },
};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking::{self, Cancelled},
    edit,
    handler::{Call, Events, Handler},
};

impl Handler for Write {
    async fn handle(call: Call, request: WriteRequest, _: Events<Self::Event>) -> Result<WriteResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |cancelled| write(&agent, request, cancelled, &notes)).await
    }

    fn touches(request: &WriteRequest, touched: &mut Touched) {
        touched.paths(request.files.iter().map(|file| &file.path));
    }
}

fn write(agent: &Agent, request: WriteRequest, cancelled: &Cancelled, notes: &Notes) -> Result<WriteResponse, Problem> {
    if request.files.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "files: at least one file is needed").with("field", "files"));
    }
    let most = agent.config.limits.write_files;
    if request.files.len() as u64 > most.value {
        return Err(most.exceeded("the number of files"));
    }
    let mut files = Vec::with_capacity(request.files.len());
    for target in request.files {
        if cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        let path = target.path.clone();
        files.push(match write_one(agent, target, request.durable) {
            Ok(written) => {
                notes.note(|touched| {
                    touched.changed(&written.path, written.previous_hash.as_deref(), Some(&written.hash));
                    touched.came_in(written.size);
                });
                WriteResult::Ok(written)
            }
            Err(problem) => WriteResult::Error { path, problem },
        });
    }
    Ok(WriteResponse { files })
}

fn write_one(agent: &Agent, target: WriteTarget, durable: Option<bool>) -> Result<WrittenFile, Problem> {
    let WriteTarget { path, content, expected, overwrite, mode } = target;
    let create = EditOperation::Create { content, overwrite: Some(overwrite.unwrap_or(true)), mode };
    let request = EditRequest {
        files: vec![FileEdit { path: path.clone(), expected, operations: vec![create] }],
        durable,
        max_diff_bytes: Some(0),
        ..EditRequest::default()
    };
    let answer = edit::transact(&agent.edits, &agent.root, &agent.config.limits, &request).map_err(|mut problem| {
        // They count entries of a request that the caller didn't write.
        problem.context.remove("file");
        problem.context.remove("operation");
        problem
    })?;
    let edited = answer.files.into_iter().next();
    let Some((edited, version, hash)) = edited.and_then(|mut edited| {
        let (version, hash) = (edited.version.take()?, edited.hash.take()?);
        Some((edited, version, hash))
    }) else {
        return Err(Problem::new(
            Code::NotFound,
            format!("{path} was written, and removed by somebody else right after"),
        ));
    };
    Ok(WrittenFile {
        path,
        version,
        previous_hash: edited.previous_hash,
        hash,
        size: edited.size,
        created: edited.change == FileChange::Created,
        other_names: edited.other_names,
    })
}

#[cfg(test)]
mod tests {
    use corehold_types::Content;

    use super::*;
    use crate::testing;

    fn target(path: &str, content: &str) -> WriteTarget {
        WriteTarget { path: path.into(), content: content.into(), expected: None, overwrite: None, mode: None }
    }

    fn write_all(agent: &Agent, files: Vec<WriteTarget>) -> Vec<Result<WrittenFile, Code>> {
        let response =
            write(agent, WriteRequest { files, durable: None }, &Cancelled::default(), &Notes::default()).unwrap();
        let result = |result| match result {
            WriteResult::Ok(written) => Ok(written),
            WriteResult::Error { problem, .. } => Err(problem.code),
        };
        response.files.into_iter().map(result).collect()
    }

    #[test]
    fn files_are_written_with_their_parents_and_one_that_fails_fails_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let agent = testing::agent();
        std::fs::create_dir(agent.root.path().join("dir")).unwrap();
        let bytes = WriteTarget { content: Content::from_bytes(b"\xff\0"), ..target("bytes", "") };
        let script = WriteTarget { mode: Some(0o755), ..target("a/b/script", "#!/bin/sh\r\n") };
        let results = write_all(&agent, vec![script, target("dir", "x"), bytes, target("../out", "x")]);
        assert!(results[0].as_ref().unwrap().created && results[2].is_ok());
        assert_eq!((&results[1], &results[3]), (&Err(Code::NotAFile), &Err(Code::PathOutsideRoot)));
        let script = agent.root.path().join("a/b/script");
        assert_eq!(std::fs::read(&script).unwrap(), b"#!/bin/sh\r\n");
        assert_eq!(script.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read(agent.root.path().join("bytes")).unwrap(), b"\xff\0");
        let again = write_all(&agent, vec![target("a/b/script", "new")]);
        assert!(!again[0].as_ref().unwrap().created);
        assert_eq!(script.metadata().unwrap().permissions().mode() & 0o777, 0o755, "the mode is kept");
    }

    #[test]
    fn expected_versions_and_overwrite_are_kept() {
        let agent = testing::agent();
        let first = write_all(&agent, vec![target("f", "1")]).remove(0).unwrap();
        let new_only = WriteTarget { overwrite: Some(false), ..target("f", "2") };
        assert_eq!(write_all(&agent, vec![new_only]), [Err(Code::AlreadyExists)]);
        for expected in [first.version.clone(), first.hash.clone()] {
            let matching = WriteTarget { expected: Some(expected), ..target("f", "1") };
            assert!(write_all(&agent, vec![matching])[0].is_ok());
        }
        let second = write_all(&agent, vec![WriteTarget { expected: Some(first.version.clone()), ..target("f", "2") }]);
        let stale = WriteTarget { expected: Some(first.version), ..target("f", "3") };
        assert_eq!(write_all(&agent, vec![stale]), [Err(Code::VersionMismatch)]);
        assert_eq!(second[0].as_ref().unwrap().hash, blake3::hash(b"2").to_hex().to_string());
    }

    #[test]
    fn bad_input_is_refused() {
        let agent = testing::agent_with(&[("COREHOLD_LIMIT_WRITE_FILES", "1")]);
        let refused = |files| {
            write(&agent, WriteRequest { files, durable: None }, &Cancelled::default(), &Notes::default())
                .unwrap_err()
                .code
        };
        assert_eq!(refused(Vec::new()), Code::InvalidRequest);
        assert_eq!(refused(vec![target("a", ""), target("b", "")]), Code::LimitExceeded);
        let base64 = WriteTarget { content: Content::Bytes { base64: "*".into() }, ..target("a", "") };
        let mode = WriteTarget { mode: Some(0o1000), ..target("a", "") };
        for (bad, code) in [
            (base64, Code::InvalidRequest),
            (mode, Code::InvalidRequest),
            (target("", ""), Code::NotAFile),
            (target("a/", ""), Code::NotAFile),
            (target("a\0", ""), Code::InvalidRequest),
            (target("/etc/passwd", ""), Code::PathOutsideRoot),
        ] {
            let shown = format!("{bad:?}");
            assert_eq!(write_all(&agent, vec![bad]), [Err(code)], "{shown}");
        }
        assert_eq!(std::fs::read_dir(agent.root.path()).unwrap().count(), 0);
    }
}
