//! A tar as it comes from an agent: its entries, hashed, and on the way the chunks that it is kept as. All of it is blocking.
//!
//! Whoever sends the tar is not trusted: what it can make us hold in memory is bounded, whatever its headers say.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::TryStreamExt as _;
use tar::EntryType;
use tokio::sync::mpsc;

use super::{
    chunk::{Cutter, Sizes},
    entry::{Entry, Kind},
    index::MOST_CONTENT,
};
use crate::{
    bounded_tar::Bounded,
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
};

/// Bytes read of a file at a time.
const BUFFER: usize = 128 << 10;

/// A piece of what is kept, in the order in which it was completed.
pub(super) enum Piece {
    Content(Vec<u8>),
    Entries(Vec<u8>),
}

/// What a tar held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// BLAKE3 of the tar.
    pub(super) hash: String,
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    pub(super) content_bytes: u64,
    /// Entries as an agent counts them when it extracts: a long name counts more than once.
    pub(super) weight: u64,
}

/// Bytes of a name that an agent counts as one entry more (its `archiveEntries`).
const NAME_PER_ENTRY: u64 = 128;

impl Summary {
    fn count(&mut self, entry: &Entry) {
        self.weight += 1 + entry.path.len() as u64 / NAME_PER_ENTRY;
        match &entry.kind {
            Kind::File { size, .. } => {
                self.files += 1;
                self.content_bytes += size;
            }
            Kind::HardLink { .. } => self.files += 1,
            Kind::Directory => self.directories += 1,
            Kind::Symlink { .. } => self.symlinks += 1,
        }
    }
}

/// Cuts a tar and the list of its entries into chunks, which go to `pieces`.
///
/// # Errors
/// `Agent` for what is no whole tar; `Io` when nobody takes the pieces any more.
pub(super) fn cut(input: impl Read, pieces: &mpsc::Sender<Piece>) -> Result<Summary> {
    let send = |piece| pieces.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
    let tee = Tee { inner: input, hasher: blake3::Hasher::new(), bytes: 0, cutter: Cutter::new(Sizes::CONTENT), send };
    let mut list = Cutter::new(Sizes::ENTRIES);
    let (mut record, mut summary) = (Vec::new(), Summary::default());
    let tee = read(tee, |entry| {
        summary.count(&entry);
        record.clear();
        entry.encode(&mut record);
        Ok(list.push(&record, |chunk| send(Piece::Entries(chunk)))?)
    })?;
    tee.cutter.finish(|chunk| send(Piece::Content(chunk)))?;
    list.finish(|chunk| send(Piece::Entries(chunk)))?;
    Ok(Summary { hash: tee.hasher.finalize().to_hex().to_string(), bytes: tee.bytes, ..summary })
}

struct Tee<R, F> {
    inner: R,
    hasher: blake3::Hasher,
    bytes: u64,
    cutter: Cutter,
    send: F,
}

impl<R: Read, F: Fn(Piece) -> io::Result<()>> Read for Tee<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let bytes = &buffer[..length];
        self.hasher.update(bytes);
        self.bytes += length as u64;
        self.cutter.push(bytes, |chunk| (self.send)(Piece::Content(chunk)))?;
        Ok(length)
    }
}

/// Reads a whole tar, gives its entries to `each`, and returns the reader.
///
/// # Errors
/// `Agent` for what is no whole tar, or has what is never saved; those of `each`.
pub(super) fn read<R: Read>(input: R, mut each: impl FnMut(Entry) -> Result<()>) -> Result<R> {
    let (input, bounds) = Bounded::new(input, MOST_CONTENT);
    let mut archive = tar::Archive::new(input);
    let mut buffer = vec![0; BUFFER];
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        bounds.content_begins();
        each(take(&mut entry, &mut buffer)?)?;
        bounds.content_ends();
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    if !bounds.is_whole() {
        return Err(malformed("is cut off"));
    }
    Ok(rest.into_inner())
}

fn take<R: Read>(entry: &mut tar::Entry<'_, R>, buffer: &mut [u8]) -> Result<Entry> {
    let mut path = entry.path_bytes().into_owned();
    while path.last() == Some(&b'/') {
        path.pop();
    }
    Entry::check_path(&path).map_err(|why| malformed(&format!("has an entry {} that {why}", path.escape_ascii())))?;
    let header = entry.header();
    let mode = u16::try_from(header.mode().map_err(broken)? & 0o777).unwrap_or(0);
    let seconds = i64::try_from(header.mtime().map_err(broken)?).unwrap_or(i64::MAX);
    let target = |entry: &tar::Entry<'_, R>| match entry.link_name_bytes() {
        Some(target) if (1..=4096).contains(&target.len()) => Ok(target.into_owned()),
        _ => Err(malformed(&format!("has a link {} without a possible target", path.escape_ascii()))),
    };
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink { target: target(entry)? },
        EntryType::Link => Kind::HardLink { target: target(entry)? },
        EntryType::Regular | EntryType::Continuous => Kind::File { size: entry.size(), hash: content(entry, buffer)? },
        other => {
            return Err(malformed(&format!(
                "has {} of the kind {:?}, which is never saved",
                path.escape_ascii(),
                other
            )));
        }
    };
    let modified = extended_time(entry)?.unwrap_or((seconds, 0));
    Ok(Entry { path, kind, mode, modified })
}

fn content<R: Read>(entry: &mut tar::Entry<'_, R>, buffer: &mut [u8]) -> Result<[u8; 32]> {
    let (size, mut hashed) = (entry.size(), 0);
    let mut hasher = blake3::Hasher::new();
    loop {
        let length = entry.read(buffer).map_err(broken)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        hashed += length as u64;
    }
    if hashed != size {
        return Err(malformed("is cut off"));
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The modification time of an extended header: seconds, and a fraction where there is one.
fn extended_time<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<(i64, u32)>> {
    let Some(extensions) = entry.pax_extensions().map_err(broken)? else { return Ok(None) };
    for extension in extensions {
        let extension = extension.map_err(broken)?;
        if extension.key_bytes() == b"mtime" {
            let time = extension.value().ok().and_then(parse_time);
            return time.map(Some).ok_or_else(|| malformed("has a time that is none"));
        }
    }
    Ok(None)
}

/// `-1.25` is a second and a quarter before 1970: -2 seconds and 750,000,000 nanoseconds.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (_, 0) | (false, _) => Some((seconds, nanoseconds)),
        (true, _) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
    }
}

fn malformed(why: &str) -> Error {
    Error::new(ErrorKind::Agent, format!("the tar {why}"))
}

/// What an error while reading means: one of ours that came through, or what the tar's reader says.
fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Agent, format!("the tar is damaged or cut off: {error}")).caused_by(error)
}

/// Hands a tar to the thread that reads it, and says where it ends.
pub(super) async fn forward(mut tar: BoxStream<Bytes>, feed: mpsc::Sender<Bytes>) -> Result<()> {
    while let Some(bytes) = tar.try_next().await? {
        // An empty piece would be the end. Who doesn't take it has failed, and says why.
        if !bytes.is_empty() && feed.send(bytes).await.is_err() {
            return Ok(());
        }
    }
    let _ = feed.send(Bytes::new()).await;
    Ok(())
}

/// Bytes that come from a task, for a blocking reader. An empty piece is the end; without one it was cut off.
pub(super) struct Pipe {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    ended: bool,
}

impl Pipe {
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self { receiver, current: Bytes::new(), ended: false }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            self.current = self.receiver.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.ended = self.current.is_empty();
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, target: &str, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn entries(tar: &[u8]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        read(tar, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    fn sample() -> Vec<u8> {
        tar(|builder| {
            append(builder, "d/", EntryType::Directory, "", b"");
            append(builder, "d/f", EntryType::Regular, "", b"content");
            append(builder, "d/h", EntryType::Link, "d/f", b"");
            builder.append_pax_extensions([("mtime", &b"-1.25"[..])]).unwrap();
            append(builder, "l", EntryType::Symlink, "../anywhere", b"");
        })
    }

    #[test]
    fn every_kind_is_told_with_its_mode_and_time() {
        let at = (1_700_000_000, 0);
        let hash = *blake3::hash(b"content").as_bytes();
        let entry = |path: &str, kind, modified| Entry { path: path.into(), kind, mode: 0o755, modified };
        assert_eq!(
            entries(&sample()).unwrap(),
            [
                entry("d", Kind::Directory, at),
                entry("d/f", Kind::File { size: 7, hash }, at),
                entry("d/h", Kind::HardLink { target: "d/f".into() }, at),
                entry("l", Kind::Symlink { target: "../anywhere".into() }, (-2, 750_000_000)),
            ]
        );
        assert!(entries(&tar(|_| {})).unwrap().is_empty());
    }

    #[test]
    fn a_tar_that_is_cut_off_anywhere_is_none() {
        let whole = sample();
        for end in 0..whole.len() {
            assert!(entries(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
        }
    }

    #[test]
    fn what_is_never_saved_is_named() {
        for (path, kind, target) in [
            ("../up", EntryType::Regular, ""),
            ("/abs", EntryType::Regular, ""),
            ("a/../b", EntryType::Directory, ""),
            ("./x", EntryType::Regular, ""),
            ("fifo", EntryType::Fifo, ""),
            ("device", EntryType::Char, ""),
            ("link", EntryType::Symlink, ""),
        ] {
            let error = entries(&tar(|builder| append(builder, path, kind, target, b""))).unwrap_err();
            assert!(error.to_string().contains(path), "{path}: {error}");
        }
    }

    #[test]
    fn headers_that_would_fill_the_memory_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let endless = Read::chain(&header.as_bytes()[..], io::repeat(b'a'));
        let error = read(endless, |_| Ok(())).map(drop).unwrap_err();
        assert!(error.to_string().contains("bytes of headers"), "{error}");
    }

    #[test]
    fn pieces_are_the_tar_and_its_list() {
        let (sender, mut receiver) = mpsc::channel(16);
        let tar = sample();
        let summary = cut(&tar[..], &sender).unwrap();
        drop(sender);
        let (mut content, mut list) = (Vec::new(), Vec::new());
        while let Ok(piece) = receiver.try_recv() {
            match piece {
                Piece::Content(bytes) => content.extend(bytes),
                Piece::Entries(bytes) => list.extend(bytes),
            }
        }
        assert_eq!(content, tar);
        let mut expected = Vec::new();
        entries(&tar).unwrap().iter().for_each(|entry| entry.encode(&mut expected));
        assert_eq!(list, expected);
        let hash = blake3::hash(&tar).to_hex().to_string();
        let bytes = tar.len() as u64;
        assert_eq!(
            summary,
            Summary { hash, bytes, files: 2, directories: 1, symlinks: 1, content_bytes: 7, weight: 4 }
        );
    }

    #[test]
    fn a_pipe_without_an_end_was_cut_off() {
        let (sender, receiver) = mpsc::channel(4);
        sender.blocking_send(Bytes::from_static(b"half")).unwrap();
        drop(sender);
        let mut read = Vec::new();
        let error = Pipe::new(receiver).read_to_end(&mut read).unwrap_err();
        assert_eq!((error.kind(), &read[..]), (io::ErrorKind::UnexpectedEof, &b"half"[..]));
    }
}
