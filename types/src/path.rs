//! Paths as they cross the wire. What a path may reach is the agent's business, not this module's.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::patterns::{BASE64, WITHOUT_NUL};

/// A path of the workspace: a string, or `{"base64": …}` where the name isn't UTF-8 (Linux names are bytes).
///
/// Relative to the workspace root. An absolute path under the root is accepted and means the same file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(untagged, deny_unknown_fields)]
pub enum WorkspacePath {
    /// The path as text.
    Text(#[schemars(regex(pattern = WITHOUT_NUL))] String),
    /// The path's bytes in base64, for names that are not UTF-8.
    Bytes {
        /// Standard alphabet, padded.
        #[schemars(regex(pattern = BASE64))]
        base64: String,
    },
}

/// The schema of a path that is given back as it was asked for, however malformed it was.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is a schema only")]
pub(crate) enum PathAsAsked {
    /// The path as text.
    Text(String),
    /// What was said to be its bytes.
    Bytes {
        /// Base64, if it was.
        base64: String,
    },
}

/// The base64 form of a path was malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPath;

impl fmt::Display for InvalidPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the path's base64 form is malformed")
    }
}

impl std::error::Error for InvalidPath {}

impl WorkspacePath {
    /// A path from the bytes that the kernel gave, as text if they are UTF-8.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: STANDARD.encode(bytes) },
        }
    }

    /// The path for the operating system.
    ///
    /// # Errors
    /// [`InvalidPath`] when the base64 form is malformed.
    pub fn to_path_buf(&self) -> Result<PathBuf, InvalidPath> {
        match self {
            Self::Text(text) => Ok(PathBuf::from(text)),
            Self::Bytes { base64 } => {
                STANDARD.decode(base64).map(|bytes| OsString::from_vec(bytes).into()).map_err(|_| InvalidPath)
            }
        }
    }
}

impl From<&str> for WorkspacePath {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for WorkspacePath {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// For messages: text as it is, bytes with `\xNN` for what isn't UTF-8.
impl fmt::Display for WorkspacePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Bytes { base64 } => match STANDARD.decode(base64) {
                Ok(bytes) => write!(formatter, "{}", bytes.escape_ascii()),
                Err(_) => formatter.write_str("(malformed base64)"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_cross_the_wire() {
        for bytes in [&b"src/App.jsx"[..], b"caf\xe9", b""] {
            let path = WorkspacePath::from_bytes(bytes);
            let json = serde_json::to_string(&path).unwrap();
            let back: WorkspacePath = serde_json::from_str(&json).unwrap();
            assert_eq!(back.to_path_buf().unwrap().into_os_string().into_vec(), bytes);
        }
    }

    #[test]
    fn malformed_base64_is_an_error_and_not_a_panic() {
        assert_eq!(WorkspacePath::Bytes { base64: "*".into() }.to_path_buf(), Err(InvalidPath));
    }
}
