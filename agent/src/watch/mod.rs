//! Changes in the workspace, from the kernel's inotify: one instance for all who watch the same.
//!
//! [`tree`] is what is watched, [`changes`] what waits to be told, [`listeners`] who is told, [`watcher`] the thread between
//! them. Ignore rules are those of the search room, and what they exclude isn't watched at all.

mod changes;
mod listeners;
mod tree;
mod watcher;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use rustix::io::Errno;
use tokio::sync::Semaphore;

pub use self::{
    changes::Change,
    listeners::{Listening, Told},
    tree::Incomplete,
};
use self::{
    listeners::Listeners,
    tree::{Allowance, Tree},
    watcher::Watcher,
};
use crate::{agent::Agent, config::Limits, search::filter::Filter};

/// What to watch. Those who ask for the same share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct What {
    /// The directory, beneath the root.
    pub start: Vec<u8>,
    /// Whether the directories beneath too.
    pub recursive: bool,
    /// Which names, as in `search`.
    pub globs: Vec<String>,
    /// Whether names that begin with a dot are told of.
    pub hidden: bool,
    /// Whether ignore files count.
    pub ignore_files: bool,
    /// How long it must be quiet before changes are told.
    pub quiet: Duration,
}

/// All that is watched in this agent.
#[derive(Debug)]
pub struct Watches {
    trees: Mutex<HashMap<What, Slot>>,
    /// One permit for each tree, whose thread gives it back at its end.
    room: Arc<Semaphore>,
    allowance: Arc<Allowance>,
}

/// Where those who want the same meet. Whoever has the lock begins it, and the others wait.
type Slot = Arc<Mutex<Weak<Listeners>>>;

/// Why nothing is watched.
#[derive(Debug)]
pub enum CantWatch {
    /// The starting directory.
    Start(Errno),
    /// The agent watches enough different trees.
    Trees,
    /// Not all of the directories.
    Incomplete(Incomplete),
    /// The kernel gives no further inotify instance.
    Instance(Errno),
    /// There is no thread for it.
    Thread(io::Error),
}

impl Watches {
    /// Room for as much as the limits say.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let allowance = Arc::new(Allowance::new(limits.watch_directories.as_usize()));
        Self { trees: Mutex::default(), room: limits.watch_trees.permits(), allowance }
    }

    /// Directories that are watched now.
    #[must_use]
    pub fn directories(&self) -> usize {
        self.allowance.taken()
    }

    /// One permit for each further tree. A thread that ends gives its own back last.
    #[must_use]
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// Listens to what changes. Looks through all directories first unless somebody watches the same, so not for a thread
    /// that others wait for. `filter` is made from `what`.
    ///
    /// # Errors
    /// [`CantWatch`] says what lacks.
    pub fn listen(&self, agent: &Arc<Agent>, what: What, filter: Filter) -> Result<Listening, CantWatch> {
        let slot = self.slot(&what);
        let mut listeners = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listening) = listeners.upgrade().and_then(|listeners| listeners.join()) {
            return Ok(listening);
        }
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| CantWatch::Trees)?;
        let mut tree = Tree::new(what.clone(), filter, Arc::clone(&self.allowance)).map_err(CantWatch::Instance)?;
        tree.start(&agent.root).map_err(CantWatch::Start)?.map_err(CantWatch::Incomplete)?;
        let (begun, listening) = Listeners::new(what.start.clone()).map_err(|errno| CantWatch::Thread(errno.into()))?;
        let watcher =
            Watcher::new(Arc::clone(agent), what, tree, Arc::clone(&begun), room).map_err(CantWatch::Thread)?;
        *listeners = Arc::downgrade(&begun);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || watcher.run());
        thread.map_err(CantWatch::Thread)?;
        Ok(listening)
    }

    fn slot(&self, what: &What) -> Slot {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that somebody begins now, and those to which somebody listens.
        trees.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|listeners| listeners.upgrade().is_some_and(|these| !these.is_over()))
        });
        Arc::clone(trees.entry(what.clone()).or_default())
    }
}
