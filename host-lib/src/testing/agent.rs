//! The fake agent: the routes that the host uses, behaving as its script says.

mod answers;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use corehold_types::{
    Claims, Code, Data, PROTOCOL, Problem, Timestamp,
    tools::{
        ActiveSource, ActivityResponse, AuditEvent, AuditGap, AuditReadRequest, AuditReadResponse, AuditRecord,
        ClaimRequest, ClaimResponse, CommandEvent, CommandExit, CommandInfo, CommandListRequest, CommandListResponse,
        CommandOutputRequest, CommandRequest, CommandSignalRequest, CommandSignalResponse, EndedSource,
        ExtractResponse, HEALTH, InfoResponse, PortsRequest, PortsResponse,
    },
    wire::{FileWritten, Health, HealthStatus, StreamEnd},
};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

use self::answers::{exit, json, line, response, run};
pub(crate) use self::{
    answers::{ndjson, problem, reply},
    state::{AgentState, Files},
};

/// Ports from here on may be given to whoever asks for any.
const CHOSEN_PORTS: u16 = 10_000;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// Answers some requests before the agent does.
pub(crate) type Route = fn(&Request<Incoming>) -> Option<Answer>;

/// Half of what an agent sends as the archive of its workspace.
pub(crate) const TREE: &[u8] = b"the workspace";

/// How the agent behaves.
#[derive(Clone)]
pub(crate) struct AgentScript {
    /// It accepts connections and never answers.
    pub(crate) silent: bool,
    pub(crate) protocol: u32,
    pub(crate) extract: Option<Problem>,
    /// The dev command's server answers with this; `None`: it never listens.
    pub(crate) preview: Option<StatusCode>,
    /// The dev command ends at once with this exit code.
    pub(crate) dev_exits: Option<i32>,
    /// It answers claims with this.
    pub(crate) claim: Option<Problem>,
    /// It decides about a claim when this is notified.
    pub(crate) claim_gate: Option<Arc<Notify>>,
    /// What set-up left outside of the workspace, as whoever looks for it is told.
    pub(crate) left_behind: Option<&'static str>,
    /// An archive of the workspace is cut off.
    pub(crate) archive_cut: bool,
    /// An archive that begins so is refused.
    pub(crate) refuse: Option<&'static [u8]>,
    /// Answers a route of its own before all others.
    pub(crate) route: Option<Route>,
    /// What its commands are and write.
    pub(crate) log: Option<Arc<CommandLog>>,
    /// Its records of calls; numbers that lack are gone.
    pub(crate) records: Option<Arc<Mutex<Vec<AuditRecord>>>>,
    /// What is active in it, and when what was active ended. Shared with the test.
    pub(crate) activity: Arc<Mutex<(Vec<ActiveSource>, Vec<EndedSource>)>>,
}

/// Commands whose output grows, over connections that break off.
#[derive(Default)]
pub(crate) struct CommandLog {
    /// Text of each command, by its id, and whether it has ended.
    pub(crate) commands: Mutex<BTreeMap<String, (String, bool)>>,
    /// Bytes after which a connection breaks off; 0: none does.
    pub(crate) breaks_after: AtomicUsize,
    /// From which offsets it was read.
    pub(crate) offsets: Mutex<Vec<u64>>,
    pub(crate) boot: AtomicUsize,
    /// Commands that have left processes behind.
    pub(crate) left_behind: Mutex<BTreeSet<String>>,
    /// Commands that were killed, in their order.
    pub(crate) killed: Mutex<Vec<String>>,
}

impl CommandLog {
    fn list(&self, request: &CommandListRequest) -> Answer {
        let commands = self.commands.lock().unwrap();
        let info = |(id, (text, ended)): (&String, &(String, bool))| CommandInfo {
            id: id.clone(),
            label: Some(format!("label-{id}")),
            line: "x".to_owned(),
            pid: 2,
            started: Timestamp::now(),
            exit: ended.then(|| match self.left_behind.lock().unwrap().contains(id) {
                true => CommandExit { survivors: vec![7], ..exit(0) },
                false => exit(0),
            }),
            first_offset: 0,
            offset: text.len() as u64,
        };
        let wanted = |info: &CommandInfo| request.label.is_none() || info.label == request.label;
        let all: Vec<_> = commands.iter().map(info).filter(wanted).rev().collect();
        // A cursor is how many were told before.
        let from = request.cursor.as_ref().map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<_> = all.iter().skip(from).take(request.limit.unwrap_or(100) as usize).cloned().collect();
        let to = from + page.len();
        json(&CommandListResponse { commands: page, cursor: (to < all.len()).then(|| to.to_string()) })
    }

    fn signal(&self, request: &CommandSignalRequest) -> Answer {
        if request.id.starts_with("forgotten") {
            return problem(&Problem::new(Code::NotFound, "it is forgotten"));
        }
        self.killed.lock().unwrap().push(request.id.clone());
        self.commands.lock().unwrap().get_mut(&request.id).unwrap().1 = true;
        json(&CommandSignalResponse { processes: 1 })
    }

    fn output(&self, request: &CommandOutputRequest) -> Answer {
        let offset = request.offset.unwrap_or(0);
        self.offsets.lock().unwrap().push(offset);
        let (text, ended) = self.commands.lock().unwrap()[&request.id].clone();
        let (from, bound) = (usize::try_from(offset).unwrap(), self.breaks_after.load(Ordering::Relaxed));
        let to = if bound == 0 { text.len() } else { text.len().min(from + bound) };
        let data = Data::from_bytes(text.as_bytes()[from..to].to_vec());
        let mut lines = vec![line(&CommandEvent::Stdout { offset, end: to as u64, data })];
        let whole = to == text.len();
        if whole && ended {
            lines.push(line(&CommandEvent::Exit { exit: exit(0), offset: to as u64 }));
            lines.push(line(&StreamEnd::End { response: response(Some(0)) }));
        } else if request.follow == Some(false) {
            lines.push(line(&StreamEnd::End { response: response(None) }));
        }
        ndjson(lines, whole && !ended && request.follow != Some(false))
    }
}

impl Default for AgentScript {
    fn default() -> Self {
        Self {
            silent: false,
            protocol: PROTOCOL,
            extract: None,
            preview: Some(StatusCode::OK),
            dev_exits: None,
            claim: None,
            claim_gate: None,
            left_behind: None,
            archive_cut: false,
            refuse: None,
            route: None,
            log: None,
            records: None,
            activity: Arc::default(),
        }
    }
}

pub(crate) struct FakeAgent {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

struct Inner {
    script: AgentScript,
    address: SocketAddr,
    preview: SocketAddr,
    /// Whose it is, and by which claim.
    owner: Mutex<Option<(String, String)>>,
    env: Mutex<BTreeMap<String, String>>,
    files: Files,
    /// Archives that came, in their order.
    extracted: Mutex<Vec<Bytes>>,
    /// What `GET /v1/archive` sends, and `PUT` with `replace` puts in its place.
    tar: Mutex<Vec<u8>>,
    connections: AtomicUsize,
    /// How often the dev server was started.
    dev_servers: AtomicUsize,
    frozen: watch::Sender<bool>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl FakeAgent {
    pub(crate) async fn start(script: AgentScript, workspace: Option<String>) -> Self {
        Self::start_over(script, workspace, Arc::default()).await
    }

    /// Over the files of a container that had an agent before.
    pub(crate) async fn start_over(script: AgentScript, workspace: Option<String>, files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let preview = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            preview: preview.local_addr().unwrap(),
            owner: Mutex::new(workspace.map(|workspace| (workspace, String::new()))),
            env: Mutex::default(),
            files,
            extracted: Mutex::default(),
            tar: Mutex::new(vec![0; 1024]),
            connections: AtomicUsize::new(0),
            dev_servers: AtomicUsize::new(0),
            frozen: watch::Sender::new(false),
            script,
        });
        let mut tasks = vec![tokio::spawn(serve(listener, inner.clone(), |inner, request| async move {
            if inner.script.silent {
                std::future::pending::<()>().await;
            }
            let mut frozen = inner.frozen.subscribe();
            let _ = frozen.wait_for(|frozen| !frozen).await;
            inner.answer(request).await
        }))];
        if let Some(status) = inner.script.preview {
            tasks.push(tokio::spawn(serve(preview, inner.clone(), move |_, _| async move { reply(status, "hello") })));
        }
        Self { inner, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.inner.address
    }

    pub(crate) fn preview_address(&self) -> SocketAddr {
        self.inner.preview
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// As a paused container: connections are taken, and nothing is answered until it goes on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.inner.frozen.send_replace(frozen);
    }

    /// The archives that it was sent.
    pub(crate) fn extracted(&self) -> Vec<Bytes> {
        self.inner.extracted.lock().unwrap().clone()
    }

    /// How often the dev server was started.
    pub(crate) fn dev_servers(&self) -> usize {
        self.inner.dev_servers.load(Ordering::Relaxed)
    }

    /// The variables that came with a claim.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.inner.env.lock().unwrap().clone()
    }

    /// The workspace's files, as a tar.
    pub(crate) fn tar(&self) -> Vec<u8> {
        self.inner.tar.lock().unwrap().clone()
    }

    pub(crate) fn set_tar(&self, tar: Vec<u8>) {
        *self.inner.tar.lock().unwrap() = tar;
    }
}

async fn serve<F, R>(listener: TcpListener, inner: Arc<Inner>, answer: F)
where
    F: Fn(Arc<Inner>, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        inner.connections.fetch_add(1, Ordering::Relaxed);
        let (inner, answer) = (inner.clone(), answer.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answering = answer(inner.clone(), request);
                async { Ok::<_, Infallible>(answering.await) }
            });
            // A client that goes away is no failure of a test.
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

/// The workspace that a request's token names.
fn workspace(request: &Request<Incoming>) -> Option<String> {
    let token = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&payload).ok()?.workspace)
}

fn info(workspace: Option<String>, boot_id: String) -> Answer {
    json(&InfoResponse {
        version: "0".to_owned(),
        protocol: PROTOCOL,
        boot_id,
        instance: "i".to_owned(),
        claimed: workspace.as_ref().map(|_| Timestamp::now()),
        workspace,
        root: "/app".into(),
        tools: vec![],
        limits: vec![],
        features: vec![],
        guards: vec![],
    })
}

/// As the agent does it: what listens on this machine's loopback is inside.
async fn tunnel(port: u16, request: Request<Incoming>) -> Answer {
    assert_eq!(request.headers()[header::UPGRADE], "corehold-tunnel");
    let Ok(mut inner) = TcpStream::connect(("127.0.0.1", port)).await else {
        return problem(&Problem::new(Code::NotListening, format!("nothing listens on port {port}")));
    };
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let mut outer = upgraded.downcast::<TokioIo<TcpStream>>().unwrap().io.into_inner();
        if tokio::io::copy_bidirectional(&mut outer, &mut inner).await.is_err() {
            rustix::net::sockopt::set_socket_linger(&outer, Some(std::time::Duration::ZERO)).unwrap();
        }
    });
    let mut answer = reply(StatusCode::SWITCHING_PROTOCOLS, "");
    answer.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    answer.headers_mut().insert(header::UPGRADE, "corehold-tunnel".parse().unwrap());
    answer
}

/// As `tunnel`: what is taken on this machine's loopback listens inside.
async fn ports(request: &PortsRequest) -> Answer {
    assert_eq!(request.timeout_ms, Some(0));
    let taken = TcpListener::bind(("127.0.0.1", request.wait_for.unwrap())).await.is_err();
    json(&PortsResponse { opened: Some(taken), ..PortsResponse::default() })
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if let Some(answer) = self.script.route.and_then(|route| route(&request)) {
            return answer;
        }
        let path = request.uri().path().to_owned();
        if path == "/health" {
            let status = HealthStatus::Ok;
            return json(&Health { status, version: "0".into(), protocol: self.script.protocol, uptime_ms: 1 });
        }
        let Some(workspace) = workspace(&request) else {
            return problem(&Problem::new(Code::Unauthorized, "no token"));
        };
        if path == "/v1/tools/claim" {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            return self.claim(serde_json::from_slice(&body).unwrap()).await;
        }
        let owner = self.owner.lock().unwrap().as_ref().map(|(owner, _)| owner.clone());
        match (&owner, path.as_str()) {
            (None, "/v1/tools/info") => return info(None, self.boot_id()),
            (Some(owner), "/v1/tools/info") if *owner == workspace => return info(Some(workspace), self.boot_id()),
            (Some(owner), _) if *owner == workspace => {}
            _ => return problem(&Problem::new(Code::NotClaimed, "it serves another workspace, or none")),
        }
        if let Some(port) = path.strip_prefix("/v1/tunnel/") {
            // What a template names is the script's preview; a test's own listener has a port that the system chose.
            let port = port.parse().unwrap();
            return tunnel(if port < CHOSEN_PORTS { self.preview.port() } else { port }, request).await;
        }
        let streamed = request.headers().get(header::ACCEPT).is_some_and(|accept| accept == "application/x-ndjson");
        let method = request.method().clone();
        let query = request.uri().query().map(str::to_owned);
        // Of a body that breaks off nothing is taken.
        let Ok(body) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
            return problem(&Problem::new(Code::ArchiveInvalid, "it is cut off"));
        };
        if let Some(file) = path.strip_prefix("/v1/files/") {
            return self.file(&method, file, body);
        }
        match path.as_str() {
            "/v1/archive" if method == Method::GET => {
                let query = query.unwrap();
                if query.starts_with("format=tar&exactTimes=true") {
                    return reply(StatusCode::OK, self.tar.lock().unwrap().clone());
                }
                assert_eq!(query, "format=tar.zst");
                let body = if self.script.archive_cut {
                    Err(std::io::ErrorKind::BrokenPipe.into())
                } else {
                    Ok(Bytes::from(TREE))
                };
                let pieces = stream::iter([Ok(Frame::data(Bytes::from(TREE))), body.map(Frame::data)]);
                Response::new(StreamBody::new(pieces).boxed_unsync())
            }
            "/v1/archive" => {
                self.extracted.lock().unwrap().push(body.clone());
                if self.script.refuse.is_some_and(|refused| body.starts_with(refused)) {
                    return problem(&Problem::new(Code::ArchiveInvalid, "no archive at all"));
                }
                let query = query.unwrap();
                let (hash, replace) = query.split_once('&').unwrap_or((&query, ""));
                assert_eq!(hash, format!("hash={}", blake3::hash(&body).to_hex()));
                if self.script.extract.is_none() && replace == "replace=true" {
                    *self.tar.lock().unwrap() = body.to_vec();
                }
                self.script
                    .extract
                    .as_ref()
                    .map_or_else(|| json(&ExtractResponse { files: 1, ..Default::default() }), problem)
            }
            "/v1/tools/command" => self.command(&serde_json::from_slice(&body).unwrap()),
            "/v1/tools/activity" => {
                let (sources, ended) = self.script.activity.lock().unwrap().clone();
                let idle_since = sources.is_empty().then(|| Timestamp::from_unix(0, 0));
                json(&ActivityResponse { sources, idle_since, last_request: None, ended, now: Timestamp::now() })
            }
            "/v1/tools/ports" => ports(&serde_json::from_slice(&body).unwrap()).await,
            "/v1/tools/commandList" => match &self.script.log {
                Some(log) => log.list(&serde_json::from_slice(&body).unwrap()),
                None => self.list(),
            },
            "/v1/tools/commandSignal" if self.script.log.is_some() => {
                let log = self.script.log.as_ref().expect("it is there");
                log.signal(&serde_json::from_slice(&body).unwrap())
            }
            "/v1/tools/auditRead" => self.audit_read(&serde_json::from_slice(&body).unwrap(), streamed),
            "/v1/tools/commandOutput" if self.script.log.is_some() => {
                let log = self.script.log.as_ref().expect("it is there");
                log.output(&serde_json::from_slice(&body).unwrap())
            }
            "/v1/tools/commandOutput" => self.follow(&serde_json::from_slice(&body).unwrap()),
            _ => problem(&Problem::new(Code::UnknownRoute, path)),
        }
    }

    fn audit_read(&self, request: &AuditReadRequest, streamed: bool) -> Answer {
        let after = request.after.unwrap_or(0);
        let all = self.script.records.as_ref().map(|records| records.lock().unwrap().clone()).unwrap_or_default();
        let last = all.last().map_or(0, |record| record.seq);
        let records: Vec<AuditRecord> = all.into_iter().filter(|record| record.seq > after).collect();
        let first = records.first().map_or(after + 1, |record| record.seq);
        let gap = (first > after + 1).then(|| AuditGap { from: after + 1, to: first - 1, refusals_only: false });
        if !streamed {
            return json(&AuditReadResponse { records, gap, cursor: None, last });
        }
        let gap = gap.map(|gap| line(&AuditEvent::Gap { gap }));
        let records = records.into_iter().map(|record| line(&AuditEvent::Record { record: Box::new(record) }));
        ndjson(gap.into_iter().chain(records).collect(), true)
    }

    fn boot_id(&self) -> String {
        self.script.log.as_ref().map_or_else(|| "b".to_owned(), |log| log.boot.load(Ordering::Relaxed).to_string())
    }

    /// As the agent decides it: the first wins, and wins again with the same claim.
    async fn claim(&self, request: ClaimRequest) -> Answer {
        if let Some(gate) = &self.script.claim_gate {
            gate.notified().await;
        }
        if let Some(refusal) = &self.script.claim {
            return problem(refusal);
        }
        let mut owner = self.owner.lock().unwrap();
        let wanted = (request.workspace, request.claim_id);
        if *owner.get_or_insert_with(|| wanted.clone()) != wanted {
            return problem(&Problem::new(Code::AlreadyClaimed, "it serves a workspace already"));
        }
        *self.env.lock().unwrap() = request.env;
        let (instance, boot_id) = ("i".to_owned(), "b".to_owned());
        json(&ClaimResponse { workspace: wanted.0, claimed: Timestamp::now(), instance, boot_id })
    }

    fn file(&self, method: &Method, name: &str, body: Bytes) -> Answer {
        let mut files = self.files.lock().unwrap();
        if *method == Method::PUT {
            let size = body.len() as u64;
            let created = files.insert(name.to_owned(), body.to_vec()).is_none();
            return json(&FileWritten { version: "v1".into(), size, created });
        }
        match files.get(name) {
            Some(content) => {
                let mut answer = reply(StatusCode::OK, content.clone());
                answer.headers_mut().insert(header::ETAG, "\"v1\"".parse().unwrap());
                answer
            }
            None => problem(&Problem::new(Code::NotFound, format!("{name} is not there"))),
        }
    }

    /// Lines say what they do: `exit <code>`, `flood`; a detached one is the dev server.
    fn command(&self, request: &CommandRequest) -> Answer {
        let line = request.line.clone().unwrap_or_default();
        if request.argv.is_some() {
            // What the host runs for its own sake: a mark before the set-up, and the look at what it left.
            assert_eq!(request.label, None);
            let mut response = response(Some(0));
            response.stdout.head = Data::Text(self.script.left_behind.unwrap_or_default().into());
            return json(&response);
        }
        if request.detach == Some(true) {
            assert_eq!(request.label.as_deref(), Some("dev"));
            assert_eq!(request.env["HOST"], "0.0.0.0");
            self.dev_servers.fetch_add(1, Ordering::Relaxed);
            return json(&response(None));
        }
        if request.label.as_deref() == Some(HEALTH) {
            return json(&response(line.strip_prefix("exit ").map(|code| code.parse().unwrap())));
        }
        assert_eq!(request.label.as_deref(), Some("setup"));
        match line.strip_prefix("exit ") {
            Some(code) => run("setting up\nlast line before the end", code.parse().unwrap()),
            None => run(&"y\n".repeat(100_000), 0),
        }
    }

    /// The dev server, if it was started.
    fn list(&self) -> Answer {
        let dev = CommandInfo {
            id: "1".into(),
            label: Some("dev".into()),
            line: "serve".into(),
            pid: 2,
            started: Timestamp::now(),
            exit: None,
            first_offset: 0,
            offset: 0,
        };
        let commands = if self.dev_servers.load(Ordering::Relaxed) > 0 { vec![dev] } else { vec![] };
        json(&CommandListResponse { commands, cursor: None })
    }

    fn follow(&self, request: &CommandOutputRequest) -> Answer {
        assert_eq!((request.id.as_str(), request.follow), ("1", Some(true)));
        match self.script.dev_exits {
            Some(code) => run("port in use", code),
            None => {
                let text = Data::Text("dev server starts\n".into());
                ndjson(vec![line(&CommandEvent::Stdout { offset: 0, end: 18, data: text })], true)
            }
        }
    }
}
