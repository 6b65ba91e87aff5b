//! What must hold of whatever an archive holds: it is refused, or is a folder of regular files, folders and links that stay within, no larger
//! than it may be.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const LIMITS: Limits = Limits { bytes: 64 << 10, entries: 64, cache_bytes: 0 };

/// Says whether it was taken.
pub(crate) fn archive(bytes: &[u8]) -> bool {
    let room = tempfile::tempdir().expect("there is a folder for temporary files");
    let file = room.path().join("archive");
    fs::write(&file, bytes).expect("there is room");
    let template = match from_archive(&file, &LIMITS) {
        Ok(template) => template,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Io), "{error}");
            return false;
        }
    };
    let root = template.unpacked.as_ref().expect("it was unpacked").0.path();
    let root = fs::canonicalize(root).expect("it is there");
    let mut seen = Seen::default();
    seen.look(&root, &root);
    assert!(seen.bytes <= LIMITS.bytes && seen.files <= LIMITS.entries, "{} bytes, {} files", seen.bytes, seen.files);
    drop(template);
    assert!(!root.exists(), "it goes with its template");
    true
}

#[derive(Default)]
struct Seen {
    bytes: u64,
    /// Without folders, of which one name may have many.
    files: usize,
}

impl Seen {
    fn look(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            let about = fs::symlink_metadata(&path).expect("it is there");
            if about.is_dir() {
                self.look(root, &path);
                continue;
            }
            self.files += 1;
            if about.is_symlink() {
                let leads = fs::canonicalize(&path);
                assert!(leads.map_or(true, |found| found.starts_with(root)), "{} leads out", path.display());
                continue;
            }
            assert!(about.is_file() && about.permissions().mode() & 0o7022 == 0, "{} is {about:?}", path.display());
            // A hard link counts once more: it is unpacked as often when it is packed.
            self.bytes += if std::os::unix::fs::MetadataExt::nlink(&about) == 1 { about.len() } else { 0 };
        }
    }
}
