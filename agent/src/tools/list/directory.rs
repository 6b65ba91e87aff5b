//! The next names of a directory in byte order, in memory for no more names than are wanted.

use std::{
    collections::BinaryHeap,
    ffi::OsString,
    mem::MaybeUninit,
    os::{fd::BorrowedFd, unix::ffi::OsStringExt as _},
};

use rustix::{fs::RawDir, io::Errno};

use crate::root::Own;

/// Bytes of directory entries taken from the kernel at a time.
const BUFFER: usize = 32 << 10;

/// At most `count` names after `after`, the first in byte order. Names of the agent's own work in progress are left out.
pub(super) fn names_after(
    directory: BorrowedFd<'_>,
    after: Option<&[u8]>,
    count: usize,
) -> Result<Vec<OsString>, Errno> {
    let mut smallest: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_own = Own::of(name).is_some();
        if name == b"." || name == b".." || is_own || after.is_some_and(|after| name <= after) {
            continue;
        }
        if smallest.len() < count {
            smallest.push(name.to_vec());
        } else if let Some(mut largest) = smallest.peek_mut()
            && name < largest.as_slice()
        {
            *largest = name.to_vec();
        }
    }
    Ok(smallest.into_sorted_vec().into_iter().map(OsString::from_vec).collect())
}
