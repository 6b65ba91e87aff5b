//! A small tree and a path in it, resolved both ways: neither leaves the root, and both find the same.
//!
//! Compiled only for fuzzing and for the tests, which run the seeds.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt as _, ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use corehold_types::WorkspacePath;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{DIRECTORY, FinalLink, Root, openat2, path::components};

/// Entries of a tree; what else is described is left out.
const ENTRIES: usize = 48;

/// A folder with a root and something beside it, in memory where there is such a file system; removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = Self(above.join(format!("corehold-resolve-{}-{number}", std::process::id())));
        for directory in ["root", "outside/a/b"] {
            fs::create_dir_all(folder.0.join(directory)).expect("a folder of our own can be made");
        }
        fs::write(folder.0.join("outside/a/f"), "outside").expect("a file of our own can be written");
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds what the lines but the last describe, and resolves the last: `d NAME` is a directory, `f NAME` a file, `l NAME>TARGET` a link.
/// `^` at the beginning of a target or of the path stands for the root's own path.
///
/// # Panics
/// One of the resolvers leaves the root, or they disagree.
pub(crate) fn fuzz(bytes: &[u8]) {
    let folder = Folder::new();
    let path = folder.0.join("root");
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let asked = full(lines.pop().unwrap_or_default(), &path);
    let kernel = Root::open(&path).expect("the root can be opened");
    for line in lines.into_iter().take(ENTRIES) {
        make(&kernel, &path, line);
    }
    let mut walking = Root::open(&path).expect("the root can be opened");
    walking.kernel_resolves = false;

    let mut inside = BTreeSet::new();
    collect(&path, &mut inside);
    let [by_kernel, by_walk] = [&kernel, &walking].map(|root| {
        let path = WorkspacePath::from_bytes(&asked);
        let Ok(relative) = root.relative(&path) else { return (None, [None, None]) };
        let identity = |directory: &std::os::fd::OwnedFd| {
            let stat = rustix::fs::fstat(directory).expect("what is open can be looked at");
            let identity = (stat.st_dev, stat.st_ino);
            assert!(inside.contains(&identity), "{} leads {path} out", root.guard());
            identity
        };
        let opened = root.open_at(&relative, OFlags::PATH | OFlags::CLOEXEC).ok().map(|opened| identity(&opened));
        let places = [FinalLink::Follow, FinalLink::Keep].map(|link| {
            let place = root.place(&path, link).ok()?;
            assert!(!place.name.as_bytes().contains(&b'/') && place.name != ".." && place.name != ".");
            Some((identity(&place.directory), place.name))
        });
        (opened, places)
    });
    assert_eq!(by_kernel, by_walk, "the kernel and the walk disagree on {}", asked.escape_ascii());
}

/// A path in which `^` stands for the root's.
fn full(path: &[u8], root: &Path) -> Vec<u8> {
    match path.strip_prefix(b"^") {
        Some(rest) => [root.as_os_str().as_bytes(), rest].concat(),
        None => path.to_owned(),
    }
}

/// Makes what a line describes, if it can be made without following a link.
fn make(root: &Root, path: &Path, line: &[u8]) {
    let Some((kind, rest)) = line.split_at_checked(2) else { return };
    let (name, target) = match rest.iter().position(|byte| *byte == b'>') {
        Some(cut) => (&rest[..cut], &rest[cut + 1..]),
        None => (rest, &b""[..]),
    };
    let parts: Vec<&[u8]> = components(name).collect();
    let Some((name, above)) = parts.split_last() else { return };
    let above = PathBuf::from(std::ffi::OsString::from_vec([&b"."[..], &above.join(&b'/')].join(&b'/')));
    let Ok(directory) = openat2(root.as_fd(), &above, DIRECTORY, ResolveFlags::NO_SYMLINKS) else { return };
    let _ = match kind {
        b"d " => rustix::fs::mkdirat(&directory, *name, Mode::RWXU),
        b"f " => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&directory, *name, flags, Mode::RUSR | Mode::WUSR).map(drop)
        }
        b"l " => rustix::fs::symlinkat(full(target, path), &directory, *name),
        _ => Ok(()),
    };
}

/// Every inode of the tree.
fn collect(path: &Path, all: &mut BTreeSet<(u64, u64)>) {
    let metadata = fs::symlink_metadata(path).expect("nobody else changes this tree");
    all.insert((metadata.dev(), metadata.ino()));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("our own directories can be read") {
            collect(&entry.expect("our own directories can be read").path(), all);
        }
    }
}
