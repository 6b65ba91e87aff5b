//! What isn't packed.

use std::path::Path;

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};

use crate::error::{Error, ErrorKind, Result};

/// Never packed, unless a template takes them back with `!`: repositories, what set-up makes anew for its own machine,
/// and the file that describes the template itself.
pub(crate) const DEFAULT_EXCLUDES: &[&str] =
    &[".git", "node_modules", ".venv", "__pycache__", ".DS_Store", "/template.json"];

/// Decides by patterns as in .gitignore, the last that matches wins.
pub(crate) struct Excludes(Gitignore);

impl Excludes {
    pub(crate) fn new(patterns: &[String]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in DEFAULT_EXCLUDES.iter().copied().chain(patterns.iter().map(String::as_str)) {
            builder.add_line(None, pattern).map_err(|error| invalid(pattern, &error))?;
        }
        builder.build().map(Self).map_err(|error| invalid("", &error))
    }

    /// Whether a path relative to the packed folder is left out. What is in an excluded folder is never asked for.
    pub(crate) fn exclude(&self, path: &Path, is_directory: bool) -> bool {
        matches!(self.0.matched(path, is_directory), Match::Ignore(_))
    }
}

fn invalid(pattern: &str, error: &ignore::Error) -> Error {
    Error::new(ErrorKind::Invalid, format!("{pattern:?} is no pattern as in .gitignore: {error}"))
}

/// Whether a pattern can be used.
pub(crate) fn check_pattern(pattern: &str) -> std::result::Result<(), String> {
    match GitignoreBuilder::new("").add_line(None, pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_at_any_depth_and_can_be_taken_back() {
        let excludes = Excludes::new(&[]).unwrap();
        for (path, directory) in
            [("node_modules", true), ("a/b/.git", true), ("x/.git", false), ("template.json", false)]
        {
            assert!(excludes.exclude(Path::new(path), directory), "{path}");
        }
        assert!(!excludes.exclude(Path::new("src/template.json"), false), "only the template's own is left out");
        let own = Excludes::new(&["dist/".into(), "!vendor/node_modules".into()]).unwrap();
        assert!(own.exclude(Path::new("a/dist"), true) && !own.exclude(Path::new("a/dist"), false));
        assert!(!own.exclude(Path::new("vendor/node_modules"), true) && own.exclude(Path::new("node_modules"), true));
    }
}
