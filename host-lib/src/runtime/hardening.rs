//! How much stricter, or in single points less strict, a place is than every place is anyway: without capabilities, without new
//! privileges, under the engine's filter of system calls.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// How a place is held, beyond what holds every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hardening {
    /// Whether nothing of the image can be written; what is to be writable is mounted.
    pub read_only_root: bool,
    /// Capabilities that it has nevertheless.
    pub capabilities: BTreeSet<Capability>,
    /// The engine's runtime that it runs in, such as `runsc`. Absent: the engine's default one.
    pub sandbox: Option<String>,
}

/// A capability that a container may have: see `capabilities(7)`. Those by which one leaves a container, changes the network or makes
/// devices aren't here, and can't be had.
///
/// Only processes of root have them, in an image whose user is root: others lose theirs when they are started, since there are no new
/// privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Capability {
    /// Changing the owner of files.
    Chown,
    /// Passing over the permissions of files.
    DacOverride,
    /// What only a file's owner may do.
    Fowner,
    /// Keeping set-user-ID and set-group-ID bits.
    Fsetid,
    /// Signals to processes of others.
    Kill,
    /// Listening on ports below 1024.
    NetBindService,
    /// Changing groups.
    Setgid,
    /// Changing users.
    Setuid,
    /// `chroot(2)`.
    SysChroot,
}

impl Capability {
    /// All that can be had.
    pub const ALL: [Self; 9] = [
        Self::Chown,
        Self::DacOverride,
        Self::Fowner,
        Self::Fsetid,
        Self::Kill,
        Self::NetBindService,
        Self::Setgid,
        Self::Setuid,
        Self::SysChroot,
    ];

    /// Its name, without `CAP_`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chown => "CHOWN",
            Self::DacOverride => "DAC_OVERRIDE",
            Self::Fowner => "FOWNER",
            Self::Fsetid => "FSETID",
            Self::Kill => "KILL",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::Setgid => "SETGID",
            Self::Setuid => "SETUID",
            Self::SysChroot => "SYS_CHROOT",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Capability {
    type Err = Error;

    /// Reads `NET_BIND_SERVICE`, with or without `CAP_`, in any case.
    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::ALL.into_iter().find(|capability| capability.as_str() == name).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::new(ErrorKind::Forbidden, format!("no workspace may have the capability {text:?}"))
                .hint(format!("these can be had where the policy allows them: {all}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_a_container_can_not_be_had() {
        for name in
            ["SYS_ADMIN", "CAP_SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "NET_ADMIN", "NET_RAW", "MKNOD", "ALL", ""]
        {
            assert_eq!(name.parse::<Capability>().unwrap_err().kind(), ErrorKind::Forbidden, "{name}");
        }
        for capability in Capability::ALL {
            let said = format!("cap_{}", capability.as_str().to_lowercase());
            assert_eq!(said.parse::<Capability>().unwrap(), capability);
            assert_eq!(serde_json::to_string(&capability).unwrap(), format!("\"{capability}\""));
        }
    }
}
