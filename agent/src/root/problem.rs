//! What the operating system's errors mean to a caller.

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::io::Errno;

/// The problem for an error of the operating system at a path. `verb` completes "can't … path".
#[must_use]
pub fn os_problem(errno: Errno, verb: &str, path: &WorkspacePath) -> Problem {
    let problem = match errno {
        Errno::NOENT => Problem::new(Code::NotFound, format!("{path} does not exist")),
        Errno::XDEV => Problem::new(Code::PathOutsideRoot, format!("{path} leads outside of the workspace root"))
            .suggest("paths and symbolic links are followed only as long as they stay under the workspace root"),
        Errno::NOTDIR => Problem::new(Code::NotADirectory, format!("a part of {path} is not a directory")),
        Errno::ISDIR => not_a_file(path, "a directory"),
        Errno::NXIO => not_a_file(path, "a socket or a device"),
        Errno::EXIST => Problem::new(Code::AlreadyExists, format!("{path} exists already")),
        Errno::NOTEMPTY => Problem::new(Code::AlreadyExists, format!("{path} is a directory that is not empty")),
        Errno::LOOP => Problem::new(Code::InvalidRequest, format!("{path} goes through too many symbolic links")),
        Errno::NAMETOOLONG => {
            Problem::new(Code::InvalidRequest, format!("{path} has a component of more than 255 bytes"))
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY | Errno::BUSY => {
            Problem::new(Code::PermissionDenied, format!("can't {verb} {path}: {errno}"))
        }
        Errno::NOSPC | Errno::DQUOT => Problem::new(Code::DiskFull, format!("can't {verb} {path}: {errno}"))
            .suggest("remove what isn't needed, or give the workspace more disk"),
        errno => Problem::new(Code::Internal, format!("can't {verb} {path}: {errno}")),
    };
    if problem.context.contains_key("path") { problem } else { problem.with("path", to_value(path)) }
}

/// The problem of a path that names something other than a regular file.
#[must_use]
pub(super) fn not_a_file(path: &WorkspacePath, what: &str) -> Problem {
    Problem::new(Code::NotAFile, format!("{path} is {what}, not a regular file")).with("path", to_value(path))
}

fn to_value(path: &WorkspacePath) -> serde_json::Value {
    serde_json::to_value(path).unwrap_or_default()
}
