//! Where the output of all commands is kept: blocks of one unlinked file.
//!
//! One file rather than one for each command: a thousand finished commands hold no descriptors, the bound on all logs
//! together is the number of blocks, a ring is a list of blocks whose oldest is used again (so that its pages are still in
//! the kernel's cache), and nothing is left behind when the agent dies.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags},
    io::Errno,
};

/// Bytes of a block.
pub(super) const BLOCK: usize = 128 * 1024;

/// On a file system that lives in memory, logs count against the container's memory: they get an eighth of their bounds.
const MEMORY_SHARE: u64 = 8;

/// A block of the file, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block(u32);

/// The file. Readers share it; who may read which block is the logs' business.
#[derive(Debug)]
pub(super) struct StoreFile(File);

/// Reading would have to wait for the disk.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The bytes are not in memory: read again with [`StoreFile::read_waiting`] where waiting is allowed.
    WouldWait,
    /// The disk failed.
    Failed(io::Error),
}

impl StoreFile {
    /// Reads bytes of a block if the kernel has them in memory, as it nearly always does.
    pub(super) fn read_now(&self, block: Block, at: usize, bytes: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while done < bytes.len() {
            let mut target = [io::IoSliceMut::new(&mut bytes[done..])];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            match rustix::io::preadv2(&self.0, &mut target, position(block, at + done), flags) {
                Ok(0) => return Err(ReadError::Failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                // Not in memory, or a file system or kernel that doesn't know the flag.
                Err(_) => return Err(ReadError::WouldWait),
            }
        }
        Ok(())
    }

    /// Reads bytes of a block, waiting for the disk.
    pub(super) fn read_waiting(&self, block: Block, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, position(block, at))
    }
}

fn position(block: Block, at: usize) -> u64 {
    u64::from(block.0) * BLOCK as u64 + at as u64
}

/// The blocks and who may take one. Belongs to the keeper alone.
#[derive(Debug)]
pub(super) struct Store {
    file: Arc<StoreFile>,
    /// Used before and free now; the last one freed is the first to be used.
    free: Vec<Block>,
    /// The first block that was never used.
    next: u32,
    most: u32,
    per_command: usize,
}

impl Store {
    /// Opens the file in the first of the places that has room on a disk, or in memory with smaller bounds.
    pub(super) fn open(directory: Option<&Path>, log_bytes: u64, logs_bytes: u64) -> io::Result<Self> {
        let candidates: Vec<PathBuf> = match directory {
            Some(directory) => vec![directory.to_owned()],
            None => vec!["/tmp".into(), "/var/tmp".into()],
        };
        let on_disk = candidates.iter().find_map(|directory| {
            let file = unlinked_file(directory)
                .inspect_err(|error| tracing::debug!(?directory, %error, "no log of commands can be kept here"))
                .ok()?;
            (!is_in_memory(&file)).then_some(file)
        });
        let (file, share) = match on_disk {
            Some(file) => (file, 1),
            None => {
                let fd = rustix::fs::memfd_create("corehold-commands", MemfdFlags::CLOEXEC)?;
                tracing::info!("the log of commands is kept in memory, with an eighth of its bounds");
                (File::from(fd), MEMORY_SHARE)
            }
        };
        let blocks = |bytes: u64| u32::try_from((bytes / share).div_ceil(BLOCK as u64)).unwrap_or(u32::MAX).max(1);
        Ok(Self::within(file, blocks(logs_bytes), blocks(log_bytes) as usize))
    }

    /// Blocks of this file, so many in all and for one command.
    pub(super) fn within(file: File, most: u32, per_command: usize) -> Self {
        Self { file: Arc::new(StoreFile(file)), free: Vec::new(), next: 0, most, per_command }
    }

    /// The file, for readers.
    pub(super) fn file(&self) -> Arc<StoreFile> {
        Arc::clone(&self.file)
    }

    /// Blocks that one command may have.
    pub(super) fn per_command(&self) -> usize {
        self.per_command
    }

    /// A block, if there is one that nobody has.
    pub(super) fn take(&mut self) -> Option<Block> {
        self.free.pop().or_else(|| {
            (self.next < self.most).then(|| {
                self.next += 1;
                Block(self.next - 1)
            })
        })
    }

    /// Takes back a block.
    pub(super) fn give_back(&mut self, block: Block) {
        self.free.push(block);
    }

    /// Takes back a block that could not be written, since the disk is full: the last one to be used again.
    pub(super) fn give_back_unwritable(&mut self, block: Block) {
        self.free.insert(0, block);
    }

    /// Writes into a block.
    pub(super) fn write(&self, block: Block, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.0.write_all_at(bytes, position(block, at))
    }
}

/// A file without a name: where `O_TMPFILE` is missing (overlayfs before Linux 6.1), one whose name is removed at once.
fn unlinked_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok(File::from(fd)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let random = crate::agent::random_id().map_err(|error| io::Error::other(error.to_string()))?;
    let name = directory.join(format!(".corehold-{random}"));
    let fd = rustix::fs::open(&name, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    rustix::fs::unlink(&name)?;
    Ok(File::from(fd))
}

fn is_in_memory(file: &File) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::fstatfs(file).is_ok_and(|stat| [TMPFS, RAMFS].contains(&stat.f_type))
}
