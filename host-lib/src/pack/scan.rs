//! What is in a folder, by `lstat` alone: no file is opened here.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use super::{Limits, exclude::Excludes, unreadable};
use crate::error::{Error, ErrorKind, Result};

/// As many obstacles are collected; the rest would say the same.
const OBSTACLES: usize = 50;

/// Something to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the folder; no `.` or `..` in it.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Symlink { target: PathBuf },
    File { executable: bool, stamp: Stamp },
}

/// What tells that a file is the one that was looked at, and unchanged since. The change time can't be set at will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i128,
    /// Nanoseconds since 1970.
    pub(super) changed: i128,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Something that can't be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Relative to the folder.
    pub(crate) path: PathBuf,
    pub(crate) message: String,
    pub(crate) suggestion: String,
}

/// A folder's content, sorted by the bytes of its paths, so that a directory comes before what is in it.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) entries: Vec<Entry>,
    pub(super) obstacles: Vec<Obstacle>,
    excluded: bool,
}

impl Scan {
    pub(super) fn of(folder: &Path, excludes: &Excludes, limits: &Limits) -> Result<Self> {
        let mut scan = Self { entries: Vec::new(), obstacles: Vec::new(), excluded: false };
        let mut bytes = 0_u64;
        let mut largest: Option<(u64, PathBuf)> = None;
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            for name in names(&folder.join(&directory))? {
                let path = directory.join(name);
                let full = folder.join(&path);
                let metadata = match fs::symlink_metadata(&full) {
                    Ok(metadata) => metadata,
                    // Removed since its folder was read: then it isn't there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(unreadable(&full, error)),
                };
                if excludes.exclude(&path, metadata.is_dir()) {
                    scan.excluded = true;
                    continue;
                }
                if let Some(kind) = scan.kind(&full, &path, &metadata)? {
                    match &kind {
                        Kind::Directory => pending.push(path.clone()),
                        Kind::Symlink { .. } => {}
                        Kind::File { stamp, .. } => {
                            bytes = bytes.saturating_add(stamp.size);
                            if largest.as_ref().is_none_or(|(size, _)| *size < stamp.size) {
                                largest = Some((stamp.size, path.clone()));
                            }
                        }
                    }
                    scan.entries.push(Entry { path, kind });
                }
                if scan.entries.len() > limits.entries {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("{} holds more than {} files and folders", folder.display(), limits.entries),
                    )
                    .hint("a template is sources, not what is made of them: leave out the rest by \"exclude\" in its template.json"));
                }
            }
        }
        if bytes > limits.bytes {
            let (size, path) = largest.unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{} holds {bytes} bytes, more than the {} that are packed; the largest file is {} with {size}",
                    folder.display(),
                    limits.bytes,
                    path.display()
                ),
            )
            .hint("leave out what isn't source by \"exclude\" in its template.json, or raise the limit by COREHOLD_ARCHIVE_BYTES"));
        }
        scan.entries
            .sort_unstable_by(|one, other| one.path.as_os_str().as_bytes().cmp(other.path.as_os_str().as_bytes()));
        Ok(scan)
    }

    /// An error when the folder can't be packed as it is.
    pub(super) fn refuse(&self, folder: &Path) -> Result<()> {
        if let Some(first) = self.obstacles.first() {
            let more = match self.obstacles.len() {
                1 => String::new(),
                count if count > OBSTACLES => format!(" (and more than {OBSTACLES} others)"),
                count => format!(" (and {} more like it)", count - 1),
            };
            let message = format!("{} {}{more}", folder.join(&first.path).display(), first.message);
            return Err(Error::new(ErrorKind::Invalid, message).hint(first.suggestion.clone()));
        }
        self.empty(folder).map_or(Ok(()), Err)
    }

    pub(super) fn empty(&self, folder: &Path) -> Option<Error> {
        // Who wrote a template.json may mean a workspace that its set-up fills.
        let described = folder.join(crate::template::FILE_NAME).is_file();
        if described || !self.entries.is_empty() || !self.obstacles.is_empty() {
            return None;
        }
        let error = Error::new(ErrorKind::Invalid, format!("the folder {} is empty", folder.display()));
        Some(match self.excluded {
            true => {
                error.hint("all that is in it is excluded; \"exclude\" in template.json can take things back with !")
            }
            false => error.hint("a template needs at least one file"),
        })
    }

    fn kind(&mut self, full: &Path, path: &Path, metadata: &Metadata) -> Result<Option<Kind>> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Ok(Some(Kind::Directory));
        }
        if kind.is_file() {
            return Ok(Some(Kind::File { executable: metadata.mode() & 0o111 != 0, stamp: Stamp::of(metadata) }));
        }
        if kind.is_symlink() {
            let target = fs::read_link(full).map_err(|error| unreadable(full, error))?;
            return Ok(self.symlink(path, target));
        }
        let what = if kind.is_socket() {
            "is a socket"
        } else if kind.is_fifo() {
            "is a named pipe"
        } else {
            "is a device"
        };
        self.obstruct(path, format!("{what}, which can't be packed"));
        Ok(None)
    }

    /// Keeps a link as it is when it can mean the same inside the workspace: relative, and nowhere above the folder.
    /// Whether anything is there is its own business.
    fn symlink(&mut self, path: &Path, target: PathBuf) -> Option<Kind> {
        if target.is_absolute() {
            self.obstruct(
                path,
                format!(
                    "is a symbolic link to the absolute path {}, which means another file in a workspace",
                    target.display()
                ),
            );
            return None;
        }
        let mut depth = path.components().count() - 1;
        for component in target.components() {
            match component {
                Component::Normal(_) => depth += 1,
                Component::ParentDir if depth == 0 => {
                    self.obstruct(path, format!("is a symbolic link to {}, outside of the folder", target.display()));
                    return None;
                }
                Component::ParentDir => depth -= 1,
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Some(Kind::Symlink { target })
    }

    fn obstruct(&mut self, path: &Path, message: String) {
        if self.obstacles.len() <= OBSTACLES {
            let suggestion =
                format!("remove it, or add {:?} to \"exclude\" in template.json", format!("/{}", path.display()));
            self.obstacles.push(Obstacle { path: path.to_owned(), message, suggestion });
        }
    }
}

fn names(directory: &Path) -> Result<Vec<OsString>> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    match read() {
        Ok(names) => Ok(names),
        Err(error) => Err(unreadable(directory, error)),
    }
}
