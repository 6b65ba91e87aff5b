//! What differs between two trees: archives, workspaces as they are, and templates.
//!
//! Trees are compared by their entries: kind, permissions, content, and where links lead. Times don't count, since saving the
//! same files at other times is no change; nor do owners, which an archive doesn't have. Of a template only whether files are
//! executable counts: it is packed so.

use std::{collections::BTreeMap, io::Read};

use bytes::Bytes;
use corehold_types::WorkspacePath;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Archive, Archives, content,
    entry::{Entry, Kind},
    of_archive,
    scan::{self, Pipe},
};
use crate::{
    blocking::blocking,
    client::ArchiveFormat,
    error::{Error, ErrorKind, Result},
    pack::PackedArchive,
    runtime::BoxStream,
    template::Template,
    workspace::Workspace,
};

/// Entries of one tree that are compared: as many as an agent extracts. They are held in memory, some 200 bytes each.
const MOST_ENTRIES: usize = 1_000_000;
/// Pieces of a tar that wait for its reader.
const WAITING: usize = 2;
const READING: &str = "reading a tree";

/// One side of a comparison.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Tree {
    /// A saved workspace.
    Archive(Archive),
    /// A workspace as it is now.
    Workspace(Workspace),
    /// A template's folder, as it would be packed. What set-up makes of it is not in it.
    Template(Template),
}

impl From<&Archive> for Tree {
    fn from(archive: &Archive) -> Self {
        Self::Archive(archive.clone())
    }
}

impl From<&Workspace> for Tree {
    fn from(workspace: &Workspace) -> Self {
        Self::Workspace(workspace.clone())
    }
}

impl From<&Template> for Tree {
    fn from(template: &Template) -> Self {
        Self::Template(template.clone())
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file, or one more name of one.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// An entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Difference {
    /// Where it is.
    pub path: WorkspacePath,
    /// What differs.
    pub change: Change,
    /// What it was; absent when it wasn't there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Side>,
    /// What it is; absent when it isn't there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Side>,
}

/// What differs about an entry, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Change {
    /// It wasn't there.
    Added,
    /// It isn't there any more.
    Removed,
    /// It is something else: a file where a directory was.
    Kind,
    /// Its content is other, or where it leads.
    Content,
    /// Only its permissions are other.
    Mode,
}

/// An entry on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Side {
    /// What it is.
    pub kind: EntryKind,
    /// Its permissions, nine bits.
    pub mode: u16,
    /// Bytes of a file's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// An entry as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    kind: EntryKind,
    mode: u16,
    size: u64,
    /// BLAKE3 of a file's content, or of where a link leads.
    content: [u8; 32],
}

impl Compared {
    fn side(&self) -> Side {
        Side { kind: self.kind, mode: self.mode, size: (self.kind == EntryKind::File).then_some(self.size) }
    }
}

type Entries = BTreeMap<Vec<u8>, Compared>;

impl Archives {
    /// What is different in `after`, in byte order of paths. Reads one or both sides as a whole. Cancel-safe.
    ///
    /// # Errors
    /// `Damaged` when an archive is, `Agent` when a file of a workspace can't be read, `Invalid` when a template can't be packed
    /// or a side has more than a million entries, `AgentUnavailable`, `Io`.
    pub async fn diff(&self, before: impl Into<Tree>, after: impl Into<Tree>) -> Result<Vec<Difference>> {
        let (before, after) = (before.into(), after.into());
        let coarse = [&before, &after].into_iter().any(|tree| matches!(tree, Tree::Template(_)));
        let (mut one, mut other) =
            Box::pin(async { tokio::try_join!(self.entries(&before), self.entries(&after)) }).await?;
        if coarse {
            one.values_mut().chain(other.values_mut()).for_each(coarsen);
        }
        Ok(compare(&one, &other))
    }

    async fn entries(&self, tree: &Tree) -> Result<Entries> {
        match tree {
            Tree::Archive(archive) => {
                let failed = |error| of_archive(&archive.reference(), error);
                let store = self.store().await?;
                let index = content::index(store, archive).await.map_err(failed)?;
                let mut entries = Entries::new();
                content::entries(store, &index, |entry| insert(&mut entries, entry)).await.map_err(failed)?;
                Ok(entries)
            }
            Tree::Workspace(workspace) => {
                let failed = |error: Error| error.context(format_args!("workspace {} can't be read", workspace.id()));
                of_tar(workspace.archive(ArchiveFormat::Tar, &[]).await.map_err(failed)?).await.map_err(failed)
            }
            Tree::Template(template) => {
                let (packer, template) = (self.host.packer.clone(), template.clone());
                blocking(READING, move || {
                    let packed: PackedArchive = packer.pack(&template.folder, &template.exclude)?;
                    let unreadable =
                        |error| Error::new(ErrorKind::Io, "the packed template can't be read").caused_by(error);
                    read(zstd::Decoder::new(packed.file).map_err(unreadable)?)
                })
                .await?
            }
        }
    }
}

async fn of_tar(tar: BoxStream<Bytes>) -> Result<Entries> {
    let (feed, pipe) = mpsc::channel(WAITING);
    let reading = blocking(READING, move || read(Pipe::new(pipe)));
    let (entries, forwarded) = tokio::join!(reading, scan::forward(tar, feed));
    // What broke off says more than what was missing.
    forwarded.and(entries?)
}

fn read(tar: impl Read) -> Result<Entries> {
    let mut entries = Entries::new();
    scan::read(tar, |entry| insert(&mut entries, entry))?;
    Ok(entries)
}

fn insert(entries: &mut Entries, entry: Entry) -> Result<()> {
    let (kind, size, content) = match &entry.kind {
        Kind::File { size, hash } => (EntryKind::File, *size, *hash),
        Kind::Directory => (EntryKind::Directory, 0, [0; 32]),
        Kind::Symlink { target } => (EntryKind::Symlink, 0, *blake3::hash(target).as_bytes()),
        // What it is a name of came before it.
        Kind::HardLink { target } => match entries.get(target) {
            Some(Compared { kind: EntryKind::File, size, content, .. }) => (EntryKind::File, *size, *content),
            _ => return Err(Error::new(ErrorKind::Damaged, "a hard link leads to no file that comes before it")),
        },
    };
    // Of a link the permissions mean nothing.
    let mode = if kind == EntryKind::Symlink { 0o777 } else { entry.mode };
    entries.insert(entry.path, Compared { kind, mode, size, content });
    if entries.len() > MOST_ENTRIES {
        return Err(Error::new(ErrorKind::Invalid, format!("there are more than {MOST_ENTRIES} entries to compare")));
    }
    Ok(())
}

fn coarsen(entry: &mut Compared) {
    entry.mode = match entry.kind {
        EntryKind::File if entry.mode & 0o100 == 0 => 0o644,
        EntryKind::File | EntryKind::Directory => 0o755,
        EntryKind::Symlink => 0o777,
    };
}

fn compare(before: &Entries, after: &Entries) -> Vec<Difference> {
    let mut all = BTreeMap::new();
    let mut tell = |path: &[u8], change, before: Option<&Compared>, after: Option<&Compared>| {
        let (before, after) = (before.map(Compared::side), after.map(Compared::side));
        let difference = Difference { path: WorkspacePath::from_bytes(path), change, before, after };
        all.insert(path.to_vec(), difference);
    };
    for (path, was) in before {
        match after.get(path) {
            None => tell(path, Change::Removed, Some(was), None),
            Some(is) if is.kind != was.kind => tell(path, Change::Kind, Some(was), Some(is)),
            Some(is) if is.content != was.content => tell(path, Change::Content, Some(was), Some(is)),
            Some(is) if is.mode != was.mode => tell(path, Change::Mode, Some(was), Some(is)),
            Some(_) => {}
        }
    }
    for (path, is) in after {
        if !before.contains_key(path) {
            tell(path, Change::Added, None, Some(is));
        }
    }
    all.into_values().collect()
}
