//! What archives are called.

use std::{fmt, str::FromStr};

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    workspace::{WorkspaceId, random_word},
};

/// Names an archive among those of its workspace: lower-case letters, digits and inner hyphens, at most 32. Generated ones
/// begin with their time, so that their order is that of their saving.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArchiveId(String);

impl ArchiveId {
    pub(super) fn generate(time: Timestamp) -> Result<Self> {
        // Down to the millisecond: 2026-11-20T22:43:28.123456789Z becomes 20261120t224328123.
        let time: String = time.to_string().chars().filter(char::is_ascii_alphanumeric).take(18).collect();
        Ok(Self(format!("{}-{}", time.to_ascii_lowercase(), random_word(8)?)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ArchiveId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The same rule, for the same reasons: it is a part of paths and of object names.
        text.parse::<WorkspaceId>().map(|id| Self(id.as_str().to_owned())).map_err(|_| {
            Error::new(ErrorKind::Invalid, format!("{text:?} can't name an archive"))
                .hint("`corehold archives ls` lists those that there are")
        })
    }
}

impl TryFrom<String> for ArchiveId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ArchiveId> for String {
    fn from(id: ArchiveId) -> Self {
        id.0
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names an archive: `workspace/id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct ArchiveRef {
    /// The workspace that was saved. It need not be there any more.
    pub workspace: WorkspaceId,
    /// Which of its archives.
    pub id: ArchiveId,
}

impl FromStr for ArchiveRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((workspace, id)) = text.split_once('/') else {
            return Err(Error::new(ErrorKind::Invalid, format!("{text:?} names no archive")).hint(
                "an archive is named by its workspace, a slash and its id, as `corehold archives ls` lists them",
            ));
        };
        Ok(Self { workspace: workspace.parse()?, id: id.parse()? })
    }
}

impl TryFrom<String> for ArchiveRef {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ArchiveRef> for String {
    fn from(reference: ArchiveRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for ArchiveRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.workspace, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_in_the_order_of_their_times() {
        let [early, late] = [(1_700_000_000, 5_000_000), (1_700_000_000, 123_000_000)]
            .map(|(seconds, nanoseconds)| ArchiveId::generate(Timestamp::from_unix(seconds, nanoseconds)).unwrap());
        assert!(early < late && early.as_str().starts_with("20231114t221320005-"), "{early}");
        assert_eq!(early.as_str().parse::<ArchiveId>().unwrap(), early);
    }

    #[test]
    fn nothing_that_could_lead_elsewhere_is_a_name() {
        for text in ["", "/", "a", "a/", "/a", "a/b/c", "../b", "a/..", "a/.", "a/B", "a/b\0", "a/b.json", "a/-b"] {
            assert_eq!(text.parse::<ArchiveRef>().unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
        }
        let reference: ArchiveRef = "web-1/20231114t221320005-abc".parse().unwrap();
        assert_eq!(reference.to_string(), "web-1/20231114t221320005-abc");
        assert_eq!(serde_json::from_str::<ArchiveRef>(&serde_json::to_string(&reference).unwrap()).unwrap(), reference);
    }
}
