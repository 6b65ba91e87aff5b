//! The directories that are watched: each with the kernel's number for it, its path and its ignore rules.
//!
//! A directory is opened beneath the root and watched through that descriptor, so a path that is swapped for a link while
//! it is looked at leads to nothing outside.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{
        FileType, OFlags,
        inotify::{self, WatchFlags},
    },
    io::Errno,
};

use super::Options;
use crate::{
    root::{Own, Root},
    search::{
        listing::Listing,
        rules::{Rules, Source, join},
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
    options: Options,
    by_number: HashMap<i32, Watched>,
    by_path: BTreeMap<Vec<u8>, i32>,
}

/// Not every directory could be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incomplete;

impl Tree {
    /// # Errors
    /// The kernel gives no further inotify instance.
    pub(super) fn new(options: Options) -> Result<Self, Errno> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, options, by_number: HashMap::new(), by_path: BTreeMap::new() })
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
        if let Some(watched) = self.by_number.remove(&number)
            && self.by_path.get(&watched.path) == Some(&number)
        {
            self.by_path.remove(&watched.path);
        }
    }

    /// Whether an entry of a watched directory is told of.
    pub(super) fn wants(&self, number: i32, path: &[u8], name: &[u8], directory: bool) -> bool {
        self.by_number.get(&number).is_some_and(|watched| self.options.wants(&watched.rules, path, name, directory))
    }

    /// Watches the starting directory and what is in it.
    ///
    /// # Errors
    /// It can't be opened or watched.
    pub(super) fn start(&mut self, root: &Root) -> Result<Result<(), Incomplete>, Errno> {
        let (start, options) = (self.options.start.clone(), self.options.rules);
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
        if !self.options.recursive {
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
        let rules = Rules::down_to(root, &Troubles::default(), path, self.options.rules);
        rules.and_then(|rules| self.add(root, path, &rules, &mut |_, _| {})).unwrap_or(Ok(()))
    }

    /// Watches a directory no more, nor what is in it.
    pub(super) fn leave(&mut self, path: &[u8]) {
        for path in self.beneath(path) {
            if let Some(number) = self.by_path.remove(&path) {
                self.by_number.remove(&number);
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
                Ok(None) => {}
                Ok(Some(rules)) => {
                    for entry in listing.entries() {
                        let name = listing.name(*entry).to_bytes();
                        let child = join(&path, name);
                        let directory = entry.kind == FileType::Directory;
                        if !self.options.wants(&rules, &child, name, directory) {
                            continue;
                        }
                        if directory && self.options.recursive {
                            waiting.push((child.clone(), Arc::clone(&rules)));
                        }
                        seen(child, directory);
                    }
                }
                Err(Errno::NOSPC | Errno::NOMEM | Errno::MFILE) => complete = Err(Incomplete),
                Err(errno) if first => return Err(errno),
                // Gone again, or not ours to read.
                Err(_) => {}
            }
            first = false;
        }
        Ok(complete)
    }

    /// Watches first and lists then, so that nothing comes in between unseen. Returns the rules of its entries; nothing if this
    /// very directory is watched under this path already, whose events tell what has changed since.
    fn add_one(
        &mut self,
        root: &Root,
        path: &[u8],
        rules: &Arc<Rules>,
        listing: &mut Listing,
    ) -> Result<Option<Arc<Rules>>, Errno> {
        if self.by_number.len() >= self.options.most {
            return Err(Errno::NOSPC);
        }
        let directory = crate::search::beneath::open_directory(root, path, OFlags::NOFOLLOW)?;
        let through = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let mut number = inotify::add_watch(&self.inotify, through.as_str(), EVENTS)?;
        match self.by_path.get(path) {
            Some(watched) if *watched == number => return Ok(None),
            // Another directory had the path, and has left it.
            Some(_) => {
                self.leave(path);
                // It may have been beneath that one, and have been left with it.
                number = inotify::add_watch(&self.inotify, through.as_str(), EVENTS)?;
            }
            None => {}
        }
        listing.read(directory.as_fd())?;
        let rules = rules.enter(&Source { root, troubles: &Troubles::default(), path, listing });
        if let Some(before) = self.by_number.insert(number, Watched { path: path.to_vec(), rules: Arc::clone(&rules) })
            && before.path != path
        {
            // The same directory under the name that it had.
            self.by_path.remove(&before.path);
        }
        self.by_path.insert(path.to_vec(), number);
        Ok(Some(rules))
    }
}

impl Options {
    fn wants(&self, rules: &Rules, path: &[u8], name: &[u8], directory: bool) -> bool {
        let is_git = name == b".git" && self.rules.ignore_files;
        !is_git && Own::of(name).is_none() && self.filter.leaves_out(rules, path, name, directory).is_none()
    }
}
