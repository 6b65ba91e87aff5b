//! Writes the archive itself, and notices when a file changes under its hands.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use super::{
    Contents, MODIFIED, OWNER,
    manifest::Content,
    scan::{Entry, Kind, Stamp},
    unreadable,
};
use crate::error::{Error, ErrorKind, Result};

/// Names and targets longer than this need GNU's extra entry.
const SHORT: usize = 100;

/// Of zstd: packing goes on beside the start of a container, and an archive rarely leaves its machine.
const LEVEL: i32 = 1;

/// A folder that was packed.
pub(super) struct Packed {
    pub(super) draft: NamedTempFile,
    pub(super) contents: Vec<Content>,
    pub(super) archive: super::Written,
    pub(super) about: Contents,
}

/// Packs the entries into a draft.
pub(super) fn write(folder: &Path, entries: &[Entry], draft: NamedTempFile) -> Result<Packed> {
    let place = draft.path().to_owned();
    let fail = |error: io::Error| {
        Error::new(ErrorKind::Io, format!("the archive {} can't be written: {error}", place.display()))
            .hint("the state folder's disk may be full; COREHOLD_HOME sets another one")
            .caused_by(error)
    };
    let mut output = Hashing::new(BufWriter::with_capacity(256 << 10, draft));
    // Every new workspace waits until it is unpacked: zstd takes half of the time that gzip does.
    let mut compressed = zstd::Encoder::new(&mut output, LEVEL).map_err(fail)?;
    let mut contents = Vec::with_capacity(entries.len());
    let (mut files, mut content_bytes) = (0, 0);
    for entry in entries {
        let path = entry.path.as_os_str().as_bytes();
        let mut content = [0; 32];
        match &entry.kind {
            Kind::Directory => {
                append(&mut compressed, header(EntryType::Directory, 0o755, 0), &[path, b"/"].concat(), b"")
            }
            Kind::Symlink { target } => {
                append(&mut compressed, header(EntryType::Symlink, 0o777, 0), path, target.as_os_str().as_bytes())
            }
            Kind::File { executable, stamp } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                append(&mut compressed, header(EntryType::Regular, mode, stamp.size), path, b"").map_err(fail)?;
                let full = folder.join(&entry.path);
                content = copy(&full, stamp, &mut compressed, fail)?;
                files += 1;
                content_bytes += stamp.size;
                pad(&mut compressed, stamp.size)
            }
        }
        .map_err(fail)?;
        contents.push(content);
    }
    // Two empty blocks end an archive.
    compressed.write_all(&[0; 1024]).and_then(|()| compressed.finish().map(drop)).map_err(fail)?;
    let (buffered, hash, size) = output.finish();
    let draft = buffered.into_inner().map_err(|error| fail(error.into_error()))?;
    Ok(Packed { draft, contents, archive: super::Written { hash, size }, about: Contents { files, content_bytes } })
}

/// A header in which nothing depends on the machine or the moment.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    header.set_mtime(MODIFIED);
    header.set_size(size);
    header
}

/// Writes a header with its name and link target as they are, bytes for bytes: the tar crate's own way tidies both up,
/// and refuses long names that aren't UTF-8.
fn append(output: &mut impl Write, mut header: Header, name: &[u8], target: &[u8]) -> io::Result<()> {
    for (kind, bytes) in [(EntryType::GNULongName, name), (EntryType::GNULongLink, target)] {
        if bytes.len() > SHORT {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX) + 1;
            let mut long = self::header(kind, 0o644, size);
            set_name(&mut long, b"././@LongLink");
            long.set_cksum();
            output.write_all(long.as_bytes())?;
            output.write_all(bytes)?;
            output.write_all(&[0])?;
            pad(output, size)?;
        }
    }
    set_name(&mut header, name);
    header.set_link_name_literal(&target[..target.len().min(SHORT)])?;
    header.set_cksum();
    output.write_all(header.as_bytes())
}

fn set_name(header: &mut Header, name: &[u8]) {
    let length = name.len().min(SHORT);
    header.as_old_mut().name[..length].copy_from_slice(&name[..length]);
}

/// Entries begin at multiples of 512 bytes.
fn pad(output: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size % 512).unwrap_or(0);
    if rest == 0 { Ok(()) } else { output.write_all(&[0; 512][rest..]) }
}

/// Copies a file's content, which must be what the scan saw, and hashes it on the way.
fn copy(path: &Path, stamp: &Stamp, output: &mut impl Write, fail: impl Fn(io::Error) -> Error) -> Result<Content> {
    let changed = || {
        Error::new(ErrorKind::Conflict, format!("{} changed while it was being packed", path.display()))
            .hint("try again when nothing writes to the folder, or exclude the file in template.json")
    };
    // Something else may have taken the file's place: a link is not followed, a pipe is not waited for.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Err(changed()),
        Err(error) => return Err(unreadable(path, error)),
    };
    let same = |file: &File| match file.metadata() {
        Ok(metadata) => Ok(metadata.is_file() && Stamp::of(&metadata) == *stamp),
        Err(error) => Err(unreadable(path, error)),
    };
    if !same(&file)? {
        return Err(changed());
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    let mut left = stamp.size;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(path, error)),
        };
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or_else(changed)?;
        hasher.update(&buffer[..count]);
        output.write_all(&buffer[..count]).map_err(&fail)?;
    }
    if left != 0 || !same(&file)? {
        return Err(changed());
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Hashes and counts what goes through.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, self.hasher.finalize().to_hex().to_string(), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
