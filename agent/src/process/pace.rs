//! How far a command may run ahead of those who watch it.
//!
//! What a command writes in an instant takes several threads a while to hand out, so one that just copies (`cat` of a large file) would
//! be out of sight of the quickest viewer as soon as its log is full. Then, and only then, its pipe is left unread for a moment,
//! as any pipe does to its writer. The moment is bounded: a viewer that doesn't make way in time is late, and nobody waits for it
//! until it has caught up. So a slow or dead viewer costs a command one such moment, and what it misses is told as a gap.
//!
//! The keeper asks [`Viewers::to_wait_for`] and waits for none of this: it reads other pipes meanwhile, and is woken.

use std::sync::Arc;

use super::{log::Log, table::Inbox};

/// A log with fewer blocks has no beginning worth the name.
const FEWEST_BLOCKS: usize = 8;

/// The viewers of one command that it waits for.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    places: Vec<Place>,
    last: u64,
    waiting: Option<Waiting>,
}

/// Where a viewer is in the log.
#[derive(Debug)]
struct Place {
    viewer: u64,
    offset: u64,
    is_late: bool,
}

/// The keeper has left the command's output where it is.
#[derive(Debug)]
struct Waiting {
    /// Until all who aren't late are here.
    offset: u64,
    keeper: Arc<Inbox>,
}

impl Viewers {
    /// A viewer begins at an offset. Returns its number.
    pub(super) fn enter(&mut self, offset: u64) -> u64 {
        self.last += 1;
        self.places.push(Place { viewer: self.last, offset, is_late: false });
        self.last
    }

    /// A viewer has read up to an offset.
    pub(super) fn moved(&mut self, viewer: u64, offset: u64, log: &Log) {
        if let Some(place) = self.places.iter_mut().find(|place| place.viewer == viewer) {
            place.offset = offset;
            place.is_late &= log.start_of(log.block_count() / 2).is_some_and(|middle| offset < middle);
        }
        self.wake_if_done();
    }

    /// A viewer is gone.
    pub(super) fn leave(&mut self, viewer: u64) {
        self.places.retain(|place| place.viewer != viewer);
        self.wake_if_done();
    }

    /// How far viewers have to come before more is read, if one would miss something else. The keeper then says that it
    /// waits, by [`wait`](Self::wait). `most` is how many blocks the log may have.
    pub(super) fn to_wait_for(&self, log: &Log, most: usize) -> Option<u64> {
        let is_full = most >= FEWEST_BLOCKS && log.block_count() >= most;
        if !is_full || self.places.is_empty() {
            return None;
        }
        // An eighth must stay for what is in the pipes when the command ends, which is read whoever misses it.
        let [endangered, safe] = [most / 8, most / 4].map(|index| log.start_of(index));
        let in_danger =
            |place: &Place| !place.is_late && endangered.is_some_and(|endangered| place.offset < endangered);
        safe.filter(|_| self.places.iter().any(in_danger))
    }

    /// The keeper waits until all who aren't late have come up to an offset.
    pub(super) fn wait(&mut self, offset: u64, keeper: &Arc<Inbox>) {
        self.waiting = Some(Waiting { offset, keeper: Arc::clone(keeper) });
    }

    /// Whether the keeper is to go on waiting.
    pub(super) fn are_waited_for(&self) -> bool {
        self.waiting.is_some()
    }

    /// The keeper waits no longer: those who haven't come are late.
    pub(super) fn give_up(&mut self) {
        if let Some(Waiting { offset, .. }) = self.waiting.take() {
            self.places.iter_mut().filter(|place| place.offset < offset).for_each(|place| place.is_late = true);
        }
    }

    fn wake_if_done(&mut self) {
        let is_done =
            |waiting: &mut Waiting| self.places.iter().all(|place| place.is_late || place.offset >= waiting.offset);
        if let Some(Waiting { keeper, .. }) = self.waiting.take_if(is_done) {
            keeper.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::process::{log::Stream, store::Store};

    const MOST: usize = 8;
    /// Bytes of each block here.
    const BYTES: usize = 1_000;

    /// A log that gets blocks, and drops its oldest beyond the bound.
    struct Growing(Log, Store);

    impl Growing {
        fn grow(&mut self, blocks: usize) {
            for _ in 0..blocks {
                let own = (self.0.block_count() == MOST).then(|| self.0.pop_front().unwrap());
                let block = own.or_else(|| self.1.take()).unwrap();
                self.0.pushed_block(block, Stream::Output, BYTES + super::super::log::HEADER);
            }
        }
    }

    fn full() -> Growing {
        let nowhere = File::from(rustix::pipe::pipe().unwrap().0);
        let mut log = Growing(Log::default(), Store::within(nowhere, 8, MOST));
        log.grow(MOST);
        log
    }

    fn keeper() -> Arc<Inbox> {
        Arc::new(Inbox::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()))
    }

    fn is_woken(keeper: &Inbox) -> bool {
        rustix::io::read(keeper.wake_fd(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn only_a_full_log_waits_and_only_for_who_reads_its_beginning() {
        let log = full();
        let mut viewers = Viewers::default();
        assert_eq!(viewers.to_wait_for(&log.0, MOST), None, "nobody watches");
        let viewer = viewers.enter(0);
        assert_eq!(viewers.to_wait_for(&log.0, MOST + 1), None, "there is room");
        assert_eq!(viewers.to_wait_for(&log.0, MOST), Some(2_000));
        viewers.moved(viewer, 999, &log.0);
        assert_eq!(viewers.to_wait_for(&log.0, MOST), Some(2_000));
        viewers.moved(viewer, 1_000, &log.0);
        assert_eq!(viewers.to_wait_for(&log.0, MOST), None, "it will go on to read");
    }

    #[test]
    fn the_keeper_is_woken_when_the_last_has_come_or_gone() {
        let (log, keeper) = (full(), keeper());
        let mut viewers = Viewers::default();
        let [first, second] = [viewers.enter(0), viewers.enter(500)];
        viewers.wait(2_000, &keeper);
        viewers.moved(first, 2_000, &log.0);
        assert!(viewers.are_waited_for() && !is_woken(&keeper));
        viewers.moved(second, 1_999, &log.0);
        assert!(viewers.are_waited_for() && !is_woken(&keeper));
        viewers.leave(second);
        assert!(!viewers.are_waited_for() && is_woken(&keeper));
    }

    #[test]
    fn who_is_late_is_not_waited_for_until_it_has_caught_up() {
        let (mut log, keeper) = (full(), keeper());
        let mut viewers = Viewers::default();
        let viewer = viewers.enter(0);
        viewers.wait(2_000, &keeper);
        viewers.give_up();
        assert_eq!(viewers.to_wait_for(&log.0, MOST), None);
        log.grow(1);
        // It is told of the gap, and reads on near the beginning.
        viewers.moved(viewer, 1_000, &log.0);
        assert_eq!(viewers.to_wait_for(&log.0, MOST), None, "still late");
        viewers.moved(viewer, 5_000, &log.0);
        log.grow(4);
        assert_eq!(viewers.to_wait_for(&log.0, MOST), Some(7_000), "it had caught up, and is behind again");
    }
}
