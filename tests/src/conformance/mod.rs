//! What every runtime must do, as functions over `&dyn Runtime`: the seam's contract, tried.
//!
//! A runtime's own tests hand in a fixture that makes a [`Subject`] to [`conformance_suite!`](crate::conformance_suite), which makes a
//! test of each function. The image must hold the
//! stand-in program (`fixtures/stand_in.rs`) and nothing that gets in its way.

mod connections;
mod isolation;
mod matrix;
mod names;
mod ports;
mod while_it_runs;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use corehold_host::{
    Error, ErrorKind,
    runtime::{
        BoxStream, CaBundle, ContainerEvent, ContainerId, ContainerSpec, ContainerState, ContainerStatus, Endpoint,
        Resources, Runtime, Stats,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub use self::{
    connections::connections_are_opened_by_the_runtime,
    isolation::{
        containers_are_kept_apart, hardening_seen_from_inside, ipv6_addresses, nothing_leaves_where_nothing_may,
        the_machine_is_closed,
    },
    matrix::Feature,
    names::{a_name_is_changed, a_name_is_given_once, has_an_identity},
    ports::published_ports_come_from_a_range,
    while_it_runs::{limits_are_changed, pausing_and_resuming},
};

/// How long anything may take before the suite calls it hung. Never waited for when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

const AGENT_PORT: u16 = 3001;
const PUBLISHED_PORT: u16 = 4321;

/// A runtime under test.
#[derive(Clone)]
pub struct Subject {
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The same with nothing weaker than by default.
    pub strict: Arc<dyn Runtime>,
    /// Reference of an image with the stand-in program.
    pub image: String,
    /// Begins the names of all containers.
    pub prefix: String,
    /// Labels of all containers.
    pub labels: BTreeMap<String, String>,
    /// An address outside of the runtime's machine, at which somebody answers or refuses while [`nothing_leaves_where_nothing_may`] runs.
    pub outside: SocketAddr,
}

impl Subject {
    /// What the suite's containers are, but for what a test is about.
    #[must_use]
    pub fn spec(&self, name: &str) -> ContainerSpec {
        ContainerSpec {
            name: format!("{}{name}", self.prefix),
            image: self.image.clone(),
            labels: self.labels.clone(),
            agent_port: AGENT_PORT,
            ..ContainerSpec::default()
        }
    }

    /// Creates it, starts it and waits until it answers.
    ///
    /// # Panics
    /// When one of them fails.
    pub async fn started(&self, spec: &ContainerSpec) -> ContainerId {
        let id = self.runtime.create(spec).await.expect("it is created");
        self.runtime.start(&id).await.expect("it starts");
        let greeting = self.ask(&id, "hello").await;
        assert_eq!(greeting, b"hello");
        id
    }

    async fn ask(&self, id: &ContainerId, question: &str) -> Vec<u8> {
        let endpoint = self.runtime.endpoint(id, AGENT_PORT).await.expect("the agent's port is reachable");
        ask(address(&endpoint), question).await
    }

    /// Asks the stand-in program for an answer in text.
    ///
    /// # Panics
    /// When it can't be reached.
    pub async fn ask_text(&self, id: &ContainerId, question: &str) -> String {
        String::from_utf8(self.ask(id, question).await).expect("an answer in text")
    }

    /// Memory in bytes, CPU time in microseconds of a period, and processes, as the control groups inside say.
    async fn limits_inside(&self, id: &ContainerId) -> Vec<String> {
        let mut limits = Vec::new();
        for (first, second) in [
            ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
            ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
            ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
        ] {
            let mut value = self.ask_text(id, &format!("read {first}")).await;
            if value.starts_with("error") {
                value = self.ask_text(id, &format!("read {second}")).await;
            }
            limits.push(value.split_whitespace().next().unwrap_or_default().to_owned());
        }
        limits
    }

    /// Holds what was seen of an optional feature against the README.
    async fn saw(&self, feature: Feature, works: bool) {
        let info = self.runtime.describe().await.expect("it describes itself");
        if let Err(contradiction) = matrix::hold(&info.name, &info.version, feature, works) {
            panic!("{contradiction}");
        }
    }

    async fn status(&self, id: &ContainerId) -> ContainerStatus {
        self.runtime.inspect(id).await.expect("it is there").status
    }

    async fn next_event(&self, events: &mut BoxStream<ContainerEvent>) -> ContainerEvent {
        patiently("an event", events.next()).await.expect("events have no end").expect("events have no error")
    }

    async fn wait_for_event(&self, events: &mut BoxStream<ContainerEvent>, action: &str) {
        while self.next_event(events).await.action != action {}
    }
}

async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) => *address,
        other => panic!("the suite can't connect to {other:?} yet"),
    }
}

/// Asks the stand-in program for one answer. It listens soon after it was started; until then connections are refused, or accepted and
/// closed by a proxy in between.
async fn ask(address: SocketAddr, question: &str) -> Vec<u8> {
    patiently(&format!("the answer to {question:?} at {address}"), async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let mut answer = Vec::new();
                let asked = stream.write_all(format!("{question}\n").as_bytes()).await;
                if asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && !answer.is_empty() {
                    return answer;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("it must fail").kind()
}

fn unknown() -> ContainerId {
    ContainerId("0".repeat(64))
}

/// A tar with one file, as a stream of small chunks.
fn tar_of(name: &str, content: &[u8]) -> BoxStream<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).expect("memory is written");
    let bytes = archive.into_inner().expect("memory is written");
    let chunks: Vec<_> = bytes.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

/// It says who it is.
pub async fn describes_itself(subject: &Subject) {
    let info = subject.runtime.describe().await.expect("it describes itself");
    assert!(!info.name.is_empty() && !info.version.is_empty() && !info.address.is_empty(), "{info:?}");
}

/// A container is found by its labels from the moment it is created, and goes through its life as documented; what is
/// so already is no error.
pub async fn a_life_from_creation_to_removal(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.spec("life");
    let id = runtime.create(&spec).await.unwrap();
    let listed = runtime.list(&subject.labels).await.unwrap();
    assert_eq!(listed.len(), 1);
    let state = &listed[0];
    assert_eq!((&state.id, &state.name, state.status), (&id, &spec.name, ContainerStatus::Created));
    assert_eq!(state.exit_code, None);
    assert!(spec.labels.iter().all(|(name, value)| state.labels.get(name) == Some(value)));
    assert_eq!(
        state.clone().as_listed(),
        runtime.inspect(&id).await.unwrap().as_listed(),
        "listing and inspection agree"
    );
    runtime.stop(&id, Duration::from_secs(1)).await.expect("stopping what doesn't run is no error");
    assert_eq!(kind(runtime.endpoint(&id, AGENT_PORT).await), ErrorKind::NotFound);

    runtime.start(&id).await.unwrap();
    runtime.start(&id).await.expect("starting what runs is no error");
    assert_eq!(subject.ask(&id, "hello").await, b"hello");
    assert_eq!(subject.status(&id).await, ContainerStatus::Running);
    assert!(!runtime.inspect(&id).await.unwrap().restarted);
    let listed = runtime.list(&subject.labels).await.unwrap().into_iter().map(ContainerState::as_listed);
    assert_eq!(listed.collect::<Vec<_>>(), [runtime.inspect(&id).await.unwrap().as_listed()]);

    runtime.stop(&id, Duration::from_secs(30)).await.unwrap();
    let state = runtime.inspect(&id).await.unwrap();
    assert_eq!((state.status, state.exit_code, state.oom_killed), (ContainerStatus::Exited, Some(0), false));
    assert_eq!(runtime.list(&subject.labels).await.unwrap(), [state]);
    assert_eq!(kind(runtime.endpoint(&id, AGENT_PORT).await), ErrorKind::NotFound);

    runtime.start(&id).await.unwrap();
    assert_eq!(subject.ask(&id, "hello").await, b"hello");
    assert!(runtime.inspect(&id).await.unwrap().restarted, "an inspection tells");
    runtime.remove(&id).await.expect("what runs is removed too");
    runtime.remove(&id).await.expect("removing what isn't there is no error");
    assert_eq!(kind(runtime.inspect(&id).await), ErrorKind::NotFound);
    assert!(runtime.list(&subject.labels).await.unwrap().is_empty());
}

/// Two that remove the same container both succeed, and it is gone when either returns.
pub async fn removal_at_the_same_time(subject: &Subject) {
    let id = subject.started(&subject.spec("removal")).await;
    let removal = || async {
        subject.runtime.remove(&id).await.expect("removing what is being removed is no error");
        assert_eq!(kind(subject.runtime.inspect(&id).await), ErrorKind::NotFound);
    };
    tokio::join!(removal(), removal(), removal());
}

/// What isn't there is `NotFound`, and removing it is no error.
pub async fn what_is_not_there(subject: &Subject) {
    let (runtime, id) = (&subject.runtime, unknown());
    assert_eq!(kind(runtime.inspect(&id).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.start(&id).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.stop(&id, Duration::ZERO).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.endpoint(&id, AGENT_PORT).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.stats(&id).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.pause(&id).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.resume(&id).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.update_limits(&id, &Resources::default()).await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.rename(&id, "corehold-test-nothing").await), ErrorKind::NotFound);
    assert_eq!(kind(runtime.put_archive(&id, "/", tar_of("x", b"x")).await), ErrorKind::NotFound);
    let first = patiently("the log's error", runtime.logs(&id, true).next()).await.expect("an error, not nothing");
    assert_eq!(kind(first), ErrorKind::NotFound);
    runtime.remove(&id).await.expect("removing what isn't there is no error");
}

/// A specification that can't be met is refused with its reason, and leaves nothing behind.
pub async fn what_cannot_be_created(subject: &Subject) {
    let good = subject.spec("refused");
    let cases = [
        (ContainerSpec { image: "corehold-test/no-such-image:1".to_owned(), ..good.clone() }, ErrorKind::NotFound),
        (ContainerSpec { image: "../containers/json".to_owned(), ..good.clone() }, ErrorKind::Invalid),
        (ContainerSpec { name: "a/../b?x=".to_owned(), ..good.clone() }, ErrorKind::Invalid),
        (ContainerSpec { resources: Resources::default().memory_bytes(1), ..good.clone() }, ErrorKind::Invalid),
        (ContainerSpec { resources: Resources::default().cpu_millis(1_000_000), ..good.clone() }, ErrorKind::Invalid),
        (
            ContainerSpec { env: BTreeMap::from([("A=B".to_owned(), String::new())]), ..good.clone() },
            ErrorKind::Invalid,
        ),
        (
            ContainerSpec {
                ca_bundle: Some(CaBundle {
                    pem: Bytes::from_static(b"pem"),
                    path: "relative.pem".to_owned(),
                    java: None,
                }),
                ..good
            },
            ErrorKind::Invalid,
        ),
    ];
    for (spec, expected) in cases {
        let error = subject.runtime.create(&spec).await.expect_err("it must be refused");
        assert_eq!(error.kind(), expected, "{error}");
    }
    assert!(subject.runtime.list(&subject.labels).await.unwrap().is_empty());
}

/// A listing has what carries all of the labels, and nothing else.
pub async fn a_listing_by_labels(subject: &Subject) {
    let with = |name: &str, value: &str| {
        let mut spec = subject.spec(name);
        spec.labels.insert("dev.corehold.test-colour".to_owned(), value.to_owned());
        spec
    };
    let red = subject.runtime.create(&with("red", "red")).await.unwrap();
    let blue = subject.runtime.create(&with("blue", "blue = \"dark\", 100%")).await.unwrap();
    let listed = |colour: Option<&'static str>| async move {
        let mut labels = subject.labels.clone();
        labels.extend(colour.map(|colour| ("dev.corehold.test-colour".to_owned(), colour.to_owned())));
        subject.runtime.list(&labels).await.unwrap().into_iter().map(|state| state.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(Some("red")).await, [red]);
    assert_eq!(listed(Some("blue = \"dark\", 100%")).await, [blue]);
    assert_eq!(listed(None).await.len(), 2);
    assert!(listed(Some("green")).await.is_empty());
}

/// The agent's port and published ones are reached, on this host only; two containers don't collide.
pub async fn ports_are_reached(subject: &Subject) {
    let spec = |name| ContainerSpec { publish: vec![PUBLISHED_PORT], ..subject.spec(name) };
    let (one, two) = (subject.started(&spec("ports-1")).await, subject.started(&spec("ports-2")).await);
    let mut addresses = Vec::new();
    for id in [&one, &two] {
        for port in [AGENT_PORT, PUBLISHED_PORT] {
            let endpoint = subject.runtime.endpoint(id, port).await.unwrap();
            assert_eq!(ask(address(&endpoint), "hello").await, b"hello");
            addresses.push(address(&endpoint));
        }
        let published = subject.runtime.endpoint(id, PUBLISHED_PORT).await.unwrap();
        assert!(address(&published).ip().is_loopback(), "published on {published:?}");
        let told = subject.runtime.inspect(id).await.unwrap().published;
        // The agent's own port is among them only where the host can't reach the container's address.
        let mut expected = BTreeMap::from([(PUBLISHED_PORT, address(&published))]);
        let agent = address(&subject.runtime.endpoint(id, AGENT_PORT).await.unwrap());
        if agent.ip().is_loopback() {
            expected.insert(AGENT_PORT, agent);
        }
        assert_eq!(told, expected, "and nothing else is");
        let listed = subject.runtime.list(&subject.labels).await.unwrap();
        assert_eq!(listed.into_iter().find(|state| state.id == *id).unwrap().published, told);
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 4, "each port has an address of its own");
}

/// Limits are in force inside, and the end by the memory limit is told as such.
pub async fn limits_are_in_force(subject: &Subject) {
    let resources = Resources::default().memory_bytes(64 << 20).cpu_millis(500).pids(77);
    let id = subject.started(&ContainerSpec { resources, ..subject.spec("limits") }).await;
    assert_eq!(subject.limits_inside(&id).await, ["67108864", "5000", "77"]);
    let mut events = subject.runtime.events(&subject.labels);
    let endpoint = subject.runtime.endpoint(&id, AGENT_PORT).await.unwrap();
    let mut stream = TcpStream::connect(address(&endpoint)).await.unwrap();
    stream.write_all(b"hog\n").await.unwrap();
    subject.wait_for_event(&mut events, "die").await;
    let state = subject.runtime.inspect(&id).await.unwrap();
    assert_eq!((state.status, state.exit_code), (ContainerStatus::Exited, Some(137)));
    subject.saw(Feature::OutOfMemory, state.oom_killed).await;
}

/// Variables arrive with the bytes they were given.
pub async fn environment_arrives(subject: &Subject) {
    let values = [("PLAIN", "a=b c"), ("QUOTED", "\"'$HOME`\\"), ("EMPTY", ""), ("UNICODE", "ä→"), ("LINES", "a\nb")];
    let env = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let id = subject.started(&ContainerSpec { env, ..subject.spec("environment") }).await;
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        assert_eq!(subject.ask_text(&id, &format!("env {name}")).await, value);
    }
}

/// An archive arrives before the start and after it; one whose source breaks off, or whose folder isn't there, is an
/// error that says so.
pub async fn an_archive_is_laid_in(subject: &Subject) {
    let runtime = &subject.runtime;
    let id = runtime.create(&subject.spec("archive")).await.unwrap();
    match runtime.put_archive(&id, "/data", tar_of("before", b"early")).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return subject.saw(Feature::Archives, false).await,
        result => result.unwrap(),
    }
    subject.saw(Feature::Archives, true).await;
    runtime.start(&id).await.unwrap();
    runtime.put_archive(&id, "/data", tar_of("after", b"late")).await.unwrap();
    assert_eq!(subject.ask(&id, "read /data/before").await, b"early");
    assert_eq!(subject.ask(&id, "read /data/after").await, b"late");

    let large = vec![7; 24 << 20];
    runtime.put_archive(&id, "/data", tar_of("large", &large)).await.unwrap();
    assert_eq!(subject.ask_text(&id, "size /data/large").await, large.len().to_string());

    assert_eq!(kind(runtime.put_archive(&id, "/no/such/folder", tar_of("x", b"x")).await), ErrorKind::NotFound);
    let broken = tar_of("half", &large[..100_000])
        .take(50)
        .chain(stream::iter([Err(Error::new(ErrorKind::Io, "the disk of the source is gone"))]))
        .boxed();
    let error = runtime.put_archive(&id, "/data", broken).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, "the disk of the source is gone"));
}

/// Both outputs of the first process are in its log, from the beginning; following ends with it.
pub async fn logs_are_read_and_followed(subject: &Subject) {
    let id = subject.started(&subject.spec("logs")).await;
    let text = |bytes: Vec<Bytes>| {
        let mut lines: Vec<_> =
            String::from_utf8(bytes.concat()).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        lines.sort_unstable();
        lines
    };
    let following = tokio::spawn(subject.runtime.logs(&id, true).try_collect::<Vec<_>>());
    let so_far = patiently("the log", subject.runtime.logs(&id, false).try_collect::<Vec<_>>()).await.unwrap();
    assert_eq!(text(so_far), ["ready", "warned"]);
    subject.runtime.stop(&id, Duration::from_secs(30)).await.unwrap();
    let followed = patiently("the followed log's end", following).await.unwrap().unwrap();
    assert_eq!(text(followed), ["ready", "warned"]);
}

/// Events of labelled containers arrive, from the call on, and no others.
pub async fn events_arrive(subject: &Subject) {
    let mut other = subject.spec("events-other");
    let mut wanted = subject.spec("events");
    other.labels.insert("dev.corehold.test-wanted".to_owned(), "no".to_owned());
    wanted.labels.insert("dev.corehold.test-wanted".to_owned(), "yes".to_owned());
    let mut filter = subject.labels.clone();
    filter.insert("dev.corehold.test-wanted".to_owned(), "yes".to_owned());

    let mut events = subject.runtime.events(&filter);
    let other = subject.runtime.create(&other).await.unwrap();
    let id = subject.runtime.create(&wanted).await.unwrap();
    subject.runtime.start(&other).await.unwrap();
    subject.runtime.start(&id).await.unwrap();
    subject.runtime.remove(&other).await.unwrap();
    subject.runtime.remove(&id).await.unwrap();
    let mut actions = Vec::new();
    loop {
        let event = subject.next_event(&mut events).await;
        assert_eq!((&event.id, event.name.as_str()), (&id, wanted.name.as_str()), "{event:?}");
        assert_eq!(event.exit_code.is_some(), event.action == "die", "{event:?}");
        actions.push(event.action);
        if actions.last().is_some_and(|action| action == "destroy") {
            break;
        }
    }
    let known: Vec<_> =
        actions.iter().filter(|action| ["create", "start", "die", "destroy"].contains(&action.as_str())).collect();
    assert_eq!(known, ["create", "start", "die", "destroy"], "{actions:?}");
}

/// What a container uses is measured, also while it is paused; what doesn't run has no use.
pub async fn use_is_measured(subject: &Subject) {
    let runtime = &subject.runtime;
    let limit = 256 << 20;
    let resources = Resources::default().memory_bytes(limit);
    let id = subject.started(&ContainerSpec { resources, ..subject.spec("stats") }).await;
    let first = runtime.stats(&id).await.unwrap();
    assert!(first.memory_bytes > 0 && first.cpu_ns > 0 && first.pids >= 1, "{first:?}");
    assert_eq!(first.memory_limit_bytes, Some(limit));
    for _ in 0..200 {
        subject.ask(&id, "hello").await;
    }
    let second = runtime.stats(&id).await.unwrap();
    assert!(second.cpu_ns > first.cpu_ns && second.at > first.at, "{first:?} {second:?}");
    let more = |of: fn(&Stats) -> u64| of(&second) > of(&first);
    assert!(more(|stats| stats.network_received_bytes) && more(|stats| stats.network_sent_bytes), "{second:?}");

    match runtime.pause(&id).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        result => {
            result.unwrap();
            let paused = patiently("the measure of a paused container", runtime.stats(&id)).await.unwrap();
            assert!(paused.memory_bytes > 0 && paused.cpu_ns >= second.cpu_ns, "{paused:?}");
            runtime.resume(&id).await.unwrap();
        }
    }
    runtime.stop(&id, Duration::ZERO).await.unwrap();
    assert_eq!(kind(runtime.stats(&id).await), ErrorKind::NotFound, "what doesn't run uses nothing");
    runtime.start(&id).await.unwrap();
    let restarted = runtime.stats(&id).await.unwrap();
    assert!(restarted.network_received_bytes < second.network_received_bytes, "counted from the start: {restarted:?}");
}

/// A CA bundle lies inside where it was wanted, can't be changed from inside, and two creations at once don't spoil it.
pub async fn a_ca_bundle_is_handed_in(subject: &Subject) {
    // Of its own content, so that it is not there from before.
    let pem = Bytes::from(format!("{}\n{}", subject.prefix, "0123456789abcdef\n".repeat(16 * 1024)));
    let java = Bytes::from_static(b"as Java reads it");
    let bundle = CaBundle { pem: pem.clone(), path: "/data/ca/bundle.pem".to_owned(), java: Some(java.clone()) };
    let started = |name: &'static str| {
        let spec = ContainerSpec { ca_bundle: Some(bundle.clone()), ..subject.spec(name) };
        async move { subject.started(&spec).await }
    };
    let (one, two, three) = tokio::join!(started("ca-1"), started("ca-2"), started("ca-3"));
    let four = started("ca-4").await;
    for id in [&one, &two, &three, &four] {
        assert!(subject.ask(id, "read /data/ca/bundle.pem").await == pem, "the bundle is complete in {id:?}");
        assert!(subject.ask(id, &format!("read {}", bundle.java_path())).await == java, "{id:?} has it for Java too");
        let refused = subject.ask_text(id, "write /data/ca/bundle.pem").await;
        assert!(refused.starts_with("error"), "{refused}");
    }
    assert_eq!(subject.runtime.list(&subject.labels).await.unwrap().len(), 4, "and nothing else is left");
}

/// Many creations at once all succeed, also when nothing is there yet that they share.
pub async fn many_at_once(subject: &Subject) {
    let names: Vec<_> = (0..10).map(|number| format!("many-{number}")).collect();
    let created = stream::iter(&names)
        .map(|name| async { subject.runtime.create(&subject.spec(name)).await })
        .buffer_unordered(10)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    assert_eq!(subject.runtime.list(&subject.labels).await.unwrap().len(), created.len());
}

/// A creation that is cancelled, at whatever moment, leaves nothing: its name is free again.
pub async fn a_cancelled_creation_leaves_nothing(subject: &Subject) {
    for micros in [0, 500, 1000, 2000, 4000, 8000, 16_000] {
        let spec = subject.spec(&format!("cancelled-{micros}"));
        let creation = tokio::time::timeout(Duration::from_micros(micros), subject.runtime.create(&spec)).await;
        if let Ok(created) = creation {
            subject.runtime.remove(&created.unwrap()).await.unwrap();
        }
        // While the engine is still at it, the name is taken, and the listing lacks it.
        patiently("freeing the name", async {
            loop {
                match subject.runtime.create(&spec).await {
                    Ok(id) => return subject.runtime.remove(&id).await.unwrap(),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => panic!("after {micros} µs: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert!(subject.runtime.list(&subject.labels).await.unwrap().is_empty());
}

/// Defines one test for each function of the suite, over a fixture that makes a [`Subject`].
#[macro_export]
macro_rules! conformance_suite {
    ($fixture:expr) => {
        $crate::conformance_suite! { @each $fixture;
            describes_itself
            a_life_from_creation_to_removal
            a_name_is_given_once
            a_name_is_changed
            pausing_and_resuming
            limits_are_changed
            has_an_identity
            removal_at_the_same_time
            what_is_not_there
            what_cannot_be_created
            a_listing_by_labels
            ports_are_reached
            published_ports_come_from_a_range
            connections_are_opened_by_the_runtime
            hardening_seen_from_inside
            limits_are_in_force
            environment_arrives
            an_archive_is_laid_in
            logs_are_read_and_followed
            events_arrive
            use_is_measured
            a_ca_bundle_is_handed_in
            containers_are_kept_apart
            the_machine_is_closed
            nothing_leaves_where_nothing_may
            many_at_once
            a_cancelled_creation_leaves_nothing
        }
    };
    (@each $fixture:expr; $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let fixture = $fixture.await;
                let strict = std::sync::Arc::new(fixture.strict().await);
                let subject = $crate::conformance::Subject { strict, ..fixture.subject() };
                if stringify!($test) == "nothing_leaves_where_nothing_may" {
                    fixture.answer_for_outside().await;
                }
                $crate::conformance::$test(&subject).await;
            }
        )*
    };
}
