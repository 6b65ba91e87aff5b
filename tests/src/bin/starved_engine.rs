//! What comes of it when an engine runs out of disk, of files, of addresses, of processes, and this machine out of disk: each failure is told
//! as what it is with the next step, nothing is orphaned, doubled or lost, and when there is room again all goes on.
//!
//! Run by `own_engine::run_apart`; its argument after the folder is a control group of its own for the engine's processes.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_e2e::{
    command_line::docker,
    corehold::Corehold,
    own_engine::{OwnEngine, PATIENCE, SmallDisk},
};
use corehold_host::{
    Class, CreateVolume, CreateWorkspace, DiskPolicy, Error, ErrorKind, Host, PoolOptions, Result, Step, Subnets,
    Template, Workspace, WorkspaceState,
    policy::Account,
    runtime::{
        Network,
        docker::{Docker, DockerOptions},
    },
};
use futures_util::{StreamExt as _, stream};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const PLENTY: u64 = 2 << 30;
const MANY: u64 = 500_000;
/// Two subnets: the engine takes one for its own bridge when it starts.
const POOL: &str = "base=10.98.0.0/23,size=24";

#[tokio::main]
async fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, group] = arguments.as_slice() else {
        panic!("a folder and a control group are needed: {arguments:?}")
    };
    let address = std::env::var("DOCKER_HOST").expect("DOCKER_HOST names where its engine listens");
    let disk = SmallDisk::mount(folder.join("data"), PLENTY);
    let options = ["--default-address-pool", POOL];
    let mut engine = OwnEngine::start_in(folder, &address, &options, Some(group)).await;
    engine.load_core_image();
    let corehold = Corehold::start().await;
    let mut began = Instant::now();
    let mut done =
        |what: &str| println!("{what}: {:.1} s", std::mem::replace(&mut began, Instant::now()).elapsed().as_secs_f64());
    no_addresses(&corehold).await;
    done("no addresses");
    below_the_floor(&corehold, &disk).await;
    done("below the floor");
    no_room_for_a_creation(&corehold, &disk).await;
    done("no room for a creation");
    no_room_for_what_is_there(&corehold, &disk).await;
    done("no room for what is there");
    no_room_on_this_machine(&corehold, folder).await;
    done("no room on this machine");
    no_processes(&corehold, group).await;
    done("no processes");
    assert!(engine.runs());
    drop(corehold);
    assert_eq!(docker(&["ps", "--all", "--quiet"]), "");
    engine.stop().await;
    println!("all is well again");
}

/// Told as what it is, with these words, and the next step.
fn judge<T: Debug>(result: Result<T>, kind: ErrorKind, words: &[&str]) -> Error {
    let error = result.expect_err("there is no room");
    let hint = error.hint_text().unwrap_or_else(|| panic!("no next step: {error}"));
    println!("  {error}\n    {hint}");
    assert_eq!(error.kind(), kind, "{error:?}");
    let told = format!("{error} {hint}");
    assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
    error
}

/// In the engine and in the store there are these, and nothing else.
async fn there_is(host: &Host, expected: &[&str]) {
    host.settled().await;
    let names: BTreeSet<String> =
        docker(&["ps", "--all", "--format", "{{.Names}}"]).split_whitespace().map(str::to_owned).collect();
    let listed = host.list().await.expect("the engine answers");
    let with_container = listed.iter().filter(|info| info.state != WorkspaceState::Asleep);
    let of_list: BTreeSet<String> = with_container.map(|info| format!("corehold-{}", info.id)).collect();
    assert_eq!(names, of_list, "what is there is listed, and what is listed is there");
    let ids: BTreeSet<&str> = listed.iter().map(|info| info.id.as_str()).collect();
    assert_eq!(ids, expected.iter().copied().collect());
    let used = host.usage(&Account::Host).await.expect("the store answers").used;
    assert_eq!(used.workspaces, Some(expected.len() as u64));
}

/// Without the firewall, whose rules take a container each: it is of no account here.
async fn reachable() -> Arc<Docker> {
    let mut options = DockerOptions::default();
    options.host_may_be_reached = true;
    Arc::new(Docker::connect_with(options).await.expect("the engine answers"))
}

async fn no_addresses(corehold: &Corehold) {
    // The engine's own: somebody else has the last of them.
    docker(&["network", "create", "somebody-elses"]);
    let creation = corehold.host.create(CreateWorkspace::empty()).await;
    judge(creation, ErrorKind::Conflict, &["address pool", "docker network prune", "default-address-pools"]);
    there_is(&corehold.host, &[]).await;
    docker(&["network", "rm", "somebody-elses"]);
    let first = corehold.host.create(CreateWorkspace::empty().id("first")).await.expect("there is room again");
    there_is(&corehold.host, &["first"]).await;
    first.remove().await.expect("it is removed");

    // Ours.
    let subnets = Subnets::of("10.97.0.0/28".parse().expect("a subnet"), 29);
    let host = corehold.builder().runtime(reachable().await).subnets(subnets).build().await.expect("a host starts");
    let of = |owner: &str| {
        host.create(CreateWorkspace::empty().id(format!("of-{owner}")).owner(owner).network(Network::owner()))
    };
    let ada = of("ada").await.expect("the first subnet");
    let bob = of("bob").await.expect("the second one");
    let used_up = ["no subnet is left", "10.97.0.0/28", "HostBuilder::subnets"];
    judge(of("carol").await, ErrorKind::Conflict, &used_up);
    bob.sleep(Duration::ZERO).await.expect("it sleeps");
    judge(of("carol").await, ErrorKind::Conflict, &used_up);
    there_is(&host, &["of-ada", "of-bob"]).await;
    ada.remove().await.expect("it is removed");
    host.settled().await;
    let carol = of("carol").await.expect("the first subnet is free again");
    bob.wake().await.expect("it has its own yet");
    let addresses = docker(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        "corehold-of-carol",
    ]);
    assert!(addresses.starts_with("10.97.0."), "{addresses}");
    for workspace in [carol, bob] {
        workspace.remove().await.expect("it is removed");
    }
    there_is(&host, &[]).await;
}

async fn below_the_floor(corehold: &Corehold, disk: &SmallDisk) {
    let sleeper = corehold.host.create(CreateWorkspace::empty().id("sleeper")).await.expect("there is room");
    sleeper.sleep(Duration::ZERO).await.expect("it sleeps");
    for (bytes, files, words) in [
        (500 * MIB, MANY, ["MiB left", "1024 MiB must be left"]),
        (PLENTY, 900, ["more files", "for 1000 must be left"]),
    ] {
        disk.leave(bytes, files);
        judge(corehold.host.create(CreateWorkspace::empty()).await, ErrorKind::DiskFull, &words);
        judge(sleeper.wake().await, ErrorKind::DiskFull, &words);
        there_is(&corehold.host, &["sleeper"]).await;
    }
    disk.leave(PLENTY, MANY);
    sleeper.wake().await.expect("there is room again");
    let before = disk.files();
    let other = corehold.host.create(CreateWorkspace::empty()).await.expect("there is room");
    println!("  a container takes {} files", disk.files() - before);
    other.remove().await.expect("it is removed");
    sleeper.remove().await.expect("it is removed");
}

/// A host that goes on to the last byte.
async fn without_floor(corehold: &Corehold) -> Host {
    let policy = DiskPolicy::default().floor_bytes(0);
    corehold.builder().runtime(reachable().await).disk(policy).build().await.expect("a host starts")
}

async fn no_room_for_a_creation(corehold: &Corehold, disk: &SmallDisk) {
    let template = r#"{"setup": ["set -e; head -c 24M /dev/urandom >large; i=0; while [ $i -lt 600 ]; do : >made$i; i=$((i+1)); done"]}"#;
    let folder = corehold.folder("large", &[("template.json", template)]);
    std::fs::write(folder.join("content"), noise(8 * MIB)).expect("it is written");
    std::fs::create_dir(folder.join("many")).expect("it is made");
    for number in 0..300 {
        std::fs::write(folder.join("many").join(number.to_string()), "x").expect("it is written");
    }
    let template = Template::load(&folder).expect("it is one");
    let host = without_floor(corehold).await;
    let mut failed = BTreeSet::new();
    let room = [0, 16 * KIB, 64 * KIB, 256 * KIB, 4 * MIB, 20 * MIB].map(|bytes| (bytes, MANY));
    let files = [0, 10, 40, 200, 700].map(|files| (PLENTY, files));
    for (bytes, files) in room.into_iter().chain(files) {
        disk.leave(bytes, files);
        let creation = host.create(CreateWorkspace::from_template(&template).id("large")).await;
        println!("  {bytes} bytes, {files} files:");
        let error = creation.as_ref().expect_err("there is no room");
        let step = error.step().unwrap_or_else(|| panic!("it failed in no step: {error}"));
        match step {
            // What a command failed of, it says itself.
            Step::Setup => {
                let error = judge(creation, ErrorKind::CommandFailed, &["the engine's disk has", "docker system df"]);
                assert!(error.output().is_some_and(|output| output.contains("No space left on device")), "{error:?}");
            }
            _ => drop(judge(creation, ErrorKind::DiskFull, &["the engine's disk"])),
        }
        failed.insert(format!("{step:?}"));
        there_is(&host, &[]).await;
    }
    for step in [Step::Create, Step::Ship, Step::Setup] {
        assert!(failed.contains(&format!("{step:?}")), "{step:?} didn't fail: {failed:?}");
    }
    println!("  {failed:?} failed");

    disk.leave(MIB, MANY);
    let import = || {
        let mut archive = tar::Builder::new(Vec::new());
        let content = noise(8 * MIB);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "content", &content[..]).expect("memory is written");
        let root = archive.into_inner().expect("memory is written").into();
        corehold.docker.import_image("corehold-test/large", "latest", Vec::new(), stream::iter([Ok(root)]).boxed())
    };
    judge(import().await, ErrorKind::DiskFull, &["the engine's disk is full"]);
    assert_eq!(docker(&["images", "--quiet", "corehold-test/large"]), "");
    disk.leave(0, 0);
    judge(host.volumes().create(CreateVolume::new("cache")).await, ErrorKind::DiskFull, &["the engine's disk is full"]);
    assert_eq!(host.volumes().list().await.expect("the engine answers"), []);
    let pool = corehold.builder().disk(DiskPolicy::default().floor_bytes(0)).runtime(reachable().await);
    let pool = pool.pool(Class::default(), PoolOptions::default().min(1).max(1)).build().await.expect("a host starts");
    let unfilled = pool.pools_filled().await.expect_err("there is no room");
    assert_eq!(unfilled.kind(), ErrorKind::DiskFull, "{unfilled}");
    assert!(
        unfilled.to_string().contains("the pool can't be filled") && unfilled.to_string().contains("docker system df")
    );

    disk.leave(PLENTY, MANY);
    let filled = async {
        while pool.pools_filled().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filled).await.expect("it is filled again");
    pool.drain_pools().await.expect("it is drained");
    drop(pool);
    import().await.expect("there is room again");
    docker(&["rmi", "corehold-test/large"]);
    host.volumes().create(CreateVolume::new("cache")).await.expect("there is room again");
    host.volumes().remove("cache").await.expect("it is removed");
    let workspace = host.create(CreateWorkspace::from_template(&template).id("large")).await.expect("there is room");
    assert_eq!(output(&workspace, "wc -c <large; ls many | wc -l; ls made* | wc -l").await, "25165824\n300\n600");
    // What all workspaces share was made while there was no room, and again.
    if let Some(bundle) = std::fs::read("/etc/ssl/certs/ca-certificates.crt").ok().map(|bundle| bundle.len()) {
        assert_eq!(output(&workspace, "wc -c <$SSL_CERT_FILE").await, bundle.to_string());
    }
    workspace.remove().await.expect("it is removed");
    there_is(&host, &[]).await;
}

async fn no_room_for_what_is_there(corehold: &Corehold, disk: &SmallDisk) {
    let host = without_floor(corehold).await;
    let workspace = host.create(CreateWorkspace::empty().id("kept")).await.expect("there is room");
    let content = noise(8 * MIB);
    workspace.write_file("content", content.clone()).await.expect("there is room");

    disk.leave(0, MANY);
    judge(workspace.write_file("more", noise(MIB)).await, ErrorKind::DiskFull, &["disk"]);
    let outcome = workspace.command("echo x >more").run().await;
    assert!(outcome.is_ok_and(|outcome| !outcome.success()), "a command runs, and says itself that it could not write");
    assert_eq!(workspace.read_file("content").await.expect("it can be read"), content);
    // It is started with nothing but its agent for that, which takes room too.
    match workspace.sleep(Duration::ZERO).await {
        Ok(()) => {}
        slept => drop(judge(slept, ErrorKind::DiskFull, &["the engine's disk is full"])),
    }
    println!("  then it is {}", workspace.state().await.expect("it is known"));
    there_is(&host, &["kept"]).await;
    disk.leave(PLENTY, MANY);
    workspace.start().await.expect("there is room again");
    assert_eq!(workspace.read_file("content").await.expect("it runs"), content);
    workspace.sleep(Duration::ZERO).await.expect("there is room again");

    for (bytes, files) in [(0, MANY), (2 * MIB, MANY), (PLENTY, 10)] {
        disk.leave(bytes, files);
        judge(workspace.wake().await, ErrorKind::DiskFull, &["waking workspace kept", "the engine's disk"]);
        assert_eq!(workspace.state().await.expect("it is known"), WorkspaceState::Asleep);
        there_is(&host, &["kept"]).await;
    }
    disk.leave(PLENTY, MANY);
    workspace.wake().await.expect("there is room again");
    assert_eq!(workspace.read_file("content").await.expect("it runs"), content);
    disk.leave(0, 0);
    workspace.remove().await.expect("what is full can be emptied");
    there_is(&host, &[]).await;
    disk.leave(PLENTY, MANY);
}

async fn no_room_on_this_machine(corehold: &Corehold, folder: &Path) {
    let home = SmallDisk::mount(folder.join("home"), 256 * MIB);
    let at = folder.join("home");
    let shown = at.display().to_string();
    let host = corehold.builder().runtime(reachable().await).home(&at).build().await.expect("a host starts");
    let workspace = host.create(CreateWorkspace::empty().id("saved")).await.expect("there is room");
    let content = noise(16 * MIB);
    workspace.write_file("content", content.clone()).await.expect("it is written");
    for bytes in [4 * MIB, 0] {
        home.leave(bytes, MANY);
        judge(workspace.sleep(Duration::ZERO).await, ErrorKind::DiskFull, &[&shown]);
        // Which state it is in could be written down or not; what is in it is there.
        there_is(&host, &["saved"]).await;
        home.leave(64 * MIB, MANY);
        workspace.start().await.expect("there is room again");
        assert_eq!(workspace.read_file("content").await.expect("it runs"), content);
    }
    home.leave(0, 0);
    judge(host.create(CreateWorkspace::empty().id("more")).await, ErrorKind::DiskFull, &[&shown]);
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", "name=corehold-more"]), "");
    home.leave(64 * MIB, MANY);
    there_is(&host, &["saved"]).await;
    workspace.sleep(Duration::ZERO).await.expect("there is room again");
    workspace.wake().await.expect("it was saved");
    assert_eq!(workspace.read_file("content").await.expect("it runs"), content);
    let archives = host.archives().list(Some(workspace.id())).await.expect("they are listed");
    assert_eq!(archives.len(), 1, "what was cut off is no archive");
    workspace.remove().await.expect("it is removed");
    there_is(&host, &[]).await;
}

async fn no_processes(corehold: &Corehold, group: &Path) {
    let host = without_floor(corehold).await;
    let workspace = host.create(CreateWorkspace::empty().id("running")).await.expect("there is room");
    workspace.write_file("content", "kept").await.expect("it is written");
    let limit = |value: &str| std::fs::write(group.join("pids.max"), value).expect("the limit is changed");
    let current = std::fs::read_to_string(group.join("pids.current")).expect("it is there");
    // Threads count too. Those that the engine has wait for work.
    limit(current.trim());
    judge(host.create(CreateWorkspace::empty().id("more")).await, ErrorKind::Engine, &["pids.max"]);
    assert_eq!(workspace.read_file("content").await.expect("it runs on"), "kept");
    // It can't be started again, or ended already: "id already in use".
    judge(workspace.restart(Duration::ZERO).await, ErrorKind::Engine, &[]);
    limit("max");
    host.reconcile().await.expect("the engine answers");
    there_is(&host, &["running"]).await;
    workspace.start().await.expect("there is room again");
    assert_eq!(workspace.read_file("content").await.expect("it runs"), "kept");
    host.create(CreateWorkspace::empty().id("more"))
        .await
        .expect("there is room again")
        .remove()
        .await
        .expect("it is removed");
    workspace.remove().await.expect("it is removed");
    there_is(&host, &[]).await;
}

async fn output(workspace: &Workspace, line: &str) -> String {
    let outcome = workspace.command(line).run().await.expect("it runs");
    assert!(outcome.success(), "{line}: {outcome:#?}");
    outcome.stdout_text().trim().to_owned()
}

/// What no compression makes smaller.
fn noise(bytes: u64) -> Vec<u8> {
    let mut noise = vec![0; usize::try_from(bytes).expect("it fits into memory")];
    blake3::Hasher::new().update(&bytes.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}
