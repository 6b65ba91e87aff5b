//! Looks a template over before anybody depends on it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Template;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Severity {
    /// No workspace can be made from it.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
    /// Worth knowing: what was inferred.
    Note,
}

/// Something about a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file or folder it is about.
    pub path: PathBuf,
    /// What it is, for people.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Looks a template over: its `template.json`, and whether its folder can be packed. Blocking; nothing is written.
#[must_use]
pub fn check(folder: impl AsRef<Path>) -> Vec<Finding> {
    let folder = folder.as_ref();
    let mut findings = Vec::new();
    match Template::load(folder) {
        Ok(_) => {}
        Err(error) => findings.push(Finding {
            severity: Severity::Error,
            path: folder.to_owned(),
            message: error.to_string(),
            suggestion: error.hint_text().map(str::to_owned),
        }),
    }
    findings
}
