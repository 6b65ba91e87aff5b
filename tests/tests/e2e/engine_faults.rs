//! Every kind of call to the engine fails in every way, for everything that is done with it: what comes of it is told in time, with
//! the call and the next step, and nothing is orphaned or doubled.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_e2e::{
    command_line::docker,
    corehold::{Corehold, POOL_MARK},
    images::Images,
    proxy::{Fault, Proxy},
    registry::{Mood, Registry},
};
use corehold_host::{
    Class, CreateWorkspace, Error, ErrorKind, Host, PoolOptions, Result, Workspace, WorkspaceState,
    runtime::{
        ContainerId, Resources, Runtime as _,
        docker::{Docker, DockerAddress, DockerOptions},
    },
};
use futures_util::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SOCKET: &str = "/var/run/docker.sock";
/// What a call may take where the engine is late.
const LIMIT: Duration = Duration::from_secs(2);
/// What a workspace has to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// What a whole operation may take in which one kind of call fails: a few calls that wait for their limit, and the agent.
const IN_TIME: Duration = Duration::from_secs(60);

/// Of the four, those that tell an engine that says no from one that says nothing: a sleep takes a while.
const REFUSED_OR_LATE: [Fault; 2] = [Fault::Status(500), Fault::Late(Duration::from_secs(10))];
const FAULTS: [Fault; 4] = [Fault::Status(500), Fault::Cut, Fault::Garbage, Fault::Late(Duration::from_secs(10))];

/// A host behind the proxy. It has the usual limits, unless it is to meet an engine that is late: others may keep this one busy.
async fn host(corehold: &Corehold, proxy: &Proxy, fault: Option<Fault>, pool: Option<PoolOptions>) -> Host {
    let mut options = DockerOptions::default();
    options.address = DockerAddress::At(proxy.address());
    if let Some(Fault::Late(_)) = fault {
        (options.call_timeout, options.quiet_timeout, options.lock_timeout) = (LIMIT, LIMIT, LIMIT);
    }
    let docker = Docker::connect_with(options).await.unwrap();
    let mut builder = corehold.builder().label(POOL_MARK, mark(corehold)).runtime(Arc::new(docker));
    if let Some(options) = pool {
        builder = builder.pool(Class::default(), options);
    }
    builder.build().await.unwrap()
}

fn mark(corehold: &Corehold) -> String {
    corehold.scratch.path().display().to_string()
}

/// Names of all containers of this test, as the engine itself has them.
async fn containers(corehold: &Corehold) -> BTreeSet<String> {
    let marked = BTreeMap::from([(POOL_MARK.to_owned(), mark(corehold))]);
    corehold.docker.list(&marked).await.unwrap().into_iter().map(|state| state.name).collect()
}

/// What an error must say, whichever call failed.
fn judge(error: &Error, endpoint: &str, fault: Fault) {
    let kinds = [ErrorKind::EngineUnavailable, ErrorKind::Engine, ErrorKind::Timeout];
    assert!(kinds.contains(&error.kind()), "{endpoint} {fault:?}: {:?}: {error}", error.kind());
    let named = error.to_string();
    // `starting the container: the engine did not answer in time`
    assert!(
        named.split_once(": ").is_some_and(|(call, _)| call.contains(' ')),
        "{endpoint} {fault:?} names no call: {error}"
    );
    assert!(error.hint_text().is_some_and(|hint| !hint.is_empty()), "{endpoint} {fault:?}: no next step: {error}");
}

/// Undoes all that there is, through a host whose engine is well: it finds everything.
async fn clean(corehold: &Corehold, context: &str) {
    for info in corehold.host.list().await.unwrap() {
        corehold.host.workspace(info.id.as_str()).await.unwrap().remove().await.unwrap();
    }
    corehold.host.drain_pools().await.unwrap();
    assert_eq!(containers(corehold).await, BTreeSet::new(), "{context}: something is there that nobody finds");
}

/// The kinds of calls that an operation makes.
async fn calls(proxy: &Proxy, before: &BTreeSet<String>) -> Vec<String> {
    proxy.endpoints().difference(before).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_a_listing_and_a_removal() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let broken = host(&corehold, &proxy, None, None).await;
    let first = broken.create(CreateWorkspace::empty().id("faulty-first")).await.unwrap();
    broken.list().await.unwrap();
    first.remove().await.unwrap();
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    for needed in
        ["POST /containers/create", "POST /containers/{}/start", "GET /containers/json", "DELETE /containers/{}"]
    {
        assert!(endpoints.iter().any(|endpoint| endpoint == needed), "{needed} is not among {endpoints:?}");
    }
    let mut failed = BTreeMap::new();
    for endpoint in &endpoints {
        for fault in FAULTS {
            let context = format!("{endpoint} {fault:?}");
            // Another host: what the first one knows already it doesn't ask again.
            proxy.heal();
            let broken = host(&corehold, &proxy, Some(fault), None).await;
            proxy.fail(endpoint, fault);
            let began = Instant::now();
            let made = broken.create(CreateWorkspace::empty().id("faulty").agent_timeout(LIMIT * 2)).await;
            broken.settled().await;
            assert!(began.elapsed() < IN_TIME, "{context}: a creation took {:?}", began.elapsed());
            match &made {
                Ok(workspace) => {
                    assert_eq!(
                        containers(&corehold).await,
                        BTreeSet::from(["corehold-faulty".to_owned()]),
                        "{context}"
                    );
                    let listed = broken.list().await;
                    let removed = workspace.remove().await;
                    for error in [listed.err(), removed.err()].into_iter().flatten() {
                        judge(&error, endpoint, fault);
                        *failed.entry(endpoint.clone()).or_insert(0) += 1;
                    }
                    proxy.heal();
                    workspace.remove().await.unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                Err(error) => {
                    judge(error, endpoint, fault);
                    *failed.entry(endpoint.clone()).or_insert(0) += 1;
                }
            }
            assert!(began.elapsed() < IN_TIME, "{context}: {:?}", began.elapsed());
            // A call that came to the engine late may be carried out after it was given up.
            clean(&corehold, &context).await;
            proxy.heal();
            let again = match fault {
                Fault::Late(_) => host(&corehold, &proxy, None, None).await,
                _ => broken,
            };
            let again = again.create(CreateWorkspace::empty().id("faulty")).await;
            again.unwrap_or_else(|error| panic!("{context}, then healed: {error}")).remove().await.unwrap();
        }
    }
    for needed in
        ["POST /containers/create", "POST /containers/{}/start", "GET /containers/json", "DELETE /containers/{}"]
    {
        assert_eq!(failed.get(needed), Some(&FAULTS.len()), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_filled_and_claimed_from() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let options = PoolOptions::default().min(1).max(1).wait(Duration::from_millis(200));
    let pooled = host(&corehold, &proxy, None, Some(options.clone())).await;
    pooled.pools_filled().await.unwrap();
    pooled.create(CreateWorkspace::empty().id("faulty-pool-first")).await.unwrap();
    pooled.pools_filled().await.unwrap();
    drop(pooled);
    clean(&corehold, "at first").await;
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    assert!(endpoints.iter().any(|endpoint| endpoint == "POST /containers/{}/rename"), "{endpoints:?}");
    for endpoint in &endpoints {
        for fault in FAULTS {
            let context = format!("{endpoint} {fault:?}");
            proxy.heal();
            let pooled = host(&corehold, &proxy, Some(fault), Some(options.clone())).await;
            proxy.fail(endpoint, fault);
            let began = Instant::now();
            // Filled nevertheless, or told why not.
            let filled = tokio::time::timeout(IN_TIME, pooled.pools_filled()).await;
            if let Err(error) = filled.unwrap_or_else(|_| panic!("{context}: nobody says why it isn't filled")) {
                assert!(error.to_string().contains("the pool can't be filled"), "{context}: {error}");
            }
            let made = pooled.create(CreateWorkspace::empty().id("faulty-pool").agent_timeout(LIMIT * 2)).await;
            assert!(began.elapsed() < IN_TIME * 2, "{context}: {:?}", began.elapsed());
            if let Err(error) = made {
                judge(&error, endpoint, fault);
            }
            proxy.heal();
            tokio::time::timeout(IN_TIME, async {
                while pooled.pools_filled().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await
            .unwrap_or_else(|_| {
                panic!("{context}: it isn't filled after the engine is well again: {:?}", pooled.pools())
            });
            pooled.settled().await;
            let names = containers(&corehold).await;
            let waiting = names.iter().filter(|name| name.contains('.')).count();
            assert!(waiting <= 1 && names.len() <= 2, "{context}: {names:?}");
            drop(pooled);
            clean(&corehold, &context).await;
        }
    }
}

/// Neither is its file lost nor is it there twice, and the next call does what the failed one was to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_a_waking_and_all_that_is_asked_of_a_workspace() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let whole = host(&corehold, &proxy, None, None).await;
    let first = whole.create(CreateWorkspace::empty().id("faulty-sleeper-first")).await.unwrap();
    let created = proxy.endpoints();
    first.pause().await.unwrap();
    first.resume().await.unwrap();
    first.sleep(GRACE).await.unwrap();
    first.wake().await.unwrap();
    first.stats().await.unwrap();
    first.remove().await.unwrap();
    drop(whole);
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    for needed in ["POST /containers/{}/stop", "POST /containers/{}/pause", "GET /containers/{}/stats"] {
        assert!(endpoints.iter().any(|endpoint| endpoint == needed), "{needed} is not among {endpoints:?}");
    }
    assert!(created.len() < endpoints.len(), "they make calls of their own");
    for endpoint in &endpoints {
        for fault in REFUSED_OR_LATE {
            let context = context_of(endpoint, fault);
            proxy.heal();
            let broken = host(&corehold, &proxy, Some(fault), None).await;
            let workspace = broken.create(CreateWorkspace::empty().id("faulty-sleeper")).await.unwrap();
            workspace.write_file("kept", context.clone()).await.unwrap();
            for verb in ["pause", "sleep", "wake", "stats", "remove"] {
                let context = format!("{context}, {verb}");
                proxy.fail(endpoint, fault);
                let began = Instant::now();
                let done = match verb {
                    "pause" => workspace.pause().await,
                    "sleep" => workspace.sleep(GRACE).await,
                    "wake" => workspace.wake().await,
                    "stats" => workspace.stats().await.map(drop),
                    _ => workspace.remove().await,
                };
                assert!(began.elapsed() < IN_TIME, "{context}: {:?}", began.elapsed());
                if let Err(error) = done {
                    judge(&error, endpoint, fault);
                }
                proxy.heal();
                let again = match verb {
                    "pause" => workspace.resume().await,
                    "sleep" => workspace.sleep(GRACE).await,
                    "wake" => workspace.wake().await,
                    "stats" => workspace.stats().await.map(drop),
                    _ => workspace.remove().await,
                };
                again.unwrap_or_else(|error| panic!("{context}, then healed: {error}"));
                let there = match verb {
                    "sleep" | "remove" => BTreeSet::new(),
                    _ => BTreeSet::from(["corehold-faulty-sleeper".to_owned()]),
                };
                assert_eq!(containers(&corehold).await, there, "{context}");
                if !there.is_empty() {
                    assert_eq!(workspace.read_file("kept").await.unwrap(), context_of(endpoint, fault), "{context}");
                }
            }
            broken.settled().await;
            drop(broken);
            clean(&corehold, &context).await;
        }
    }
}

fn context_of(endpoint: &str, fault: Fault) -> String {
    format!("{endpoint} {fault:?}")
}

/// An error, a connection that is cut off, and an answer that comes too late.
const FAILED_CUT_OR_LATE: [Fault; 3] = [Fault::Status(500), Fault::Cut, Fault::Late(Duration::from_secs(10))];

/// Brings a workspace to where something can be done to it, which is done then.
async fn perform(workspace: &Workspace, verb: &str) -> Result<()> {
    match verb {
        "stop" => workspace.stop(GRACE).await,
        "start" => workspace.start().await,
        "restart" => workspace.restart(GRACE).await,
        "limits" => workspace.set_resources(Resources::default().pids(333)).await,
        "fork" => {
            let copies = workspace.fork(1).await?;
            assert_eq!(copies[0].read_file("kept").await.unwrap(), "here");
            Ok(())
        }
        other => panic!("{other:?}"),
    }
}

async fn prepare(workspace: &Workspace, verb: &str) {
    match verb {
        "start" => workspace.stop(Duration::ZERO).await.unwrap(),
        _ => workspace.start().await.unwrap(),
    }
}

/// Slow, but right, with what a host waits for by default.
async fn an_engine_that_takes_ten_seconds_for_each_answer_works() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let slow = host(&corehold, &proxy, None, None).await;
    proxy.fail_all(Fault::Late(Duration::from_secs(10)));
    let workspace = slow.create(CreateWorkspace::empty().id("slowly")).await.unwrap();
    workspace.write_file("kept", "here").await.unwrap();
    let listed = slow.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].state), (1, "slowly", WorkspaceState::Ready));
    assert_eq!(workspace.read_file("kept").await.unwrap(), "here");
    workspace.remove().await.unwrap();
    assert_eq!(containers(&corehold).await, BTreeSet::new());
}

/// Each fails in every way by itself, and is done when it is asked for again; the workspace is there once, with its files. Beside it,
/// since both do little but wait, an engine that is slow and right.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_a_start_a_restart_other_limits_and_a_copy_and_an_engine_that_is_slow() {
    const ID: &str = "faulty-verbs";
    let slow = tokio::spawn(an_engine_that_takes_ten_seconds_for_each_answer_works());
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let whole = host(&corehold, &proxy, None, None).await;
    let first = whole.create(CreateWorkspace::empty().id(ID)).await.unwrap();
    first.write_file("kept", "here").await.unwrap();
    let mut made_by = Vec::new();
    for verb in ["stop", "start", "restart", "limits", "fork"] {
        prepare(&first, verb).await;
        proxy.forget();
        perform(&first, verb).await.unwrap();
        made_by.extend(proxy.endpoints().into_iter().map(|endpoint| (verb, endpoint)));
    }
    drop((first, whole));
    for (verb, needed) in [
        ("stop", "POST /containers/{}/stop"),
        ("start", "POST /containers/{}/start"),
        ("restart", "POST /containers/{}/stop"),
        ("limits", "POST /containers/{}/update"),
        ("fork", "POST /containers/create"),
    ] {
        assert!(made_by.contains(&(verb, needed.to_owned())), "{verb} without {needed}: {made_by:?}");
    }
    let mut failed = BTreeSet::new();
    for fault in FAILED_CUT_OR_LATE {
        for (verb, endpoint) in &made_by {
            let context = format!("{verb}, {endpoint} {fault:?}");
            proxy.heal();
            // Another host: what the one before knows already it doesn't ask again.
            let broken = host(&corehold, &proxy, Some(fault), None).await;
            let workspace = broken.workspace(ID).await.unwrap();
            prepare(&workspace, verb).await;
            proxy.fail(endpoint, fault);
            let began = Instant::now();
            let done = perform(&workspace, verb).await;
            assert!(began.elapsed() < IN_TIME, "{context}: {:?}", began.elapsed());
            if let Err(error) = done {
                judge(&error, endpoint, fault);
                failed.insert((*verb, format!("{fault:?}")));
            }
            proxy.heal();
            perform(&workspace, verb).await.unwrap_or_else(|error| panic!("{context}, then healed: {error}"));
            broken.settled().await;
            broken.reconcile().await.unwrap();
            for info in broken.list().await.unwrap().into_iter().filter(|info| info.id.as_str() != ID) {
                broken.workspace(info.id.as_str()).await.unwrap().remove().await.unwrap();
            }
            let there = BTreeSet::from([format!("corehold-{ID}")]);
            assert_eq!(containers(&corehold).await, there, "{context}: something is there that nobody finds");
            workspace.start().await.unwrap();
            assert_eq!(workspace.read_file("kept").await.unwrap(), "here", "{context}");
        }
    }
    assert_eq!(failed.len(), 5 * FAILED_CUT_OR_LATE.len(), "each was seen to fail in each way: {failed:?}");
    slow.await.expect("slow, but right");
}

/// Has one kind of call fail, and then not.
async fn fails_then_works(
    corehold: &Corehold,
    endpoint: &str,
    network: Option<&str>,
    action: impl AsyncFn(&Host, &Docker) -> Result<()>,
) {
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    for fault in FAILED_CUT_OR_LATE {
        proxy.heal();
        let mut options = DockerOptions::default();
        options.address = DockerAddress::At(proxy.address());
        if let Some(network) = network {
            // One that isn't there yet. Closing it takes a while, and is tried by the tests of networks.
            (options.network, options.host_may_be_reached) = (format!("{network}-{}", fault_name(fault)), true);
        }
        if let Fault::Late(_) = fault {
            (options.call_timeout, options.quiet_timeout, options.lock_timeout) = (LIMIT, LIMIT, LIMIT);
        }
        let docker = Docker::connect_with(options).await.unwrap();
        let bundle = corehold.scratch.path().join(fault_name(fault));
        let certificates = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
        std::fs::write(&bundle, format!("# {} {endpoint}\n{certificates}", bundle.display())).unwrap();
        let builder = corehold.builder().label(POOL_MARK, mark(corehold)).runtime(Arc::new(docker.clone()));
        let host = builder.ca_bundle(bundle).build().await.unwrap();
        proxy.fail(endpoint, fault);
        let began = Instant::now();
        let done = action(&host, &docker).await;
        assert!(began.elapsed() < IN_TIME, "{endpoint} {fault:?}: {:?}", began.elapsed());
        match (done, fault) {
            (Err(error), _) => judge(&error, endpoint, fault),
            // It may be silent for as long as it likes: whoever reads it says how long they wait.
            (Ok(()), Fault::Late(_)) if endpoint.ends_with("/logs") => {}
            (Ok(()), _) => panic!("{endpoint} {fault:?}: it works all the same"),
        }
        proxy.heal();
        action(&host, &docker).await.unwrap_or_else(|error| panic!("{endpoint} {fault:?}, then healed: {error}"));
        host.settled().await;
    }
}

const fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Status(_) => "failed",
        Fault::Cut => "cut",
        _ => "late",
    }
}

/// What each is brought about by a call of its own: a network, a volume, an image, a container's log, a way in by exec.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_in_a_network_a_volume_an_image_and_a_log() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let name = corehold.host.home().file_name().unwrap().to_str().unwrap().trim_matches('.').to_lowercase();
    let network = format!("corehold-faulty-{name}");
    fails_then_works(&corehold, "POST /networks/create", Some(&network), async |host, _| {
        host.create(CreateWorkspace::empty()).await?.remove().await
    })
    .await;
    for fault in FAILED_CUT_OR_LATE {
        docker(&["network", "rm", &format!("{network}-{}", fault_name(fault))]);
    }
    // Certificates that no workspace of this engine has had yet come in a volume.
    fails_then_works(&corehold, "POST /volumes/create", None, async |host, _| {
        host.create(CreateWorkspace::empty()).await?.remove().await
    })
    .await;
    corehold.docker.remove_unused().await.unwrap();
    let registry = Registry::start(Mood::Good, &name).await;
    registry.release();
    let reference = registry.reference("image:1");
    images.also(&reference);
    fails_then_works(&corehold, "POST /images/create", None, async |host, _| {
        host.images().pull(&reference, |_| registry.release()).await?;
        host.images().remove(&reference).await
    })
    .await;
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    let container = ContainerId(workspace.info().await.unwrap().container.unwrap());
    fails_then_works(&corehold, "GET /containers/{}/logs", None, async |_, docker| {
        docker.logs(&container, false).try_collect::<Vec<_>>().await.map(drop)
    })
    .await;
    for endpoint in ["POST /containers/{}/exec", "POST /exec/{}/start"] {
        fails_then_works(&corehold, endpoint, None, async |_, docker| {
            let mut connection = docker.connect(&container, 3001).await?;
            connection.write_all(b"GET /health HTTP/1.0\r\nHost: agent\r\n\r\n").await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"), "{answer}");
            Ok(())
        })
        .await;
    }
}
