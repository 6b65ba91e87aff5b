//! Types of projects: by which files each is known, and of which image it is made unless somebody says otherwise.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A type of project: what its commands need to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProjectType {
    /// Node with npm, yarn or pnpm.
    Node,
    /// Python with pip.
    Python,
    /// Java with Maven or Gradle.
    Java,
    /// Go.
    Go,
    /// Rust with cargo.
    Rust,
    /// Ruby with bundler.
    Ruby,
    /// PHP with composer.
    Php,
    /// Files that are served as they are.
    Static,
}

impl ProjectType {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Node, Self::Python, Self::Java, Self::Go, Self::Rust, Self::Ruby, Self::Php, Self::Static];

    /// The word for people, for `template.json` and for configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Java => "java",
            Self::Go => "go",
            Self::Rust => "rust",
            Self::Ruby => "ruby",
            Self::Php => "php",
            Self::Static => "static",
        }
    }

    /// The image that is used unless the host's configuration names another ([`HostBuilder::project_image`](crate::HostBuilder::project_image),
    /// `COREHOLD_PROJECT_IMAGES`); `None`: the core image has all that it needs. `corehold image build --project` makes it.
    #[must_use]
    pub const fn default_image(self) -> Option<&'static str> {
        match self {
            Self::Node | Self::Static => None,
            Self::Python => Some("workspace-python:latest"),
            Self::Java => Some("workspace-java:latest"),
            Self::Go => Some("workspace-go:latest"),
            Self::Rust => Some("workspace-rust:latest"),
            Self::Ruby => Some("workspace-ruby:latest"),
            Self::Php => Some("workspace-php:latest"),
        }
    }

    /// The files by which it is known, of which one suffices; the first type in [`ALL`](Self::ALL) that has one is it.
    #[must_use]
    pub const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["package.json"],
            Self::Python => &["requirements.txt", "pyproject.toml"],
            Self::Java => &["pom.xml", "build.gradle", "build.gradle.kts"],
            Self::Go => &["go.mod"],
            Self::Rust => &["Cargo.toml"],
            Self::Ruby => &["Gemfile"],
            Self::Php => &["composer.json", "index.php"],
            Self::Static => &["index.html"],
        }
    }

    /// Of which type a folder is, and the file that says so.
    pub(super) fn of(folder: &Path) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find_map(|project| {
            let file = project.files().iter().find(|file| folder.join(file).is_file())?;
            Some((project, *file))
        })
    }
}

impl fmt::Display for ProjectType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for ProjectType {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|project| project.as_str() == word).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::new(ErrorKind::Invalid, format!("{word:?} is no type of project: {all}"))
        })
    }
}

/// Reads `python=python:3.13,go=golang:1.25`.
///
/// # Errors
/// `Invalid` for a type that there isn't, or one without an image.
pub(crate) fn parse_images(text: &str) -> Result<BTreeMap<ProjectType, String>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((project, image)) if !image.trim().is_empty() => {
                Ok((project.trim().parse()?, image.trim().to_owned()))
            }
            _ => Err(Error::new(ErrorKind::Invalid, format!("{pair:?} names no image for a type of project"))
                .hint("write it as python=python:3.13-slim,go=golang:1.25")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_known_by_its_files_and_has_a_word() {
        for project in ProjectType::ALL {
            assert_eq!(project.as_str().parse::<ProjectType>().unwrap(), project);
            for file in project.files() {
                let folder = tempfile::tempdir().unwrap();
                std::fs::write(folder.path().join(file), "").unwrap();
                assert_eq!(ProjectType::of(folder.path()), Some((project, *file)));
            }
        }
        assert_eq!(ProjectType::of(tempfile::tempdir().unwrap().path()), None);
        assert!("cobol".parse::<ProjectType>().unwrap_err().to_string().contains("python"));
    }

    #[test]
    fn images_of_types_are_configured_in_one_line() {
        let images = parse_images("python=python:3.13, go=registry.example:5000/go@sha256:00,").unwrap();
        assert_eq!(images[&ProjectType::Python], "python:3.13");
        assert_eq!(images[&ProjectType::Go], "registry.example:5000/go@sha256:00");
        for wrong in ["python", "python=", "cobol=cobol:1", "=x"] {
            assert_eq!(parse_images(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }
}
