//! A store that fails, or whose saver is killed, at every one of its operations in turn.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};

use super::*;

/// What happens at an operation, and from then on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It fails, as every later one does: the disk is full, the network gone.
    Fails,
    /// It never ends, and the saver is killed.
    Hangs,
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<InMemory>,
    operations: AtomicUsize,
    from: usize,
    fault: Fault,
}

impl Faulty {
    fn over(inner: Arc<InMemory>, fault: Fault, from: usize) -> Arc<Self> {
        Arc::new(Self { inner, operations: AtomicUsize::new(0), from, fault })
    }

    async fn step(&self) -> object_store::Result<()> {
        if self.operations.fetch_add(1, Ordering::Relaxed) < self.from {
            return Ok(());
        }
        match self.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Fails => {
                Err(object_store::Error::Generic { store: "faulty", source: "No space left on device".into() })
            }
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("faulty-store")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.step().await?;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.step().await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.step().await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let failing = self.operations.fetch_add(1, Ordering::Relaxed) >= self.from;
        if !failing {
            return self.inner.delete_stream(paths);
        }
        match self.fault {
            Fault::Hangs => futures_util::stream::pending().boxed(),
            Fault::Fails => futures_util::stream::once(async {
                Err(object_store::Error::Generic { store: "faulty", source: "gone".into() })
            })
            .boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let failing = self.operations.fetch_add(1, Ordering::Relaxed) >= self.from;
        match (failing, self.fault) {
            (false, _) => self.inner.list(prefix),
            (true, Fault::Hangs) => futures_util::stream::pending().boxed(),
            (true, Fault::Fails) => futures_util::stream::once(async {
                Err(object_store::Error::Generic { store: "faulty", source: "gone".into() })
            })
            .boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.step().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.step().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store in which one archive of the room is; the room's files are others now.
async fn with_an_archive(room: &Room) -> (InMemory, Archive) {
    let objects = Arc::new(InMemory::new());
    let archives = room.archives_in(ArchiveStore::given(objects.clone())).await;
    room.set_files(&[("a", b"one"), ("large", &noise("large", 4 << 20))]);
    let first = archives.save(&room.workspace, SaveOptions::default()).await.unwrap();
    room.set_files(&[("a", b"two"), ("b", &noise("b", 2 << 20)), ("large", &noise("large", 4 << 20))]);
    (objects.fork(), first)
}

#[tokio::test]
async fn a_saver_that_is_killed_anywhere_leaves_no_half_archive() {
    let room = Room::new().await;
    let (before, first) = with_an_archive(&room).await;
    for step in 0.. {
        let objects = Arc::new(before.fork());
        let faulty = Faulty::over(objects.clone(), Fault::Hangs, step);
        let dying = room.archives_in(ArchiveStore::given(faulty.clone())).await;
        let mut saving = Box::pin(dying.save(&room.workspace, SaveOptions::default()));
        // Until it has ended, or nothing moves any more.
        let done = loop {
            let seen = faulty.operations.load(Ordering::Relaxed);
            match tokio::time::timeout(Duration::from_millis(50), &mut saving).await {
                Ok(done) => break Some(done.unwrap()),
                Err(_) if seen > step && faulty.operations.load(Ordering::Relaxed) == seen => break None,
                Err(_) => {}
            }
        };
        drop(saving);

        let next = room.archives_in(ArchiveStore::given(objects.clone())).await;
        let found = next.list(None).await.unwrap();
        assert!(found.contains(&first), "killed at {step}: {found:?}");
        for archive in &found {
            next.verify(archive).await.unwrap_or_else(|error| panic!("killed at {step}: {error}"));
        }
        let again = next.save(&room.workspace, SaveOptions::default()).await.unwrap();
        next.load(&again, &room.workspace).await.unwrap();
        if let Some(done) = done {
            assert!(found.contains(&done));
            assert!(step > 15, "a saving has more than {step} operations");
            break;
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_anywhere_is_named_and_nothing_is_half_done() {
    let room = Room::new().await;
    let (before, first) = with_an_archive(&room).await;
    let now = room.tar();
    for step in 0.. {
        let objects = Arc::new(before.fork());
        let failing = room.archives_in(ArchiveStore::given(Faulty::over(objects.clone(), Fault::Fails, step))).await;
        let saved = failing.save(&room.workspace, SaveOptions::default()).await;
        let whole = room.archives_in(ArchiveStore::given(objects)).await;
        let found = whole.list(None).await.unwrap();
        match saved {
            Ok(saved) => {
                assert!(found.contains(&saved) && step > 15, "{step}");
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "at {step}: {error}");
                assert!(error.to_string().contains("faulty-store"), "at {step}: {error}");
                assert!(error.hint_text().is_some_and(|hint| hint.contains("faulty-store")), "at {step}");
                assert_eq!(found, std::slice::from_ref(&first), "at {step}");
            }
        }
    }
    for step in 0.. {
        let failing = Faulty::over(Arc::new(before.fork()), Fault::Fails, step);
        let archives = room.archives_in(ArchiveStore::given(failing)).await;
        match archives.restore(&first.reference(), &room.workspace).await {
            Ok(_) => {
                assert!(step > 4 && room.tar() != now);
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "at {step}: {error}");
                assert!(error.to_string().contains(&first.reference().to_string()), "at {step}: {error}");
                assert!(error.hint_text().is_some_and(|hint| hint.contains("faulty-store")), "at {step}");
                assert!(room.tar() == now, "at {step}: the workspace has changed");
            }
        }
    }
}

#[tokio::test]
async fn a_pruning_that_is_killed_or_fails_anywhere_loses_nothing() {
    let room = Room::new().await;
    let (before, first) = with_an_archive(&room).await;
    for fault in [Fault::Fails, Fault::Hangs] {
        for step in 0..6 {
            let objects = Arc::new(before.fork());
            let dying = room.archives_in(ArchiveStore::given(Faulty::over(objects.clone(), fault, step))).await;
            let pruned = tokio::time::timeout(Duration::from_millis(100), dying.prune()).await;
            assert!(!matches!(pruned, Ok(Ok(_))), "{fault:?} at {step}");
            room.archives_in(ArchiveStore::given(objects)).await.verify(&first).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_is_named() {
    let room = Room::new().await;
    let place = tempfile::tempdir().unwrap();
    // A file where a folder of the store has to be: no user may make it one.
    for blocked in ["saves", "chunks", "indexes", "archives"] {
        let folder = place.path().join(blocked).join("store");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(blocked), "").unwrap();
        let archives = room.archives_in(ArchiveStore::folder(&folder)).await;
        let error = archives.save(&room.workspace, SaveOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{blocked}: {error}");
        assert!(error.to_string().contains(folder.to_str().unwrap()), "{blocked}: {error}");
        assert!(error.hint_text().is_some(), "{blocked}");
    }
}
