//! Names of the agent's own in the workspace, while it works: never listed, and swept when a killed agent left them.
//!
//! Random, and matched exactly, so that nobody's file is taken for one. No caller may name one, by whatever tool or route:
//! [`refuse`] is asked of every path where it is first looked at ([`RelativePath`](super::RelativePath)), and of the name that a
//! link at its end leads to. A link *above* the end, which a command may have made, isn't looked through: commands reach these
//! names anyhow, since they run as the agent's own user.

use std::ffi::OsString;

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::io::Errno;

use crate::agent::{letters, random_id};

/// The folder in the root with the journals of transactions; it is there only while there are any.
pub const JOURNALS: &str = ".corehold-journal";

/// What is wrong with such a name, behind what has it.
pub const RESERVED: &str = "has a name that the agent keeps for itself: it would never be listed, and be swept one day";

/// Refuses a component of a caller's path that is the agent's own name.
///
/// # Errors
/// `INVALID_REQUEST` names the path.
pub(super) fn refuse(component: &[u8], path: &WorkspacePath) -> Result<(), Problem> {
    if Own::of(component).is_none() {
        return Ok(());
    }
    Err(Problem::new(Code::InvalidRequest, format!("{path} {RESERVED}"))
        .with("path", serde_json::to_value(path).unwrap_or_default())
        .suggest("choose another name"))
}

/// What the agent has a name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// A directory in which an archive is unpacked.
    Stage,
    /// A link in the root that says in which directory there is a stage.
    Pointer,
    /// A file that is being written, where the file system has no files without a name.
    File,
    /// A new file or the old one, while a transaction puts one in the place of the other; a tree while it is copied or
    /// removed.
    Edit,
}

impl Own {
    const ALL: [Self; 4] = [Self::Stage, Self::Pointer, Self::File, Self::Edit];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Stage => ".corehold-stage-",
            Self::Pointer => ".corehold-at-",
            Self::File => ".corehold-file-",
            Self::Edit => ".corehold-edit-",
        }
    }

    /// A name that nobody has.
    ///
    /// # Errors
    /// `EIO`: the kernel gave no random bytes.
    pub fn new_name(self) -> Result<OsString, Errno> {
        let id = random_id().map_err(|_| Errno::IO)?;
        Ok(format!("{}{id}", self.prefix()).into())
    }

    /// The name that belongs to some bits.
    pub(crate) fn name_of(self, bits: u64) -> OsString {
        format!("{}{}", self.prefix(), letters(bits)).into()
    }

    /// What of the agent's a name is, if it is any.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        if name == JOURNALS.as_bytes() {
            return Some(Self::Edit);
        }
        let is_id = |id: &[u8]| id.len() == 16 && id.iter().all(|byte| matches!(byte, b'a'..=b'p'));
        Self::ALL.into_iter().find(|own| name.strip_prefix(own.prefix().as_bytes()).is_some_and(is_id))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        for own in Own::ALL {
            assert_eq!(Own::of(own.new_name().unwrap().as_bytes()), Some(own));
        }
        assert_eq!(Own::of(JOURNALS.as_bytes()), Some(Own::Edit));
        for name in [
            ".corehold-stage-",
            ".corehold-stage-notes",
            ".corehold-at-abcdefghijklmnoq",
            ".corehold",
            ".corehold-journals",
        ] {
            assert_eq!(Own::of(name.as_bytes()), None, "{name}");
        }
    }
}
