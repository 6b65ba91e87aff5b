//! Transactions on a real disk.

mod concurrent;
mod faults;
mod model;
mod power;
mod semantics;
mod started;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use corehold_types::{
    Code, Problem,
    tools::{EditOperation, EditRequest, EditResponse, FileEdit},
};

use super::*;
use crate::{config::Limits, root::Root};

/// A workspace, and the part of an agent that edits it.
struct World {
    folder: PathBuf,
    root: Root,
    edits: Edits,
    limits: Limits,
    _temporary: Option<tempfile::TempDir>,
}

impl World {
    fn new() -> Self {
        let temporary = in_memory();
        let world = Self::at(temporary.path());
        Self { _temporary: Some(temporary), ..world }
    }

    fn at(folder: &Path) -> Self {
        let root = Root::open(folder).unwrap();
        Self { folder: folder.to_owned(), root, edits: Edits::default(), limits: Limits::default(), _temporary: None }
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let world = Self::new();
        for (path, content) in files {
            world.put(path, content.as_bytes());
        }
        world
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(std::fs::read(self.folder.join(path)).unwrap()).unwrap()
    }

    fn edit(&self, files: Vec<FileEdit>) -> Result<EditResponse, Problem> {
        self.transact(&EditRequest { files, ..EditRequest::default() })
    }

    fn transact(&self, request: &EditRequest) -> Result<EditResponse, Problem> {
        transact(&self.edits, &self.root, &self.limits, request)
    }

    fn refused(&self, files: Vec<FileEdit>) -> Code {
        self.edit(files).unwrap_err().code
    }
}

/// In memory where that keeps extended attributes (Linux 6.6): thousands of syncs of a busy disk take minutes.
fn in_memory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm").ok().filter(|folder| {
        rustix::fs::setxattr(folder.path(), "user.test", b"", rustix::fs::XattrFlags::empty()).is_ok()
    });
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn file(path: &str, operations: Vec<EditOperation>) -> FileEdit {
    FileEdit { path: path.into(), expected: None, operations }
}

fn expecting(expected: &str, file: FileEdit) -> FileEdit {
    FileEdit { expected: Some(expected.to_owned()), ..file }
}

fn replace(old: &str, new: &str) -> EditOperation {
    EditOperation::Replace { old: old.into(), new: new.into(), all: None, count: None, exact: None }
}

fn insert(line: u64, text: &str) -> EditOperation {
    EditOperation::Insert { line, text: text.to_owned() }
}

fn create(content: &str, overwrite: bool) -> EditOperation {
    EditOperation::Create { content: content.into(), overwrite: Some(overwrite), mode: None }
}

fn rename(to: &str, overwrite: bool) -> EditOperation {
    EditOperation::Rename { to: to.into(), overwrite: Some(overwrite) }
}

fn delete() -> EditOperation {
    EditOperation::Delete {}
}

fn hash(content: &str) -> String {
    blake3::hash(content.as_bytes()).to_hex().to_string()
}

/// Everything about a name that an edit must keep or change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Content of a file, target of a link, nothing for a directory.
    bytes: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    extended: Vec<u8>,
}

/// Which file it is, and when it was changed.
type Same = (u64, i64, i64);

/// Every name of a workspace, litter included.
fn look(folder: &Path) -> BTreeMap<PathBuf, (Seen, Same)> {
    let mut seen = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let bytes = if metadata.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                std::fs::read(&path).unwrap()
            };
            let mut extended = vec![0; 256];
            let length = rustix::fs::lgetxattr(&path, "user.test", &mut extended).unwrap_or(0);
            extended.truncate(length);
            let look =
                Seen { bytes, mode: metadata.permissions().mode(), owner: (metadata.uid(), metadata.gid()), extended };
            // A directory's time changes with every name that comes or goes.
            let time = if metadata.is_dir() { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
            seen.insert(path.strip_prefix(folder).unwrap().to_owned(), (look, (metadata.ino(), time.0, time.1)));
        }
    }
    seen
}

fn without_identity(seen: &BTreeMap<PathBuf, (Seen, Same)>) -> BTreeMap<PathBuf, Seen> {
    seen.iter().map(|(path, (seen, _))| (path.clone(), seen.clone())).collect()
}
