//! What directories hold, so that a later walk needn't list those again that are still the same. To list one takes several
//! times as long as to ask whether it has changed: the kernel goes through all of its entries.
//!
//! A directory's times change with whatever is made, removed, renamed or replaced in it, so what holds for files holds for
//! it too ([`super`]). What ignore files say is read each time.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{OFlags, fstat},
    io::Errno,
};

use super::{Kept, Stamp, identity, reliable::Reliable};
use crate::search::{beneath::Beneath, listing::Listing};

/// What a listing costs besides its names.
const LISTING_BYTES: u64 = 112;

/// A directory as it was listed.
#[derive(Debug)]
pub(super) struct Listed {
    stamp: Stamp,
    /// See [`Listing::to_bytes`].
    entries: Box<[u8]>,
}

impl Listed {
    pub(super) fn size(&self) -> u64 {
        LISTING_BYTES + self.entries.len() as u64
    }
}

/// A root whose directories are listed with the help of what is kept.
pub(in crate::search) struct Known<'a> {
    root: &'a dyn Beneath,
    kept: &'a Kept,
    is_empty: bool,
    settled_before: i64,
    /// Directories of which nothing was known.
    unknown: &'a AtomicU64,
}

impl<'a> Known<'a> {
    pub(super) fn new(kept: &'a Kept, root: &'a dyn Beneath, settled_before: i64, unknown: &'a AtomicU64) -> Self {
        Self { root, kept, is_empty: kept.bytes() == 0, settled_before, unknown }
    }
}

impl Beneath for Known<'_> {
    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.root.open_beneath(path, flags)
    }

    fn list(&self, directory: BorrowedFd<'_>, listing: &mut Listing) -> Result<(), Errno> {
        if self.is_empty {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return self.root.list(directory, listing);
        }
        let stat = fstat(directory)?;
        let (identity, stamp) = (identity(&stat), Stamp::of(&stat));
        let is_known = self.kept.listed(identity, |listed| {
            let is_same = listed.stamp == stamp;
            if is_same {
                listing.set_bytes(&listed.entries);
            }
            is_same
        });
        if is_known {
            return Ok(());
        }
        self.unknown.fetch_add(u64::from(stamp.is_before(self.settled_before)), Ordering::Relaxed);
        self.root.list(directory, listing)
    }
}

/// A root of whose directories is remembered what they hold.
pub(super) struct Remembering<'a> {
    root: &'a dyn Beneath,
    kept: &'a Kept,
    settled_before: i64,
    reliable: &'a Reliable,
}

impl<'a> Remembering<'a> {
    pub(super) fn new(kept: &'a Kept, root: &'a dyn Beneath, settled_before: i64, reliable: &'a Reliable) -> Self {
        Self { root, kept, settled_before, reliable }
    }
}

impl Beneath for Remembering<'_> {
    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.root.open_beneath(path, flags)
    }

    fn list(&self, directory: BorrowedFd<'_>, listing: &mut Listing) -> Result<(), Errno> {
        let before = fstat(directory)?;
        self.root.list(directory, listing)?;
        let (identity, stamp) = (identity(&before), Stamp::of(&before));
        if stamp.is_before(self.settled_before)
            && !self.kept.is_full()
            && self.reliable.says_so(identity.0, directory)
            && !self.kept.listed(identity, |listed| listed.stamp == stamp)
            && Stamp::of(&fstat(directory)?) == stamp
        {
            self.kept.keep_listing(identity, Listed { stamp, entries: listing.to_bytes() });
        }
        Ok(())
    }
}
