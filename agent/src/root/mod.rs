//! Confinement: the only way from a path that a caller names to a file.
//!
//! The root is opened once; everything else is resolved beneath that descriptor by the kernel (`openat2` with
//! `RESOLVE_BENEATH`), so no `..` and no symbolic link leads outside, also while somebody swaps directories underneath.
//! Where the kernel has no such call, and for absolute links that point into the root, [`walk`] does the same one
//! component at a time. Names are confined, not inodes: a hard link to a file outside is a name inside.

#[cfg(any(feature = "fuzzing", test))]
mod fuzz;
mod made;
mod own;
mod path;
mod problem;
mod ready;
mod version;
mod walk;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

#[cfg(any(feature = "fuzzing", test))]
pub(crate) use fuzz::fuzz;
pub use made::Made;
pub use own::{JOURNALS, Own, RESERVED};
pub use path::RelativePath;
pub use problem::os_problem;
pub use version::Version;
pub(crate) use version::{is_current, is_hash, mark};

/// How often a resolution that the kernel gave up on, because of a rename elsewhere, is tried before walking instead.
const RACED_RESOLUTIONS: u32 = 64;

/// The workspace root, opened once.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    /// The root's path without symbolic links, by which absolute links may name it too.
    canonical: PathBuf,
    kernel_resolves: bool,
    /// The device of its file system, if that is a local one.
    local_device: Option<u64>,
    /// Whether that file system doesn't say what of a file is in memory.
    tells_nothing_cached: AtomicBool,
}

/// A regular file that was opened, and what it was then.
#[derive(Debug)]
pub struct OpenFile {
    /// The file, for reading.
    pub file: File,
    /// Its state when it was opened.
    pub stat: Stat,
}

impl OpenFile {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }
}

/// Where a name is or will be: a directory that is held open, and one component beneath it.
#[derive(Debug)]
pub struct Place {
    /// The directory, good for the `…at` calls.
    pub directory: OwnedFd,
    /// One component, never `.` or `..`.
    pub name: OsString,
}

/// Whether a symbolic link at the end of a path stands for what it points to or for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalLink {
    /// For what it points to, which need not exist.
    Follow,
    /// For itself.
    Keep,
}

impl Root {
    /// Opens the root and finds out whether the kernel can confine.
    ///
    /// # Errors
    /// It doesn't exist, isn't a directory, or may not be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        let kernel_resolves = openat2(directory.as_fd(), Path::new("."), DIRECTORY, ResolveFlags::empty()).is_ok();
        let local_device = ready::local_device(&directory);
        let canonical = std::fs::canonicalize(path)?;
        let path = path.to_owned();
        Ok(Self {
            directory,
            path,
            canonical,
            kernel_resolves,
            local_device,
            tells_nothing_cached: AtomicBool::new(false),
        })
    }

    /// The root's absolute path as it was configured.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root's descriptor, good for the `…at` calls with single components.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The guard that is active, as `info` names it.
    #[must_use]
    pub fn guard(&self) -> &'static str {
        if self.kernel_resolves { "openat2" } else { "component-walk" }
    }

    /// What a caller's path means lexically: relative to the root.
    ///
    /// # Errors
    /// Malformed, too long, with a NUL, with a name of the agent's own, or absolute and not under the root.
    pub fn relative(&self, path: &WorkspacePath) -> Result<RelativePath, Problem> {
        RelativePath::new(path, &[&self.path, &self.canonical])
    }

    /// Opens a directory; good for `fchdir`, for the `…at` calls and for listing.
    ///
    /// # Errors
    /// A [`Problem`] that names the path and what is wrong with it.
    pub fn open_directory(&self, path: &WorkspacePath) -> Result<OwnedFd, Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open_at(&self.relative(path)?, flags).map_err(|errno| match errno {
            Errno::NOTDIR => Problem::new(Code::NotADirectory, format!("{path} is not a directory")),
            errno => os_problem(errno, "open", path),
        })
    }

    /// Opens a regular file for reading. Never waits for the other end of a pipe.
    ///
    /// # Errors
    /// A [`Problem`] that names the path; `NOT_A_FILE` for a directory or anything special.
    pub fn open_file(&self, path: &WorkspacePath) -> Result<OpenFile, Problem> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = self.open_at(&self.relative(path)?, flags).map_err(|errno| match errno {
            Errno::NXIO => problem::not_a_file(path, "a socket or a device"),
            errno => os_problem(errno, "open", path),
        })?;
        let stat = rustix::fs::fstat(&opened).map_err(|errno| os_problem(errno, "look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(OpenFile { file: opened.into(), stat }),
            FileType::Directory => Err(problem::not_a_file(path, "a directory")),
            FileType::Fifo => Err(problem::not_a_file(path, "a pipe")),
            _ => Err(problem::not_a_file(path, "a device")),
        }
    }

    /// Finds where a path's last component is, whether or not it exists. Its directory must.
    ///
    /// # Errors
    /// A [`Problem`] that names the path; `NOT_A_FILE` when the path ends in `.` or `..` or is the root.
    pub fn place(&self, path: &WorkspacePath, link: FinalLink) -> Result<Place, Problem> {
        let relative = self.relative(path)?;
        let Some((parent, name)) = relative.split() else {
            return Err(problem::not_a_file(path, "a directory"));
        };
        let directory =
            self.open_at(&parent, DIRECTORY).map_err(|errno| os_problem(errno, "open the directory of", path))?;
        if link == FinalLink::Follow && is_symlink(directory.as_fd(), name) {
            let found = walk::walk(self, &relative, FinalLink::Follow)
                .map_err(|errno| os_problem(errno, "follow the link", path))?;
            let Some(name) = found.name else { return Err(problem::not_a_file(path, "a directory")) };
            own::refuse(name.as_bytes(), path)?;
            return Ok(Place { directory: found.directory, name });
        }
        Ok(Place { directory, name: name.to_owned() })
    }

    /// Opens beneath the root, following links that stay in it.
    pub(crate) fn open_at(&self, path: &RelativePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.kernel_resolves {
            match openat2(self.directory.as_fd(), path.as_path(), flags, ResolveFlags::empty()) {
                // EXDEV: outside, or an absolute link that may point into the root. EAGAIN: raced by a rename each time.
                Err(Errno::XDEV | Errno::AGAIN) => {}
                result => return result,
            }
        }
        let found = walk::walk(self, path, FinalLink::Follow)?;
        match found.name {
            Some(name) => openat(found.directory.as_fd(), &name, flags | OFlags::NOFOLLOW),
            None => openat(found.directory.as_fd(), OsStr::new("."), flags),
        }
    }

    /// What an absolute link's target means relative to the root, if it points into it.
    pub(crate) fn beneath<'a>(&self, target: &'a [u8]) -> Option<&'a [u8]> {
        [&self.path, &self.canonical].into_iter().find_map(|root| path::strip_root(target, root))
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens beneath a directory with the kernel's confinement, trying again while renames elsewhere race it.
pub(crate) fn openat2(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < RACED_RESOLUTIONS => tries += 1,
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens one component beneath a directory.
pub(crate) fn openat(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    debug_assert!(!name.as_bytes().contains(&b'/') && name != "..", "one component, not a path");
    loop {
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What a name is, not following a link.
pub(crate) fn stat_at(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_symlink(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    stat_at(directory, name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

#[cfg(test)]
mod tests;
