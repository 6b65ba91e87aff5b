//! A real engine for one test, and the sweeping of what the test makes in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use corehold_host::runtime::{
    ContainerId, Runtime as _,
    docker::{Docker, DockerOptions},
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{conformance::Subject, stand_in};

/// Carried, with the value `true`, by everything that a test makes in an engine.
pub const TEST_LABEL: &str = "dev.corehold.test";
/// An address outside (TEST-NET-3), for which [`Engine::answer_for_outside`] answers.
pub const OUTSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 443);
/// One of a private network, likewise.
pub const OUTSIDE_PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 210, 9, 9));
/// One of those at which clouds answer a machine, likewise.
pub const OUTSIDE_LINK_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 7, 7));
/// Where most clouds answer a machine about itself, likewise.
pub const OUTSIDE_CLOUD: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// Addresses at which clouds answer a machine about itself that aren't link-local: Alibaba's, Azure's, Oracle's.
pub const OUTSIDE_METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];
/// One outside by IPv6, of those for documentation (RFC 3849).
pub const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
/// Where AWS answers a machine about itself by IPv6.
pub const OUTSIDE_METADATA6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
/// Says which test of which process made it: `<process id>-<number>`.
pub const RUN_LABEL: &str = "dev.corehold.test-run";

/// An engine with an image of the stand-in program, for one test. What carries its labels goes when this does.
pub struct Engine {
    /// The engine. Core containers go into a network of this test's own.
    pub docker: Docker,
    /// Reference of the image whose only content is the stand-in program.
    pub image: String,
    address: String,
    run: String,
    open: Open,
}

/// What an engine's networks are like as long as no firewall is set, as most tests have it.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Containers in one reach each other (Podman).
    meet: bool,
}

impl Open {
    async fn of(docker: &Docker) -> Self {
        Self { meet: docker.describe().await.expect("the engine describes itself").name == "podman" }
    }
}

impl Engine {
    /// Connects, sweeps what killed runs left behind, and makes the image.
    ///
    /// # Panics
    /// Without an engine: the message says how to leave these tests out.
    pub async fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let run = format!("{}-{number}", std::process::id());
        let docker = connect(&run).await.unwrap_or_else(|error| {
            panic!(
                "these tests need a container engine: {error}\n\
                 To leave them out: cargo test --workspace --exclude corehold-e2e"
            )
        });
        if number == 0 {
            sweep_dead_runs(&docker).await;
        }
        let image = import_stand_in(&docker, &run).await;
        let address = docker.describe().await.expect("the engine describes itself").address;
        let open = Open::of(&docker).await;
        Self { docker, image, address, run, open }
    }

    /// The labels of everything that this test makes.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels(&self.run)
    }

    /// A name that no other test has.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("corehold-test-{}-{what}", self.run)
    }

    /// A name for a core image of this test's own.
    #[must_use]
    pub fn core_image(&self) -> String {
        core_reference(&self.run)
    }

    /// One more connection to the same engine, as another process would have.
    ///
    /// # Panics
    /// When the engine doesn't answer any more.
    pub async fn reconnect(&self) -> Docker {
        connect(&self.run).await.expect("the engine still answers")
    }

    /// How this test's connections are made.
    #[must_use]
    pub fn options(&self) -> DockerOptions {
        options(&self.run, self.open)
    }

    /// The engine's socket.
    ///
    /// # Panics
    /// When the engine isn't reached over one.
    pub fn socket(&self) -> PathBuf {
        self.address.strip_prefix("unix://").expect("these tests put a proxy before the engine's unix socket").into()
    }

    /// One more connection, for which nothing is weaker than by default.
    ///
    /// # Panics
    /// When the engine doesn't answer any more.
    pub async fn strict(&self) -> Docker {
        let mut options = self.options();
        options.containers_may_meet = false;
        options.host_may_be_reached = false;
        Docker::connect_with(options).await.expect("the engine still answers")
    }

    /// A helper image of this test's own: the core image, after root ran this in it.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn helper_image(&self, name: &str, script: &str) -> String {
        let (id, code) = self.run_script(script, serde_json::json!({ "NetworkMode": "none" })).await;
        assert_eq!(code, 0, "{script}");
        // The container's labels become the image's.
        let commit = format!("/commit?container={id}&repo={HELPER_REPOSITORY}&tag={}-{name}", self.run);
        assert_eq!(self.request("POST", &commit, "{}").await.0, 201);
        format!("{HELPER_REPOSITORY}:{}-{name}", self.run)
    }

    /// Runs a script to its end, as root in a container of the core image. Returns the container, which stays, and its exit code.
    ///
    /// # Panics
    /// When it can't be run.
    pub async fn run_script(&self, script: &str, host_config: serde_json::Value) -> (String, i64) {
        let id = self.start_script(script, host_config).await;
        let ended = self.request("POST", &format!("/containers/{id}/wait"), "").await.1;
        let ended: serde_json::Value = serde_json::from_str(ended.trim()).expect("JSON");
        (id, ended["StatusCode"].as_i64().expect("it ended"))
    }

    /// Starts one that goes on. Returns the container.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start_script(&self, script: &str, host_config: serde_json::Value) -> String {
        let image = corehold_host::config::DEFAULT_IMAGE;
        let body = serde_json::json!({
            "Image": image, "User": "0", "Entrypoint": ["sh", "-c", script], "Labels": self.labels(), "Tty": true,
            "HostConfig": host_config,
        });
        let (status, created) = self.request("POST", "/containers/create", &body.to_string()).await;
        assert_eq!(status, 201, "`cargo xtask test --level engine` makes the image {image}: {created}");
        let created: serde_json::Value = serde_json::from_str(&created).expect("JSON");
        let id = created["Id"].as_str().expect("it has an id");
        assert_eq!(self.request("POST", &format!("/containers/{id}/start"), "").await.0, 204);
        id.to_owned()
    }

    /// What the conformance suite tests.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            runtime: Arc::new(self.docker.clone()),
            strict: Arc::new(self.docker.clone()),
            image: self.image.clone(),
            prefix: self.name(""),
            labels: self.labels(),
            outside: OUTSIDE,
        }
    }

    /// Answers for [`OUTSIDE`] in this machine's place, so that no packet leaves it: whoever gets so far is refused, behind all rules of
    /// ours. It ends with what the test made in the engine.
    ///
    /// # Panics
    /// When it can't be set up.
    pub async fn answer_for_outside(&self) {
        let table = format!("test{}", self.name("").replace('-', ""));
        let mut four = vec![OUTSIDE.ip(), OUTSIDE_PRIVATE, OUTSIDE_LINK_LOCAL, OUTSIDE_CLOUD];
        four.extend(OUTSIDE_METADATA);
        let listed = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        // The kernel removes the table with the process that made it.
        let script = format!(
            "{{ echo 'add table inet {table} {{ flags owner; }}'
            echo 'add chain inet {table} forward {{ type filter hook forward priority -50; }}'
            echo 'add rule inet {table} forward ip daddr {{ {} }} meta l4proto tcp reject with tcp reset'
            echo 'add rule inet {table} forward ip6 daddr {{ {} }} meta l4proto tcp reject with tcp reset'
            echo 'list table inet {table}'; exec sleep 600; }} | nft -i",
            listed(&four),
            listed(&[OUTSIDE6, OUTSIDE_METADATA6])
        );
        let allowed = serde_json::json!({ "NetworkMode": "host", "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"] });
        let id = ContainerId(self.start_script(&script, allowed).await);
        let mut said = self.docker.logs(&id, true);
        let mut text = Vec::new();
        while let Some(more) = said.next().await {
            text.extend_from_slice(&more.expect("it is heard"));
            if String::from_utf8_lossy(&text).contains("tcp reset") {
                return;
            }
        }
        panic!("nft ended: {}", String::from_utf8_lossy(&text));
    }

    /// Asks the engine over its bare API, as the `docker` command might. Returns the answer's status and body.
    ///
    /// # Panics
    /// When the engine doesn't answer.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).await.expect("the engine listens");
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.expect("the engine reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the engine answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
        (status, body.to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let run = self.run.clone();
        // A runtime of its own: the test's may be blocked right here, or gone.
        let sweeping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                if let Ok(docker) = connect(&run).await {
                    sweep(&docker, &run).await;
                }
            });
        });
        if sweeping.join().is_err() {
            eprintln!("sweeping the test run {} failed", self.run);
        }
    }
}

fn labels(run: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(TEST_LABEL.to_owned(), "true".to_owned()), (RUN_LABEL.to_owned(), run.to_owned())])
}

fn options(run: &str, open: Open) -> DockerOptions {
    let mut options = DockerOptions::default();
    options.network = format!("corehold-test-{run}");
    // Closing and looking at a network takes a second and the core image: the tests of networks do it (tests/e2e/networks.rs).
    options.host_may_be_reached = true;
    options.containers_may_meet = open.meet;
    options
}

async fn connect(run: &str) -> corehold_host::Result<Docker> {
    let docker = Docker::connect_with(options(run, Open { meet: false })).await?;
    Docker::connect_with(options(run, Open::of(&docker).await)).await
}

fn stand_in_reference(run: &str) -> String {
    format!("corehold-test/stand-in:{run}")
}

const CORE_REPOSITORY: &str = "corehold-test/core";

fn core_reference(run: &str) -> String {
    format!("{CORE_REPOSITORY}-{run}:latest")
}

/// Repository of the helper images that tests make.
const HELPER_REPOSITORY: &str = "corehold-test/helper";

async fn import_stand_in(docker: &Docker, run: &str) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    let binary = std::fs::read(stand_in::binary()).expect("the stand-in program was compiled");
    // Where an agent lies, too: the runtime starts it there.
    for path in ["stand-in", "tools/corehold-agent"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(binary.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, &binary[..]).expect("memory is written");
    }
    // A layer of this run's own: Podman 4.3 forgets one that is imported while another image with it is removed ("layer not known").
    let mut header = tar::Header::new_gnu();
    header.set_size(run.len() as u64);
    header.set_mode(0o444);
    archive.append_data(&mut header, "test-run", run.as_bytes()).expect("memory is written");
    for folder in ["tmp/", "data/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_data(&mut header, folder, std::io::empty()).expect("memory is written");
    }
    let root = Bytes::from(archive.into_inner().expect("memory is written"));
    let changes = vec![
        "ENTRYPOINT [\"/stand-in\"]".to_owned(),
        "USER 1000:1000".to_owned(),
        format!("LABEL {TEST_LABEL}=true {RUN_LABEL}={run}"),
    ];
    docker
        .import_image("corehold-test/stand-in", run, changes, stream::iter([Ok(root)]).boxed())
        .await
        .expect("the engine takes an image");
    stand_in_reference(run)
}

/// Sweeps the runs of processes that are gone. Each run's image says that there was one.
async fn sweep_dead_runs(docker: &Docker) {
    for image in docker.images_labelled(TEST_LABEL, "true").await.expect("the engine lists images") {
        let Ok(Some(image)) = docker.image(&image).await else { continue };
        let Some(run) = image.labels.get(RUN_LABEL) else { continue };
        let process = run.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            eprintln!("sweeping what the killed test run {run} left behind");
            if let Ok(docker) = connect(run).await {
                sweep(&docker, run).await;
            }
        }
    }
}

/// Removes what carries a run's labels, its image last, so that an interrupted sweep is found again.
async fn sweep(docker: &Docker, run: &str) {
    let containers = match docker.list(&labels(run)).await {
        Ok(containers) => containers,
        Err(error) => return eprintln!("sweeping the test run {run}: {error}"),
    };
    for container in containers {
        if let Err(error) = docker.remove(&container.id).await {
            eprintln!("sweeping the test run {run}: {error}");
        }
    }
    if let Err(error) = docker.remove_unused().await {
        eprintln!("sweeping the test run {run}: {error}");
    }
    // What was built: all names of its repository.
    let built = docker.image(&core_reference(run)).await.ok().flatten().map(|image| image.tags).unwrap_or_default();
    let built = built.into_iter().filter(|tag| tag.starts_with(&format!("{CORE_REPOSITORY}-{run}:")));
    let made = docker.images_labelled(RUN_LABEL, run).await.unwrap_or_default();
    for image in built.chain([stand_in_reference(run)]).chain(made) {
        if let Err(error) = docker.remove_image(&image).await {
            eprintln!("sweeping the test run {run}: {error}");
        }
    }
}
