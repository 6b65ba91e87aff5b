//! Reads the files that a search has read once more, to remember what is in them.

use std::{fs::File, io, os::fd::AsFd as _};

use corehold_types::tools::SearchSkipped;
use rustix::fs::{FileType, fstat};

use super::{Entry, Kept, Stamp, digest::Builder, identity, listings::Remembering, reliable::Reliable};
use crate::search::{
    beneath::Beneath,
    control::{Control, Stop},
    file::{READ_AT_ONCE, has_mark, read_once},
    plan::SearchPlan,
    troubles::Troubles,
    walk::{self, Found, Visitor, WalkOptions},
};

/// Larger files are searched each time.
const MOST_FILE_BYTES: u64 = 8 << 20;

/// Gathers what can be known of the directories and files that a plan leads to, until there is no room for more.
pub fn gather(kept: &Kept, root: &dyn Beneath, plan: &SearchPlan) {
    let control = Control::new(u64::MAX);
    let (settled_before, reliable) = (kept.settled_before(), Reliable::default());
    let root = &Remembering::new(kept, root, settled_before, &reliable);
    let options = WalkOptions { threads: 1, sorted: false, ..plan.options.clone() };
    let visitor = || Gatherer {
        kept,
        root,
        control: &control,
        settled_before,
        reliable: &reliable,
        builder: Builder::default(),
        buffer: vec![0; READ_AT_ONCE],
    };
    // What can't be read is the next search's to tell.
    let _ = walk::walk(root, &plan.starts, &plan.filter, &options, &control, &Troubles::default(), visitor);
}

struct Gatherer<'a> {
    kept: &'a Kept,
    root: &'a dyn Beneath,
    control: &'a Control,
    settled_before: i64,
    reliable: &'a Reliable,
    builder: Builder,
    buffer: Vec<u8>,
}

impl Visitor for Gatherer<'_> {
    fn visit(&mut self, found: &Found<'_>, _skipped: &mut SearchSkipped) {
        if self.kept.is_full() {
            self.control.stop(Stop::Cancelled);
        } else if !found.through_link {
            // It has changed or gone meanwhile: nothing is known of it.
            let _ = self.remember(found);
        }
    }
}

impl Gatherer<'_> {
    fn remember(&mut self, found: &Found<'_>) -> io::Result<()> {
        let file = File::from(found.open(self.root)?);
        let stat = fstat(&file)?;
        let (identity, stamp) = (identity(&stat), Stamp::of(&stat));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || !stamp.is_before(self.settled_before)
            || !self.reliable.says_so(identity.0, file.as_fd())
            || self.kept.knows(identity, stamp)
        {
            return Ok(());
        }
        let (has_nul, is_text) =
            if stamp.size > MOST_FILE_BYTES { (false, false) } else { self.read(&file, stamp.size)? };
        if Stamp::of(&fstat(&file)?) == stamp {
            let digest = if is_text { self.builder.finish() } else { None };
            self.kept.keep(identity, Entry { stamp, has_nul, digest });
        }
        Ok(())
    }

    /// Reads a file into the builder. Says whether it has a NUL byte, and whether it is searched as it was read.
    fn read(&mut self, mut file: &File, size: u64) -> io::Result<(bool, bool)> {
        self.builder.begin(size);
        let (mut length, mut has_nul) = (0, false);
        loop {
            let read = read_once(&mut file, &mut self.buffer)?;
            if read == 0 {
                break;
            }
            let piece = &self.buffer[..read];
            if length == 0 && has_mark(piece) {
                return Ok((false, false));
            }
            has_nul |= memchr::memchr(0, piece).is_some();
            length += read as u64;
            // A large binary file is left at its first NUL byte, and what a search then says it has read depends on that.
            if has_nul && size >= READ_AT_ONCE as u64 {
                return Ok((true, false));
            }
            self.builder.add(piece);
        }
        Ok((has_nul, length == size))
    }
}
