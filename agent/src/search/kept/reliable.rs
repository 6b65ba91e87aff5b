//! File systems whose times can be relied on to tell of every change.

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    sync::{Mutex, PoisonError},
};

use rustix::fs::fstatfs;

/// File systems whose times change with every change: ext2 to ext4, XFS, Btrfs, F2FS, ZFS, bcachefs, and overlays of them.
/// Not those in memory, which know nothing of writes through memory maps, nor those over a network.
const RELIABLE: &[i64] = &[0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e, 0x794c_7630];

/// By device, each asked once.
#[derive(Debug, Default)]
pub(super) struct Reliable(Mutex<HashMap<u64, bool>>);

impl Reliable {
    /// About the file system that this is on.
    pub(super) fn says_so(&self, device: u64, on_it: BorrowedFd<'_>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(device).or_insert_with(|| fstatfs(on_it).is_ok_and(|stats| RELIABLE.contains(&stats.f_type)))
    }
}
