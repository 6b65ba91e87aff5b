//! The walk over the tree, on a few threads.
//!
//! Directories wait on one stack, so that the walk goes deep before it goes wide and the stack stays small. They wait as
//! paths and are opened beneath the root when their turn comes: what is open is bounded by the threads, and a directory
//! that is moved or swapped meanwhile is found missing, or inside. Files are opened by whoever visits them, in the
//! directory that was listed, without following a link.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use corehold_types::{Problem, WorkspacePath, tools::SearchSkipped};
use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use super::{
    beneath::{Beneath, CONTENT, as_path, open_directory},
    control::Control,
    filter::{Filter, LeftOut},
    listing::{Entry, Listing},
    queue::Queue,
    rules::{RuleOptions, Rules, Source, identity},
    troubles::Troubles,
};
use crate::root::{Own, os_problem};

/// Files of one directory that a thread takes at a time.
const FILES_AT_A_TIME: usize = 48;
/// Directories that wait with their descriptor open for a thread to take their files. Others are opened again.
const OPEN_DIRECTORIES: usize = 64;

/// How to walk.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// Which ignore files count.
    pub rules: RuleOptions,
    /// Whether links that stay beneath the root are followed.
    pub follow: bool,
    /// How deep; 1 is a starting directory's own entries.
    pub max_depth: Option<u32>,
    /// Whether files come in the byte order of their paths. Takes one thread.
    pub sorted: bool,
    /// Whether directories and what isn't a regular file are visited too, instead of being counted as skipped.
    pub everything: bool,
    /// Threads to walk on, at least 1.
    pub threads: usize,
}

/// An entry that is visited.
pub(super) struct Found<'a> {
    /// The directory that it is in.
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    /// Its path beneath the root.
    pub(super) path: &'a [u8],
    /// What it is; what a link leads to, if links are followed.
    pub(super) kind: FileType,
    /// How to open it: through the directory, or by path because it is a link that may be followed.
    pub(super) through_link: bool,
    /// Whether the caller named this very file.
    pub(super) explicit: bool,
}

impl Found<'_> {
    /// Opens the file for reading its content.
    pub(super) fn open(&self, root: &dyn Beneath) -> Result<OwnedFd, Errno> {
        if self.through_link {
            root.open_beneath(as_path(self.path), CONTENT)
        } else {
            rustix::fs::openat(self.directory, self.name, CONTENT | OFlags::NOFOLLOW, rustix::fs::Mode::empty())
        }
    }
}

/// One thread's part of the work.
pub(super) trait Visitor {
    /// Called for each entry, until the control stops the walk.
    fn visit(&mut self, found: &Found<'_>, skipped: &mut SearchSkipped);
}

/// Work that waits.
enum Task {
    Directory {
        path: Vec<u8>,
        rules: Arc<Rules>,
        depth: u32,
        /// The directories it is in, if links are followed.
        ancestors: Option<Arc<Ancestor>>,
        /// Whether its own name may be a link.
        through_link: bool,
    },
    Files(Files),
}

/// Files of one directory.
struct Files {
    directory_path: Arc<[u8]>,
    /// The directory, if it is kept open; it is opened again else.
    directory: Option<Arc<OpenDirectory>>,
    /// Each name, what it is, and whether it is a link that is followed.
    files: Vec<(std::ffi::CString, FileType, bool)>,
    /// Whether it is a file that the caller named.
    explicit: bool,
}

/// A directory that waits with its descriptor open, and is counted.
struct OpenDirectory {
    directory: OwnedFd,
    open: Arc<AtomicUsize>,
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory on the way, to recognize it when a link leads back to it.
struct Ancestor {
    identity: (u64, u64),
    parent: Option<Arc<Ancestor>>,
}

/// What the threads share.
struct Shared<'a> {
    root: &'a dyn Beneath,
    options: &'a WalkOptions,
    filter: &'a Filter,
    control: &'a Control,
    troubles: &'a Troubles,
    queue: Queue<Task>,
    open: Arc<AtomicUsize>,
}

/// Walks from the starting paths and returns what was skipped. `visitor` makes one visitor for each thread.
///
/// # Errors
/// A starting path can't be opened. Anything that fails later is counted and told in `troubles`.
pub(super) fn walk<V: Visitor>(
    root: &dyn Beneath,
    starts: &[Vec<u8>],
    filter: &Filter,
    options: &WalkOptions,
    control: &Control,
    troubles: &Troubles,
    visitor: impl Fn() -> V + Sync,
) -> Result<SearchSkipped, Problem> {
    let threads = if options.sorted { 1 } else { options.threads.max(1) };
    let shared = Shared {
        root,
        options,
        filter,
        control,
        troubles,
        queue: Queue::new(threads),
        open: Arc::new(AtomicUsize::new(0)),
    };
    let mut tasks = Vec::with_capacity(starts.len());
    for start in starts {
        tasks.push(shared.start(start).map_err(|errno| {
            os_problem(errno, "search", &WorkspacePath::from_bytes(if start.is_empty() { b"." } else { start }))
        })?);
    }
    tasks.reverse();
    shared.queue.push(tasks);
    let mut skipped = SearchSkipped::default();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| {
                std::thread::Builder::new()
                    .name("search".to_owned())
                    .spawn_scoped(scope, || Walker::new(&shared, visitor()).run())
            })
            .collect();
        let failed = others.iter().filter(|other| other.is_err()).count();
        if failed > 0 {
            // The machine has no room for more threads: those that are there do the work.
            shared.queue.leave(failed);
        }
        add(&mut skipped, &Walker::new(&shared, visitor()).run());
        for other in others.into_iter().flatten() {
            match other.join() {
                Ok(counts) => add(&mut skipped, &counts),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    Ok(skipped)
}

impl Shared<'_> {
    /// The first task of a starting path.
    fn start(&self, path: &[u8]) -> Result<Task, Errno> {
        let opened = self.root.open_beneath(as_path(path), OFlags::PATH | OFlags::CLOEXEC)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
        if kind == FileType::Directory {
            let rules = Rules::down_to(self.root, self.troubles, path, self.options.rules)?;
            return Ok(Task::Directory { path: path.to_vec(), rules, depth: 0, ancestors: None, through_link: true });
        }
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(Task::Files(Files {
            directory_path: directory.into(),
            directory: None,
            files: vec![(name, kind, true)],
            explicit: true,
        }))
    }

    /// Keeps a directory open for others, if there is room.
    fn keep_open(&self, directory: &OwnedFd) -> Option<Arc<OpenDirectory>> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= OPEN_DIRECTORIES {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        match directory.try_clone() {
            Ok(directory) => Some(Arc::new(OpenDirectory { directory, open: self.open.clone() })),
            Err(_) => {
                self.open.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// One thread of the walk.
struct Walker<'a, 'b, V> {
    shared: &'a Shared<'b>,
    visitor: V,
    skipped: SearchSkipped,
    listing: Listing,
    /// The path of the entry at hand, in memory that is used again.
    path: Vec<u8>,
}

/// What becomes of an entry.
enum Place {
    LeftOut,
    Directory { through_link: bool, ancestors: Option<Arc<Ancestor>> },
    File { kind: FileType, through_link: bool },
}

impl<'a, 'b, V: Visitor> Walker<'a, 'b, V> {
    fn new(shared: &'a Shared<'b>, visitor: V) -> Self {
        Self { shared, visitor, skipped: SearchSkipped::default(), listing: Listing::default(), path: Vec::new() }
    }

    fn run(mut self) -> SearchSkipped {
        // Others must not wait for a thread that panicked.
        let leaves = LeavesOnPanic(self.shared);
        while let Some(task) = self.shared.queue.next(self.shared.control) {
            match task {
                Task::Directory { path, rules, depth, ancestors, through_link } => {
                    self.directory(path, &rules, depth, ancestors, through_link);
                }
                Task::Files(files) => self.files(&files),
            }
        }
        std::mem::forget(leaves);
        self.skipped
    }

    fn directory(
        &mut self,
        path: Vec<u8>,
        rules: &Arc<Rules>,
        depth: u32,
        ancestors: Option<Arc<Ancestor>>,
        through_link: bool,
    ) {
        let shared = self.shared;
        if shared.options.max_depth.is_some_and(|deepest| depth >= deepest) {
            return;
        }
        let nofollow = if through_link { OFlags::empty() } else { OFlags::NOFOLLOW };
        let opened = open_directory(shared.root, &path, nofollow);
        let directory = match opened
            .and_then(|directory| shared.root.list(directory.as_fd(), &mut self.listing).map(|()| directory))
        {
            Ok(directory) => directory,
            Err(errno) => return self.unreadable(&path, errno),
        };
        let ancestors = if shared.options.follow {
            match identity(directory.as_fd()) {
                Ok(identity) => Some(Arc::new(Ancestor { identity, parent: ancestors })),
                Err(errno) => return self.unreadable(&path, errno),
            }
        } else {
            None
        };
        if shared.options.sorted {
            self.listing.sort();
        }
        let source = Source { root: shared.root, troubles: shared.troubles, path: &path, listing: &self.listing };
        let rules = rules.enter(&source);

        let mut directories = Vec::new();
        let mut files: Vec<(Entry, FileType, bool)> = Vec::new();
        let mut in_order: Vec<Task> = Vec::new();
        let path: Arc<[u8]> = path.into();
        let listing = std::mem::take(&mut self.listing);
        let kept = |files: &mut Vec<(Entry, FileType, bool)>, directory: Option<Arc<OpenDirectory>>| {
            let files = files.drain(..);
            let files = files.map(|(entry, kind, link)| (listing.name(entry).to_owned(), kind, link)).collect();
            Task::Files(Files { directory_path: path.clone(), directory, files, explicit: false })
        };
        for &entry in listing.entries() {
            if shared.control.is_stopped() {
                break;
            }
            let name = listing.name(entry);
            self.set_path(&path, name);
            match self.place(&rules, entry, name, ancestors.as_ref()) {
                Place::LeftOut => {}
                Place::File { kind, through_link } => files.push((entry, kind, through_link)),
                Place::Directory { through_link, ancestors } => {
                    if shared.options.everything {
                        files.push((entry, FileType::Directory, through_link));
                    }
                    let task = Task::Directory {
                        path: self.path.clone(),
                        rules: rules.clone(),
                        depth: depth + 1,
                        ancestors,
                        through_link,
                    };
                    if shared.options.sorted {
                        if !files.is_empty() {
                            in_order.push(kept(&mut files, shared.keep_open(&directory)));
                        }
                        in_order.push(task);
                    } else {
                        directories.push(task);
                    }
                }
            }
        }
        if shared.options.sorted {
            if !in_order.is_empty() {
                if !files.is_empty() {
                    in_order.push(kept(&mut files, shared.keep_open(&directory)));
                }
                in_order.reverse();
                shared.queue.push(in_order);
            }
        } else {
            if files.len() > 2 * FILES_AT_A_TIME && shared.options.threads > 1 {
                let open = shared.keep_open(&directory);
                while files.len() > FILES_AT_A_TIME {
                    let mut part = files.split_off(files.len() - FILES_AT_A_TIME);
                    directories.push(kept(&mut part, open.clone()));
                }
            }
            if !directories.is_empty() {
                shared.queue.push(directories);
            }
        }
        for (entry, kind, through_link) in files {
            let name = listing.name(entry);
            self.set_path(&path, name);
            if !self.visit(directory.as_fd(), name, kind, through_link, false) {
                break;
            }
        }
        self.listing = listing;
    }

    fn files(&mut self, files: &Files) {
        let opened;
        let directory = match &files.directory {
            Some(open) => open.directory.as_fd(),
            None => match open_directory(self.shared.root, &files.directory_path, OFlags::empty()) {
                Ok(directory) => {
                    opened = directory;
                    opened.as_fd()
                }
                Err(errno) => return self.unreadable(&files.directory_path, errno),
            },
        };
        for (name, kind, through_link) in &files.files {
            self.set_path(&files.directory_path, name);
            if !self.visit(directory, name, *kind, *through_link, files.explicit) {
                break;
            }
        }
    }

    /// Visits an entry; false when the walk is to end.
    fn visit(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        through_link: bool,
        explicit: bool,
    ) -> bool {
        if self.shared.control.is_stopped() {
            return false;
        }
        let found = Found { directory, name, path: &self.path, kind, through_link, explicit };
        self.visitor.visit(&found, &mut self.skipped);
        true
    }

    /// Decides about the entry whose path is `self.path`.
    fn place(&mut self, rules: &Rules, entry: Entry, name: &CStr, ancestors: Option<&Arc<Ancestor>>) -> Place {
        if Own::of(name.to_bytes()).is_some() {
            return Place::LeftOut;
        }
        let is_link = entry.kind == FileType::Symlink;
        let mut kind = entry.kind;
        let mut target = None;
        if is_link && self.shared.options.follow {
            match self.follow() {
                Ok((followed, identity)) => {
                    kind = followed;
                    target = Some(identity);
                }
                Err(errno) => {
                    // What would be left out anyway is no trouble.
                    match self.shared.filter.leaves_out(rules, &self.path, name.to_bytes(), false) {
                        Some(why) => self.count(why),
                        None if matches!(errno, Errno::XDEV | Errno::LOOP) => self.skipped.links_refused += 1,
                        None => self.skipped.unreadable += 1,
                    }
                    return Place::LeftOut;
                }
            }
        }
        let is_directory = kind == FileType::Directory;
        if let Some(why) = self.shared.filter.leaves_out(rules, &self.path, name.to_bytes(), is_directory) {
            self.count(why);
            return Place::LeftOut;
        }
        match kind {
            FileType::Directory => {
                if let Some(identity) = target {
                    let mut next = ancestors;
                    while let Some(ancestor) = next {
                        if ancestor.identity == identity {
                            self.skipped.links_refused += 1;
                            return Place::LeftOut;
                        }
                        next = ancestor.parent.as_ref();
                    }
                }
                Place::Directory { through_link: is_link, ancestors: ancestors.cloned() }
            }
            FileType::RegularFile => Place::File { kind, through_link: is_link },
            _ if self.shared.options.everything => Place::File { kind, through_link: is_link },
            FileType::Symlink => {
                self.skipped.symlinks += 1;
                Place::LeftOut
            }
            _ => {
                self.skipped.special += 1;
                Place::LeftOut
            }
        }
    }

    /// What the link at `self.path` leads to.
    fn follow(&self) -> Result<(FileType, (u64, u64)), Errno> {
        let opened = self.shared.root.open_beneath(as_path(&self.path), OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = rustix::fs::fstat(&opened)?;
        Ok((FileType::from_raw_mode(stat.st_mode), (stat.st_dev, stat.st_ino)))
    }

    fn count(&mut self, why: LeftOut) {
        match why {
            LeftOut::Ignored => self.skipped.ignored += 1,
            LeftOut::Hidden => self.skipped.hidden += 1,
            LeftOut::Filtered => self.skipped.filtered += 1,
        }
    }

    fn unreadable(&mut self, path: &[u8], errno: Errno) {
        // Removed or replaced since it was listed: it isn't there, which is no trouble.
        if !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
            self.skipped.unreadable += 1;
            self.shared.troubles.add(path, || errno.to_string());
        }
    }

    fn set_path(&mut self, directory: &[u8], name: &CStr) {
        self.path.clear();
        if !directory.is_empty() {
            self.path.extend_from_slice(directory);
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
    }
}

struct LeavesOnPanic<'a, 'b>(&'a Shared<'b>);

impl Drop for LeavesOnPanic<'_, '_> {
    fn drop(&mut self) {
        self.0.control.stop(super::control::Stop::Failed);
        self.0.queue.leave(1);
    }
}

fn add(sum: &mut SearchSkipped, part: &SearchSkipped) {
    let SearchSkipped { ignored, hidden, filtered, binary, too_large, symlinks, links_refused, special, unreadable } =
        part;
    sum.ignored += ignored;
    sum.hidden += hidden;
    sum.filtered += filtered;
    sum.binary += binary;
    sum.too_large += too_large;
    sum.symlinks += symlinks;
    sum.links_refused += links_refused;
    sum.special += special;
    sum.unreadable += unreadable;
}
