//! What can be said of a request without looking at a file, and how problems say where in it they are.

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{EditOperation, EditRequest, FileEdit},
};

use crate::{config::Limits, edit::operations::invalid};

/// Lines of context that a caller may ask for.
pub(super) const MOST_CONTEXT: u32 = 100;

/// # Errors
/// `INVALID_REQUEST` or `LIMIT_EXCEEDED`.
pub(super) fn request(limits: &Limits, request: &EditRequest) -> Result<(), Problem> {
    if request.files.is_empty() {
        return Err(invalid("files: at least one is needed").with("field", "files"));
    }
    if request.files.len() as u64 > limits.edit_files.value {
        return Err(limits.edit_files.exceeded("files"));
    }
    if request.context_lines.is_some_and(|lines| lines > MOST_CONTEXT) {
        return Err(
            invalid(&format!("contextLines: at most {MOST_CONTEXT} are possible")).with("field", "contextLines")
        );
    }
    if request.max_diff_bytes.is_some_and(|bytes| bytes > limits.edit_diff_bytes.value) {
        return Err(limits.edit_diff_bytes.exceeded("maxDiffBytes"));
    }
    let entries = request.files.iter().enumerate();
    entries
        .into_iter()
        .try_for_each(|(index, file)| entry(file).map_err(|problem| in_entry(problem, index, &file.path)))
}

fn entry(file: &FileEdit) -> Result<(), Problem> {
    if file.operations.is_empty() {
        return Err(invalid("operations: at least one is needed").with("field", "operations"));
    }
    let mut renames = 0;
    for (number, operation) in file.operations.iter().enumerate() {
        let refused = |what: &str| Err(invalid(what).with("operation", number as u64));
        match operation {
            EditOperation::Create { .. } if number > 0 => return refused("create comes first or not at all"),
            EditOperation::Create { mode: Some(mode), .. } if *mode > 0o777 => {
                return refused("mode: permission bits are possible, up to 0o777 (511)");
            }
            EditOperation::Delete {} if file.operations.len() > 1 => {
                return refused("delete goes with no other operation");
            }
            EditOperation::Rename { .. } if matches!(file.operations[0], EditOperation::Create { .. }) => {
                return refused("rename doesn't go with create: create the file under its new path");
            }
            EditOperation::Rename { .. } => renames += 1,
            _ => {}
        }
        if renames > 1 {
            return refused("a file is renamed once");
        }
    }
    Ok(())
}

/// What may be done to a symbolic link itself.
///
/// # Errors
/// `INVALID_REQUEST` for anything but deleting and renaming.
pub(super) fn link(file: &FileEdit) -> Result<(), Problem> {
    if file.operations.iter().any(crate::edit::operations::changes_content) {
        return Err(invalid(&format!(
            "{} is a symbolic link; to rename it and to edit what it leads to are two things",
            file.path
        ))
        .suggest("rename the link in one entry, and edit the file under its own path in another"));
    }
    Ok(())
}

/// Bytes of what a creation makes, as far as that is known without decoding it.
pub(super) fn length_of_creation(file: &FileEdit) -> u64 {
    match file.operations.as_slice() {
        [EditOperation::Create { content, .. }] => content.to_bytes().map_or(0, |bytes| bytes.len() as u64),
        _ => 0,
    }
}

/// Says in which entry a problem is.
pub(super) fn in_entry(problem: Problem, index: usize, path: &WorkspacePath) -> Problem {
    let problem = problem.with("file", index as u64);
    if problem.context.contains_key("path") || problem.code == Code::LimitExceeded {
        problem
    } else {
        problem.with("path", path_value(path))
    }
}

pub(super) fn path_value(path: &WorkspacePath) -> serde_json::Value {
    serde_json::to_value(path).unwrap_or_default()
}
