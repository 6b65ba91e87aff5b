//! Where what sleeps is kept in these tests: in a bed of the test's own, or by the real archives in a store in memory.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};

use super::*;
use crate::{ArchiveStore, HostBuilder};

/// Longer than an archive's objects are left alone by a pruning.
const LONG_AGO: Duration = Duration::from_secs(2 * 24 * 3600);

/// Where a host keeps what sleeps.
pub(super) enum Kept {
    /// The test's own bed, which keeps the file `kept`.
    Bed(Arc<FakeBed>),
    /// The real archives, which keep all that the agent sends.
    Objects(Arc<Objects>),
}

impl Kept {
    pub(super) fn by(&self, builder: HostBuilder) -> HostBuilder {
        match self {
            Self::Bed(bed) => builder.bed(bed.clone()),
            Self::Objects(objects) => builder.archive_store(ArchiveStore::given(objects.clone())),
        }
    }

    /// One that goes on from here.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Bed(bed) => Self::Bed(Arc::new(bed.copy())),
            Self::Objects(objects) => Self::Objects(Arc::new(Objects::over(objects.inner.fork()))),
        }
    }

    /// All that it holds now, to be compared.
    pub(super) fn content(&self) -> Vec<String> {
        match self {
            Self::Bed(bed) => bed.names(),
            Self::Objects(objects) => objects.content(),
        }
    }

    /// Whether a tar is being read, by a thread that waits for tasks.
    pub(super) fn reads_a_tar(&self) -> bool {
        matches!(self, Self::Objects(objects) if objects.saving.reads_a_tar.load(Ordering::Relaxed))
    }

    /// By what those are found who sleep, or did.
    pub(super) async fn names(&self, host: &Host) -> Vec<String> {
        match self {
            Self::Bed(bed) => bed.names(),
            Self::Objects(_) => {
                let all = host.archives().list(None).await.unwrap().into_iter();
                all.filter(|archive| archive.sleeper.is_some()).map(|archive| archive.reference().to_string()).collect()
            }
        }
    }
}

/// A store in memory, between any two operations of which other tasks run.
#[derive(Debug)]
pub(super) struct Objects {
    inner: InMemory,
    /// What was written before is from long ago.
    long_ago: Mutex<SystemTime>,
    saving: Arc<Saving>,
    /// Nothing can be removed from it.
    pub(super) keeps_all: AtomicBool,
}

/// The saving that is under way.
#[derive(Debug, Default)]
struct Saving {
    /// From its first word to its last.
    goes_on: AtomicBool,
    /// From its first word to its index.
    reads_a_tar: AtomicBool,
}

impl Default for Objects {
    fn default() -> Self {
        Self::over(InMemory::new())
    }
}

impl Objects {
    fn over(inner: InMemory) -> Self {
        Self {
            inner,
            long_ago: Mutex::new(SystemTime::UNIX_EPOCH),
            saving: Arc::default(),
            keeps_all: AtomicBool::new(false),
        }
    }

    fn content(&self) -> Vec<String> {
        let all = self.inner.list(None).map_ok(|object| format!("{} {:?}", object.location, object.e_tag));
        let mut all: Vec<_> = all.try_collect::<Vec<_>>().now_or_never().expect("it is in memory").unwrap();
        all.sort();
        all
    }

    /// Makes all that there is older than anything that is left alone.
    pub(super) fn age(&self) {
        *self.long_ago.lock().unwrap() = SystemTime::now();
    }

    /// The names of all objects.
    pub(super) fn names(&self) -> Vec<String> {
        let all = self.content();
        all.iter().map(|object| object.split(' ').next().unwrap().to_owned()).collect()
    }
}

/// As old as it is for whoever comes long after.
fn dated(mut meta: ObjectMeta, long_ago: SystemTime) -> ObjectMeta {
    if SystemTime::from(meta.last_modified) < long_ago {
        meta.last_modified -= LONG_AGO;
    }
    meta
}

impl Saving {
    fn has_put(&self, path: &Path) {
        match path.as_ref().split('/').next() {
            // A second time after the index.
            Some("saves") if !self.goes_on.swap(true, Ordering::Relaxed) => {
                self.reads_a_tar.store(true, Ordering::Relaxed);
            }
            Some("indexes") => self.reads_a_tar.store(false, Ordering::Relaxed),
            _ => {}
        }
    }

    fn has_deleted(&self, path: &Path) {
        if path.as_ref().starts_with("saves/") {
            self.goes_on.store(false, Ordering::Relaxed);
            self.reads_a_tar.store(false, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("memory")
    }
}

/// Lets other tasks run before a stream goes on.
fn after_others<T: Send + 'static>(stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
    stream.then(|item| async { tokio::task::yield_now().map(|()| item).await }).boxed()
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        tokio::task::yield_now().await;
        let done = self.inner.put_opts(path, payload, options).await;
        self.saving.has_put(path);
        tokio::task::yield_now().await;
        done
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        tokio::task::yield_now().await;
        let mut found = self.inner.get_opts(path, options).await?;
        found.meta = dated(found.meta, *self.long_ago.lock().unwrap());
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        if self.keeps_all.load(Ordering::Relaxed) {
            let refused = || object_store::Error::Generic { store: "memory", source: "nothing is removed".into() };
            return paths.map(move |_| Err(refused())).boxed();
        }
        let saving = self.saving.clone();
        after_others(self.inner.delete_stream(paths).inspect_ok(move |path| saving.has_deleted(path)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let long_ago = *self.long_ago.lock().unwrap();
        let all = self.inner.list(prefix).map_ok(move |meta| dated(meta, long_ago));
        after_others(all.boxed())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        tokio::task::yield_now().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
