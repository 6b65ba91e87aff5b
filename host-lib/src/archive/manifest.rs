//! The manifest of an archive: what is said about it. It is written last, so an archive without one doesn't exist.

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    chunk::ChunkId,
    id::{ArchiveId, ArchiveRef},
    index::{MOST_BYTES, MOST_CONTENT},
    sleeper::Sleeper,
};
use crate::{
    error::{Error, ErrorKind, Result},
    workspace::WorkspaceId,
};

/// The version of what is written. Every version that was ever written is read.
pub(super) const FORMAT: u32 = 1;
/// Bytes of a manifest that are read: with as many exclusions as anybody gives, some kilobytes.
pub(super) const MOST_MANIFEST: u64 = 1 << 20;

/// A saved workspace: what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Archive {
    /// Version of the format: 1.
    pub format: u32,
    /// Which of its workspace's archives it is.
    pub id: ArchiveId,
    /// The workspace that was saved.
    pub workspace: WorkspaceId,
    /// The template that the workspace was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// When the saving began.
    pub created: Timestamp,
    /// BLAKE3 of the tar that the archive unpacks to, in hex. The same files, modes and times give the same.
    pub hash: String,
    /// Bytes of that tar.
    pub bytes: u64,
    /// Regular files, hard links included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of the files' content.
    pub content_bytes: u64,
    /// Patterns, as in .gitignore, of what was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusions: Vec<String>,
    /// BLAKE3 of the index, in hex: the name under which the store has it.
    pub index: String,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// The workspace that sleeps in it. Such an archive goes when the workspace sleeps again or is removed; absent for one that
    /// somebody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleeper: Option<Box<Sleeper>>,
}

/// Only the version, of a manifest of any version.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Archive {
    /// How it is named.
    #[must_use]
    pub fn reference(&self) -> ArchiveRef {
        ArchiveRef { workspace: self.workspace.clone(), id: self.id.clone() }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Io, format!("a manifest can't be written: {error}")))?;
        if bytes.len() as u64 > MOST_MANIFEST {
            let message = format!("its manifest would have {} bytes, and may have {MOST_MANIFEST}", bytes.len());
            return Err(Error::new(ErrorKind::Invalid, message).hint("give it fewer labels or exclusions"));
        }
        Ok(bytes)
    }

    /// Reads the manifest that the store has under a name.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported` for a version that is not known here.
    pub(super) fn decode(reference: &ArchiveRef, bytes: &[u8]) -> Result<Self> {
        let damaged = |why: String| Error::new(ErrorKind::Damaged, format!("its manifest {why}"));
        let version: Version =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("can't be read: {error}")))?;
        if version.format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("it is of format {}, and this version knows format {FORMAT}", version.format),
            )
            .hint("use the version of corehold that saved it, or a newer one"));
        }
        let archive: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("can't be read: {error}")))?;
        if archive.reference() != *reference {
            return Err(damaged(format!("is that of {}", archive.reference())));
        }
        if !is_hash(&archive.hash) || !is_hash(&archive.index) {
            return Err(damaged("has a hash that is none".to_owned()));
        }
        if archive.bytes > MOST_CONTENT || archive.content_bytes > archive.bytes || archive.index_bytes > MOST_BYTES {
            return Err(damaged(format!("says that it has {} bytes", archive.bytes.max(archive.content_bytes))));
        }
        Ok(archive)
    }

    /// The name of its index.
    pub(super) fn index_id(&self) -> Result<ChunkId> {
        parse_hash(&self.index)
            .ok_or_else(|| Error::new(ErrorKind::Damaged, "its manifest names an index by what is no hash"))
    }
}

/// 64 lower-case hexadecimal digits: part of an object's name, so nothing else will do.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name of a chunk or an index.
pub(super) fn parse_hash(text: &str) -> Option<ChunkId> {
    if !is_hash(text) {
        return None;
    }
    blake3::Hash::from_hex(text).ok().map(|hash| ChunkId(*hash.as_bytes()))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::archive) fn manifest() -> Archive {
        Archive {
            format: FORMAT,
            id: "a1".parse().unwrap(),
            workspace: "web-1".parse().unwrap(),
            template: Some("vite-react".into()),
            created: Timestamp::from_unix(1_700_000_000, 0),
            hash: "0".repeat(64),
            bytes: 10_240,
            files: 3,
            directories: 2,
            symlinks: 1,
            content_bytes: 10,
            exclusions: vec!["node_modules".into()],
            index: "1".repeat(64),
            index_bytes: 97,
            sleeper: None,
        }
    }

    fn read(manifest: &Value) -> Result<Archive> {
        Archive::decode(&"web-1/a1".parse().unwrap(), &serde_json::to_vec(manifest).unwrap())
    }

    #[test]
    fn what_was_written_is_read_again() {
        let bytes = manifest().encode().unwrap();
        assert_eq!(Archive::decode(&manifest().reference(), &bytes).unwrap(), manifest());
        for end in 0..bytes.len() {
            let error = Archive::decode(&manifest().reference(), &bytes[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "cut at {end}");
        }
        let mut newer = serde_json::to_value(manifest()).unwrap();
        newer["addedLater"] = json!(true);
        assert_eq!(read(&newer).unwrap(), manifest(), "what a later version adds is left alone");
    }

    #[test]
    fn absurd_numbers_hostile_names_and_other_versions_are_refused() {
        let damage: &[(&str, Value)] = &[
            ("id", json!("../../etc")),
            ("id", json!("a2")),
            ("workspace", json!("web-2")),
            ("workspace", json!("../web-1")),
            ("hash", json!("../../../../etc/passwd")),
            ("index", json!("0".repeat(63))),
            ("index", json!("A".repeat(64))),
            ("index", json!(format!("{}/{}", "0".repeat(31), "0".repeat(32)))),
            ("bytes", json!(u64::MAX)),
            ("bytes", json!(-1)),
            ("bytes", json!(1.5)),
            ("bytes", json!(9)),
            ("contentBytes", json!(1e30)),
            ("indexBytes", json!(MOST_BYTES + 1)),
            ("created", json!("yesterday")),
            ("exclusions", json!("all")),
            ("files", Value::Null),
        ];
        for (field, value) in damage {
            let mut manifest = serde_json::to_value(manifest()).unwrap();
            manifest[*field] = value.clone();
            assert_eq!(read(&manifest).unwrap_err().kind(), ErrorKind::Damaged, "{field}: {value}");
        }
        for format in [0, 2, u32::MAX] {
            let error = read(&json!({ "format": format, "nothing": "else is known of it" })).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(&format.to_string()) && error.hint_text().is_some());
        }
        assert_eq!(read(&json!([1, 2])).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
