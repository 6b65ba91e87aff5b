//! A new workspace of `vite-react` to a serving dev server, beside what people would do without Corehold:
//!
//! - a container of the same image, the files copied in, `npm ci`, the dev server;
//! - an image built for the template, with its build cached and not, and a container of it.
//!
//! Then memory and disk of several workspaces, each with its dev server, both ways.
//!
//! Usage: `setup [ROUNDS [WORKSPACES…]]` (default 5 rounds, 1 and 10 workspaces). Needs an engine at /var/run/docker.sock, the core
//! image, and a registry of npm packages.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use corehold_benches::{engine, figures::Samples};
use corehold_host::{
    Class, CreateWorkspace, Host, HostBuilder, PoolOptions, Template, Workspace,
    runtime::docker::{Docker, DockerAddress},
};
use serde_json::{Value, json};

const CA: &str = "/etc/ssl/certs/ca-certificates.crt";
const IMAGE: &str = "corehold-bench-vite-react";
const LABEL: &str = "dev.corehold.bench-setup";
/// Longer than an install takes; only a broken benchmark waits for it.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let counts = arguments.map(|count| Ok(count.parse()?)).collect::<Result<Vec<usize>>>()?;
    let counts = if counts.is_empty() { vec![1, 10] } else { counts };
    let home = tempfile::tempdir()?;
    let docker = Docker::connect(DockerAddress::Auto).await?;
    let builder = || {
        let builder = Host::builder().runtime(Arc::new(docker.clone())).home(home.path());
        if Path::new(CA).is_file() { builder.ca_bundle(CA) } else { builder }
    };
    let template = Template::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/vite-react"))?;
    let measured = async {
        latencies(&builder, &template, rounds).await?;
        for count in counts {
            footprints(&builder, &template, count).await?;
        }
        Ok(())
    };
    let measured = measured.await;
    clean_up(&builder().build().await?).await?;
    measured
}

async fn clean_up(host: &Host) -> Result<()> {
    for workspace in host.list().await? {
        host.workspace(workspace.id.as_str()).await?.remove().await?;
    }
    host.drain_pools().await?;
    let _ = engine::request("DELETE", &format!("/images/{IMAGE}?force=1"), &Value::Null);
    Ok(())
}

async fn latencies(builder: &impl Fn() -> HostBuilder, template: &Template, rounds: usize) -> Result<()> {
    let cold = builder().build().await?;
    let request = || CreateWorkspace::from_template(template);
    let began = Instant::now();
    let model = cold.create(request()).await?;
    println!("the first workspace, whose set-up is kept: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let by_hand = ByHand::new(template, &model.info().await?.container.context("it has a container")?)?;
    model.remove().await?;
    let pooled = builder().pool(Class::default(), PoolOptions::default().min(2).max(2)).build().await?;

    let mut ours = [Samples::default(), Samples::default()];
    let mut theirs = [Samples::default(), Samples::default(), Samples::default()];
    for _ in 0..rounds {
        for (host, samples) in [&cold, &pooled].into_iter().zip(&mut ours) {
            // What is started for the next round must not be in this one's way.
            pooled.pools_filled().await?;
            let began = Instant::now();
            let workspace = host.create(request()).await?;
            samples.add(began.elapsed());
            workspace.remove().await?;
        }
        pooled.pools_filled().await?;
        let ways: [fn(&ByHand) -> Result<engine::Container>; 3] =
            [ByHand::installed, ByHand::built_anew, ByHand::built_from_cache];
        for (way, samples) in ways.into_iter().zip(&mut theirs) {
            let began = Instant::now();
            let container = way(&by_hand)?;
            samples.add(began.elapsed());
            drop(container);
        }
    }
    ensure!(pooled.pools()[0].missed == 0, "some were made, not claimed");
    let [cold, pooled] = ours;
    let [installed, anew, cached] = theirs;
    println!("second workspace, container from a pool:   {pooled}");
    println!("second workspace, container made for it:   {cold}");
    for (what, samples) in [
        ("container, files, npm ci, dev server", &installed),
        ("image built without cache, container", &anew),
        ("image built from cache, container", &cached),
    ] {
        let [from_pool, made] = [&pooled, &cold].map(|ours| samples.ratio_to(ours));
        println!("{what:42} {samples}: {from_pool:.1} times ours from a pool, {made:.1} times ours made");
    }
    Ok(())
}

/// What people would do with the engine alone, spoken to over its API.
struct ByHand {
    specification: Value,
    files: Vec<u8>,
    context: Vec<u8>,
    /// What installs, without what warms the dev server's caches: nobody does that by hand.
    install: String,
    dev: String,
    port: u16,
}

impl ByHand {
    fn new(template: &Template, model: &str) -> Result<Self> {
        let mut specification = engine::specification_like(model)?;
        specification["Labels"] = json!({ LABEL: "true" });
        let image = specification["Image"].as_str().context("the model has an image")?.to_owned();
        let (setup, dev) = (template.setup.join(" && "), template.dev.clone().context("it has a dev server")?);
        let install = template.setup.first().context("it has a set-up")?.clone();
        let tar = |folder: &Path, more: &[&str]| -> Result<Vec<u8>> {
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(folder).args(["--owner=1000", "--group=1000", "--exclude=./node_modules", "-cf", "-"]);
            Ok(tar.args(more).arg(".").output()?.stdout)
        };
        let files = tar(&template.folder, &[])?;
        // A build has no volume: what it is to trust comes with its files.
        let context = tempfile::tempdir()?;
        std::fs::write(context.path().join("files.tar"), &files)?;
        std::fs::write(context.path().join("ca.pem"), std::fs::read(CA).unwrap_or_default())?;
        std::fs::write(
            context.path().join("Dockerfile"),
            format!(
                "FROM {image}\nENV NODE_EXTRA_CA_CERTS=/tools/ca.pem\nCOPY ca.pem /tools/ca.pem\n\
                 ADD --chown=1000:1000 files.tar /app/\nRUN {setup}\nENTRYPOINT []\nCMD {dev}\n"
            ),
        )?;
        Ok(Self { specification, files, context: tar(context.path(), &[])?, install, dev, port: template.port })
    }

    fn installed(&self) -> Result<engine::Container> {
        let container = engine::Container::start(&self.specification)?;
        container.put_archive("/app", &self.files)?;
        let code = container.exec(&["sh", "-c", &self.install], |_| Ok(()))?;
        ensure!(code == 0, "{} ended with {code}", self.install);
        let dev = format!("({}) >/dev/null 2>&1 &", self.dev);
        container.exec(&["sh", "-c", &dev], |_| Ok(()))?;
        self.wait_until_served(&container)?;
        Ok(container)
    }

    fn built_anew(&self) -> Result<engine::Container> {
        self.build("&nocache=1")?;
        self.run_image()
    }

    fn built_from_cache(&self) -> Result<engine::Container> {
        self.build("")?;
        self.run_image()
    }

    fn build(&self, more: &str) -> Result<()> {
        let said = engine::send_tar("POST", &format!("/build?t={IMAGE}&rm=1&forcerm=1{more}"), &self.context)?;
        ensure!(said.contains("Successfully tagged"), "{said}");
        Ok(())
    }

    fn run_image(&self) -> Result<engine::Container> {
        let mut specification = self.specification.clone();
        specification["Image"] = json!(IMAGE);
        // The image's own, not the agent's.
        for field in ["Entrypoint", "Cmd", "Healthcheck"] {
            if let Some(fields) = specification.as_object_mut() {
                fields.remove(field);
            }
        }
        let container = engine::Container::start(&specification)?;
        self.wait_until_served(&container)?;
        Ok(container)
    }

    fn wait_until_served(&self, container: &engine::Container) -> Result<()> {
        let address = container.address()?;
        let began = Instant::now();
        while !answers(address, self.port) {
            ensure!(began.elapsed() < PATIENCE, "the dev server does not answer");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn answers(address: IpAddr, port: u16) -> bool {
    let ask = || -> Result<bool> {
        let mut stream = TcpStream::connect((address, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// Bytes of memory and disk.
struct Footprint {
    memory: u64,
    disk: u64,
}

async fn footprints(builder: &impl Fn() -> HostBuilder, template: &Template, count: usize) -> Result<()> {
    let host = builder().build().await?;
    let mut workspaces: Vec<Workspace> = Vec::new();
    for _ in 0..count {
        workspaces.push(host.create(CreateWorkspace::from_template(template)).await?);
    }
    let mut names = Vec::new();
    for workspace in &workspaces {
        names.push(workspace.info().await?.container.context("it has a container")?);
    }
    let kept: u64 = host.setup_cache().await?.iter().map(|entry| entry.bytes).sum();
    let mut ours = footprint(&names)?;
    ours.disk += kept;
    let by_hand = ByHand::new(template, &names[0])?;
    for workspace in workspaces {
        workspace.remove().await?;
    }

    by_hand.build("")?;
    let containers = (0..count).map(|_| by_hand.run_image()).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = containers.iter().map(|container| container.id().to_owned()).collect();
    let mut theirs = footprint(&names)?;
    let size = |image: &str| -> Result<u64> {
        engine::request("GET", &format!("/images/{image}/json"), &Value::Null)?["Size"].as_u64().context("a size")
    };
    theirs.disk += size(IMAGE)?.saturating_sub(size(host.image())?);

    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{count} workspaces: memory {:.0} MB beside {:.0} MB with an image for the template ({:.2}), disk {:.0} MB ({:.0} MB of it kept \
         for the next) beside {:.0} MB",
        megabytes(ours.memory),
        megabytes(theirs.memory),
        ours.memory as f64 / theirs.memory as f64,
        megabytes(ours.disk),
        megabytes(kept),
        megabytes(theirs.disk),
    );
    Ok(())
}

/// What these containers take, the page cache that the kernel can drop left out.
fn footprint(containers: &[String]) -> Result<Footprint> {
    let mut footprint = Footprint { memory: 0, disk: 0 };
    for container in containers {
        let stats =
            engine::request("GET", &format!("/containers/{container}/stats?stream=0&one-shot=1"), &Value::Null)?;
        let memory = &stats["memory_stats"];
        let used = memory["usage"].as_u64().context("the engine says what memory is used")?;
        let droppable = ["total_inactive_file", "inactive_file"].iter().find_map(|name| memory["stats"][name].as_u64());
        footprint.memory += used.saturating_sub(droppable.unwrap_or(0));
        let sized = engine::request("GET", &format!("/containers/{container}/json?size=1"), &Value::Null)?;
        footprint.disk += sized["SizeRw"].as_u64().context("the engine says what it takes on disk")?;
    }
    Ok(footprint)
}
