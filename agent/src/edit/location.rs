//! Where a file is or will be, and what is there now.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::{
    fs::{Access, AtFlags, FileType, Stat},
    io::Errno,
};

use super::{attributes::Attributes, disk, locks::Key};
use crate::{
    config::Limits,
    root::{FinalLink, Root, is_hash, mark, os_problem},
};

/// A name beneath a directory that is held open, or beneath directories that are yet to be made in it.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// The path as the caller gave it, for messages.
    pub(crate) path: WorkspacePath,
    /// The deepest directory that exists.
    pub(crate) directory: Rc<OwnedFd>,
    /// Directories to make beneath it, the outermost first.
    pub(crate) missing: Vec<OsString>,
    pub(crate) name: OsString,
    pub(crate) key: Key,
}

impl Location {
    /// Finds where a path leads.
    ///
    /// # Errors
    /// A [`Problem`] that names the path.
    pub(crate) fn resolve(root: &Root, path: &WorkspacePath, link: FinalLink) -> Result<Self, Problem> {
        match root.place(path, link) {
            Err(problem) if problem.code == Code::NotFound => Self::with_missing(root, path),
            found => found.and_then(|found| Self::new(path, found.directory, Vec::new(), found.name)),
        }
    }

    /// Finds where a name is that shall be moved, copied or removed itself; a link is not followed.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for the root, and for a path that ends in `..` or a slash and so names no entry.
    pub(crate) fn resolve_entry(root: &Root, path: &WorkspacePath) -> Result<Self, Problem> {
        Self::resolve(root, path, FinalLink::Keep).map_err(|problem| match problem.code {
            Code::NotAFile => {
                let shown = if path.to_string().is_empty() { "the empty path".to_owned() } else { path.to_string() };
                Problem::new(
                    Code::InvalidRequest,
                    format!("{shown} is the workspace root, or names no entry of a directory"),
                )
                .with("path", serde_json::to_value(path).unwrap_or_default())
                .suggest("name the entry itself, without `.`, `..` or a slash at the end")
            }
            _ => problem,
        })
    }

    /// The same for a path whose directory doesn't exist.
    fn with_missing(root: &Root, path: &WorkspacePath) -> Result<Self, Problem> {
        let relative = root.relative(path)?;
        let components: Vec<&OsStr> = relative.as_path().iter().collect();
        // The last one is the name. One that is missing before it decides where directories are to be made.
        for depth in (1..components.len()).rev() {
            if components[depth - 1] == ".." {
                continue;
            }
            let ancestor: PathBuf = components[..depth].iter().collect();
            let ancestor = WorkspacePath::from_bytes(ancestor.as_os_str().as_bytes());
            let place = match root.place(&ancestor, FinalLink::Keep) {
                Err(problem) if problem.code == Code::NotFound => continue,
                place => place?,
            };
            let errno = |errno| os_problem(errno, "look at", path);
            if disk::stat(place.directory.as_fd(), &place.name).map_err(errno)?.is_some() {
                // It is there, and still the path leads nowhere: a link to nothing.
                return Err(os_problem(Errno::NOENT, "open the directory of", path));
            }
            let mut missing: Vec<OsString> = vec![place.name];
            missing.extend(components[depth..].iter().map(|name| (*name).to_owned()));
            if missing.iter().any(|name| name == ".." || name == ".") {
                let what = format!("{path} has `..` or a slash after a directory that doesn't exist");
                return Err(Problem::new(Code::InvalidRequest, what));
            }
            // There is the one that was pushed, and the name.
            let name = missing.pop().unwrap_or_default();
            return Self::new(path, place.directory, missing, name);
        }
        Err(os_problem(Errno::NOENT, "open the directory of", path))
    }

    fn new(path: &WorkspacePath, directory: OwnedFd, missing: Vec<OsString>, name: OsString) -> Result<Self, Problem> {
        let stat = rustix::fs::fstat(&directory).map_err(|errno| os_problem(errno, "look at", path))?;
        let mut below = missing.join(OsStr::new("/"));
        below.push("/");
        below.push(&name);
        let key = Key { device: stat.st_dev, directory: stat.st_ino, name: below.as_bytes().to_vec() };
        Ok(Self { path: path.clone(), directory: Rc::new(directory), missing, name, key })
    }

    /// What the file that was found under the name is, for the audit log; nothing for what is no regular file.
    pub(crate) fn mark(&self, found: &Stat, limits: &Limits) -> Option<String> {
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return None;
        }
        mark(&disk::open(self.fd(), &self.name).ok()?, limits.audit_hash_bytes.value)
    }

    /// The same for a file of ours that is about to get its name. Its version would not outlast that.
    pub(crate) fn mark_of_own(own: disk::Name<'_>, limits: &Limits) -> Option<String> {
        mark(&disk::open(own.0, own.1).ok()?, limits.audit_hash_bytes.value).filter(|mark| is_hash(mark))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        (*self.directory).as_fd()
    }

    /// What is there, the link itself if it is one.
    pub(crate) fn stat(&self) -> Result<Option<Stat>, Problem> {
        if self.missing.is_empty() {
            disk::stat(self.fd(), &self.name).map_err(|errno| self.problem(errno, "look at"))
        } else {
            Ok(None)
        }
    }

    pub(crate) fn problem(&self, errno: Errno, verb: &str) -> Problem {
        os_problem(errno, verb, &self.path)
    }

    /// The path of its directory relative to the root as the kernel knows it now, for the journal.
    pub(crate) fn directory_path(&self, root: &Root) -> Result<Vec<u8>, Problem> {
        use std::os::fd::AsRawFd as _;
        let link = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let errno = |errno| self.problem(errno, "find the directory of");
        let path = rustix::fs::readlink(link, Vec::new()).map_err(errno)?.into_bytes();
        let relative = root.beneath(&path).ok_or_else(|| errno(Errno::XDEV))?;
        let mut relative = relative.strip_prefix(b"/").unwrap_or(relative).to_vec();
        for name in &self.missing {
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(name.as_bytes());
        }
        Ok(relative)
    }
}

/// What is at a location before a transaction.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) stat: Stat,
    pub(crate) attributes: Attributes,
    /// Content of a regular file, where it was read.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Whether it changed so shortly before it was read that a change right after might show the same times.
    fresh: bool,
}

/// How much of a file a snapshot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Only what it is.
    Nothing,
    /// Its content if it is small and may be read, for the sake of a diff.
    IfCheap,
    /// Its content and attributes, since its content will change.
    Everything,
    /// Its attributes, and its content if that is cheap or has as many bytes as what will take its place.
    Replaced(u64),
}

/// A file that is larger isn't read for a diff of its deletion.
pub(crate) const CHEAP: u64 = 1 << 20;

/// Reads that are tried while somebody else writes the file.
const RACED_READS: u32 = 16;

impl Snapshot {
    /// Looks at what is there. `most_bytes` is checked before reading.
    ///
    /// # Errors
    /// `NOT_A_FILE` for what is neither a regular file nor a link; a [`Problem`] that names the path else.
    pub(crate) fn take(
        location: &Location,
        take: Take,
        too_large: impl Fn(u64) -> Option<Problem>,
    ) -> Result<Option<Self>, Problem> {
        let Some(stat) = location.stat()? else { return Ok(None) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Ok(Some(Self { stat, attributes: Attributes::none(), bytes: None, fresh: false }));
        }
        if kind != FileType::RegularFile {
            let what = if kind == FileType::Directory { Errno::ISDIR } else { Errno::NXIO };
            return Err(location.problem(what, "edit"));
        }
        let without_content = Self { stat, attributes: Attributes::none(), bytes: None, fresh: false };
        if take == Take::Nothing || (take == Take::IfCheap && size(&stat) > CHEAP) {
            return Ok(Some(without_content));
        }
        let file = match disk::open(location.fd(), &location.name) {
            Ok(file) => file,
            Err(Errno::ACCESS) if take == Take::IfCheap => return Ok(Some(without_content)),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(location.problem(errno, "read")),
        };
        // The new file comes by a rename, which doesn't ask whether the old one may be written. We do.
        if matches!(take, Take::Everything | Take::Replaced(_)) {
            rustix::fs::accessat(location.fd(), &location.name, Access::WRITE_OK, AtFlags::EACCESS)
                .map_err(|errno| location.problem(errno, "write"))?;
        }
        for _ in 0..RACED_READS {
            let before = rustix::fs::fstat(&file).map_err(|errno| location.problem(errno, "look at"))?;
            if matches!(take, Take::Replaced(length) if size(&before) > CHEAP && size(&before) != length) {
                let attributes = Attributes::of(&file, &before).map_err(|errno| location.problem(errno, "read"))?;
                return Ok(Some(Self { stat: before, attributes, bytes: None, fresh: false }));
            }
            if let Some(problem) = too_large(size(&before)) {
                return Err(problem);
            }
            let bytes = read(&file, size(&before)).map_err(|errno| location.problem(errno, "read"))?;
            let attributes = Attributes::of(&file, &before).map_err(|errno| location.problem(errno, "read"))?;
            let after = rustix::fs::fstat(&file).map_err(|errno| location.problem(errno, "look at"))?;
            if is_same_content(&before, &after) && bytes.len() as u64 == size(&before) {
                let fresh = is_fresh(&after);
                return Ok(Some(Self { stat: after, attributes, bytes: Some(bytes), fresh }));
            }
        }
        let what = format!("{} is being written by somebody else all the time", location.path);
        Err(Problem::new(Code::VersionMismatch, what))
    }

    /// Whether what is under a name is still what was seen. After a rename, of which the ctime tells, only the rest counts.
    pub(crate) fn is_at(&self, directory: BorrowedFd<'_>, name: &OsStr, renamed: bool) -> Result<bool, Errno> {
        let Some(now) = disk::stat(directory, name)? else { return Ok(false) };
        if !is_same_content(&self.stat, &now) || (!renamed && ctime(&now) != ctime(&self.stat)) {
            return Ok(false);
        }
        match &self.bytes {
            Some(bytes) if self.fresh && renamed => {
                let file = disk::open(directory, name)?;
                Ok(read(&file, size(&now))? == *bytes)
            }
            _ => Ok(true),
        }
    }

    pub(crate) fn is_symlink(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Symlink
    }
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn ctime(stat: &Stat) -> (i64, u64) {
    (stat.st_ctime, stat.st_ctime_nsec)
}

fn is_same_content(left: &Stat, right: &Stat) -> bool {
    let of = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    of(left) == of(right)
}

/// No kernel's clock for file times is coarser than 10 ms (HZ=100).
fn is_fresh(stat: &Stat) -> bool {
    let changed = Duration::new(stat.st_ctime.max(0) as u64, (stat.st_ctime_nsec as u32).min(999_999_999));
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().abs_diff(changed) < Duration::from_millis(20)
}

fn read(mut file: &File, size: u64) -> Result<Vec<u8>, Errno> {
    use std::io::{Seek as _, SeekFrom};
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.seek(SeekFrom::Start(0)).map_err(errno)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(|_| Errno::NOMEM)?;
    // One byte more than there should be: a file that grows is told by its size, not read without end.
    file.take(size + 1).read_to_end(&mut bytes).map_err(errno)?;
    Ok(bytes)
}
