//! A proxy in front of an engine's socket that fails where a test says: as a process would that is killed between two
//! steps, or as an engine that dies, hangs, is slow, or answers nonsense.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Requests by which a connection begins: one agrees on a version, one asks which engine it is.
pub const CONNECTING: usize = 2;

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
    /// It never reaches the engine, and is answered with this status and a message.
    Status(u16),
    /// It never reaches the engine, and what comes back is no HTTP.
    Garbage,
    /// The engine gets it, and its answer comes only after this time.
    Late(Duration),
}

/// What kind of request fails, and how, until [`Proxy::heal`].
#[derive(Debug, Clone)]
struct Rule {
    /// Absent: every kind.
    endpoint: Option<String>,
    fault: Fault,
}

/// A socket that leads to the engine's own, with a fault in it.
pub struct Proxy {
    folder: tempfile::TempDir,
    requests: Arc<AtomicUsize>,
    rule: Arc<Mutex<Option<Rule>>>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Passes everything and remembers what kinds of requests there were, until [`fail`](Self::fail) is called.
    ///
    /// # Panics
    /// When no socket can be made.
    pub async fn transparent(engine: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let listener = UnixListener::bind(folder.path().join("docker.sock")).expect("a socket can be made");
        let (requests, rule, seen) = (Arc::new(AtomicUsize::new(0)), Arc::default(), Arc::default());
        let (engine, counted, ruled, noted) =
            (engine.to_owned(), Arc::clone(&requests), Arc::clone(&rule), Arc::clone(&seen));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                counted.fetch_add(1, SeqCst);
                let (engine, rule, seen) = (engine.clone(), Arc::clone(&ruled), Arc::clone(&noted));
                // Owned by nobody: each ends with its connection.
                tokio::spawn(async move { decide(client, &engine, &rule, &seen).await });
            }
        });
        Self { folder, requests, rule, seen, serving }
    }

    /// From now on every request of this kind, as [`endpoints`](Self::endpoints) names it, fails so.
    pub fn fail(&self, endpoint: &str, fault: Fault) {
        *lock(&self.rule) = Some(Rule { endpoint: Some(endpoint.to_owned()), fault });
    }

    /// From now on every request fails so.
    pub fn fail_all(&self, fault: Fault) {
        *lock(&self.rule) = Some(Rule { endpoint: None, fault });
    }

    /// From now on everything passes.
    pub fn heal(&self) {
        *lock(&self.rule) = None;
    }

    /// Forgets what kinds of requests there were.
    pub fn forget(&self) {
        lock(&self.seen).clear();
    }

    /// The kinds of requests so far: `POST /containers/{}/start`.
    #[must_use]
    pub fn endpoints(&self) -> BTreeSet<String> {
        lock(&self.seen).clone()
    }

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
        Self { folder, requests, rule: Arc::default(), seen: Arc::default(), serving }
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the head of a request, and does with it what the rule says. Each request has a connection of its own.
async fn decide(mut client: UnixStream, engine: &Path, rule: &Mutex<Option<Rule>>, seen: &Mutex<BTreeSet<String>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read_buf(&mut head).await {
            Ok(1..) if head.len() < 1 << 20 => {}
            _ => return,
        }
    }
    let endpoint = endpoint(&head);
    lock(seen).insert(endpoint.clone());
    let is_meant = |rule: &&Rule| rule.endpoint.as_ref().is_none_or(|meant| *meant == endpoint);
    let fault = lock(rule).as_ref().filter(is_meant).map(|rule| rule.fault);
    let answer = match fault {
        Some(Fault::Cut) => return,
        Some(Fault::Hang) => return hang(client).await,
        Some(Fault::Status(status)) => {
            let body = "{\"message\":\"the proxy fails this call\"}";
            let head = "Content-Type: application/json\r\nConnection: close\r\n";
            format!("HTTP/1.1 {status} Fault\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
        }
        Some(Fault::Garbage) => "\u{7f}ELF and what follows\r\n\r\n".to_owned(),
        _ => {
            let Ok(mut engine) = UnixStream::connect(engine).await else { return };
            if engine.write_all(&head).await.is_ok() {
                pass(client, engine, fault).await;
            }
            return;
        }
    };
    if client.write_all(answer.as_bytes()).await.is_ok() {
        // A connection that is closed over unread bytes is reset, and the answer with it.
        let _ = client.shutdown().await;
        hang(client).await;
    }
}

/// Takes whatever comes until the client gives up.
async fn hang(mut client: UnixStream) {
    let mut sink = [0; 4096];
    while matches!(client.read(&mut sink).await, Ok(1..)) {}
}

/// The kind of a request: its method and path, without the API's version, the query, and what names one container or image.
fn endpoint(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|part| part.starts_with("v1.")) {
        parts.remove(0);
    }
    let verbs = ["json", "create", "prune", "search", "load", "get"];
    if parts.len() > 1 && !(parts.len() == 2 && verbs.contains(&parts[1])) {
        // An image's name may have several parts; what follows a name is a verb.
        let verb = if parts.len() > 2 { parts.last().copied() } else { None };
        parts.truncate(1);
        parts.push("{}");
        parts.extend(verb);
    }
    format!("{method} /{}", parts.join("/"))
}

async fn serve(client: UnixStream, engine: &Path, fault: Option<Fault>) {
    if fault == Some(Fault::Cut) {
        return;
    }
    if fault == Some(Fault::Hang) {
        return hang(client).await;
    }
    let Ok(engine) = UnixStream::connect(engine).await else { return };
    pass(client, engine, fault).await;
}

/// Passes a request on to the engine, and its answer back as far as the fault lets it.
async fn pass(mut client: UnixStream, mut engine: UnixStream, fault: Option<Fault>) {
    let mut allowed = match fault {
        None => {
            // Either side may go at any time; that is what the tests are about.
            let _ = copy_bidirectional(&mut client, &mut engine).await;
            return;
        }
        Some(Fault::CutAnswer(bytes)) => bytes,
        Some(Fault::Late(_)) => usize::MAX,
        Some(_) => 0,
    };
    let mut late = if let Some(Fault::Late(time)) = fault { Some(time) } else { None };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let forward = tokio::io::copy(&mut from_client, &mut to_engine);
    let backward = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_engine.read(&mut buffer).await {
            // The engine has answered, so it has done what it was asked.
            if let Some(time) = late.take() {
                tokio::time::sleep(time).await;
            }
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
