//! A proxy in front of an engine's socket that fails where a test says: as a process would that is killed between two
//! steps, or as an engine that dies or hangs.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// What happens to the request that a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never reaches the engine.
    Cut,
    /// The engine gets it, its answer is lost.
    LoseAnswer,
    /// The engine gets it, and the answer stops after these bytes.
    CutAnswer(usize),
    /// It is taken, and nothing ever comes back.
    Hang,
}

/// A socket that leads to the engine's own, with a fault in it.
pub struct Proxy {
    folder: tempfile::TempDir,
    requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Passes the first `good` requests (each has a connection of its own), does this to the next one, and takes no
    /// more after it (or lets them hang too): whoever used it is dead, or the engine is.
    ///
    /// # Panics
    /// When no socket can be made.
    pub async fn start(engine: &Path, good: usize, fault: Fault) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = UnixListener::bind(folder.path().join("docker.sock")).expect("a socket can be made");
        let requests = Arc::new(AtomicUsize::new(0));
        let (engine, counted) = (engine.to_owned(), Arc::clone(&requests));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let number = counted.fetch_add(1, SeqCst);
                let engine = engine.clone();
                // Owned by nobody: each ends with its connection.
                tokio::spawn(async move {
                    let fault = match number.cmp(&good) {
                        Ordering::Less => None,
                        Ordering::Equal => Some(fault),
                        Ordering::Greater if fault == Fault::Hang => Some(Fault::Hang),
                        Ordering::Greater => Some(Fault::Cut),
                    };
                    serve(client, &engine, fault).await;
                });
            }
        });
        Self { folder, requests, serving }
    }

    /// The socket's address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Requests that were made so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut client: UnixStream, engine: &Path, fault: Option<Fault>) {
    if fault == Some(Fault::Cut) {
        return;
    }
    if fault == Some(Fault::Hang) {
        // Until the client gives up.
        let mut sink = [0; 4096];
        while matches!(client.read(&mut sink).await, Ok(1..)) {}
        return;
    }
    let Ok(mut engine) = UnixStream::connect(engine).await else { return };
    let Some(fault) = fault else {
        // Either side may go at any time; that is what the tests are about.
        let _ = copy_bidirectional(&mut client, &mut engine).await;
        return;
    };
    let mut allowed = if let Fault::CutAnswer(bytes) = fault { bytes } else { 0 };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let forward = tokio::io::copy(&mut from_client, &mut to_engine);
    let backward = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_engine.read(&mut buffer).await {
            // The engine has answered, so it has done what it was asked.
            let passed = count.min(allowed);
            if to_client.write_all(&buffer[..passed]).await.is_err() || passed < count || allowed == 0 {
                return;
            }
            allowed -= passed;
        }
    };
    tokio::select! {
        // The request's body ends with the answer, not with the client's half of the connection.
        () = backward => {}
        Err(_) = forward => {}
    }
}
