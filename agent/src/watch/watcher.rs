//! The thread that watches a tree: reads the kernel's queue, and tells those who listen.
//!
//! It waits for readers who are behind, but not for long; what is too much for it meanwhile is too much for the kernel's
//! queue, which is bounded and says so.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_types::tools::ResyncReason;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, inotify::ReadFlags},
    io::Errno,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{What, changes::Changes, listeners::Listeners, tree::Tree};
use crate::{
    agent::Agent,
    root::Own,
    search::{
        beneath::{Beneath as _, as_path},
        rules::join,
    },
};

/// Bytes of the kernel's queue that are read at a time.
const BUFFER: usize = 64 << 10;

/// Bytes of changes that wait at most, about; then they are told without waiting for quiet.
const MOST_BYTES: usize = 256 << 10;

/// Names and directories that wait for what else happens to them, likewise.
const MOST_WAITING: usize = 4096;

pub(super) struct Watcher {
    agent: Arc<Agent>,
    quiet: Duration,
    start: Vec<u8>,
    tree: Tree,
    /// The same instance as the tree's, for reading.
    queue: OwnedFd,
    listeners: Arc<Listeners>,
    changes: Changes,
    /// Names that were left, by the kernel's number for the move, until the name that was taken instead is known.
    moved: HashMap<u32, (Vec<u8>, bool)>,
    /// Whether a directory was looked through since it was last quiet. What was found there is how things were then, further
    /// on than the events that are yet to be read, and a path may have named another directory.
    looked_ahead: bool,
    /// Whether a directory has got or lost a name meanwhile.
    uncertain: bool,
    /// Directories whose ignore files have changed.
    new_rules: BTreeSet<Vec<u8>>,
    /// Goes last, when the kernel's instance is free again.
    _room: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    /// Also when the thread panics.
    fn drop(&mut self) {
        self.listeners.end();
    }
}

/// Why the thread has something to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// The kernel tells something.
    Events,
    /// It was quiet for long enough.
    Quiet,
    /// Somebody came or left.
    Listeners,
}

/// An event, as far as it matters here.
struct Seen {
    number: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

impl Watcher {
    /// # Errors
    /// The agent may not have more open files.
    pub(super) fn new(
        agent: Arc<Agent>,
        what: What,
        tree: Tree,
        listeners: Arc<Listeners>,
        room: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        Ok(Self {
            agent,
            quiet: what.quiet,
            start: what.start,
            queue: tree.inotify().try_clone()?,
            tree,
            listeners,
            changes: Changes::default(),
            moved: HashMap::new(),
            looked_ahead: false,
            uncertain: false,
            new_rules: BTreeSet::new(),
            _room: room,
        })
    }

    /// Until nobody listens any more.
    pub(super) fn run(mut self) {
        let mut since: Option<Instant> = None;
        loop {
            let woken = match self.wait(since.is_some().then_some(self.quiet)) {
                Ok(woken) => woken,
                Err(error) => {
                    tracing::error!(%error, "changes of files can't be watched any more");
                    return;
                }
            };
            if woken == Woken::Events {
                self.read();
            }
            let asked = woken == Woken::Listeners && self.listeners.is_asked();
            if self.listeners.is_over() {
                return;
            }
            if self.has_nothing() {
                since = None;
            } else {
                let first = *since.get_or_insert_with(Instant::now);
                // Whoever is new is told what happens from now on, so the others are told what has.
                if woken == Woken::Quiet || asked || self.has_much() || first.elapsed() >= self.quiet * 4 {
                    self.settle();
                    if woken == Woken::Quiet {
                        self.looked_ahead = false;
                        if std::mem::take(&mut self.uncertain) {
                            self.changes.resync(self.start.clone(), ResyncReason::Moves);
                        }
                    }
                    since = None;
                    self.listeners.tell(self.changes.take());
                }
            }
            if asked {
                self.listeners.admit(self.tree.len());
            }
        }
    }

    fn has_much(&self) -> bool {
        self.changes.bytes() >= MOST_BYTES || self.moved.len() + self.new_rules.len() >= MOST_WAITING
    }

    fn has_nothing(&self) -> bool {
        self.changes.is_empty() && self.moved.is_empty() && self.new_rules.is_empty()
    }

    /// Waits, no longer than that.
    fn wait(&self, time: Option<Duration>) -> Result<Woken, Errno> {
        let time = time.map(|time| Timespec::try_from(time).unwrap_or_default());
        loop {
            let mut fds = [PollFd::new(&self.queue, PollFlags::IN), PollFd::new(self.listeners.wake(), PollFlags::IN)];
            match poll(&mut fds, time.as_ref()) {
                Ok(0) => return Ok(Woken::Quiet),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(Woken::Listeners),
                Ok(_) => return Ok(Woken::Events),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes in what is in the kernel's queue, as far as one buffer holds it.
    fn read(&mut self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        let mut seen = Vec::new();
        {
            let mut reader = rustix::fs::inotify::Reader::new(self.queue.as_fd(), &mut buffer);
            while let Ok(event) = reader.next() {
                let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                seen.push(Seen { number: event.wd(), flags: event.events(), cookie: event.cookie(), name });
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        for event in seen {
            self.take_in(event);
        }
    }

    fn take_in(&mut self, event: Seen) {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.overflowed();
        }
        if event.flags.contains(ReadFlags::IGNORED) {
            if self.tree.path_of(event.number) == Some(self.start.as_slice()) {
                self.changes.removed(self.start.clone(), true);
            }
            self.tree.dropped(event.number);
            return;
        }
        // Of a directory that is watched no more.
        let Some(directory_path) = self.tree.path_of(event.number) else { return };
        let path = join(directory_path, &event.name);
        let directory = event.flags.contains(ReadFlags::ISDIR);
        if !directory && matches!(event.name.as_slice(), b".gitignore" | b".ignore" | b".rgignore") {
            self.new_rules.insert(directory_path.to_vec());
        }
        let wanted = self.tree.wants(event.number, &path, &event.name, directory);
        if event.flags.contains(ReadFlags::MOVED_TO) {
            let from = self.moved.remove(&event.cookie);
            return match (from, wanted) {
                (Some((from, _)), true) if directory && self.looked_ahead => {
                    // Which directory had which name is anybody's guess: what is there now counts, and whoever listens is
                    // told to look too.
                    self.left(from, true);
                    self.came(path, true);
                }
                (Some((from, _)), true) => {
                    if directory {
                        self.tree.renamed(&from, &path);
                        self.moves_beneath(&from, Some(&path));
                    }
                    self.changes.renamed(from, path, directory);
                }
                // The agent exchanges files with new ones of names of its own.
                (Some((from, false)), false)
                    if Own::of(&event.name).is_some() && self.kind_of(&from) == Some(false) =>
                {
                    self.changes.replaced(from);
                }
                (Some((from, _)), false) => self.left(from, directory),
                (None, true) => self.came(path, directory),
                (None, false) => {}
            };
        }
        if !wanted {
            return;
        }
        if event.flags.contains(ReadFlags::MOVED_FROM) {
            self.moved.insert(event.cookie, (path, directory));
        } else if event.flags.contains(ReadFlags::CREATE) {
            self.created(path, directory);
        } else if event.flags.contains(ReadFlags::DELETE) {
            if directory {
                self.tree.leave(&path);
                self.moves_beneath(&path, None);
            }
            self.changes.removed(path, directory);
        } else if event.flags.contains(ReadFlags::MODIFY) {
            self.changes.modified(path);
        }
    }

    fn created(&mut self, path: Vec<u8>, directory: bool) {
        if self.moved.values().any(|(left, _)| *left == path) {
            return self.came(path, directory);
        }
        self.changes.created(path.clone(), directory);
        self.look_into(path, directory);
    }

    /// As created, but it may have taken another's place.
    fn came(&mut self, path: Vec<u8>, directory: bool) {
        self.changes.came(path.clone(), directory);
        self.look_into(path, directory);
    }

    fn look_into(&mut self, path: Vec<u8>, directory: bool) {
        if directory {
            self.looked_ahead = true;
            let (changes, listeners) = (&mut self.changes, &self.listeners);
            let entered = self.tree.enter(&self.agent.root, &path, &mut |path, directory| {
                changes.created(path, directory);
                if changes.bytes() >= MOST_BYTES {
                    listeners.tell(changes.take());
                }
            });
            if entered.is_err() {
                self.incomplete(path);
            }
        }
    }

    /// What is beneath isn't watched, not all of it.
    fn incomplete(&mut self, path: Vec<u8>) {
        self.listeners.mark_incomplete();
        self.changes.resync(path, ResyncReason::Limit);
    }

    /// Something went where nobody watches.
    fn left(&mut self, path: Vec<u8>, directory: bool) {
        // Also what has come in its place: that is looked through anew below.
        self.tree.leave(&path);
        self.moves_beneath(&path, None);
        let kind = self.kind_of(&path);
        self.uncertain |= self.looked_ahead && directory;
        match kind {
            // Another file has its name by now.
            Some(false) if !directory => self.changes.came(path, false),
            Some(is_directory) => {
                self.changes.left(path.clone(), directory);
                self.came(path, is_directory);
            }
            None => self.changes.left(path, directory),
        }
    }

    /// Names beneath a directory that were left are beneath another one now, or beneath none.
    fn moves_beneath(&mut self, directory: &[u8], now: Option<&[u8]>) {
        let prefix = [directory, b"/"].concat();
        self.moved.retain(|_, (path, _)| {
            if path.starts_with(&prefix) {
                let Some(now) = now else { return false };
                *path = [now, &path[directory.len()..]].concat();
            }
            true
        });
    }

    /// What has this name now: whether it is a directory.
    fn kind_of(&self, path: &[u8]) -> Option<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stat = self.agent.root.open_beneath(as_path(path), flags).and_then(rustix::fs::fstat).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Moves that were never completed here, and ignore files that have changed.
    fn settle(&mut self) {
        for (_, (path, directory)) in std::mem::take(&mut self.moved) {
            self.left(path, directory);
        }
        for path in std::mem::take(&mut self.new_rules) {
            let complete = self.tree.again(&self.agent.root, &path);
            self.changes.resync(path.clone(), ResyncReason::Rules);
            if complete.is_err() {
                self.incomplete(path);
            }
        }
    }

    /// The kernel's queue was full: nobody knows what changed.
    fn overflowed(&mut self) {
        self.moved.clear();
        self.changes.take();
        self.changes.resync(self.start.clone(), ResyncReason::Overflow);
        let start = self.start.clone();
        if self.tree.again(&self.agent.root, &start).is_err() {
            self.incomplete(start);
        }
    }
}
