//! A part of the log with a bound of its own, shared out fairly: who calls most loses their own oldest records first, so
//! that nobody drives out another's.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Entry;

/// Refusals of a kind that are kept one by one; of more the newest stand for the older ones.
const ALIKE: usize = 8;

/// Records of many subjects.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// By subject; empty for who nobody knows.
    queues: HashMap<Box<str>, Queue>,
    pub(super) bytes: u64,
    most_bytes: u64,
    /// The newest that was dropped; 0 when none was.
    pub(super) dropped: u64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
}

impl Ring {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, ..Self::default() }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let subject = entry.caller.as_ref().map_or("", |caller| &caller.subject);
        if !self.queues.contains_key(subject) {
            self.queues.insert(subject.into(), Queue::default());
        }
        let Some(queue) = self.queues.get_mut(subject) else { return };
        let size = entry.size();
        queue.entries.push_back(Arc::new(entry));
        queue.bytes += size;
        self.bytes += size;
        self.make_room();
    }

    /// The same for a refusal: where there are many that are alike, the oldest gives way to it.
    pub(super) fn push_alike(&mut self, mut entry: Entry) {
        let subject = entry.caller.as_ref().map_or("", |caller| &caller.subject);
        if let Some(queue) = self.queues.get_mut(subject) {
            let mut alike = queue.entries.iter().enumerate().filter(|(_, other)| other.is_like(&entry));
            if let Some((oldest, _)) = alike.next()
                && alike.count() + 1 >= ALIKE
                && let Some(other) = queue.entries.remove(oldest)
            {
                queue.bytes -= other.size();
                self.bytes -= other.size();
                entry.times += other.times;
                entry.since = Some(other.since.unwrap_or(other.time));
            }
        }
        self.push(entry);
    }

    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<Entry>> {
        self.queues
            .values()
            .flat_map(move |Queue { entries, .. }| entries.range(entries.partition_point(|entry| entry.seq <= seq)..))
    }

    fn make_room(&mut self) {
        while self.bytes > self.most_bytes {
            let Some((subject, queue)) = self.queues.iter_mut().max_by_key(|(_, queue)| queue.bytes) else { return };
            if let Some(dropped) = queue.entries.pop_front() {
                queue.bytes -= dropped.size();
                self.bytes -= dropped.size();
                self.dropped = self.dropped.max(dropped.seq);
            }
            if queue.entries.is_empty() {
                let subject = subject.clone();
                self.queues.remove(&subject);
            }
        }
    }
}

impl Entry {
    fn size(&self) -> u64 {
        (size_of::<Self>() + 2 * size_of::<usize>() + self.request_id.len() + self.touched.bytes) as u64
    }

    /// Whether another refusal of the same subject says the same.
    fn is_like(&self, other: &Self) -> bool {
        (self.tool, self.code, self.surface) == (other.tool, other.code, other.surface)
    }
}
