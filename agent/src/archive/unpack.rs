//! Entries become files in the staging directory.
//!
//! Names are checked lexically first (an archive has no business outside of itself), then made one component at a time
//! without following links. Owners are not taken over, set-id and sticky bits are dropped, modes and times are kept.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::atomic::Ordering,
};

use corehold_types::{Code, Problem, tools::ExtractResponse};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};

use super::{
    Extraction,
    descent::{Descent, MAX_DEPTH},
    merge::Merged,
    refused,
    stage::Stage,
    tar::{Entry, Kind, Reader},
};
use crate::{
    blocking::Cancelled,
    root::{Own, RESERVED, openat, stat_at},
};

/// Bytes of an entry's name; the kernel takes no longer path at once.
const NAME_BYTES: usize = 4096;

/// Bytes of zeros, at least, that become a hole in a file instead of being written.
const HOLE: usize = 4096;

/// Bytes of a name that count as one entry of `archiveEntries`: names are kept until all is in its place, and a million of the
/// longest ones would be 4 GB.
const NAME_BYTES_PER_ENTRY: u64 = 128;

/// What was unpacked, and what is left to do once it has been moved.
pub(super) struct Unpacked {
    pub(super) counts: ExtractResponse,
    /// Directories that their owner may not write to. They get this mode last: a directory can only be moved while it is
    /// writable.
    read_only: Vec<(Vec<u8>, Mode)>,
}

impl Unpacked {
    /// Gives read-only directories their mode, but for those that existed before.
    pub(super) fn finish(&self, destination: BorrowedFd<'_>, merged: &Merged) {
        let mut descent = Descent::new(destination);
        // The deepest first, since a mode may forbid going further down.
        for (path, mode) in self.read_only.iter().rev() {
            if merged.existed(path) {
                continue;
            }
            let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let Some((name, above)) = components.split_last() else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Whoever has moved it away already may do with it what he likes.
            if let Ok(above) = descent.enter(above)
                && let Ok(directory) = openat(above, OsStr::from_bytes(name), flags)
            {
                let _ = rustix::fs::fchmod(directory, *mode);
            }
        }
    }
}

/// Unpacks an archive into the stage.
pub(super) fn unpack(
    extraction: &Extraction<'_>,
    archive: &mut dyn BufRead,
    stage: &Stage<'_>,
) -> Result<Unpacked, Problem> {
    let mut unpacker = Unpacker {
        extraction,
        descent: Descent::new(stage.directory()),
        directories: Vec::new(),
        counts: ExtractResponse::default(),
        umask: umask(),
        weight: 0,
    };
    let limits = &extraction.agent.config.limits;
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next()? {
        if extraction.cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        extraction.progress.entry();
        unpacker.weight += 1 + entry.name.len().min(NAME_BYTES) as u64 / NAME_BYTES_PER_ENTRY;
        unpacker.check_weight()?;
        if reader.extended() > limits.archive_bytes.value {
            return Err(limits.archive_bytes.exceeded("the archive's extended headers"));
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.check_weight()?;
    let left = limits.archive_bytes.value.saturating_sub(extraction.progress.bytes.load(Ordering::Relaxed));
    reader.drain(left)?.ok_or_else(|| limits.archive_bytes.exceeded("what follows the archive's end"))?;
    unpacker.finish_directories()
}

struct Unpacker<'a> {
    extraction: &'a Extraction<'a>,
    descent: Descent<'a>,
    /// Path, mode and time of directories, set when nothing is made in them any more.
    directories: Vec<(Vec<u8>, Mode, Timestamps)>,
    counts: ExtractResponse,
    umask: Mode,
    /// Entries, as `archiveEntries` counts them.
    weight: u64,
}

impl Unpacker<'_> {
    fn check_weight(&self) -> Result<(), Problem> {
        let limit = self.extraction.agent.config.limits.archive_entries;
        if self.weight + self.descent.made() <= limit.value {
            return Ok(());
        }
        Err(limit.exceeded(
            "the number of the archive's entries, with the directories that their names imply and long names counted more \
             than once,",
        ))
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), Problem> {
        let components = components(&entry.name).map_err(|why| refused(&entry.name, why))?;
        match entry.kind {
            Kind::Directory => self.directory(entry, &components),
            Kind::File => self.file(entry, &components, reader),
            Kind::Symlink => self.symlink(entry, &components),
            Kind::HardLink => self.hard_link(entry, &components),
            Kind::CharacterDevice => Err(refused(&entry.name, "is a character device")),
            Kind::BlockDevice => Err(refused(&entry.name, "is a block device")),
            Kind::Fifo => Err(refused(&entry.name, "is a named pipe")),
            Kind::Other(flag) => Err(refused(&entry.name, &format!("is of the unknown kind {:?}", char::from(flag)))),
        }
    }

    fn directory(&mut self, entry: &Entry, components: &[&[u8]]) -> Result<(), Problem> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let Some((name, above)) = components.split_last() else {
            // The destination itself, which exists and keeps its mode.
            return Ok(());
        };
        self.make(entry, above, |directory| {
            let name = OsStr::from_bytes(name);
            // Writable for us until everything is in it.
            match rustix::fs::mkdirat(directory, name, mode | Mode::RWXU) {
                Err(Errno::EXIST) if is_directory(directory, name)? => Ok(()),
                result => result,
            }
        })?;
        self.directories.push((components.join(&b'/'), mode, times(entry)));
        self.counts.directories += 1;
        Ok(())
    }

    fn file(&mut self, entry: &Entry, components: &[&[u8]], reader: &mut Reader<'_>) -> Result<(), Problem> {
        let limit = self.extraction.agent.config.limits.archive_bytes;
        let too_large = || limit.exceeded("the archive's unpacked content");
        // Known from the header, so that a bomb is refused before its first byte is written.
        if self.counts.bytes.saturating_add(entry.size) > limit.value {
            return Err(too_large());
        }
        let (name, above) = split(entry, components)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: Option<File> = None;
        self.make(entry, above, |directory| {
            file = Some(rustix::fs::openat(directory, name, flags, mode)?.into());
            Ok(())
        })?;
        let Some(mut file) = file else { return Ok(()) };
        let failed = |errno: Errno| self.failed(entry, errno);
        let mut hole = false;
        loop {
            let content = reader.content()?;
            if content.is_empty() {
                break;
            }
            let length = content.len();
            // Blocks of zeros become holes: of a sparse file only what was written takes room, as before.
            let written = if length >= HOLE && content.iter().all(|byte| *byte == 0) {
                hole = true;
                file.seek(SeekFrom::Current(length as i64)).map(drop)
            } else {
                hole = false;
                file.write_all(content)
            };
            written.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            reader.consume(length);
            self.extraction.progress.bytes(length as u64);
            if self.extraction.cancelled.is_set() {
                return Err(Cancelled::problem());
            }
        }
        if hole {
            rustix::fs::ftruncate(&file, entry.size).map_err(failed)?;
        }
        if mode.intersects(self.umask) {
            rustix::fs::fchmod(&file, mode).map_err(failed)?;
        }
        rustix::fs::futimens(&file, &times(entry)).map_err(failed)?;
        self.counts.files += 1;
        self.counts.bytes += entry.size;
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, components: &[&[u8]]) -> Result<(), Problem> {
        if entry.link.is_empty() || entry.link.len() >= NAME_BYTES || entry.link.contains(&0) {
            return Err(refused(&entry.name, "is a symbolic link without a possible target"));
        }
        let (name, above) = split(entry, components)?;
        // Made as it is: where it points is judged when somebody follows it.
        self.make(entry, above, |directory| rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), directory, name))?;
        let times = times(entry);
        let result = self
            .descent
            .enter(above)
            .and_then(|directory| rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW));
        result.map_err(|errno| self.failed(entry, errno))?;
        self.counts.symlinks += 1;
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, components: &[&[u8]]) -> Result<(), Problem> {
        let missing = || refused(&entry.name, "is a hard link to something that doesn't come before it in the archive");
        let target = self::components(&entry.link)
            .map_err(|_| refused(&entry.name, "is a hard link to something outside of the archive"))?;
        let (target_name, target_above) = target.split_last().ok_or_else(missing)?;
        let target_name = OsStr::from_bytes(target_name);
        let source = self.descent.enter(target_above).map_err(|_| missing())?;
        if !stat_at(source, target_name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
        {
            return Err(missing());
        }
        let source = source.try_clone_to_owned().map_err(|_| self.failed(entry, Errno::MFILE))?;
        let (name, above) = split(entry, components)?;
        if target == components {
            // A link to itself: it is there.
            return Ok(());
        }
        self.make(entry, above, |directory| {
            rustix::fs::linkat(&source, target_name, directory, name, AtFlags::empty())
        })?;
        self.counts.files += 1;
        Ok(())
    }

    /// Makes a name in a directory, replacing what an earlier entry of the same name made.
    fn make(
        &mut self,
        entry: &Entry,
        above: &[&[u8]],
        mut make: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Problem> {
        let directory = match self.descent.make(above, Mode::from_raw_mode(0o755)) {
            Ok(directory) => directory,
            Err(Errno::NOTDIR) => {
                return Err(refused(&entry.name, "lies beneath something that is not a directory, such as a link"));
            }
            Err(errno) => return Err(self.failed(entry, errno)),
        };
        let result = match make(directory) {
            Err(Errno::EXIST) => {
                let name = components(&entry.name).ok().and_then(|components| components.last().copied());
                let name = OsStr::from_bytes(name.unwrap_or_default());
                match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                    Ok(()) => make(directory),
                    Err(Errno::ISDIR | Errno::PERM) => {
                        return Err(refused(&entry.name, "has the name of a directory that comes before it"));
                    }
                    Err(errno) => Err(errno),
                }
            }
            result => result,
        };
        result.map_err(|errno| self.failed(entry, errno))
    }

    /// Modes and times of directories, when all that is in them has been made.
    fn finish_directories(mut self) -> Result<Unpacked, Problem> {
        let mut read_only = Vec::new();
        for (path, mode, times) in std::mem::take(&mut self.directories) {
            let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let result = self.descent.enter(&components).and_then(|directory| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = openat(directory, OsStr::new("."), flags)?;
                if mode.contains(Mode::WUSR | Mode::XUSR) {
                    rustix::fs::fchmod(&directory, mode)?;
                } else {
                    read_only.push((path.clone(), mode));
                }
                rustix::fs::futimens(&directory, &times)
            });
            match result {
                // A later entry has replaced it, or somebody has taken it away: it has no mode to set.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => {
                    return Err(Problem::new(
                        Code::Internal,
                        format!("the mode of {} can't be set: {errno}", path.escape_ascii()),
                    ));
                }
            }
        }
        Ok(Unpacked { counts: self.counts, read_only })
    }

    fn failed(&self, entry: &Entry, errno: Errno) -> Problem {
        match errno {
            Errno::NAMETOOLONG => {
                refused(&entry.name, &format!("has a name of more than 255 bytes, or more than {MAX_DEPTH} levels"))
            }
            errno => crate::root::os_problem(errno, "extract", &corehold_types::WorkspacePath::from_bytes(&entry.name)),
        }
    }
}

/// The components of an entry's name, none of which leads up or out.
fn components(name: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if name.is_empty() {
        return Err("has no name");
    }
    if name.len() > NAME_BYTES {
        return Err("has a name of more than 4096 bytes");
    }
    if name.starts_with(b"/") {
        return Err("has an absolute name");
    }
    if name.contains(&0) {
        return Err("has a NUL byte in its name");
    }
    let components: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".").collect();
    if components.contains(&&b".."[..]) {
        return Err("leads upwards by `..`");
    }
    if components.iter().any(|component| Own::of(component).is_some()) {
        return Err(RESERVED);
    }
    Ok(components)
}

fn split<'c>(entry: &Entry, components: &'c [&'c [u8]]) -> Result<(&'c OsStr, &'c [&'c [u8]]), Problem> {
    match components.split_last() {
        Some((name, above)) => Ok((OsStr::from_bytes(name), above)),
        None => Err(refused(&entry.name, "has the name of the destination itself")),
    }
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.modified;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn is_directory(directory: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(stat_at(directory.as_fd(), name)?.st_mode) == FileType::Directory)
}

/// The process's umask, asked for without changing it (proc(5)). Unknown, it is taken to be everything, and each mode set.
fn umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    Mode::from_raw_mode(mask.unwrap_or(0o777))
}
