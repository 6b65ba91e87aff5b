//! What is kept between searches, so that later ones needn't read files again that can't match. Of a file that was read
//! once is known which runs of three bytes it has ([`digest`]); of a pattern, which it can't match without ([`needs`]). Of a
//! directory is known what is in it ([`listings`]).
//!
//! Never stale: what is known holds for a file of this device and inode whose size and times are those that it was read
//! with, and that had rested for a while then. A change in the same tick of the file system's clock is no danger, since
//! nothing is kept of a file that was changed in the last minute. Nor is a program that writes through a memory map: the
//! times change with the first write after the kernel has brought out what was written before, which it does in half a
//! minute. File systems whose times can't be relied on so (in memory, over a network) are left out.
//!
//! Kept in the agent's memory, bounded, given up when nobody has searched for a while; made by a thread of low priority
//! behind a search that has read or listed a lot. Small workspaces never have any of it.

mod digest;
mod gather;
mod listings;
mod needs;
mod reliable;

use std::{
    collections::HashMap,
    ffi::CStr,
    os::fd::BorrowedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, FileType, Stat, statat};

use super::beneath::Beneath;

use digest::Digest;
pub use gather::gather;
use listings::{Known, Listed};
pub use needs::Needs;

/// Parts of the memory, each with a lock of its own.
const SHARDS: usize = 16;
/// What an entry costs besides its digest.
const ENTRY_BYTES: u64 = 128;

/// What is kept, and of what.
#[derive(Debug)]
pub struct Kept {
    shards: [RwLock<HashMap<Identity, Entry>>; SHARDS],
    /// Of directories.
    listings: [RwLock<HashMap<Identity, Listed>>; SHARDS],
    bytes: AtomicU64,
    options: KeptOptions,
    work: Mutex<Work>,
    changed: Condvar,
}

/// When something is kept, and for how long.
#[derive(Debug, Clone)]
pub struct KeptOptions {
    /// Memory that it may take, in bytes; 0 keeps nothing. Default 32 MiB.
    pub most_bytes: u64,
    /// It is worth it when a search has read and listed so many files and directories of which nothing was known. Default 2,000.
    pub worth: u64,
    /// How long a file must have been left alone. Default one minute.
    pub settled: Duration,
    /// How long it is kept without a search. Default five minutes.
    pub rest: Duration,
    /// The time of files' times.
    pub now: fn() -> SystemTime,
}

impl Default for KeptOptions {
    fn default() -> Self {
        Self {
            most_bytes: 32 << 20,
            worth: 2_000,
            settled: Duration::from_secs(60),
            rest: Duration::from_secs(300),
            now: SystemTime::now,
        }
    }
}

/// Device and inode.
type Identity = (u64, u64);

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    has_nul: bool,
    /// Absent if the file is of a kind that is searched each time.
    digest: Option<Digest>,
}

/// The thread that gathers, and what it has to do.
#[derive(Default)]
struct Work {
    runs: bool,
    next: Option<Job>,
    last_use: Option<Instant>,
    /// Before this moment nothing is gathered again, so that it takes a small part of the time only.
    not_before: Option<Instant>,
}

type Job = Box<dyn FnOnce(&Kept) + Send>;

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Work").field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether it was left alone since this moment, in seconds since 1970.
    fn is_before(&self, seconds: i64) -> bool {
        self.modified.0 < seconds && self.changed.0 < seconds
    }
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// In which part what is known of it is.
fn shard_of((device, inode): Identity) -> usize {
    (device ^ inode) as usize % SHARDS
}

impl Kept {
    /// Nothing yet.
    #[must_use]
    pub fn new(options: KeptOptions) -> Self {
        Self {
            shards: Default::default(),
            listings: Default::default(),
            bytes: AtomicU64::new(0),
            options,
            work: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Files of which something is known.
    #[must_use]
    pub fn files(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Directories of which something is known.
    #[must_use]
    pub fn directories(&self) -> usize {
        self.listings.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Memory that it takes, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// After a search that has read or listed `unknown` files and directories of which nothing was known: has `job` gather what can be known of them,
    /// in a thread of its own, if it is worth it.
    pub fn after_search(self: &Arc<Self>, unknown: u64, job: impl FnOnce(&Self) + Send + 'static) {
        if self.options.most_bytes == 0 {
            return;
        }
        let mut work = self.work();
        let now = Instant::now();
        work.last_use = Some(now);
        if unknown < self.options.worth || self.is_full() || work.not_before.is_some_and(|moment| now < moment) {
            return;
        }
        work.next = Some(Box::new(job));
        if work.runs {
            self.changed.notify_all();
            return;
        }
        let kept = Arc::clone(self);
        work.runs = std::thread::Builder::new().name("search-kept".to_owned()).spawn(move || kept.run()).is_ok();
    }

    fn run(&self) {
        // The thread's alone; searches and commands go first.
        let _ = rustix::process::setpriority_process(None, 19);
        let _ends = Ends(self);
        while let Some(job) = self.next_job() {
            let begun = Instant::now();
            job(self);
            self.work().not_before = Some(begun + 10 * begun.elapsed());
        }
    }

    /// What is to be done next; nothing once nobody has searched for a while.
    fn next_job(&self) -> Option<Job> {
        let mut work = self.work();
        loop {
            if let Some(job) = work.next.take() {
                return Some(job);
            }
            let rested = work.last_use.map_or(self.options.rest, |last| last.elapsed());
            let left = self.options.rest.saturating_sub(rested);
            if left.is_zero() {
                // Under the lock, so that whoever comes now finds no thread and starts one.
                work.runs = false;
                self.clear();
                return None;
            }
            work = self.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn clear(&self) {
        for shard in &self.shards {
            *shard.write().unwrap_or_else(PoisonError::into_inner) = HashMap::new();
        }
        for shard in &self.listings {
            *shard.write().unwrap_or_else(PoisonError::into_inner) = HashMap::new();
        }
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.bytes() >= self.options.most_bytes
    }

    /// Remembers a file.
    fn keep(&self, identity: Identity, entry: Entry) {
        let size = |entry: &Entry| ENTRY_BYTES + entry.digest.as_ref().map_or(0, Digest::size);
        self.bytes.fetch_add(size(&entry), Ordering::Relaxed);
        let old = self.shard(identity).write().unwrap_or_else(PoisonError::into_inner).insert(identity, entry);
        if let Some(old) = old {
            self.bytes.fetch_sub(size(&old), Ordering::Relaxed);
        }
    }

    /// Whether something is known of a file as it is.
    fn knows(&self, identity: Identity, stamp: Stamp) -> bool {
        let shard = self.shard(identity).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&identity).is_some_and(|entry| entry.stamp == stamp)
    }

    /// Remembers what a directory holds.
    fn keep_listing(&self, identity: Identity, listed: Listed) {
        self.bytes.fetch_add(listed.size(), Ordering::Relaxed);
        let shard = &self.listings[shard_of(identity)];
        if let Some(old) = shard.write().unwrap_or_else(PoisonError::into_inner).insert(identity, listed) {
            self.bytes.fetch_sub(old.size(), Ordering::Relaxed);
        }
    }

    /// What `use_it` makes of what is known of a directory; false if that is nothing.
    fn listed(&self, identity: Identity, use_it: impl FnOnce(&Listed) -> bool) -> bool {
        let shard = self.listings[shard_of(identity)].read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&identity).is_some_and(use_it)
    }

    fn shard(&self, identity: Identity) -> &RwLock<HashMap<Identity, Entry>> {
        &self.shards[shard_of(identity)]
    }

    /// The moment before which files must have been changed last, in seconds since 1970.
    fn settled_before(&self) -> i64 {
        let moment = (self.options.now)().checked_sub(self.options.settled).unwrap_or(UNIX_EPOCH);
        moment.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that panicked must not be waited for.
struct Ends<'a>(&'a Kept);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.work().runs = false;
            self.0.clear();
        }
    }
}

/// One search's questions.
#[derive(Debug)]
pub struct Lookup<'a> {
    kept: &'a Kept,
    needs: Option<&'a Needs>,
    is_empty: bool,
    settled_before: i64,
    unknown: AtomicU64,
    spared: AtomicU64,
}

/// What is known of a file in which a search can't find anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lacking {
    pub(super) size: u64,
    pub(super) has_nul: bool,
}

impl<'a> Lookup<'a> {
    /// Of a search that needs this in a file, if that can be told from its pattern.
    #[must_use]
    pub fn new(kept: &'a Kept, needs: Option<&'a Needs>) -> Self {
        Self {
            kept,
            needs,
            is_empty: kept.bytes() == 0,
            settled_before: kept.settled_before(),
            unknown: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }
    }

    /// Files that weren't read, since they are known to lack what is needed.
    #[must_use]
    pub fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    /// The root, whose directories are listed with the help of what is kept.
    pub(super) fn over<'b>(&'b self, root: &'b dyn Beneath) -> Known<'b> {
        Known::new(self.kept, root, self.settled_before, &self.unknown)
    }

    /// Files and directories that were asked for and of which nothing was known, though it could have been.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Whether the file is known to lack what is needed. Costs one `fstatat` where opening and reading it costs four calls.
    pub(super) fn lacks(&self, directory: BorrowedFd<'_>, name: &CStr) -> Option<Lacking> {
        let needs = self.needs?;
        if self.is_empty {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let (identity, stamp) = (identity(&stat), Stamp::of(&stat));
        let shard = self.kept.shard(identity).read().unwrap_or_else(PoisonError::into_inner);
        match shard.get(&identity).filter(|entry| entry.stamp == stamp) {
            Some(entry) => {
                let lacks = entry.digest.as_ref().is_some_and(|digest| !needs.may_be_in(digest));
                self.spared.fetch_add(u64::from(lacks), Ordering::Relaxed);
                lacks.then_some(Lacking { size: stamp.size, has_nul: entry.has_nul })
            }
            None => {
                self.unknown.fetch_add(u64::from(stamp.is_before(self.settled_before)), Ordering::Relaxed);
                None
            }
        }
    }
}
