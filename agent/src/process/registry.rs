//! The commands that the agent knows, running and finished, and how many may run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use corehold_types::tools::CommandInfo;

use super::{command::Command, error::StartError};
use crate::config::Limit;

/// All commands that can be found by id.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<String, u64>,
    by_number: BTreeMap<u64, Arc<Command>>,
    last_number: u64,
    running: u64,
    closed: bool,
}

/// The right to run one command, given back when it is dropped or its command ends.
#[derive(Debug)]
pub(super) struct Slot {
    registry: Arc<Registry>,
    /// The command's number.
    pub(super) number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.registry.known().running -= 1;
    }
}

impl Registry {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to run one more command.
    pub(super) fn reserve(self: &Arc<Self>, limit: Limit) -> Result<Slot, StartError> {
        let mut known = self.known();
        if known.closed {
            return Err(StartError::ShuttingDown);
        }
        if known.running >= limit.value {
            return Err(StartError::Limit { what: "the number of running commands", limit });
        }
        known.running += 1;
        known.last_number += 1;
        Ok(Slot { registry: Arc::clone(self), number: known.last_number })
    }

    /// From now on nothing is started.
    pub(super) fn close(&self) {
        self.known().closed = true;
    }

    /// Whether nothing is to be started any more.
    pub(super) fn is_closed(&self) -> bool {
        self.known().closed
    }

    /// Makes a command known.
    pub(super) fn insert(&self, command: &Arc<Command>) {
        let mut known = self.known();
        known.by_id.insert(command.id().to_owned(), command.number);
        known.by_number.insert(command.number, Arc::clone(command));
    }

    /// Forgets a command.
    pub(super) fn remove(&self, command: &Command) {
        let mut known = self.known();
        known.by_id.remove(command.id());
        known.by_number.remove(&command.number);
    }

    /// The command with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Command>> {
        let known = self.known();
        known.by_id.get(id).and_then(|number| known.by_number.get(number)).cloned()
    }

    /// Every command that is known, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Command>> {
        self.known().by_number.values().cloned().collect()
    }

    /// Commands with this label or any, newest first, older than `before`; and whether there are more.
    pub(super) fn list(
        &self,
        label: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> (Vec<CommandInfo>, Option<u64>) {
        // The commands' own locks are taken after this one is free again.
        let mut page: Vec<Arc<Command>> = {
            let known = self.known();
            let older = known.by_number.range(..before.unwrap_or(u64::MAX)).rev().map(|(_, command)| command);
            let wanted = older.filter(|command| label.is_none() || command.label() == label);
            wanted.take(limit + 1).cloned().collect()
        };
        let has_more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| has_more).map(|command| command.number);
        (page.iter().map(|command| command.info()).collect(), next)
    }
}
