//! The objects of archives in a store: what they are called, and reads that are bounded whatever the store holds.
//!
//! | object | what |
//! |---|---|
//! | `chunks/<first two digits>/<BLAKE3>` | a [chunk](super::chunk), as zstd |
//! | `indexes/<first two digits>/<BLAKE3>` | an [index](super::index) |
//! | `archives/<workspace>/<id>.json` | a [manifest](super::manifest): with it an archive exists |
//! | `saves/<id>.json` | a saving that is under way, or was killed |
//! | `prunes/<id>.json` | a pruning that is under way, or was killed |

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, path::Path};

use super::{
    chunk::ChunkId,
    id::{ArchiveId, ArchiveRef},
    prune::Pruner,
};
use crate::{
    client::root_cause,
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
    workspace::WorkspaceId,
};

pub(super) const CHUNKS: &str = "chunks";
pub(super) const INDEXES: &str = "indexes";
pub(super) const ARCHIVES: &str = "archives";
pub(super) const SAVES: &str = "saves";
pub(super) const PRUNES: &str = "prunes";

/// Times that an object is asked for whose bytes broke off half-way. What never began to come is the store's own to repeat.
const READS: usize = 3;
/// Before it is asked for again; then twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// A moment by the store's own clock: whoever shares a store may have other ones.
pub(super) type StoreTime = SystemTime;

/// An open store.
#[derive(Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// As a person calls it.
    place: Arc<str>,
    pruner: Option<Pruner>,
}

pub(super) fn chunk_path(id: ChunkId) -> Path {
    named_by_hash(CHUNKS, id)
}

pub(super) fn index_path(id: ChunkId) -> Path {
    named_by_hash(INDEXES, id)
}

fn named_by_hash(room: &str, id: ChunkId) -> Path {
    let name = id.to_string();
    Path::from(format!("{room}/{}/{name}", &name[..2]))
}

pub(super) fn manifest_path(reference: &ArchiveRef) -> Path {
    Path::from(format!("{ARCHIVES}/{}/{}.json", reference.workspace, reference.id))
}

pub(super) fn workspace_path(workspace: &WorkspaceId) -> Path {
    Path::from(format!("{ARCHIVES}/{workspace}"))
}

pub(super) fn under_way_path(room: &str, id: &ArchiveId) -> Path {
    Path::from(format!("{room}/{id}.json"))
}

/// The archive that a manifest's name means; none for what is no manifest of ours.
pub(super) fn reference_of(path: &Path) -> Option<ArchiveRef> {
    let rest = path.as_ref().strip_prefix(ARCHIVES)?.strip_prefix('/')?.strip_suffix(".json")?;
    rest.parse().ok()
}

impl Store {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, place: impl Into<Arc<str>>) -> Self {
        Self { objects, place: place.into(), pruner: None }
    }

    /// The same, as a host has it.
    pub(super) fn of(self, pruner: Option<Pruner>) -> Self {
        Self { pruner, ..self }
    }

    /// Who prunes, if this host does.
    pub(super) fn pruner(&self) -> Option<&Pruner> {
        self.pruner.as_ref()
    }

    /// Writes an object, whole or not at all, replacing what had its name.
    pub(super) async fn put(&self, path: &Path, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes: Bytes = bytes.into();
        self.objects.put(path, bytes.into()).await.map(drop).map_err(|error| self.failed("write", path, error))
    }

    /// Writes an object that is not there yet.
    pub(super) async fn create(&self, path: &Path, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes: Bytes = bytes.into();
        let done = self.objects.put_opts(path, bytes.into(), PutMode::Create.into()).await;
        done.map(drop).map_err(|error| self.failed("write", path, error))
    }

    /// An object's bytes; nothing when there is no such object.
    ///
    /// # Errors
    /// `Damaged` when it has more than `most` bytes, of which none is read then.
    pub(super) async fn read(&self, path: &Path, most: u64) -> Result<Option<Bytes>> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let object = match self.objects.get(path).await {
                Ok(object) => object,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(self.failed("read", path, error)),
            };
            let size = object.meta.size;
            if size > most {
                return Err(Error::new(
                    ErrorKind::Damaged,
                    format!("its object {path} has {size} bytes, and at most {most} can be"),
                ));
            }
            match object.bytes().await {
                Ok(bytes) if bytes.len() as u64 == size => return Ok(Some(bytes)),
                Ok(bytes) if attempt >= READS => {
                    let why = format!("its object {path} has {} bytes and not {size}", bytes.len());
                    return Err(Error::new(ErrorKind::Io, why).hint(self.hint()));
                }
                Err(error) if attempt >= READS => return Err(self.failed("read", path, error)),
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(None)
    }

    /// When an object was written; nothing when there is none.
    pub(super) async fn written(&self, path: &Path) -> Result<Option<StoreTime>> {
        match self.objects.head(path).await {
            Ok(meta) => Ok(Some(meta.last_modified.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", path, error)),
        }
    }

    /// The objects of a room, in no order.
    pub(super) fn list(&self, room: &Path) -> BoxStream<ObjectMeta> {
        let (store, path) = (self.clone(), room.clone());
        let list = self.objects.list(Some(room));
        Box::pin(list.map_err(move |error| store.failed("list", &path, error)))
    }

    /// Removes an object; that it is gone already is no error.
    pub(super) async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", path, error)),
        }
    }

    /// Removes many objects, as many at once as the store takes.
    pub(super) async fn delete_all(&self, paths: Vec<Path>) -> Result<()> {
        let mut done = self.objects.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(result) = done.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("remove", &Path::from(CHUNKS), error)),
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, path: &Path, error: object_store::Error) -> Error {
        use object_store::Error as Failure;
        let kind = match &error {
            Failure::NotFound { .. } => ErrorKind::NotFound,
            Failure::AlreadyExists { .. } | Failure::Precondition { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Io,
        };
        let why = root_cause(&error);
        Error::new(kind, format!("the archive store {} can't {what} {path}: {why}", self.place))
            .hint(self.hint())
            .caused_by(error)
    }

    fn hint(&self) -> String {
        format!("see that {} can be reached and written, and has room; then try again", self.place)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Store").field(&self.place).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_names_that_lead_nowhere_else() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(chunk_path(id).as_ref(), format!("chunks/ab/{}", "ab".repeat(32)));
        let reference: ArchiveRef = "web-1/a1".parse().unwrap();
        assert_eq!(manifest_path(&reference).as_ref(), "archives/web-1/a1.json");
        assert_eq!(reference_of(&manifest_path(&reference)), Some(reference));
        for foreign in ["archives/a.json", "archives/a/b/c.json", "archives/A/b.json", "archives/a/b.txt", "x/a/b.json"]
        {
            assert_eq!(reference_of(&Path::from(foreign)), None, "{foreign}");
        }
    }
}
