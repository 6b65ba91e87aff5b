//! Looks a template over before anybody depends on it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{FILE_NAME, Template, file, name_of, read_file};
use crate::{
    error::Error,
    pack::{Limits, obstacles},
};

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

impl Severity {
    /// The word for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
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
    /// Line in that file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What it is, for people.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Finding {
    fn new(severity: Severity, path: &Path, message: impl Into<String>, suggestion: Option<String>) -> Self {
        Self { severity, path: path.to_owned(), line: None, column: None, message: message.into(), suggestion }
    }

    fn error(path: &Path, error: &Error) -> Self {
        Self::new(Severity::Error, path, error.to_string(), error.hint_text().map(str::to_owned))
    }
}

/// Looks a template over: its `template.json`, whether its folder can be packed, and what is known to go wrong. Sorted
/// by severity; empty when there is nothing to say. It blocks, and writes nothing.
#[must_use]
pub fn check(folder: impl AsRef<Path>) -> Vec<Finding> {
    let folder = folder.as_ref();
    let mut findings = Vec::new();
    match Template::load(folder) {
        Ok(template) => look_over(&template, &mut findings),
        Err(error) => findings.push(locate(folder, &error)),
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The mistake in `template.json` itself with its place, where that is what the error is about.
fn locate(folder: &Path, error: &Error) -> Finding {
    let path = folder.join(FILE_NAME);
    match read_file(&path).ok().flatten().map(|content| file::parse(&content)) {
        Some(Err(mistake)) => Finding {
            line: mistake.line,
            column: mistake.column,
            ..Finding::new(Severity::Error, &path, mistake.message, mistake.suggestion)
        },
        _ => Finding::error(folder, error),
    }
}

fn look_over(template: &Template, findings: &mut Vec<Finding>) {
    let folder = &template.folder;
    let json = folder.join(FILE_NAME);
    match obstacles(folder, &template.exclude, &Limits::default()) {
        Ok(obstacles) => findings.extend(obstacles.into_iter().map(|obstacle| {
            let path = folder.join(&obstacle.path);
            Finding::new(Severity::Error, &path, obstacle.message, Some(obstacle.suggestion))
        })),
        Err(error) => findings.push(Finding::error(folder, &error)),
    }
    let mut warn = |message: String, suggestion: &str| {
        findings.push(Finding::new(Severity::Warning, &json, message, Some(suggestion.to_owned())));
    };
    match &template.dev {
        None => warn("there is no dev command, so the preview answers nothing".to_owned(), "say \"dev\""),
        Some(dev) if ["localhost", "127.0.0.1"].iter().any(|loopback| dev.contains(loopback)) => {
            warn(
                "the dev command names the loopback address, which can't be reached from outside of the container"
                    .to_owned(),
                "have it listen on 0.0.0.0, or on $HOST",
            );
        }
        Some(_) => {}
    }
    let has = |name: &str| folder.join(name).is_file();
    if template.setup.iter().any(|line| line.contains("npm ci"))
        && !has("package-lock.json")
        && !has("npm-shrinkwrap.json")
    {
        warn(
            "`npm ci` needs a package-lock.json, and there is none".to_owned(),
            "use `npm install`, or add the lock file",
        );
    }
    if template.name != name_of(folder) {
        let message = format!("it is asked for by the name {:?}, not by that of its folder", template.name);
        findings.push(Finding::new(Severity::Note, &json, message, None));
    }
    for reason in &template.inferred {
        findings.push(Finding::new(Severity::Note, folder, reason.clone(), None));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn found(json: Option<&str>, files: &[&str]) -> Vec<Finding> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("web");
        fs::create_dir(&folder).unwrap();
        if let Some(json) = json {
            fs::write(folder.join(FILE_NAME), json).unwrap();
        }
        for file in files {
            fs::write(folder.join(file), "").unwrap();
        }
        if files.is_empty() {
            symlink("/etc", folder.join("link")).unwrap();
        }
        check(&folder)
    }

    fn said(json: &str, files: &[&str]) -> Vec<(Severity, String)> {
        found(Some(json), files).into_iter().map(|finding| (finding.severity, finding.message)).collect()
    }

    #[test]
    fn a_good_template_gives_nothing_to_say() {
        assert_eq!(said(r#"{"dev": "node server.js"}"#, &["server.js"]), []);
    }

    #[test]
    fn a_mistake_has_its_place_in_the_file() {
        let findings = found(Some("{\n  \"prot\": 1\n}"), &["a"]);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].line, findings[0].column), (Some(2), Some(8)));
        assert!(findings[0].path.ends_with("web/template.json"));
        assert!(findings[0].suggestion.as_deref().unwrap().contains("did you mean \"port\""));
    }

    #[test]
    fn what_will_fail_or_surprise_is_said_the_worst_first() {
        let findings = said(r#"{"setup": ["npm ci"], "dev": "vite --host localhost", "name": "other"}"#, &[]);
        let severities: Vec<Severity> = findings.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, [Severity::Error, Severity::Warning, Severity::Warning, Severity::Note], "{findings:?}");
        assert!(findings[0].1.contains("/etc"));
        let inferred = found(None, &["index.html"]);
        assert_eq!(inferred.len(), 1);
        assert!(inferred[0].message.contains("index.html is there"), "{inferred:?}");
    }

    #[test]
    fn folders_that_are_none_or_empty_are_errors() {
        assert_eq!(check("/nowhere")[0].severity, Severity::Error);
        assert!(said("{}", &[FILE_NAME])[0].1.contains("is empty"));
    }
}
