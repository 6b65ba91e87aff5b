//! The lexical half of confinement: what a caller's path says before the kernel is asked.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use corehold_types::{Code, Problem, WorkspacePath};

use super::own;

/// The kernel's `PATH_MAX`, its NUL included.
const PATH_MAX: usize = 4096;

/// A path relative to the root: without NUL, empty and `.` components, at least `.`.
///
/// `..` stays in it: what it means depends on links, so the kernel decides. A path that was written with a slash at its
/// end keeps a last `.`, which makes the kernel insist on a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativePath(Vec<u8>);

impl RelativePath {
    /// Checks a path and strips whichever of the roots it begins with.
    pub(super) fn new(path: &WorkspacePath, roots: &[&Path]) -> Result<Self, Problem> {
        let malformed = |what: &str| Problem::new(Code::InvalidRequest, format!("the path {what}"));
        let bytes =
            path.to_path_buf().map_err(|_| malformed("has a malformed base64 form"))?.into_os_string().into_vec();
        if bytes.contains(&0) {
            return Err(malformed("contains a NUL byte, which no file name can"));
        }
        if bytes.len() >= PATH_MAX {
            return Err(malformed(&format!("has {} bytes; at most {} are possible", bytes.len(), PATH_MAX - 1)));
        }
        let relative = match bytes.first() {
            Some(b'/') => roots.iter().find_map(|root| strip_root(&bytes, root)),
            _ => Some(&bytes[..]),
        };
        match relative {
            Some(relative) => {
                components(relative).try_for_each(|component| own::refuse(component, path))?;
                Ok(Self::clean(relative))
            }
            None => Err(Problem::new(
                Code::PathOutsideRoot,
                format!("{path} is not under the workspace root {}", roots[0].display()),
            )
            .with("path", serde_json::to_value(path).unwrap_or_default())
            .suggest("name the path relative to the workspace root")),
        }
    }

    /// [`RelativePath::new`] under `/app`, for fuzzing: what comes out has no NUL, no empty component and no root in front.
    #[cfg(any(feature = "fuzzing", test))]
    pub(crate) fn fuzz(path: &WorkspacePath) {
        if let Ok(Self(path)) = Self::new(path, &[Path::new("/app")]) {
            assert!(!path.is_empty() && path[0] != b'/' && !path.contains(&0));
            assert!(!path.windows(2).any(|pair| pair == b"//"));
        }
    }

    fn clean(bytes: &[u8]) -> Self {
        let mut cleaned = Vec::with_capacity(bytes.len());
        for component in components(bytes) {
            if !cleaned.is_empty() {
                cleaned.push(b'/');
            }
            cleaned.extend_from_slice(component);
        }
        if cleaned.is_empty() {
            cleaned.push(b'.');
        } else if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            cleaned.extend_from_slice(b"/.");
        }
        Self(cleaned)
    }

    /// The path for the kernel.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path's bytes without the `.` that stands for the root or a slash at the end: a prefix for entries beneath it.
    #[must_use]
    pub fn as_prefix(&self) -> &[u8] {
        match self.0.as_slice() {
            b"." => b"",
            bytes => bytes.strip_suffix(b"/.").unwrap_or(bytes),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory and the last component; nothing when the path ends in `.` or `..`.
    pub(super) fn split(&self) -> Option<(Self, &OsStr)> {
        let (parent, name) = match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&b"."[..], &self.0[..]),
        };
        if name == b"." || name == b".." { None } else { Some((Self(parent.to_vec()), OsStr::from_bytes(name))) }
    }

    /// The path without its last component; nothing for the root.
    pub(super) fn parent(&self) -> Option<(Self, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.0 == b"." => None,
            None => Some((Self(b".".to_vec()), &self.0[..])),
        }
    }
}

/// The components of a path that say something.
pub(super) fn components(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}

/// What follows the root in an absolute path beneath it.
pub(super) fn strip_root<'a>(absolute: &'a [u8], root: &Path) -> Option<&'a [u8]> {
    let root = root.as_os_str().as_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = absolute.strip_prefix(root)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(path: &str) -> Result<String, Code> {
        RelativePath::new(&path.into(), &[Path::new("/app")])
            .map(|path| String::from_utf8(path.0).unwrap())
            .map_err(|problem| problem.code)
    }

    #[test]
    fn paths_become_relative_to_the_root() {
        for (given, meant) in [
            ("", "."),
            (".", "."),
            ("/app", "."),
            ("/app/", "."),
            ("src//App.jsx", "src/App.jsx"),
            ("./src/./App.jsx", "src/App.jsx"),
            ("/app/src", "src"),
            ("src/", "src/."),
            ("src/.", "src/."),
            ("a/../b", "a/../b"),
        ] {
            assert_eq!(relative(given).as_deref(), Ok(meant), "{given}");
        }
    }

    #[test]
    fn absolute_paths_elsewhere_are_outside() {
        for path in ["/", "/etc/passwd", "/application", "/app.txt", "//app/x"] {
            assert_eq!(relative(path), Err(Code::PathOutsideRoot), "{path}");
        }
    }

    #[test]
    fn impossible_paths_are_refused_before_the_kernel_sees_them() {
        assert_eq!(relative("a\0b"), Err(Code::InvalidRequest));
        assert_eq!(relative(&"a/".repeat(2048)), Err(Code::InvalidRequest));
        let bad = WorkspacePath::Bytes { base64: "*".into() };
        assert_eq!(RelativePath::new(&bad, &[Path::new("/app")]).unwrap_err().code, Code::InvalidRequest);
    }

    #[test]
    fn names_of_the_agents_own_are_refused_wherever_they_stand() {
        for own in [".corehold-journal", ".corehold-file-abcdefghijklmnop", ".corehold-stage-ponmlkjihgfedcba"] {
            for path in [own.to_owned(), format!("{own}/x"), format!("/app/a/./{own}//"), format!("{own}/..")] {
                assert_eq!(relative(&path), Err(Code::InvalidRequest), "{path}");
            }
            assert!(relative(&format!("{own}x")).is_ok() && relative(&format!("x{own}")).is_ok());
        }
        let bytes = WorkspacePath::Bytes { base64: "LmNvcmVob2xkLWpvdXJuYWw=".into() };
        assert!(RelativePath::new(&bytes, &[Path::new("/app")]).unwrap_err().detail.contains(own::RESERVED));
    }

    #[test]
    fn splits_off_the_name_but_not_dots() {
        let split = |path: &str| {
            let path = RelativePath::clean(path.as_bytes());
            path.split().map(|(parent, name)| (parent.0, name.as_bytes().to_vec()))
        };
        assert_eq!(split("a/b"), Some((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(split("b"), Some((b".".to_vec(), b"b".to_vec())));
        assert!(split(".").is_none() && split("a/..").is_none() && split("a/").is_none());
    }
}
