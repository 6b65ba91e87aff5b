//! From a program's name to the file that is run, by the rules of `execvp(3)`.

use std::{
    ffi::{OsStr, OsString},
    io::Read as _,
    os::{
        fd::BorrowedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};

/// Where programs are looked for when a command's environment has no `PATH`.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program can't be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Miss {
    /// No such file, in the `PATH` or where the name points.
    Missing,
    /// It is a directory or another thing that isn't a file.
    IrregularFile(PathBuf),
    /// It lacks the permission to be executed.
    Unexecutable(PathBuf),
}

/// Finds the file for a program. A name with a slash is a path, relative to the command's directory; another one is looked
/// for in `search`, whose relative parts count from that directory too.
pub(super) fn find(program: &OsStr, search: &OsStr, directory: BorrowedFd<'_>) -> Result<PathBuf, Miss> {
    if program.is_empty() {
        return Err(Miss::Missing);
    }
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return check(directory, &path).map(|()| path);
    }
    let mut miss = Miss::Missing;
    for part in search.as_bytes().split(|byte| *byte == b':') {
        let part = if part.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(part) };
        let path = Path::new(part).join(program);
        match check(directory, &path) {
            Ok(()) => return Ok(path),
            // As execvp does: a later part may have one that can be run; if none has, this says more than "not found".
            Err(found @ Miss::Unexecutable(_)) => miss = found,
            Err(_) => {}
        }
    }
    Err(miss)
}

fn check(directory: BorrowedFd<'_>, path: &Path) -> Result<(), Miss> {
    let stat = rustix::fs::statat(directory, path, AtFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::ACCESS => Miss::Unexecutable(path.to_owned()),
        _ => Miss::Missing,
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Miss::IrregularFile(path.to_owned()));
    }
    rustix::fs::accessat(directory, path, Access::EXEC_OK, AtFlags::empty())
        .map_err(|_| Miss::Unexecutable(path.to_owned()))
}

/// How a file begins that the kernel didn't want to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// `#!` and the interpreter's path.
    Interpreter(OsString),
    /// Text: a shell would run it as a script, and so do we.
    Text,
    /// Neither: a program for another machine, or damaged.
    Binary,
}

/// Looks at the first bytes of a file, by bash's rule: a zero byte in the first line makes it binary.
pub(super) fn beginning(directory: BorrowedFd<'_>, path: &Path) -> Option<Beginning> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, path, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(256).read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Some(interpreter) = line.strip_prefix(b"#!") {
        let path = interpreter.trim_ascii().split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        // The carriage return of a script saved on Windows is part of the path for the kernel, and invisible to people.
        let path = if interpreter.ends_with(b"\r") { [path, b"\r"].concat() } else { path.to_vec() };
        return Some(Beginning::Interpreter(OsString::from_vec(path)));
    }
    Some(if line.contains(&0) || bytes.starts_with(b"\x7fELF") { Beginning::Binary } else { Beginning::Text })
}

/// Whether the command's directory holds such a program, which a name without a slash doesn't reach.
pub(super) fn is_beside(directory: BorrowedFd<'_>, path: &Path) -> bool {
    check(directory, path).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn file(path: PathBuf, content: &[u8], mode: u32) {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_can_be_run_wins() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "b", "c"] {
            fs::create_dir(at(name)).unwrap();
        }
        file(at("a/tool"), b"", 0o644);
        fs::create_dir(at("b/tool")).unwrap();
        file(at("c/tool"), b"", 0o755);
        file(at("tool"), b"", 0o755);
        let directory = fs::File::open(folder.path()).unwrap();
        let find = |program: &str, search: &str| find(program.as_ref(), search.as_ref(), directory.as_fd());

        assert_eq!(find("tool", "a:b:c").unwrap(), Path::new("c/tool"));
        assert_eq!(find("tool", "a:b"), Err(Miss::Unexecutable("a/tool".into())));
        assert_eq!(find("tool", "b:missing"), Err(Miss::Missing));
        assert_eq!(find("tool", "a:").unwrap(), Path::new("./tool"), "an empty part is the command's directory");
        assert_eq!(find("./tool", "a").unwrap(), Path::new("./tool"));
        assert_eq!(find("b/tool", ""), Err(Miss::IrregularFile("b/tool".into())));
        assert_eq!(find("", "c"), Err(Miss::Missing));
    }

    #[test]
    fn a_file_says_how_it_wants_to_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let directory = fs::File::open(folder.path()).unwrap();
        let begins = |content: &[u8]| {
            file(folder.path().join("it"), content, 0o755);
            beginning(directory.as_fd(), Path::new("it")).unwrap()
        };
        assert_eq!(begins(b"#! /usr/bin/env node\n"), Beginning::Interpreter("/usr/bin/env".into()));
        assert_eq!(begins(b"#!/bin/sh\r\n"), Beginning::Interpreter("/bin/sh\r".into()));
        assert_eq!(begins(b"echo hi\n"), Beginning::Text);
        assert_eq!(begins(b""), Beginning::Text);
        assert_eq!(begins(b"\x7fELF\x02\n"), Beginning::Binary);
        assert_eq!(begins(b"MZ\0\0\n"), Beginning::Binary);
    }
}
