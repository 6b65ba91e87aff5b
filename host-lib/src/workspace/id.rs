//! Names of workspaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Names a workspace: lower-case letters, digits and inner hyphens, at most 32 characters, so that it can be a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspaceId(String);

/// Letters and digits of generated ids: none that are mistaken for one another, no vowels that spell words.
const ALPHABET: &[u8; 32] = b"0123456789bcdfghjkmnpqrstvwxyz24";
const RANDOM_CHARACTERS: usize = 8;

impl WorkspaceId {
    /// The longest that an id may be, in characters.
    pub const MAX_LENGTH: usize = 32;

    /// A new id: the beginning of `stem` made fit, and eight random characters.
    pub(crate) fn generate(stem: &str) -> Result<Self> {
        let mut name = sanitize(stem);
        name.truncate(Self::MAX_LENGTH - RANDOM_CHARACTERS - 1);
        let name = match name.trim_matches('-') {
            "" => "workspace",
            name => name,
        };
        Ok(Self(format!("{name}-{}", random_word(RANDOM_CHARACTERS)?)))
    }

    /// The id that is nearest to a text, if anything of it can stand in one.
    pub(crate) fn nearest_fit(text: &str) -> Option<Self> {
        let mut name = sanitize(text);
        name.truncate(Self::MAX_LENGTH);
        match name.trim_matches('-') {
            "" => None,
            fit => Some(Self(fit.to_owned())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Random lower-case letters and digits, five bits each.
pub(crate) fn random_word(characters: usize) -> Result<String> {
    let mut bytes = vec![0; characters];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Io, format!("the system gave no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

fn sanitize(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            fine @ ('a'..='z' | '0'..='9') => name.push(fine),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name
}

impl FromStr for WorkspaceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let edges = bytes.first().copied().is_some_and(fine) && bytes.last().copied().is_some_and(fine);
        if edges && bytes.len() <= Self::MAX_LENGTH && bytes.iter().all(|byte| fine(*byte) || *byte == b'-') {
            return Ok(Self(text.to_owned()));
        }
        let error = Error::new(
            ErrorKind::Invalid,
            format!(
                "{text:?} can't name a workspace: at most {} lower-case letters, digits and inner hyphens can",
                Self::MAX_LENGTH
            ),
        );
        Err(match Self::nearest_fit(text) {
            Some(fit) => error.hint(format!("{:?} would do", fit.0)),
            None => error,
        })
    }
}

impl TryFrom<String> for WorkspaceId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<WorkspaceId> for String {
    fn from(id: WorkspaceId) -> Self {
        id.0
    }
}

impl AsRef<str> for WorkspaceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_stem_a_generated_id_is_valid(stem in "\\PC{0,60}") {
            let id = WorkspaceId::generate(&stem).unwrap();
            prop_assert_eq!(id.as_str().parse::<WorkspaceId>().unwrap(), id);
        }

        #[test]
        fn parsing_takes_exactly_dns_labels(text in "[a-zA-Z0-9_.-]{0,34}") {
            let valid = !text.is_empty() && text.len() <= 32 && !text.starts_with('-') && !text.ends_with('-')
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            prop_assert_eq!(text.parse::<WorkspaceId>().is_ok(), valid);
        }
    }

    #[test]
    fn a_refused_name_comes_with_one_that_fits() {
        let error = "My App!".parse::<WorkspaceId>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.hint_text(), Some("\"my-app\" would do"));
    }

    #[test]
    fn two_ids_of_one_stem_differ() {
        assert_ne!(WorkspaceId::generate("vite-react").unwrap(), WorkspaceId::generate("vite-react").unwrap());
    }
}
