//! Pools on a real engine: workspaces that are handed over, hosts that come and go, and two of them at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::Duration,
};

use corehold_e2e::{
    corehold::{Corehold, POOL_MARK},
    web::get,
};
use corehold_host::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, Host, PoolOptions, Step, Workspace,
    runtime::{ContainerId, Resources, Runtime as _},
};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

fn mark(corehold: &Corehold) -> String {
    corehold.scratch.path().display().to_string()
}

async fn pooled(corehold: &Corehold, options: PoolOptions) -> Host {
    let builder = corehold.builder().label(POOL_MARK, mark(corehold)).pool(Class::default(), options);
    let host = builder.build().await.unwrap();
    host.pools_filled().await.unwrap();
    host
}

/// The names of this test's containers, by their ids.
async fn containers(corehold: &Corehold) -> BTreeMap<String, String> {
    let marked = BTreeMap::from([(POOL_MARK.to_owned(), mark(corehold))]);
    let states = corehold.docker.list(&marked).await.unwrap();
    states.into_iter().map(|state| (state.id.0, state.name)).collect()
}

/// Names of those that wait in a pool.
async fn waiting(corehold: &Corehold) -> BTreeSet<String> {
    containers(corehold).await.into_values().filter(|name| name.contains('.')).collect()
}

async fn create(host: &Host, request: CreateWorkspace) -> (Workspace, Vec<CreateEvent>) {
    let mut creation = host.create(request);
    let mut events = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    (creation.await.unwrap_or_else(|error| panic!("{error}\n{events:#?}")), events)
}

fn began(events: &[CreateEvent], step: Step) -> bool {
    events.iter().any(|event| event.step == step && matches!(event.kind, CreateEventKind::Started { .. }))
}

async fn output(workspace: &Workspace, line: &str) -> String {
    workspace.command(line).run().await.unwrap().stdout_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_handed_over_and_the_pool_is_filled_again() {
    let corehold = Corehold::start().await;
    let host = pooled(&corehold, PoolOptions::default().min(2).max(2)).await;
    let before = containers(&corehold).await;
    assert_eq!((before.len(), waiting(&corehold).await.len()), (2, 2));
    assert!(host.list().await.unwrap().is_empty(), "what waits is nobody's workspace");

    let template = host.catalog().find("node-api").unwrap();
    let request = CreateWorkspace::from_template(&template).env("SECRET", "hunter2").id("taken");
    let (workspace, events) = create(&host, request).await;
    assert!(began(&events, Step::Claim) && !began(&events, Step::Create), "{events:#?}");
    assert_eq!(get(&workspace.preview_url().await.unwrap(), "/").await.0, 200);
    assert_eq!(output(&workspace, "echo $SECRET $COREHOLD_WORKSPACE_ID; id -u").await, "hunter2 taken\n1000\n");
    assert_ne!(output(&workspace, "ls").await, "");

    // Any host of this home knows it for what it is.
    let other = corehold.builder().build().await.unwrap();
    let listed = other.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].template.as_deref()), (1, "taken", Some("node-api")));
    let found = other.workspace("taken").await.unwrap();
    let mut info = found.info().await.unwrap();
    assert!(info.started.take().is_some() && info.address.take().is_some(), "a listing doesn't have them");
    assert_eq!(listed[0], info);
    assert_eq!(output(&found, "pwd").await, "/app\n");
    let twice = host.create(CreateWorkspace::empty().id("taken")).await.unwrap_err();
    assert_eq!(twice.kind(), corehold_host::ErrorKind::AlreadyExists);

    // So is one with limits of its own, which are in force.
    let limits = Resources::default().memory_bytes(96 << 20).cpu_millis(500).pids(77);
    host.pools_filled().await.unwrap();
    let (limited, events) = create(&host, CreateWorkspace::empty().resources(limits)).await;
    assert!(began(&events, Step::Claim) && !began(&events, Step::Create), "{events:#?}");
    for (now, before, limit) in [
        ("memory.max", "memory/memory.limit_in_bytes", "100663296"),
        ("cpu.max", "cpu/cpu.cfs_quota_us", "5000"),
        ("pids.max", "pids/pids.max", "77"),
    ] {
        let line = format!("cd /sys/fs/cgroup; cat {now} 2>/dev/null || cat {before}");
        let inside = output(&limited, &line).await;
        assert_eq!(inside.split_whitespace().next(), Some(limit), "{now}: {inside}");
    }
    limited.remove().await.unwrap();

    // What no claim can bring is made.
    let (made, events) = create(&host, CreateWorkspace::empty().label("mine", "1")).await;
    assert!(!began(&events, Step::Claim) && began(&events, Step::Create));
    made.remove().await.unwrap();

    host.pools_filled().await.unwrap();
    assert_eq!(waiting(&corehold).await.len(), 2);
    workspace.remove().await.unwrap();
    assert_eq!(host.drain_pools().await.unwrap(), 2);
    host.settled().await;
    assert_eq!(containers(&corehold).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_after_another_takes_its_pool_over() {
    let corehold = Corehold::start().await;
    let options = PoolOptions::default().min(2).max(2);
    let first = pooled(&corehold, options.clone()).await;
    let before = containers(&corehold).await;
    drop(first);
    let second = pooled(&corehold, options.clone()).await;
    assert_eq!(containers(&corehold).await, before, "nothing was started");
    let (workspace, _) = create(&second, CreateWorkspace::empty().id("kept")).await;
    let container = containers(&corehold).await.into_iter().find(|(_, name)| name == "corehold-kept").unwrap().0;
    assert!(before.contains_key(&container));
    second.pools_filled().await.unwrap();
    drop(second);

    // While no host looked, one ended and another was restarted: neither is handed out.
    let waiting: Vec<_> = containers(&corehold).await.into_iter().filter(|(_, name)| name.contains('.')).collect();
    let [ended, restarted] = waiting.as_slice() else { panic!("{waiting:?}") };
    for (container, start) in [(ended, false), (restarted, true)] {
        let id = ContainerId(container.0.clone());
        corehold.docker.stop(&id, Duration::from_secs(10)).await.unwrap();
        if start {
            corehold.docker.start(&id).await.unwrap();
        }
    }
    let third = pooled(&corehold, options).await;
    let now = containers(&corehold).await;
    assert!(!now.contains_key(&ended.0) && !now.contains_key(&restarted.0), "{now:?}");
    assert_eq!(output(&workspace, "echo still here").await, "still here\n");
    drop(third);
    let down = corehold.cli(&["down", "--all"]).output().unwrap();
    assert!(String::from_utf8_lossy(&down.stdout).contains("removed 2 that waited in a pool"), "{down:?}");
    assert_eq!(containers(&corehold).await, BTreeMap::new());
}

/// As two processes would: they share the home folder and the engine, and know nothing of each other.
#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_at_full_speed_never_get_the_same_container() {
    const EACH: usize = 10;
    let corehold = Corehold::start().await;
    let options = PoolOptions::default().min(4).max(6).wait(Duration::from_secs(2));
    let hosts = [pooled(&corehold, options.clone()).await, pooled(&corehold, options).await];
    assert!(waiting(&corehold).await.len() <= 6, "the pool is one");
    let creations = (0..EACH).flat_map(|number| {
        hosts.iter().enumerate().map(move |(host, of)| {
            let id = format!("w{host}-{number}");
            async move { create(of, CreateWorkspace::empty().env("MINE", &id).id(id)).await }
        })
    });
    let made = join_all(creations).await;
    let claimed = made.iter().filter(|(_, events)| !began(events, Step::Create)).count();
    assert!(claimed >= 4, "what was ready was used");
    for (workspace, _) in &made {
        let id = workspace.id().as_str();
        assert_eq!(output(workspace, "echo $COREHOLD_WORKSPACE_ID $MINE").await, format!("{id} {id}\n"));
    }
    // As many containers as workspaces, each of one name: none was handed out twice, and none was lost.
    let names: BTreeSet<_> = containers(&corehold).await.into_values().filter(|name| !name.contains('.')).collect();
    let expected: BTreeSet<_> = made.iter().map(|(workspace, _)| format!("corehold-{}", workspace.id())).collect();
    assert_eq!(names, expected);
    assert!(waiting(&corehold).await.len() <= 6, "the pool is never larger than it may be");
    for (workspace, _) in made {
        workspace.remove().await.unwrap();
    }
    for host in hosts {
        host.drain_pools().await.unwrap();
        host.settled().await;
    }
}

/// Starts a host as a process of its own, with what it says.
fn process(corehold: &Corehold, prefix: &str, count: usize) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooled_host"));
    command.arg(corehold.host.home()).args([&mark(corehold), prefix, &count.to_string()]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    (child, lines)
}

/// Reads what is ready, until it is so many or the process has ended.
async fn ready(lines: &mut Lines<BufReader<ChildStdout>>, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count
        && let Some(line) = lines.next_line().await.unwrap()
    {
        ids.push(line.strip_prefix("ready ").expect("nothing else is said").to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_pool_and_one_that_is_killed_leaves_nothing_in_doubt() {
    let corehold = Corehold::start().await;
    let mut made = Vec::new();
    for round in 0..3 {
        let (mut killed, mut its_lines) = process(&corehold, &format!("killed-{round}"), 0);
        let (mut other, mut others_lines) = process(&corehold, &format!("other-{round}"), 5);
        made.extend(ready(&mut its_lines, round + 1).await);
        killed.kill().await.unwrap();
        made.extend(ready(&mut its_lines, usize::MAX).await);
        let others = ready(&mut others_lines, usize::MAX).await;
        assert_eq!((others.len(), other.wait().await.unwrap().success()), (5, true));
        made.extend(others);
    }
    // What was said to be ready is there, and is whose it was said to be.
    let host = pooled(&corehold, PoolOptions::default().min(1).max(4)).await;
    for id in &made {
        let workspace = host.workspace(id).await.unwrap();
        assert_eq!(output(&workspace, "echo $COREHOLD_WORKSPACE_ID").await, format!("{id}\n"));
    }
    // And of the rest, whatever the moment: each is a workspace that is listed, or goes. No clock is waited for.
    host.reconcile().await.unwrap();
    for workspace in host.list().await.unwrap() {
        host.workspace(workspace.id.as_str()).await.unwrap().remove().await.unwrap();
    }
    host.drain_pools().await.unwrap();
    assert_eq!(containers(&corehold).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_are_all_made_and_many_in_turn_are_all_claimed() {
    let corehold = Corehold::start().await;
    let host = pooled(&corehold, PoolOptions::default().min(10).max(10)).await;
    let creations = (0..50).map(|number| create(&host, CreateWorkspace::empty().id(format!("at-once-{number}"))));
    let made = join_all(creations).await;
    let claimed = made.iter().filter(|(_, events)| !began(events, Step::Create)).count();
    assert!((10..=50).contains(&claimed), "what was ready was handed over: {claimed}");
    // Each is its own, and answers.
    let ids: Vec<String> =
        join_all(made.iter().map(|(workspace, _)| output(workspace, "echo $COREHOLD_WORKSPACE_ID"))).await;
    let expected: Vec<String> = made.iter().map(|(workspace, _)| format!("{}\n", workspace.id())).collect();
    assert_eq!(ids, expected);
    let removals = join_all(made.iter().map(|(workspace, _)| workspace.remove())).await;
    assert!(removals.iter().all(Result::is_ok), "{removals:?}");

    let before = host.pools()[0].claimed;
    for number in 0..30_u64 {
        host.pools_filled().await.unwrap();
        let (workspace, _) = create(&host, CreateWorkspace::empty().id(format!("in-turn-{number}"))).await;
        workspace.remove().await.unwrap();
        assert_eq!(host.pools()[0].claimed, before + number + 1);
    }
    host.drain_pools().await.unwrap();
    host.settled().await;
    assert_eq!(containers(&corehold).await, BTreeMap::new());
    assert_eq!(std::fs::read_dir(host.home().join("claims")).unwrap().count(), 0, "no record is left");
}
