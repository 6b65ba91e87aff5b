//! `list`: the entries of a directory, to any depth, page by page.
//!
//! A page costs memory for its own entries and one directory a level, however large the tree is. Directories are opened
//! beneath the one above without following links, so a listing never leaves the tree it began in.

mod cursor;
mod directory;

use std::os::{
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    unix::ffi::OsStrExt as _,
};

use corehold_types::{
    Code, Problem, Timestamp, WorkspacePath,
    tools::{EntryKind, List, ListEntry, ListRequest, ListResponse},
};
use rustix::{
    fs::{FileType, OFlags, Stat},
    io::Errno,
};

use crate::{
    agent::Agent,
    audit::Touched,
    blocking::{self, Cancelled},
    handler::{Call, Events, Handler},
    root::{self, os_problem},
};
use cursor::Cursor;

/// Entries in one answer, when the caller doesn't say.
const DEFAULT_LIMIT: u32 = 1_000;

/// Bytes of the agent's memory that an entry takes, with a path of some length.
const ENTRY_MEMORY: usize = 256;

/// Levels at most: each holds a directory open.
const MAX_DEPTH: u32 = 100;

impl Handler for List {
    async fn handle(call: Call, request: ListRequest, _: Events<Self::Event>) -> Result<ListResponse, Problem> {
        let agent = call.agent;
        let most = u64::from(request.limit.unwrap_or(DEFAULT_LIMIT)).min(agent.config.limits.list_entries.value);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        call.share.gather(most.saturating_mul(ENTRY_MEMORY)).await?;
        blocking::run(move |cancelled| list(&agent, &request, cancelled)).await
    }

    fn touches(request: &ListRequest, touched: &mut Touched) {
        touched.paths(&request.path);
    }
}

fn list(agent: &Agent, request: &ListRequest, cancelled: &Cancelled) -> Result<ListResponse, Problem> {
    let refused = |what: &str| Problem::new(Code::InvalidRequest, what);
    let most = agent.config.limits.list_entries;
    let limit = request.limit.map_or(u64::from(DEFAULT_LIMIT).min(most.value), u64::from);
    if limit > most.value {
        return Err(most.exceeded("limit"));
    }
    if limit == 0 {
        return Err(refused("limit: at least 1 is needed").with("field", "limit"));
    }
    let depth = request.depth.unwrap_or(1);
    if !(1..=MAX_DEPTH).contains(&depth) {
        return Err(refused(&format!("depth: from 1 to {MAX_DEPTH} is possible")).with("field", "depth"));
    }
    let path = request.path.clone().unwrap_or_else(|| ".".into());
    let after = match &request.cursor {
        Some(cursor) => Cursor::decode(cursor)?,
        None => Cursor::default(),
    };
    let top = agent.root.open_directory(&path)?;
    let mut listing = Listing {
        entries: Vec::new(),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        more: false,
        prefix: agent.root.relative(&path)?.as_prefix().to_vec(),
        cancelled,
    };
    let start = listing.prefix.len();
    listing.directory(&top, depth, after.components()).map_err(|errno| os_problem(errno, "list", &path))?;
    if cancelled.is_set() {
        return Err(Cancelled::problem());
    }
    let cursor = match listing.entries.last() {
        Some(last) if listing.more => Some(Cursor::at(&last.path, start).encode()),
        _ => None,
    };
    Ok(ListResponse { entries: listing.entries, cursor })
}

struct Listing<'a> {
    entries: Vec<ListEntry>,
    limit: usize,
    more: bool,
    /// The path of the directory that is being listed, relative to the root; empty for the root.
    prefix: Vec<u8>,
    cancelled: &'a Cancelled,
}

impl Listing<'_> {
    fn directory(&mut self, directory: &OwnedFd, depth: u32, after: &[Vec<u8>]) -> Result<(), Errno> {
        let (after, below) =
            after.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first.as_slice()), rest));
        // Where the last page ended among this directory's entries: what is in it may have to be gone on with.
        if let Some(name) = after
            && depth > 1
        {
            self.descend(directory.as_fd(), name, depth, below)?;
        }
        let room = self.limit.saturating_sub(self.entries.len());
        let names = directory::names_after(directory.as_fd(), after, room + 1)?;
        for name in names {
            if self.cancelled.is_set() {
                return Ok(());
            }
            // Removed since the directory was read.
            let Ok(stat) = root::stat_at(directory.as_fd(), &name) else { continue };
            if self.entries.len() == self.limit {
                self.more = true;
                return Ok(());
            }
            let kind = kind_of(&stat);
            let length = self.enter(name.as_bytes());
            self.entries.push(ListEntry {
                path: WorkspacePath::from_bytes(&self.prefix),
                kind,
                size: if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
                modified: Timestamp::from_unix(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
                mode: stat.st_mode & 0o7777,
                target: if kind == EntryKind::Symlink { target(directory.as_fd(), name.as_bytes()) } else { None },
            });
            self.prefix.truncate(length);
            if kind == EntryKind::Directory && depth > 1 {
                self.descend(directory.as_fd(), name.as_bytes(), depth, &[])?;
            }
        }
        Ok(())
    }

    /// Lists a directory beneath another. One that is gone, replaced or unreadable has no entries to list.
    fn descend(&mut self, above: BorrowedFd<'_>, name: &[u8], depth: u32, after: &[Vec<u8>]) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = root::openat(above, std::ffi::OsStr::from_bytes(name), flags) else { return Ok(()) };
        let length = self.enter(name);
        let result = self.directory(&directory, depth - 1, after);
        self.prefix.truncate(length);
        result
    }

    /// Makes the prefix that of an entry; returns the length to go back to.
    fn enter(&mut self, name: &[u8]) -> usize {
        let length = self.prefix.len();
        if length > 0 {
            self.prefix.push(b'/');
        }
        self.prefix.extend_from_slice(name);
        length
    }
}

fn kind_of(stat: &Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Special,
    }
}

fn target(directory: BorrowedFd<'_>, name: &[u8]) -> Option<WorkspacePath> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new()).ok()?;
    Some(WorkspacePath::from_bytes(target.as_bytes()))
}

#[cfg(test)]
mod tests;
