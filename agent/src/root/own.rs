//! Names of the agent's own in the workspace, while it works: never listed, and swept when a killed agent left them.
//!
//! Random, and matched exactly, so that nobody's file is taken for one.

use std::ffi::OsString;

use rustix::io::Errno;

use crate::agent::{letters, random_id};

/// The folder in the root with the journals of transactions; it is there only while there are any.
pub const JOURNALS: &str = ".corehold-journal";

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
