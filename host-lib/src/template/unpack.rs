//! A template that comes as an archive: a tar, as it is or compressed, becomes a folder of our own.
//!
//! Nobody vouches for such a file. It is unpacked aside, into a folder that nobody else can enter, within the limits of what can be packed;
//! of what it holds nothing leads outside, since no link is made before all else is written and read. Whatever else a workspace can't
//! have is said by who packs the folder, as of any template.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, symlink},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use tar::EntryType;
use tempfile::TempDir;

use super::{Template, name_of};
use crate::{
    bounded_tar::Bounded,
    error::{Error, ErrorKind, Result},
    pack::Limits,
};

/// What a compressed file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of a path, as in the kernel.
const PATH_BYTES: usize = 4095;
/// Bytes of a tar besides what its files hold, for each entry: its header, what fills its last block, a name that is long.
const ENTRY_BYTES: u64 = 4096;
/// The endings of such files, which are no part of a template's name.
const ENDINGS: [&str; 6] = [".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst", ".tar"];

const TARS_TAKEN: &str = "a tar is taken as it is, gzipped, or compressed by zstd";
const NEEDS_LIMIT: &str = "leave out what isn't source, or raise the limit by COREHOLD_ARCHIVE_BYTES";
const NEEDS_ROOM: &str = "see that the folder for temporary files ($TMPDIR) can be written and has room";

/// The folder of a template that came as an archive. It goes with the last clone of the template.
#[derive(Debug)]
pub(super) struct Unpacked(TempDir);

impl PartialEq for Unpacked {
    fn eq(&self, other: &Self) -> bool {
        self.0.path() == other.0.path()
    }
}

impl Template {
    /// Reads the template in an archive: a tar, gzipped or compressed by zstd or neither, as its first bytes say. If all is in one folder, the
    /// template is that. Its name, where its `template.json` says none, is the file's without its ending.
    ///
    /// It is unpacked into a temporary folder, which goes with the last clone of the template and of requests made of it; a process that is
    /// killed leaves it behind. At most 200,000 entries and 1 GiB are taken. Owners, times and extended attributes are left out, as of every
    /// template. Blocking.
    ///
    /// # Errors
    /// `NotFound` when there is no such file; `Invalid` when it is no archive, is damaged or cut off, holds too much, or anything but folders,
    /// regular files and links, or something outside of itself; as [`load`](Self::load).
    pub fn from_archive(archive: impl AsRef<Path>) -> Result<Self> {
        from_archive(archive.as_ref(), &Limits::default())
    }

    /// The same for an archive whose files have at most that many bytes together. A host takes what it packs
    /// ([`HostBuilder::archive_bytes`](crate::HostBuilder::archive_bytes)), and so does its [catalogue](crate::Catalog). Blocking.
    ///
    /// # Errors
    /// As [`from_archive`](Self::from_archive).
    pub fn from_archive_within(archive: impl AsRef<Path>, bytes: u64) -> Result<Self> {
        from_archive(archive.as_ref(), &Limits { bytes, ..Limits::default() })
    }
}

fn from_archive(archive: &Path, limits: &Limits) -> Result<Template> {
    let shown = archive.display();
    let file = File::open(archive).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no file {shown}")),
        _ => Error::new(ErrorKind::Io, format!("can't read {shown}: {error}")).caused_by(error),
    })?;
    let staged = tempfile::Builder::new().prefix("corehold-template-").tempdir().map_err(|error| {
        Error::new(ErrorKind::Io, format!("{shown} can't be unpacked: {error}")).hint(NEEDS_ROOM).caused_by(error)
    })?;
    let refused = |error: Error| error.context(format_args!("the archive {shown} can't be used as a template"));
    let mut unpacking =
        Unpacking { root: staged.path().join("files"), limits: *limits, entries: 0, bytes: 0, links: BTreeMap::new() };
    unpacking.unpack(file).map_err(refused)?;
    let folder = unpacking.template_folder().map_err(refused)?;
    // What is read of it is read before there are links: none leads out of it.
    let mut template = Template::load_named(&folder, Some(name_of(stem(archive)))).map_err(refused)?;
    unpacking.make_links().map_err(refused)?;
    template.unpacked = Some(Arc::new(Unpacked(staged)));
    Ok(template)
}

/// The file's path without the ending that says what it is.
fn stem(archive: &Path) -> &Path {
    let bytes = archive.as_os_str().as_bytes();
    let ending = ENDINGS.iter().find(|ending| bytes.to_ascii_lowercase().ends_with(ending.as_bytes()));
    Path::new(OsStr::from_bytes(&bytes[..bytes.len() - ending.map_or(0, |ending| ending.len())]))
}

struct Unpacking {
    root: PathBuf,
    limits: Limits,
    entries: usize,
    bytes: u64,
    /// Symbolic links, which are made last.
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Unpacking {
    fn unpack(&mut self, file: File) -> Result<()> {
        fs::create_dir(&self.root).map_err(failed)?;
        let mut file = BufReader::with_capacity(128 << 10, file);
        let mut magic = Vec::new();
        file.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic).map_err(damaged)?;
        let file = io::Cursor::new(magic.clone()).chain(file);
        let tar: Box<dyn Read> = if magic.starts_with(&GZIP) {
            Box::new(flate2::read::MultiGzDecoder::new(file))
        } else if magic.starts_with(&ZSTD) {
            Box::new(zstd::Decoder::new(file).map_err(damaged)?)
        } else {
            Box::new(file)
        };
        let most = self.limits.bytes.saturating_add((self.limits.entries as u64).saturating_mul(ENTRY_BYTES));
        let (tar, bounds) = Bounded::new(tar, most);
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            bounds.content_begins();
            self.take(&mut entry)?;
            bounds.content_ends();
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
        match bounds.is_whole() {
            true => Ok(()),
            false => Err(invalid("it is no tar, or is cut off").hint(TARS_TAKEN)),
        }
    }

    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let name = entry.path_bytes().into_owned();
        let shown = name.escape_ascii().to_string();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            // `git archive` writes the commit into one.
            return Ok(());
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(invalid(format!("it holds more than {} files and folders", self.limits.entries)));
        }
        let path =
            within(&name).ok_or_else(|| invalid(format!("its entry {shown} has a path that can't be within it")))?;
        if path.as_os_str().is_empty() {
            // The folder itself, as `tar c .` has it.
            return if kind == EntryType::Directory { Ok(()) } else { Err(invalid("its root is no folder")) };
        }
        let full = self.root.join(&path);
        let in_the_way = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                invalid(format!("its entry {shown} is of two kinds"))
            }
            _ => failed(error),
        };
        match kind {
            EntryType::Directory => fs::create_dir_all(&full).map_err(in_the_way)?,
            EntryType::Regular | EntryType::Continuous => {
                // Later entries of a name are newer, as `tar` has it.
                self.links.remove(&path);
                self.make_room(&full).map_err(in_the_way)?;
                self.write(entry, &full, &shown).map_err(|error| match error {
                    Wrong::Reading(error) => error,
                    Wrong::Writing(error) => in_the_way(error),
                })?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().filter(|target| !target.is_empty() && target.len() <= PATH_BYTES);
                let target = target.ok_or_else(|| invalid(format!("its link {shown} leads nowhere")))?;
                self.make_room(&full).map_err(in_the_way)?;
                self.links.insert(path, PathBuf::from(OsStr::from_bytes(&target)));
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().and_then(|target| within(&target));
                let target = target.map(|target| self.root.join(target));
                // None of its parts is a symbolic link: there is none yet.
                let target = target.filter(|target| fs::symlink_metadata(target).is_ok_and(|found| found.is_file()));
                let target = target.ok_or_else(|| invalid(format!("its link {shown} is to no file of its own")))?;
                if target != full {
                    self.links.remove(&path);
                    self.make_room(&full).map_err(in_the_way)?;
                    fs::hard_link(&target, &full).map_err(in_the_way)?;
                }
            }
            _ => {
                return Err(invalid(format!("its entry {shown} is neither a folder nor a regular file nor a link"))
                    .hint("leave it out; files with holes are taken where they are written without (no --sparse)"));
            }
        }
        Ok(())
    }

    /// Makes the folders above, and takes away a file of the same name that came before.
    fn make_room(&self, full: &Path) -> io::Result<()> {
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::symlink_metadata(full) {
            Ok(found) if found.is_file() => fs::remove_file(full),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        full: &Path,
        shown: &str,
    ) -> std::result::Result<(), Wrong> {
        if has_holes(entry).map_err(Wrong::Reading)? {
            return Err(Wrong::Reading(
                invalid(format!("its file {shown} has holes")).hint("write it without (no --sparse)"),
            ));
        }
        let size = entry.size();
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            let message = format!("it holds more than the {} bytes that are packed", self.limits.bytes);
            return Err(Wrong::Reading(invalid(message).hint(NEEDS_LIMIT)));
        }
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(full).map_err(Wrong::Writing)?;
        let mut buffer = vec![0; 64 << 10];
        let mut written = 0;
        loop {
            let length = entry.read(&mut buffer).map_err(|error| Wrong::Reading(damaged(error)))?;
            if length == 0 {
                break;
            }
            io::Write::write_all(&mut file, &buffer[..length]).map_err(Wrong::Writing)?;
            written += length as u64;
        }
        match written == size {
            true => Ok(()),
            false => Err(Wrong::Reading(invalid("it is cut off"))),
        }
    }

    /// The only folder that there is, if there is nothing beside it; else all.
    fn template_folder(&self) -> Result<PathBuf> {
        let names = fs::read_dir(&self.root).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
        Ok(match names.as_slice() {
            [one] if one.path().is_dir() && self.links.keys().all(|link| link.starts_with(one.file_name())) => {
                one.path()
            }
            _ => self.root.clone(),
        })
    }

    fn make_links(&self) -> Result<()> {
        for (path, target) in &self.links {
            let full = self.root.join(path);
            // One is in the way of another where it is taken for a folder.
            if self.is_beneath_a_link(path) || symlink(target, &full).is_err() {
                return Err(invalid(format!("its entry {} is of two kinds", path.display())));
            }
        }
        let root = fs::canonicalize(&self.root).map_err(failed)?;
        for path in self.links.keys() {
            // What leads to nothing leads nowhere, and what leads to itself neither.
            if fs::canonicalize(self.root.join(path)).is_ok_and(|found| !found.starts_with(&root)) {
                return Err(invalid(format!("its link {} leads out of it", path.display())));
            }
        }
        Ok(())
    }

    /// Whether a path leads through a link.
    fn is_beneath_a_link(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| self.links.contains_key(above))
    }
}

/// What went wrong while a file was written.
enum Wrong {
    Reading(Error),
    Writing(io::Error),
}

/// A path beneath the root, without `.`; none for what leads elsewhere.
fn within(name: &[u8]) -> Option<PathBuf> {
    if name.len() > PATH_BYTES || name.contains(&0) {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if part.len() <= 255 => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// Whether it is a file with holes in one of the forms that look like other files.
fn has_holes(entry: &mut tar::Entry<'_, impl Read>) -> Result<bool> {
    let Some(extensions) = entry.pax_extensions().map_err(damaged)? else { return Ok(false) };
    for extension in extensions {
        if extension.map_err(damaged)?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, why)
}

fn damaged(error: io::Error) -> Error {
    invalid(format!("it is no tar, or is damaged or cut off: {error}")).hint(TARS_TAKEN).caused_by(error)
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("it can't be unpacked: {error}")).hint(NEEDS_ROOM).caused_by(error)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
