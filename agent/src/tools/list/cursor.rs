//! Where a page ended: the path of its last entry, relative to the directory that is listed. Opaque to callers.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use corehold_types::{Code, Problem, WorkspacePath};

/// The last entry of a page, component by component. Empty before the first page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor(Vec<Vec<u8>>);

impl Cursor {
    /// The cursor after an entry whose path has `start` bytes that belong to the listed directory itself.
    pub(super) fn at(path: &WorkspacePath, start: usize) -> Self {
        use std::os::unix::ffi::OsStringExt as _;
        // The path was made from bytes by us.
        let bytes = path.to_path_buf().unwrap_or_default().into_os_string().into_vec();
        Self::from_bytes(bytes.get(start..).unwrap_or_default())
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let components = bytes.split(|byte| *byte == b'/').filter(|component| !component.is_empty());
        Self(components.map(<[u8]>::to_vec).collect())
    }

    pub(super) fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.join(&b'/'))
    }

    /// # Errors
    /// `INVALID_REQUEST`: not a cursor of `list`.
    pub(super) fn decode(text: &str) -> Result<Self, Problem> {
        let cursor = URL_SAFE_NO_PAD.decode(text).map(|bytes| Self::from_bytes(&bytes)).unwrap_or_default();
        let is_name = |name: &Vec<u8>| name != b"." && name != b".." && !name.contains(&0) && name.len() <= 255;
        if cursor.0.is_empty() || !cursor.0.iter().all(is_name) {
            return Err(
                Problem::new(Code::InvalidRequest, "cursor: it is not one that `list` gave").with("field", "cursor")
            );
        }
        Ok(cursor)
    }
}
