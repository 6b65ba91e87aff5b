//! A connection to one engine: how it was found, and how every call to it is bounded in time.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{API_DEFAULT_VERSION, models::SystemInfo};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::OnceCell;

use super::{
    address::{Address, DockerAddress, Surroundings, leads},
    engine::Engine,
    errors::{timed_out, translate},
    network::Leaving,
};
use crate::error::{Error, ErrorKind, Result};

/// bollard bounds only the time to an answer's head, for uploads too, with one value for all. So its own bound is put out
/// of reach, and [`Connection::call`] and [`Connection::watched`] bound what they know the shape of.
const NO_BOUND_SECONDS: u64 = 10 * 365 * 24 * 3600;

/// How long the search for an engine waits for each candidate. Podman starts processes to say its version, which has taken 6 s on a busy
/// machine.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a container that is between two states is left alone before it is looked at again.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// How to reach and use an engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerOptions {
    /// Which engine. Default: found as the `docker` command would.
    pub address: DockerAddress,
    /// How long one call may take before it is given up. Default 60 s.
    pub call_timeout: Duration,
    /// How long an upload, a pull or a build may make no progress before it is given up. Default 10 min.
    pub quiet_timeout: Duration,
    /// How long another process is waited for that prepares what is shared, before it counts as dead. Default 10 s; what
    /// is waited for takes a tenth of a second.
    pub lock_timeout: Duration,
    /// Whether the agent's port is published on 127.0.0.1 even where this host could reach the container's own address:
    /// for hosts whose firewall is in the way. Costs a proxy process of 3.3 MB for each container. Nothing is published for it where that
    /// wouldn't be reached on this machine. Default false.
    pub publish_agent: bool,
    /// Name of the network that core containers are put into; it is made if missing. Default `corehold`.
    pub network: String,
    /// Whether a network is taken too whose containers reach each other: for engines that make no others and whose machine's firewall can't
    /// be set, as a rootless Podman's, where all workspaces are one person's. Default false.
    pub containers_may_meet: bool,
    /// Whether folders are mounted too where this process can't see in the container that they are those that were asked for: on
    /// machines of one person, who isn't root. Default false.
    pub folders_unseen: bool,
    /// Whether workspaces may reach the engine's machine, by their gateway's address, and cloud metadata. Then no firewall is set, and no
    /// network is probed: for engines that give containers no say in their machine's firewall. Default false.
    pub host_may_be_reached: bool,
    /// TCP ports of the engine's machine that workspaces may reach all the same, such as a backend's API. Default none.
    pub host_ports: Vec<u16>,
    /// The image of the short-lived containers that set the firewall and look at networks from inside: one with bash and nft.
    /// Default [`CORE_IMAGE`](crate::image::CORE_IMAGE).
    pub helper_image: String,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            address: DockerAddress::Auto,
            call_timeout: Duration::from_secs(60),
            quiet_timeout: Duration::from_secs(600),
            lock_timeout: Duration::from_secs(10),
            publish_agent: false,
            network: "corehold".to_owned(),
            containers_may_meet: false,
            folders_unseen: false,
            host_may_be_reached: false,
            host_ports: Vec::new(),
            helper_image: crate::image::CORE_IMAGE.to_owned(),
        }
    }
}

/// An address where an engine was looked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Who named it: `DOCKER_HOST`, `docker context "colima"`, `system socket`.
    pub origin: String,
    /// The address as it was named.
    pub address: String,
    /// What came of it.
    pub outcome: CandidateOutcome,
}

/// What came of looking for an engine at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CandidateOutcome {
    /// An engine answered; it is the one in use.
    Chosen,
    /// No engine answered.
    Failed {
        /// Why.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): ", self.address, self.origin)?;
        match &self.outcome {
            CandidateOutcome::Chosen => formatter.write_str("answers"),
            CandidateOutcome::Failed { reason, .. } => formatter.write_str(reason),
        }
    }
}

/// A connection to one engine. Cheap to clone; each call opens a connection of its own, so none waits for another.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: bollard::Docker,
    pub(super) address: Address,
    pub(super) options: Arc<DockerOptions>,
    pub(super) engine: Engine,
    /// What the engine says of itself; it doesn't change while the engine runs, and an engine that was restarted with
    /// another logging driver only makes the log's bound what the engine's own configuration says.
    facts: Arc<OnceCell<SystemInfo>>,
    /// Helpers of networks that have done their work.
    pub(super) leaving: Leaving,
}

impl Connection {
    /// Looks for the engine. The list says what was tried, also when nothing was found.
    pub(super) async fn find(options: DockerOptions, surroundings: &Surroundings) -> (Vec<Candidate>, Result<Self>) {
        let leads = match leads(&options.address, surroundings) {
            Ok(leads) => leads,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let options = Arc::new(options);
        let mut candidates = Vec::new();
        // What can't be an engine's address, or can't be worked with, says more than that nobody answers.
        let mut kind = ErrorKind::EngineUnavailable;
        for lead in leads {
            let found = match lead.address {
                Ok(address) => Self::open(address, Arc::clone(&options)).await,
                Err(reason) => Err(Error::new(ErrorKind::Invalid, reason)),
            };
            let (outcome, connection) = match found {
                Ok(connection) => (CandidateOutcome::Chosen, Some(connection)),
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported) {
                        kind = error.kind();
                    }
                    let hint = error.hint_text().map(ToOwned::to_owned);
                    (CandidateOutcome::Failed { reason: error.to_string(), hint }, None)
                }
            };
            candidates.push(Candidate { origin: lead.origin, address: lead.written, outcome });
            if let Some(connection) = connection {
                return (candidates, Ok(connection));
            }
        }
        let error = nothing_found(&candidates, kind);
        (candidates, Err(error))
    }

    /// Connects to one address and agrees with the engine on an API version.
    async fn open(address: Address, options: Arc<DockerOptions>) -> Result<Self> {
        let client = match &address {
            Address::Socket(path) => {
                bollard::Docker::connect_with_unix(&path.to_string_lossy(), NO_BOUND_SECONDS, API_DEFAULT_VERSION)
            }
            Address::Http(authority) => {
                bollard::Docker::connect_with_http(authority, NO_BOUND_SECONDS, API_DEFAULT_VERSION)
            }
        }
        .map_err(|error| translate("connecting", error))?;
        let bound = options.call_timeout.min(PROBE_TIMEOUT);
        let client = tokio::time::timeout(bound, client.negotiate_version())
            .await
            .map_err(|_| timed_out())?
            .map_err(|error| translate("connecting", error))?;
        let version = tokio::time::timeout(bound, client.version())
            .await
            .map_err(|_| timed_out())?
            .map_err(|error| translate("asking the engine's version", error))?;
        let engine = Engine::admitted(&version, client.client_version())?;
        Ok(Self { client, address, options, engine, facts: Arc::default(), leaving: Leaving::default() })
    }

    /// Whether the engine is on this machine, as far as its address tells: it has this host's clock and file names.
    pub(super) fn is_local_socket(&self) -> bool {
        matches!(self.address, Address::Socket(_))
    }

    /// Waits for one call, for at most the call time-out.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.call_within(self.options.call_timeout, what, call).await
    }

    /// Waits for one call that tells how containers are, until none is between two states. Podman 4.3 has names for what is between
    /// (`stopped`, until its own process has cleaned up after one that ended) that Docker's API doesn't have, and no event for its end.
    pub(super) async fn settled<T, C>(&self, what: &str, call: impl FnMut() -> C) -> Result<T>
    where
        C: Future<Output = Result<T, bollard::errors::Error>>,
    {
        self.again_while(is_between, what, call).await
    }

    /// Waits for one call that freezes a container, until it was. With control groups v1 runc tries it for a while, gives up on one whose
    /// processes find no processor to stop at, and thaws it.
    pub(super) async fn frozen<T, C>(&self, what: &str, call: impl FnMut() -> C) -> Result<T>
    where
        C: Future<Output = Result<T, bollard::errors::Error>>,
    {
        self.again_while(|error| error.to_string().contains("unable to freeze"), what, call).await
    }

    /// Calls again as long as the answer is such an error, for as long as a call may take.
    async fn again_while<T, C>(&self, passes: fn(&Error) -> bool, what: &str, mut call: impl FnMut() -> C) -> Result<T>
    where
        C: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let patience = Instant::now() + self.options.call_timeout;
        loop {
            match self.call(what, call()).await {
                Err(error) if passes(&error) && Instant::now() < patience => tokio::time::sleep(BETWEEN_LOOKS).await,
                answer => return answer,
            }
        }
    }

    /// Waits for one call, for at most this long.
    pub(super) async fn call_within<T>(
        &self,
        bound: Duration,
        what: &str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(bound, call).await {
            Ok(answer) => answer.map_err(|error| translate(what, error)),
            Err(_) => Err(timed_out().context(what)),
        }
    }

    /// The next item of a stream of progress, which may say nothing for at most the quiet time-out.
    pub(super) async fn next<T>(
        &self,
        what: &str,
        stream: &mut (impl Stream<Item = Result<T, bollard::errors::Error>> + Unpin),
    ) -> Result<Option<T>> {
        match tokio::time::timeout(self.options.quiet_timeout, stream.next()).await {
            Ok(item) => item.transpose().map_err(|error| translate(what, error)),
            Err(_) => Err(timed_out().context(what)),
        }
    }

    /// Waits for a call whose body is sent meanwhile, as long as bytes move.
    ///
    /// A failure of the body's source is returned as it was, not as the broken connection that follows from it.
    pub(super) async fn upload<T, C>(
        &self,
        what: &str,
        body: impl Stream<Item = Result<Bytes>> + Send + 'static,
        call: impl FnOnce(UploadBody) -> C,
    ) -> Result<T>
    where
        C: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let (watched, pulse) = watch(body);
        let answer = call(bollard::body_try_stream(watched));
        tokio::pin!(answer);
        loop {
            let due = pulse.last() + self.options.quiet_timeout;
            tokio::select! {
                answer = &mut answer => {
                    return match pulse.source_error() {
                        Some(error) => Err(error),
                        None => answer.map_err(|error| translate(what, error)),
                    };
                }
                () = tokio::time::sleep_until(due.into()) => {
                    if pulse.last() + self.options.quiet_timeout <= Instant::now() {
                        return Err(timed_out().context(what));
                    }
                }
            }
        }
    }

    /// What the engine says of itself, asked once.
    pub(super) async fn facts(&self) -> Result<&SystemInfo> {
        self.facts.get_or_try_init(|| self.call("asking the engine about itself", self.client.info())).await
    }
}

/// Whether an answer was not understood for a container's state that is none of Docker's.
fn is_between(error: &Error) -> bool {
    let said = error.to_string();
    ["stopped", "initialized"].iter().any(|state| said.contains(&format!("unknown variant `{state}`")))
}

/// What bollard takes as a request's body.
pub(super) type UploadBody = http_body_util::Either<
    http_body_util::Full<Bytes>,
    http_body_util::StreamBody<
        std::pin::Pin<Box<dyn Stream<Item = Result<hyper::body::Frame<Bytes>, std::io::Error>> + Send>>,
    >,
>;

/// What is known of a body that is being sent.
#[derive(Clone)]
pub(super) struct Pulse(Arc<std::sync::Mutex<(Instant, Option<Error>)>>);

impl Pulse {
    fn last(&self) -> Instant {
        self.lock().0
    }

    /// The error of the body's own source, if it had one.
    pub(super) fn source_error(&self) -> Option<Error> {
        self.lock().1.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Instant, Option<Error>)> {
        // Nothing panics while it is held: it guards two moves.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Lets a body be sent while noting when it last moved and why it broke off.
pub(super) fn watch(
    body: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> (impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static, Pulse) {
    let pulse = Pulse(Arc::new(std::sync::Mutex::new((Instant::now(), None))));
    let noted = pulse.clone();
    let watched = body.map(move |chunk| {
        let mut guard = noted.lock();
        guard.0 = Instant::now();
        chunk.map_err(|error| {
            guard.1 = Some(error);
            std::io::Error::other("the body's source failed")
        })
    });
    (watched, pulse)
}

/// No engine anywhere: names every place with its reason, and the next step of the most telling one.
fn nothing_found(candidates: &[Candidate], kind: ErrorKind) -> Error {
    let list: Vec<_> = candidates.iter().map(|candidate| format!("  {candidate}")).collect();
    // A socket that is there but refuses tells more than one that isn't there.
    let hint = candidates
        .iter()
        .filter_map(|candidate| match &candidate.outcome {
            CandidateOutcome::Failed { hint: Some(hint), reason } if !reason.contains("no socket at") => Some(hint),
            _ => None,
        })
        .next()
        .cloned();
    Error::new(kind, format!("no container engine was found; tried\n{}", list.join("\n"))).hint(hint.unwrap_or_else(
        || "install and start Docker (Debian, Ubuntu: `apt-get install docker.io`), or set DOCKER_HOST".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> DockerOptions {
        DockerOptions {
            address: DockerAddress::At(address.to_owned()),
            call_timeout: Duration::from_millis(200),
            ..DockerOptions::default()
        }
    }

    #[tokio::test]
    async fn no_engine_names_every_place_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings {
            runtime_dir: Some(folder.path().join("user")),
            system_dir: folder.path().join("system"),
            ..Surroundings::default()
        };
        let (candidates, found) = Connection::find(DockerOptions::default(), &around).await;
        assert_eq!(candidates.len(), 4);
        let error = found.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::EngineUnavailable);
        for part in ["user/docker.sock", "system/docker.sock", "system/podman/podman.sock", "there is no socket"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(error.hint_text().unwrap().contains("install and start Docker"));
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_or_that_hangs_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (_, found) = Connection::find(options(path.to_str().unwrap()), &Surroundings::default()).await;
        let error = found.err().unwrap();
        assert!(error.to_string().contains("did not answer in time"), "{error}");

        drop(listener);
        let (_, found) = Connection::find(options(path.to_str().unwrap()), &Surroundings::default()).await;
        let error = found.err().unwrap();
        assert!(error.to_string().contains("nobody listens there"), "{error}");
        assert!(error.hint_text().unwrap().contains("start the engine"));
    }

    #[tokio::test]
    async fn what_listens_but_is_no_engine_is_refused() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        });
        let (_, found) = Connection::find(options(&address), &Surroundings::default()).await;
        assert!(found.err().unwrap().to_string().contains("was not understood"));
        server.await.unwrap();
    }

    /// An engine that answers any question for its version with this, as often as it is asked.
    async fn versioned(answer: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        // It ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                let answer = format!("{head}content-length: {}\r\n\r\n{answer}", answer.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_unsupported_and_named() {
        let address = versioned(r#"{"Version": "19.03.15", "ApiVersion": "1.40", "Os": "linux"}"#).await;
        let (candidates, found) = Connection::find(options(&address), &Surroundings::default()).await;
        let error = found.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("docker 19.03.15 speaks API 1.40"), "{error}");
        assert!(error.hint_text().unwrap().contains("Docker 20.10"));
        assert!(candidates[0].to_string().contains("1.41 is the oldest"), "{}", candidates[0]);

        let address = versioned(r#"{"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux"}"#).await;
        let found = Connection::find(options(&address), &Surroundings::default()).await.1.ok().unwrap();
        assert_eq!(found.engine, Engine::Docker);
    }

    #[tokio::test]
    async fn a_container_between_two_states_is_looked_at_again() {
        let address = versioned(r#"{"Version": "4.3.1", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}"#).await;
        let connection = Connection::find(options(&address), &Surroundings::default()).await.1.ok().unwrap();
        assert_eq!(connection.engine, Engine::Podman);
        let between = || serde_json::from_str::<bollard::models::ContainerStateStatusEnum>("\"stopped\"").unwrap_err();
        let mut looks = 0;
        let answer = connection.settled("looking", || {
            looks += 1;
            let answer = if looks < 3 { Err(between().into()) } else { Ok(looks) };
            async move { answer }
        });
        assert_eq!(answer.await.unwrap(), 3);
        // Not for ever.
        let error = connection.settled::<(), _>("looking", || async { Err(between().into()) }).await.unwrap_err();
        assert!(error.to_string().contains("`stopped`"), "{error}");
    }

    /// Regression: on a busy machine a workspace wasn't paused.
    #[tokio::test]
    async fn what_was_not_frozen_at_once_is_tried_again() {
        let address = versioned(r#"{"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux"}"#).await;
        let connection = Connection::find(options(&address), &Surroundings::default()).await.1.ok().unwrap();
        let failed = |message: &str| bollard::errors::Error::DockerResponseServerError {
            status_code: 500,
            message: message.to_owned(),
        };
        let busy = "Cannot pause container 0f: OCI runtime pause failed: unable to freeze: unknown";
        let mut tries = 0;
        let answer = connection.frozen("pausing", || {
            tries += 1;
            let answer = if tries < 3 { Err(failed(busy)) } else { Ok(tries) };
            async move { answer }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let mut tries = 0;
        let error = connection.frozen::<(), _>("pausing", || {
            tries += 1;
            async { Err(failed("Cannot pause container 0f: cgroups: cgroup deleted: unknown")) }
        });
        assert_eq!(error.await.unwrap_err().kind(), ErrorKind::Engine);
        assert_eq!(tries, 1, "nothing else is");
    }

    #[tokio::test]
    async fn a_malformed_address_is_invalid_and_nothing_else_is_tried() {
        let (candidates, found) = Connection::find(options("ssh://me@host"), &Surroundings::default()).await;
        assert_eq!((candidates.len(), found.err().unwrap().kind()), (1, ErrorKind::Invalid));
    }
}
