//! `If-Match` and `If-None-Match` (RFC 9110 section 13).

use std::{fs::File, io};

use corehold_types::{Code, Problem, WorkspacePath};
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::root::{Version, is_current};

/// What a request says about the version it is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: any version, so long as the file exists.
    Any,
    Listed(Vec<String>),
}

impl Conditions {
    /// # Errors
    /// `INVALID_REQUEST` when a header is malformed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            // A weak tag never matches strongly (section 13.1.1), so those are left out.
            if_match: tags(headers, &header::IF_MATCH, false)?,
            if_none_match: tags(headers, &header::IF_NONE_MATCH, true)?,
        })
    }

    /// Whether the caller insists that the file is new.
    pub(super) fn must_be_new(&self) -> bool {
        self.if_none_match == Some(Tags::Any)
    }

    /// Whether `If-Match` holds for the file as it is, or for its absence.
    pub(super) fn match_holds(&self, current: Option<&File>) -> io::Result<bool> {
        match &self.if_match {
            None => Ok(true),
            Some(tags) => matches(tags, current),
        }
    }

    /// Whether `If-None-Match` holds.
    pub(super) fn none_match_holds(&self, current: Option<&File>) -> io::Result<bool> {
        match &self.if_none_match {
            None => Ok(true),
            Some(tags) => Ok(!matches(tags, current)?),
        }
    }

    /// Both, for a change.
    ///
    /// # Errors
    /// `VERSION_MISMATCH` with the current version; as HTTP has it with status 412, not the tools' 409.
    pub(super) fn check_change(&self, path: &WorkspacePath, current: Option<&File>) -> Result<(), Problem> {
        let failed = |error: io::Error| Problem::new(Code::Internal, format!("{path} can't be read: {error}"));
        if self.match_holds(current).map_err(failed)? && self.none_match_holds(current).map_err(failed)? {
            return Ok(());
        }
        let version = current.map(Version::of).transpose().map_err(failed)?;
        Err(mismatch(path, version))
    }
}

/// The problem of a condition that doesn't hold.
pub(super) fn mismatch(path: &WorkspacePath, current: Option<Version>) -> Problem {
    let detail = match &current {
        Some(version) => format!("{path} has the version {}, not the one that was expected", version.as_str()),
        None => format!("{path} does not exist, and a version of it was expected"),
    };
    let mut problem = Problem::new(Code::VersionMismatch, detail)
        .with("path", serde_json::to_value(path).unwrap_or_default())
        .suggest("read the file again and decide anew");
    if let Some(version) = current {
        problem = problem.with("version", version.into_string());
    }
    problem.status = StatusCode::PRECONDITION_FAILED.as_u16();
    problem
}

fn matches(tags: &Tags, current: Option<&File>) -> io::Result<bool> {
    let Some(file) = current else { return Ok(false) };
    match tags {
        Tags::Any => Ok(true),
        Tags::Listed(listed) => {
            for tag in listed {
                if is_current(file, tag)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName, weak: bool) -> Result<Option<Tags>, Problem> {
    let mut listed = Vec::new();
    let mut present = false;
    for value in headers.get_all(name) {
        present = true;
        let malformed =
            || Problem::new(Code::InvalidRequest, format!("{name}: \"tag\", a list of those, or * was expected"));
        let mut rest = value.to_str().map_err(|_| malformed())?.trim();
        if rest == "*" {
            return Ok(Some(Tags::Any));
        }
        while !rest.is_empty() {
            let (is_weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (tag, after) =
                quoted.strip_prefix('"').and_then(|quoted| quoted.split_once('"')).ok_or_else(malformed)?;
            if weak || !is_weak {
                listed.push(tag.to_owned());
            }
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err(malformed()),
            };
        }
    }
    Ok(present.then_some(Tags::Listed(listed)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(value: &'static str) -> Result<Option<Tags>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
        tags(&headers, &header::IF_MATCH, false).map_err(|problem| problem.code)
    }

    #[test]
    fn lists_of_tags_are_understood_and_anything_else_is_refused() {
        let listed = |tags: &[&str]| Ok(Some(Tags::Listed(tags.iter().map(|tag| (*tag).to_owned()).collect())));
        assert_eq!(parse("*"), Ok(Some(Tags::Any)));
        assert_eq!(parse("\"a\""), listed(&["a"]));
        assert_eq!(parse("\"a\" ,\"b,c\""), listed(&["a", "b,c"]));
        assert_eq!(parse("W/\"a\", \"b\""), listed(&["b"]));
        assert_eq!(parse(""), listed(&[]));
        for malformed in ["a", "\"a", "\"a\" \"b\"", "W/a"] {
            assert_eq!(parse(malformed), Err(Code::InvalidRequest), "{malformed}");
        }
    }
}
