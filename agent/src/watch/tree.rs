//! The directories that are watched: each with the kernel's number for it, its path and its ignore rules.
//!
//! A directory is opened beneath the root and watched through that descriptor, so a path that is swapped for a link while
//! it is looked at leads to nothing outside.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{
        FileType, OFlags,
        inotify::{self, WatchFlags},
    },
    io::Errno,
};

use super::What;
use crate::{
    root::{Own, Root},
    search::{
        filter::Filter,
        listing::Listing,
        rules::{RuleOptions, Rules, Source, join},
        troubles::Troubles,
    },
};

/// What is told about a directory's entries. `MODIFY` comes at each write; the quiet time makes one of them.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// One watched directory.
struct Watched {
    path: Vec<u8>,
    /// What ignore files say about its entries.
    rules: Arc<Rules>,
}

/// The watched directories.
pub(super) struct Tree {
    inotify: OwnedFd,
    what: What,
    filter: Filter,
    by_number: HashMap<i32, Watched>,
    by_path: BTreeMap<Vec<u8>, i32>,
    allowance: Arc<Allowance>,
}

/// How many directories all trees together may watch.
#[derive(Debug)]
pub(super) struct Allowance {
    most: usize,
    taken: AtomicUsize,
}

/// Why not every directory could be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// The agent's own limit.
    Allowance,
    /// The kernel watches no more of them for this user.
    Kernel(Errno),
}

impl Allowance {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    /// Directories that are watched now.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then(|| taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, number: usize) {
        self.taken.fetch_sub(number, Ordering::Relaxed);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.allowance.give_back(self.by_number.len());
    }
}

impl Tree {
    /// # Errors
    /// The kernel gives no further inotify instance.
    pub(super) fn new(what: What, filter: Filter, allowance: Arc<Allowance>) -> Result<Self, Errno> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, what, filter, by_number: HashMap::new(), by_path: BTreeMap::new(), allowance })
    }

    pub(super) fn inotify(&self) -> &OwnedFd {
        &self.inotify
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// The path that a number stands for.
    pub(super) fn path_of(&self, number: i32) -> Option<&[u8]> {
        self.by_number.get(&number).map(|watched| watched.path.as_slice())
    }

    /// The kernel has dropped a watch.
    pub(super) fn dropped(&mut self, number: i32) {
        if let Some(watched) = self.forget(number)
            && self.by_path.get(&watched.path) == Some(&number)
        {
            self.by_path.remove(&watched.path);
        }
    }

    fn forget(&mut self, number: i32) -> Option<Watched> {
        let watched = self.by_number.remove(&number)?;
        self.allowance.give_back(1);
        Some(watched)
    }

    /// Whether an entry of a watched directory is told of.
    pub(super) fn wants(&self, number: i32, path: &[u8], name: &[u8], directory: bool) -> bool {
        self.by_number.get(&number).is_some_and(|watched| self.tells_of(&watched.rules, path, name, directory))
    }

    /// Watches the starting directory and what is in it.
    ///
    /// # Errors
    /// It can't be opened or watched.
    pub(super) fn start(&mut self, root: &Root) -> Result<Result<(), Incomplete>, Errno> {
        let (start, options) = (self.what.start.clone(), self.rule_options());
        let rules = Rules::down_to(root, &Troubles::default(), &start, options)?;
        self.add(root, &start, &rules, &mut |_, _| {})
    }

    /// Watches a directory that is new here, and everything in it; `seen` is told of each entry.
    pub(super) fn enter(
        &mut self,
        root: &Root,
        path: &[u8],
        seen: &mut dyn FnMut(Vec<u8>, bool),
    ) -> Result<(), Incomplete> {
        if !self.what.recursive {
            return Ok(());
        }
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..slash]);
        let Some(rules) = self.by_path.get(parent).and_then(|number| self.by_number.get(number)) else {
            return Ok(());
        };
        let rules = Arc::clone(&rules.rules);
        match self.add(root, path, &rules, seen) {
            Ok(complete) => complete,
            // It is gone again already; its end is told too.
            Err(_) => Ok(()),
        }
    }

    /// Looks through a directory again whose ignore files have changed.
    pub(super) fn again(&mut self, root: &Root, path: &[u8]) -> Result<(), Incomplete> {
        self.leave(path);
        let rules = Rules::down_to(root, &Troubles::default(), path, self.rule_options());
        rules.and_then(|rules| self.add(root, path, &rules, &mut |_, _| {})).unwrap_or(Ok(()))
    }

    /// Watches a directory no more, nor what is in it.
    pub(super) fn leave(&mut self, path: &[u8]) {
        for path in self.beneath(path) {
            if let Some(number) = self.by_path.remove(&path) {
                self.forget(number);
                // Gone with the directory, maybe.
                let _ = inotify::remove_watch(&self.inotify, number);
            }
        }
    }

    /// A watched directory has another name.
    pub(super) fn renamed(&mut self, from: &[u8], to: &[u8]) {
        for path in self.beneath(from) {
            if let Some(number) = self.by_path.remove(&path) {
                let path = [to, &path[from.len()..]].concat();
                if let Some(watched) = self.by_number.get_mut(&number) {
                    watched.path.clone_from(&path);
                }
                self.by_path.insert(path, number);
            }
        }
    }

    /// A watched directory and those in it, the outermost first.
    fn beneath(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let range = (Bound::Included(path.to_vec()), Bound::Unbounded);
        let from_here = self.by_path.range::<Vec<u8>, _>(range).map(|(other, _)| other);
        // Names that sort between the directory and what is in it: `a.b` before `a/b`.
        let related = from_here.take_while(|other| other.starts_with(path));
        related.filter(|other| *other == path || other.starts_with(&prefix)).cloned().collect()
    }

    fn add(
        &mut self,
        root: &Root,
        path: &[u8],
        rules: &Arc<Rules>,
        seen: &mut dyn FnMut(Vec<u8>, bool),
    ) -> Result<Result<(), Incomplete>, Errno> {
        let mut listing = Listing::default();
        let mut waiting = vec![(path.to_vec(), Arc::clone(rules))];
        let mut first = true;
        let mut complete = Ok(());
        while let Some((path, rules)) = waiting.pop() {
            match self.add_one(root, &path, &rules, &mut listing) {
                Ok(Added::Already) => {}
                Ok(Added::TooMany) => complete = Err(Incomplete::Allowance),
                Ok(Added::With(rules)) => {
                    for entry in listing.entries() {
                        let name = listing.name(*entry).to_bytes();
                        let child = join(&path, name);
                        let directory = entry.kind == FileType::Directory;
                        if !self.tells_of(&rules, &child, name, directory) {
                            continue;
                        }
                        if directory && self.what.recursive {
                            waiting.push((child.clone(), Arc::clone(&rules)));
                        }
                        seen(child, directory);
                    }
                }
                Err(errno @ (Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE)) => {
                    complete = Err(Incomplete::Kernel(errno));
                }
                Err(errno) if first => return Err(errno),
                // Gone again, or not ours to read.
                Err(_) => {}
            }
            first = false;
        }
        Ok(complete)
    }

    /// Watches first and lists then, so that nothing comes in between unseen.
    fn add_one(&mut self, root: &Root, path: &[u8], rules: &Arc<Rules>, listing: &mut Listing) -> Result<Added, Errno> {
        let directory = crate::search::beneath::open_directory(root, path, OFlags::NOFOLLOW)?;
        let through = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let mut number = inotify::add_watch(&self.inotify, through.as_str(), EVENTS)?;
        match self.by_path.get(path) {
            Some(watched) if *watched == number => return Ok(Added::Already),
            // Another directory had the path, and has left it.
            Some(_) => {
                self.leave(path);
                // It may have been beneath that one, and have been left with it.
                number = inotify::add_watch(&self.inotify, through.as_str(), EVENTS)?;
            }
            None => {}
        }
        let listed = listing.read(directory.as_fd());
        let is_new = !self.by_number.contains_key(&number);
        if is_new && (listed.is_err() || !self.allowance.take()) {
            let _ = inotify::remove_watch(&self.inotify, number);
            return listed.map(|()| Added::TooMany);
        }
        listed?;
        let rules = rules.enter(&Source { root, troubles: &Troubles::default(), path, listing });
        if let Some(before) = self.by_number.insert(number, Watched { path: path.to_vec(), rules: Arc::clone(&rules) })
            && before.path != path
        {
            // The same directory under the name that it had.
            self.by_path.remove(&before.path);
        }
        self.by_path.insert(path.to_vec(), number);
        Ok(Added::With(rules))
    }

    fn rule_options(&self) -> RuleOptions {
        RuleOptions { ignore_files: self.what.ignore_files, require_git: false }
    }

    fn tells_of(&self, rules: &Rules, path: &[u8], name: &[u8], directory: bool) -> bool {
        let is_git = name == b".git" && self.what.ignore_files;
        !is_git && Own::of(name).is_none() && self.filter.leaves_out(rules, path, name, directory).is_none()
    }
}

/// What became of a directory.
enum Added {
    /// It is watched; these are the rules of its entries.
    With(Arc<Rules>),
    /// This very directory was watched under this path already; its events tell what has changed since.
    Already,
    /// The agent watches enough of them.
    TooMany,
}
